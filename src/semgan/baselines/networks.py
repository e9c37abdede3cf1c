"""The networks of the baselines, by ``baseline.network``; their parts come from a library, and they answer in logits.

``unet``: MONAI's BasicUNet. Departure: the paper does not name its U-Net. This one has two 3x3 convolutions per level
and batch normalisation: of MONAI's networks it was among the best on the lungs' validation list (64 px, 35 labels,
equal CPU time, one seed).

``deeplabv2``: see `semgan.baselines.deeplabv2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from semgan.baselines.deeplabv2 import DeepLabV2, build_deeplabv2
from semgan.config import Settings, override


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights that are drawn inside the block depend on the seed alone; torch's own random numbers go on untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class Committee(nn.ModuleList):
    """Networks of one form; the mean of their probabilities answers (`semgan.baselines.segmenter`)."""


def build_network(settings: Settings, label_channels: int, seed: int | None = None) -> nn.Module:
    """Images ``[batch, channels, R, R]`` -> logits ``[batch, label_channels, R, R]``, in ``channels_last``.

    Of several ``baseline.members`` a `Committee`. The weights depend on ``seed`` (None: that of the settings) and
    ``baseline.trunk_weights`` alone. Raises ValueError and FileNotFoundError for settings that fit no network.
    """
    if settings.baseline.members > 1:
        alone = override(settings, {"baseline": {"members": 1}})
        return Committee([build_network(alone, label_channels, seed) for _ in range(settings.baseline.members)])
    own, rule = settings.baseline, settings.preprocessing
    if own.trunk_weights is not None and (own.network, own.trunk) != ("deeplabv2", "resnet101"):
        raise ValueError(
            "baseline.trunk_weights belongs to baseline.network=deeplabv2 with baseline.trunk=resnet101; "
            f"this run has network {own.network} and trunk {own.trunk}. Leave it out, or set both."
        )
    if own.dropout and own.network != "unet":
        raise ValueError(f"baseline.dropout is the U-Net's; network {own.network} has none. Leave it out, or set unet.")
    with seeded(settings.seed if seed is None else seed):
        if own.network == "deeplabv2":
            sizes = {"size_px": rule.size_px, "image_channels": rule.channels, "label_channels": label_channels}
            network: nn.Module = build_deeplabv2(own, **sizes)
        else:
            network = build_unet(own.widths, rule.channels, label_channels, own.dropout)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def parameter_groups(network: nn.Module, learning_rate: float) -> Any:
    """The weights of a network as an optimiser takes them: parts with a learning rate of their own apart."""
    return network.parameter_groups(learning_rate) if isinstance(network, DeepLabV2) else network.parameters()


def build_unet(widths: tuple[int, ...], image_channels: int, label_channels: int, dropout: float = 0.0) -> nn.Module:
    """U-Net for sizes divisible by 16. widths: channels at R and R/2 (the same), R/4, R/8 and R/16 px.

    dropout: share of the features that are left out behind every convolution, in training

    Raises ValueError for another number of widths.
    """
    if len(widths) != 4:
        raise ValueError(
            f"baseline.widths needs four numbers, for the full and half, quarter, eighth and sixteenth of the size; "
            f"got {tuple(widths)}."
        )
    from monai.networks.nets.basic_unet import BasicUNet

    features = (widths[0], *widths, widths[0])
    return BasicUNet(2, image_channels, label_channels, features, norm="batch", dropout=dropout)
