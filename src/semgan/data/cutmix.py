"""Boxes to paste one image of a batch into another (CutMix: Yun et al. 2019; for segmentation French et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from semgan import ranks, seeding


@dataclass(frozen=True)
class BoxRanges:
    """What boxes may look like: UniMatch's, which are one box for half of the images.

    Departure: its code draws the aspect uniformly, so that most boxes are tall; French et al. draw it log-uniformly.
    """

    area: tuple[float, float] = (0.02, 0.4)  # of the image, all boxes together, uniform
    aspect: tuple[float, float] = (0.3, 1 / 0.3)  # height by width, log-uniform
    boxes: int = 1  # where two overlap, the pixels stay
    probability: float = 0.5  # of an image to get any


def box_masks(size_px: int, *, seed: int, stream: str, index: Iterable[int], ranges: BoxRanges = BoxRanges()) -> Tensor:
    """``[len(index), size_px, size_px]`` bool, true in the boxes; row i depends on (seed, stream, index[i]) alone."""
    draws = seeding.uniform(seed, stream + "/cutmix", index, (1 + 4 * ranges.boxes,))
    place = torch.arange(size_px)
    inside = torch.zeros(len(draws), size_px, size_px, dtype=torch.bool)
    low, high = (math.log(value) for value in ranges.aspect)
    for size, shape, row, column in draws[:, 1:].reshape(len(draws), ranges.boxes, 4).permute(1, 2, 0):
        area = (ranges.area[0] + (ranges.area[1] - ranges.area[0]) * size) / ranges.boxes
        aspect = torch.exp(low + (high - low) * shape)
        vertical = _within(place, (area * aspect).sqrt(), row)
        inside ^= vertical[:, :, None] & _within(place, (area / aspect).sqrt(), column)[:, None, :]
    return inside & (draws[:, :1, None] < ranges.probability)


def _within(place: Tensor, length: Tensor, start: Tensor) -> Tensor:
    """Which of the places are in a stretch of the given share of all, wholly inside; ``start`` in [0, 1) says where."""
    length_px = (length.clamp(max=1) * len(place)).round()[:, None]
    first = (start[:, None] * (len(place) - length_px + 1)).floor()
    return (place >= first) & (place < first + length_px)


def paste(image: Tensor, inside: Tensor) -> Tensor:
    """Each row of a batch with the pixels inside its boxes taken from the row before it (the last, for the first).

    The batch is that of all processes; each has its rows of it.

    image: ``[batch, ..., height, width]``, an image or a label map; inside: bool ``[batch, height, width]``
    """
    boxes = inside.reshape(len(inside), *[1] * (image.ndim - 3), *inside.shape[1:])
    return torch.where(boxes, ranks.rolled(image), image)
