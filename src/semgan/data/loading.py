"""Training batches: which image is shown, and how it is moved, depends on (seed, stream, global image index) alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from semgan.data.parallel import thread_pool
from semgan.data.readers import read_label
from semgan.data.transforms import resize_label, to_unit
from semgan.seeding import permuted_index, uniform
from semgan.types import IGNORE, Batch, Case, LabelSpace


class ImageStream:
    """An endless, reproducible stream of images, and of label maps where given.

    images:      uint8 ``[N, channels, size_px, size_px]``, an array or a memory map
    rows:        which rows of ``images`` belong to the stream, in the order of ``label_maps``; None: all
    label_maps:  uint8 ``[len(rows), size_px, size_px]``, 255 = ignore; None for unlabelled images
    mirror:      flip half of the images left-right
    affine:      (scale, translate, rotate_deg): scale by 1 +- scale, shift by +- translate (share of the side), rotate
                 by +- degrees, the same for image (bilinear) and label (nearest); what comes in from outside is the
                 reflected picture, in both. None: no such augmentation.
    """

    def __init__(
        self,
        images: np.ndarray,
        label_maps: np.ndarray | None = None,
        *,
        rows: np.ndarray | None = None,
        seed: int,
        stream_name: str,
        mirror: bool = False,
        affine: tuple[float, float, float] | None = None,
    ) -> None:
        self.images = images
        self.rows = np.arange(len(images)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.label_maps = label_maps
        self.seed, self.stream_name = seed, stream_name
        self.mirror, self.affine = mirror, affine
        if len(self.rows) == 0:
            raise ValueError(f"The stream '{stream_name}' has no images; `semgan data check` shows what is wrong.")
        if label_maps is not None and len(label_maps) != len(self.rows):
            raise ValueError(f"Stream '{stream_name}' has {len(self.rows)} images and {len(label_maps)} label maps.")

    def __len__(self) -> int:
        """Images in one epoch."""
        return len(self.rows)

    def batch(self, first_index: int, count: int) -> Batch:
        """Images ``first_index`` to ``first_index + count - 1``; every epoch shows each image once, in new order.

        image: float32 ``[count, channels, size_px, size_px]`` in [-1, 1]
        label_map: int64 ``[count, size_px, size_px]``, or None
        """
        index = np.arange(first_index, first_index + count, dtype=np.int64)
        position = permuted_index(self.seed, self.stream_name, index, len(self.rows))
        pixels = self.images[self.rows[position]]
        classes = None if self.label_maps is None else self.label_maps[position]
        if self.mirror or self.affine:
            chance = uniform(self.seed, f"{self.stream_name}/augment", index, (5,))
            if self.mirror:
                flipped = (chance[:, 0] < 0.5).numpy()
                pixels[flipped] = pixels[flipped][..., ::-1]
                if classes is not None:
                    classes[flipped] = classes[flipped][..., ::-1]
            if self.affine:
                return self._moved(index, pixels, classes, chance[:, 1:])
        label_map = None if classes is None else torch.from_numpy(classes)
        return _as_batch(index, to_unit(torch.from_numpy(pixels)), label_map)

    def _moved(self, index: np.ndarray, pixels: np.ndarray, classes: np.ndarray | None, chance: Tensor) -> Batch:
        assert self.affine is not None
        grid = affine_grid(chance * 2 - 1, self.affine, pixels.shape[-1])
        image = warp(to_unit(torch.from_numpy(pixels)), grid, "bilinear")
        if classes is None:
            return _as_batch(index, image, None)
        return _as_batch(index, image, warp(torch.from_numpy(classes)[:, None].float(), grid, "nearest")[:, 0])


def _as_batch(index: np.ndarray, image: Tensor, label_map: Tensor | None) -> Batch:
    return Batch(torch.from_numpy(index), image, None if label_map is None else label_map.long())


def affine_grid(draw: Tensor, affine: tuple[float, float, float], size_px: int) -> Tensor:
    """Where each output pixel comes from, ``[batch, size_px, size_px, 2]`` (x, y) in [-1, 1], for draws in [-1, 1].

    ``draw``: ``[batch, 4]`` for scale, shift right, shift down, rotation. Written as products and sums of single
    numbers, so that an image's grid does not depend on its batch (a matrix product may).
    """
    scale, translate, rotate_deg = affine
    size = 1 + scale * draw[:, 0]
    angle = math.radians(rotate_deg) * draw[:, 3]
    cosine, sine = ((function(angle) / size)[:, None, None] for function in (torch.cos, torch.sin))
    # The side is 2 long in these coordinates.
    right, down = ((2 * translate * draw[:, i])[:, None, None] for i in (1, 2))
    place = (torch.arange(size_px, dtype=torch.float32) * 2 + 1) / size_px - 1
    x, y = place[None, None, :] - right, place[None, :, None] - down
    grid = torch.empty(len(draw), size_px, size_px, 2)
    torch.add(cosine * x, sine * y, out=grid[..., 0])
    torch.sub(cosine * y, sine * x, out=grid[..., 1])
    return grid


def warp(planes: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Sample ``[batch, channels, height, width]`` at a grid; outside lies the reflected picture."""
    return functional.grid_sample(planes, grid, mode=mode, padding_mode="reflection", align_corners=False)


def load_label(case: Case, labels: LabelSpace, ignore: int | None = IGNORE) -> np.ndarray:
    """One mask at its own size: uint8 ``[height, width]`` of class indices, 255 where the stored value is ``ignore``.

    Raises ValueError for a case without mask, unreadable files and values that are no class.
    """
    if case.label is None:
        raise ValueError(f"'{case.stem}' is used as a labelled case but has no mask.")
    stored = read_label(case.label)
    ignored = stored == ignore if ignore is not None else np.zeros(stored.shape, bool)
    wrong = np.unique(stored[(stored < 0) | (stored >= labels.classes) & ~ignored])
    if wrong.size:
        raise ValueError(
            f"{case.label} holds the values {wrong[:10].tolist()}, which are no classes; expected 0 to "
            f"{labels.classes - 1} ({', '.join(labels.names)}){'' if ignore is None else f' or {ignore} to ignore'}. "
            "Prepare the dataset again with --mapping or --ignore."
        )
    return np.where(ignored, IGNORE, stored).astype(np.uint8)


def load_labels(
    cases: Sequence[Case], size_px: int, labels: LabelSpace, ignore: int | None = IGNORE, workers: int | None = None
) -> np.ndarray:
    """Masks of the given cases, and of no others, at the network's size: uint8 ``[len(cases), size_px, size_px]``."""
    maps = np.empty((len(cases), size_px, size_px), np.uint8)
    with thread_pool(workers) as pool:
        loaded = pool.map(lambda case: resize_label(load_label(case, labels, ignore), size_px), cases)
        for row, label_map in enumerate(loaded):
            maps[row] = label_map
    return maps
