"""The networks of the baselines, by ``baseline.network``; each comes from a library and answers in logits.

``unet``: MONAI's BasicUNet. Departure: the paper does not name its U-Net. This one has two 3x3 convolutions per level
and batch normalisation: of MONAI's networks it was among the best on the lungs' validation list (64 px, 35 labels,
equal CPU time, one seed).
"""

from __future__ import annotations

import torch
from torch import nn

from semgan.config import Settings


def build_network(settings: Settings, label_channels: int, seed: int | None = None) -> nn.Module:
    """Images ``[batch, channels, R, R]`` -> logits ``[batch, label_channels, R, R]``, in ``channels_last``.

    The weights depend on ``seed`` alone; None: that of the settings.
    """
    channels, chosen = settings.preprocessing.channels, settings.seed if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen)
        network = build_unet(settings.baseline.widths, channels, label_channels)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_unet(widths: tuple[int, ...], image_channels: int, label_channels: int) -> nn.Module:
    """U-Net for sizes divisible by 16. widths: channels at R and R/2 (the same), R/4, R/8 and R/16 px.

    Raises ValueError for another number of widths.
    """
    if len(widths) != 4:
        raise ValueError(
            f"baseline.widths needs four numbers, for the full and half, quarter, eighth and sixteenth of the size; "
            f"got {tuple(widths)}."
        )
    from monai.networks.nets.basic_unet import BasicUNet

    features = (widths[0], *widths, widths[0])
    return BasicUNet(2, image_channels, label_channels, features, norm="batch")
