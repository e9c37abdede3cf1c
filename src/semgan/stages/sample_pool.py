"""A pool of labelled pairs drawn from the generator, once, as uint8 on disk: what a student learns from.

    RUN/pool/images.npy      uint8 [pairs, channels, size_px, size_px]
    RUN/pool/label_maps.npy  uint8 [pairs, size_px, size_px], the most probable class

DatasetGAN (Zhang et al. 2021, arXiv:2104.06490) drops the pairs whose labels are the least certain. Here, of
every ``student.pool_batch`` pairs drawn the ``student.keep_share`` with the lowest label entropy are kept. Departures:
DatasetGAN measures certainty by the disagreement of ten classifiers and sorts all pairs at once; our generator has one
label branch, and judging batch by batch needs no second pass over the disk. The image critic is not asked: its score
depends on the other images of a batch, so that the choice would not be a function of the pair.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semgan import ranks
from semgan.config import Settings
from semgan.data.cache import reserve_array
from semgan.data.transforms import to_levels
from semgan.objectives.segmentation import probabilities
from semgan.runtime.device import autocast
from semgan.runtime.distributed import by_first
from semgan.stages.semantic_gan import SemanticGan
from semgan.types import JointImage

STREAM = "student/pool"


def label_entropy(found: Tensor) -> Tensor:
    """Mean over pixels of the entropy in nats, ``[batch]``, of probabilities ``[batch, classes, height, width]``."""
    return -torch.special.xlogy(found, found).sum(1).mean((1, 2))


@dataclass(frozen=True)
class Pairs:
    """Generated images with the label maps that their generator gives them.

    images: uint8 ``[n, channels, height, width]``; label_maps: uint8 ``[n, height, width]``, the most probable class;
    entropy: `label_entropy` of the probabilities behind them
    """

    images: Tensor
    label_maps: Tensor
    entropy: Tensor


def as_pairs(joint: JointImage) -> Pairs:
    """What the generator drew, as it is written to the disk, and how certain its labels are."""
    found = probabilities(joint.logits)
    return Pairs(to_levels(joint.image), found.argmax(1).byte(), label_entropy(found))


class PoolStage:
    """Fills the pool, for `semgan.runtime.loop.run_stage`; the numbers it counts are pairs drawn, kept or not.

    Pair i depends on (seed, i) alone and its place on i, so that a killed pool goes on from its last checkpoint.
    folder: made where it is missing. Raises ValueError where the disk has no room.
    """

    name = "pool"

    def __init__(self, settings: Settings, model: SemanticGan, folder: Path) -> None:
        own, rule = settings.student, settings.preprocessing
        self.settings, self.model = settings, model
        self.total_images, self.batch = own.pool_images, own.pool_batch
        ranks.share_of(self.batch, "student.pool_batch")
        self.kept_of_batch = pairs_of(settings, own.pool_batch)
        pairs = pairs_of(settings, own.pool_images)
        shapes: dict[str, tuple[int, ...]] = {"images": (pairs, rule.channels, rule.size_px, rule.size_px)}
        shapes["label_maps"] = (pairs, rule.size_px, rule.size_px)
        by_first(lambda: [_opened(folder / f"{name}.npy", shape) for name, shape in shapes.items()])
        self.images, self.label_maps = (_opened(folder / f"{name}.npy", shape) for name, shape in shapes.items())

    @torch.no_grad()
    def step(self, images_seen: int) -> dict[str, Tensor]:
        """Draw the next batch and write what is kept of it, in the order drawn; the first process writes."""
        own, numbers = self.settings.student, ranks.own(range(images_seen, images_seen + self.batch))
        with autocast(self.model.device, self.settings.gan.precision):
            joint = self.model.generate(
                numbers,
                truncation=own.truncation,
                style_mixing=own.style_mixing,
                seed=self.settings.seed,
                stream=STREAM,
            )
        drawn = as_pairs(joint)
        entropy, images, label_maps = map(ranks.gathered, (drawn.entropy, drawn.images, drawn.label_maps))
        kept = entropy.argsort(stable=True)[: self.kept_of_batch].sort().values
        place = images_seen // self.batch * self.kept_of_batch
        rows = slice(place, place + self.kept_of_batch)
        if ranks.is_first():
            self.images[rows] = images[kept].cpu().numpy()
            self.label_maps[rows] = label_maps[kept].cpu().numpy()
        return {"label_entropy": entropy.mean(), "label_entropy_kept": entropy[kept].mean()}

    def state(self) -> dict[str, Any]:
        """Nothing but what is on the disk, which is complete from here on."""
        self.images.flush()
        self.label_maps.flush()
        return {"pairs": len(self.images)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state["pairs"] != len(self.images):
            raise KeyError(f"a pool of {state['pairs']} pairs")


def holds_pool(folder: Path) -> bool:
    """Whether both files are there, complete or not."""
    return all((folder / name).is_file() for name in ("images.npy", "label_maps.npy"))


def pairs_of(settings: Settings, drawn: int) -> int:
    """How many pairs a pool holds once so many were drawn, kept or not; always whole batches."""
    own = settings.student
    return -(-drawn // own.pool_batch) * max(1, round(own.keep_share * own.pool_batch))


def read_pool(folder: Path, pairs: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first so many images and label maps as they are on the disk now, read-only maps; None: all."""
    images, label_maps = (np.load(folder / name, mmap_mode="r")[:pairs] for name in ("images.npy", "label_maps.npy"))
    return images, label_maps


def forget_pool(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _opened(file: Path, shape: tuple[int, ...]) -> np.memmap:
    """A writable map of the file, made anew where there is none or one of another shape."""
    if file.is_file():
        try:
            found = np.lib.format.open_memmap(file, mode="r+")
            if found.shape == shape:
                return found
        except ValueError:  # cut off by a kill
            pass
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        reserve_array(file, shape)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise ValueError(
            f"Cannot reserve {np.prod(shape, dtype=np.int64) / 2**20:.0f} MiB for {file} ({error.strerror}); free some "
            "space, or draw fewer pairs with --set student.pool_images=N."
        ) from None
    return np.lib.format.open_memmap(file, mode="r+")
