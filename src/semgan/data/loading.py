"""Training batches: which image is shown, and how it is moved, depends on (seed, stream, global image index) alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from semgan.data.parallel import thread_pool
from semgan.data.readers import read_label
from semgan.data.transforms import enlarged, resize_label, to_unit
from semgan.seeding import permuted_index, uniform
from semgan.types import IGNORE, Batch, Case, LabelSpace

Affine = tuple[float | tuple[float, float], float, float]  # scale, translate, rotate_deg


class ImageStream:
    """An endless, reproducible stream of images, and of label maps where given.

    images:      uint8 ``[N, channels, size_px, size_px]``, an array or a memory map
    rows:        which rows of ``images`` belong to the stream, in the order of ``label_maps``; None: all
    label_maps:  uint8 ``[len(rows), size_px, size_px]``, 255 = ignore; None for unlabelled images
    fine_maps:   the same masks at a multiple of the size, changed alike
    mirror:      flip half of the images left-right
    affine:      (scale, translate, rotate_deg): scale by 1 +- scale, shift by +- translate (share of the side), rotate
                 by +- degrees, the same for image (bilinear) and label (nearest); what comes in from outside is the
                 reflected picture, in both. A pair as scale: from its first to its second number. None: no such
                 augmentation.
    affine_probability: how often each of scale, shift and rotation is done
    """

    def __init__(
        self,
        images: np.ndarray,
        label_maps: np.ndarray | None = None,
        *,
        fine_maps: np.ndarray | None = None,
        rows: np.ndarray | None = None,
        seed: int,
        stream_name: str,
        mirror: bool = False,
        affine: Affine | None = None,
        affine_probability: float = 1.0,
    ) -> None:
        self.images = images
        self.rows = np.arange(len(images)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.label_maps, self.fine_maps = label_maps, fine_maps
        self.seed, self.stream_name = seed, stream_name
        self.mirror, self.affine, self.affine_probability = mirror, affine, affine_probability
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
        label_map: int64 ``[count, size_px, size_px]``, or None; fine: alike, of the fine maps' size
        """
        index = np.arange(first_index, first_index + count, dtype=np.int64)
        position = permuted_index(self.seed, self.stream_name, index, len(self.rows))
        pixels = self.images[self.rows[position]]
        maps = [None if each is None else each[position] for each in (self.label_maps, self.fine_maps)]
        if self.mirror or self.affine:
            chance = uniform(self.seed, f"{self.stream_name}/augment", index, (5,))
            if self.mirror:
                flipped = (chance[:, 0] < 0.5).numpy()
                for each in (pixels, *maps):
                    if each is not None:
                        each[flipped] = each[flipped][..., ::-1]
            if self.affine:
                return self._moved(index, pixels, maps, chance[:, 1:])
        label_map, fine = (None if each is None else torch.from_numpy(each).long() for each in maps)
        return Batch(torch.from_numpy(index), to_unit(torch.from_numpy(pixels)), label_map, fine)

    def _done(self, index: np.ndarray) -> Tensor | None:
        """Which of scale, shift and rotation are done, bool ``[batch, 3]``; None: all."""
        if self.affine_probability == 1:
            return None
        return uniform(self.seed, f"{self.stream_name}/affine", index, (3,)) < self.affine_probability

    def _moved(self, index: np.ndarray, pixels: np.ndarray, maps: list[np.ndarray | None], chance: Tensor) -> Batch:
        assert self.affine is not None
        affine, done = self.affine, self._done(index)
        grid_of = functools.cache(lambda side_px: affine_grid(chance * 2 - 1, affine, side_px, done))

        def moved(planes: Tensor, mode: str) -> Tensor:
            return warp(planes, grid_of(planes.shape[-1]), mode)

        label_map, fine = (
            None if each is None else moved(torch.from_numpy(each)[:, None].float(), "nearest")[:, 0].long()
            for each in maps
        )
        return Batch(torch.from_numpy(index), moved(to_unit(torch.from_numpy(pixels)), "bilinear"), label_map, fine)


class MixedStream:
    """Two streams of labelled pairs in a fixed mixture; which one shows image i, and which of its own, follows from i.

    second_share: of ``second`` in [0, 1]; spread as evenly as it goes
    last_share:   what that rises or falls to, evenly over the first ``ramp_images``; None: it stays
    """

    def __init__(
        self,
        first: ImageStream,
        second: ImageStream,
        second_share: float,
        last_share: float | None = None,
        ramp_images: int = 1,
    ) -> None:
        last_share = second_share if last_share is None else last_share
        for share in (second_share, last_share):
            if not 0 <= share <= 1:
                raise ValueError(f"The share of a stream in a mixture lies between 0 and 1; got {share}.")
        self.first, self.second = first, second
        self.shares, self.ramp_images = (second_share, last_share), ramp_images

    def _second_before(self, index: np.ndarray) -> np.ndarray:
        """How many images of the second stream stand before each index: the shares until there, added up."""
        start, end = self.shares
        if start == end:
            return np.floor(index * start).astype(np.int64)
        inside = np.minimum(index, self.ramp_images).astype(np.float64)
        rising = start * inside + (end - start) * inside**2 / (2 * self.ramp_images)
        return np.floor(rising + end * (index - inside)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def batch(self, first_index: int, count: int) -> Batch:
        """As `ImageStream.batch`; ``index`` counts the mixture's images, label maps are always given."""
        edges = np.arange(first_index, first_index + count + 1)
        before = self._second_before(edges)
        is_second = torch.from_numpy(np.diff(before) > 0)
        taken = int(before[-1] - before[0])
        parts = [(self.first, first_index - before[0], count - taken), (self.second, before[0], taken)]
        shown = [stream.batch(int(start), number) for stream, start, number in parts if number]
        order = torch.argsort(torch.cat([torch.where(~is_second)[0], torch.where(is_second)[0]]))
        label_maps = [batch.label_map for batch in shown if batch.label_map is not None]
        image, label_map = torch.cat([batch.image for batch in shown]), torch.cat(label_maps)
        found = Batch(torch.from_numpy(edges[:-1].copy()), image[order], label_map[order])
        if all(batch.fine is None for batch in shown):
            return found
        side = max(batch.truth.shape[-1] for batch in shown)
        fine = [enlarged(batch.truth, side // batch.truth.shape[-1]) for batch in shown]
        return replace(found, fine=torch.cat(fine)[order])


def affine_grid(draw: Tensor, affine: Affine, size_px: int, done: Tensor | None = None) -> Tensor:
    """Where each output pixel comes from, ``[batch, size_px, size_px, 2]`` (x, y) in [-1, 1], for draws in [-1, 1].

    ``draw``: ``[batch, 4]`` for scale, shift right, shift down, rotation; ``done``: bool ``[batch, 3]``, which of
    scale, shift and rotation are done (None: all). Written as products and sums of single
    numbers, so that an image's grid does not depend on its batch (a matrix product may).
    """
    scale, translate, rotate_deg = affine
    if isinstance(scale, tuple):
        size = scale[0] + (scale[1] - scale[0]) * (draw[:, 0] + 1) / 2
    else:
        size = 1 + scale * draw[:, 0]
    shift, angle = 2 * translate * draw[:, 1:3], math.radians(rotate_deg) * draw[:, 3]
    if done is not None:
        size, shift, angle = torch.where(done[:, 0], size, 1.0), shift * done[:, 1:2], angle * done[:, 2]
    cosine, sine = ((function(angle) / size)[:, None, None] for function in (torch.cos, torch.sin))
    # The side is 2 long in these coordinates.
    right, down = (shift[:, i, None, None] for i in (0, 1))
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
