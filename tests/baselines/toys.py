"""What the tests of semi-supervised baselines share, on the toy task of all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from toy_task import BINARY, pictures, settings, stream

from semgan.baselines.stage import BaselineStage, Streams
from semgan.data.loading import ImageStream
from semgan.types import LabelSpace


def unlabelled_stream(classes: int, number: int = 40, seed: int = 12) -> ImageStream:
    images = pictures(number, classes, seed)[0]
    return ImageStream(images, seed=5, stream_name="unlabelled", mirror=True, affine=(0.1, 0.15, 15.0))


def semi_supervised(
    kind: type[BaselineStage],
    labels: LabelSpace = BINARY,
    labelled: int = 4,
    unlabelled_seed: int = 12,
    **baseline: Any,
) -> BaselineStage:
    """A stage with ``labelled`` labelled and 40 unlabelled images, 2 of the latter beside 4 of the former."""
    streams = Streams(
        stream(labels.classes, labelled), unlabelled_stream(labels.classes, seed=unlabelled_seed)
    )
    chosen = settings(**({"unlabelled_batch": 2, "discriminator_width": 8} | baseline))
    return kind(chosen, labels, streams, torch.device("cpu"), None)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that are not equal to the bit."""
    assert first.keys() == second.keys()
    return {name for name, value in first.items() if not torch.equal(value, second[name])}
