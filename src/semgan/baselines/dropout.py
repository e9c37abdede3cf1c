"""Dropout whose random numbers are a function of (seed, number): in training, and kept at test time.

Kept at test time a network with dropout is many thinned networks, and their disagreement is a doubt: Monte Carlo
dropout (Gal and Ghahramani 2016, arXiv:1506.02142). Departure: a pass thins the network the same way for every image
of a batch, so that no answer depends on its neighbours; the passes of one image are as independent as theirs are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from semgan import seeding
from semgan.baselines.networks import seeded
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.types import Segmentation, Steps

STREAM = "baseline/dropout"


@contextmanager
def seeded_step(seed: int, images_seen: int) -> Iterator[None]:
    """Dropout of a training step, which depends on seed and images seen alone: all processes draw the same numbers."""
    drawn = seeding.generator(seed, f"{STREAM}/training/0", images_seen)
    with seeded(int(drawn.integers(2**62))):
        yield


def dropout_layers(network: nn.Module) -> list[nn.Dropout]:
    """Those that leave anything out."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.p > 0]


@contextmanager
def thinned(network: nn.Module, number: int, seed: int = 0) -> Iterator[None]:
    """Inside, the evaluating network answers as its thinned version of that number."""

    def left_out(place: int) -> Any:
        def hook(layer: nn.Dropout, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            chance = seeding.uniform(seed, f"{STREAM}/{place}", [number], tuple(output.shape[1:])).to(output)
            return output * (chance >= layer.p) / (1 - layer.p)

        return hook

    hooks = [layer.register_forward_hook(left_out(place)) for place, layer in enumerate(dropout_layers(network))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class ThinnedSegmenter:
    """One pass of Monte Carlo dropout as a `semgan.types.Segmenter`. Raises ValueError for networks without dropout."""

    def __init__(self, whole: NetworkSegmenter, number: int) -> None:
        if not dropout_layers(whole.network):
            raise ValueError(
                "The model's network has no dropout, so its passes would all be equal; train one with "
                "`semgan train ... --method unet --set baseline.dropout=0.2`."
            )
        self.whole, self.number = whole, number
        self.labels, self.rules = whole.labels, whole.rules

    def preprocess(self, image: Any, modality: str = "default") -> Tensor:
        """As `NetworkSegmenter.preprocess`."""
        return self.whole.preprocess(image, modality)

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
    ) -> Segmentation:
        """As `NetworkSegmenter.segment_batch`, by the thinned network."""
        with torch.no_grad(), thinned(self.whole.network, self.number):
            return self.whole.segment_batch(image, steps=steps, snapshot_steps=snapshot_steps, modality=modality)
