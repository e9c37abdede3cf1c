"""How far a reconstruction is from its target, in pixel space."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def pixel_distance(image: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Squared pixel distance ``||target - image||^2`` of every image, ``[batch]`` float32.

    ``sum`` is the squared norm as Eq. 7 writes it; ``mean`` divides by channels x height x width, so that its weight
    does not depend on the resolution.
    """
    if image.shape != target.shape:
        raise ValueError(f"Pixel distance needs equal shapes; got {tuple(image.shape)} and {tuple(target.shape)}.")
    squared = (image.float() - target.float()).square().flatten(1)
    return squared.sum(1) if reduction == "sum" else squared.mean(1)
