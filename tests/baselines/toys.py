"""A toy problem that the tests of all baselines share: noisy rectangles whose brightness tells the class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from semgan import config
from semgan.baselines.stage import BaselineStage, Streams
from semgan.data.loading import ImageStream
from semgan.types import LabelSpace

SIZE = 16
BINARY = LabelSpace(("background", "blob"))
FOUR = LabelSpace(("background", "a", "b", "c"))


def settings(**baseline: Any) -> config.Settings:
    small = {"widths": (4, 4, 8, 8), "batch": 4, "images": 40, "learning_rate": 0.005, "precision": "float32"}
    rule = {"size_px": SIZE, "channels": 1}
    return config.override(config.Settings(), {"seed": 5, "baseline": small | baseline, "preprocessing": rule})


def pictures(number: int, classes: int = 2, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[number, 1, 16, 16]`` and label maps, uint8: one stripe of each class in each."""
    random = np.random.default_rng(seed)
    label_maps = np.zeros((number, SIZE, SIZE), np.uint8)
    width = 10 // (classes - 1)
    for label_map in label_maps:
        top, left = random.integers(2, 5, 2)
        for place, value in enumerate(random.permutation(range(1, classes))):
            label_map[top : top + 9, left + place * width : left + (place + 1) * width] = value
    grey = 40 + label_maps.astype(int) * (180 // (classes - 1)) + random.integers(-25, 25, label_maps.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)[:, None], label_maps


def labelled_stream(classes: int, number: int) -> ImageStream:
    images, label_maps = pictures(number, classes)
    return ImageStream(images, label_maps, seed=5, stream_name="labelled", mirror=True, affine=(0.1, 0.15, 15.0))


def unlabelled_stream(classes: int, number: int = 40, seed: int = 12) -> ImageStream:
    images = pictures(number, classes, seed)[0]
    return ImageStream(images, seed=5, stream_name="unlabelled", mirror=True, affine=(0.1, 0.15, 15.0))


def train(trained: BaselineStage, steps: range) -> list[dict[str, float]]:
    found = [trained.step(step * trained.batch) for step in steps]
    return [{name: float(value) for name, value in losses.items()} for losses in found]


def semi_supervised(
    kind: type[BaselineStage],
    labels: LabelSpace = BINARY,
    labelled: int = 4,
    unlabelled_seed: int = 12,
    **baseline: Any,
) -> BaselineStage:
    """A stage with ``labelled`` labelled and 40 unlabelled images, 2 of the latter beside 4 of the former."""
    streams = Streams(
        labelled_stream(labels.classes, labelled), unlabelled_stream(labels.classes, seed=unlabelled_seed)
    )
    chosen = settings(**({"unlabelled_batch": 2, "discriminator_width": 8} | baseline))
    return kind(chosen, labels, streams, torch.device("cpu"), None)


def all_weights(trained: BaselineStage) -> dict[str, torch.Tensor]:
    """Weights and statistics of every network of a stage."""
    return {
        f"{key}/{name}": value.clone()
        for key, network in trained.networks.items()
        for name, value in network.state_dict().items()
    }


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that are not equal to the bit."""
    assert first.keys() == second.keys()
    return {name for name, value in first.items() if not torch.equal(value, second[name])}
