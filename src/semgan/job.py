"""One training job: the settings, the data as arrays, and where to write. Every method trains from one of these.

All methods get their images here, so they share preprocessing, data order, validation list and clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from semgan.artifacts import RunFolder
from semgan.config import Settings
from semgan.data.cache import ImageCache, open_cache
from semgan.data.folder import Dataset
from semgan.data.loading import Affine, ImageStream, load_label, load_labels
from semgan.data.readers import read_image_files
from semgan.data.shifts import MIXED, shifted
from semgan.data.splits import COUNTED_IN
from semgan.data.transforms import preprocess, resize_label
from semgan.metrics.validation import score_cases
from semgan.runtime.deadline import Deadline
from semgan.runtime.loop import Progress
from semgan.types import LabelSpace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger("semgan")

StageName = Literal["gan", "encoder", "pool", "student", "all"]
# images uint8 [n, height, width(, channels)], label maps [n, height, width], classes, file to write
Draw = Callable[[np.ndarray, np.ndarray, int, Path], None]


@dataclass(frozen=True)
class Pixels:
    """Rows of the image cache and, for labelled cases, their masks ``[n, size_px, size_px]`` uint8.

    fine_maps: the masks to learn from at a multiple of that size (``data.fine_labels``); None: no others than these
    groups: the patient of every row, where scores are per patient (slices of volumes); None: an image is a case
    """

    rows: np.ndarray
    label_maps: np.ndarray | None = None
    groups: tuple[str, ...] | None = None
    fine_maps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Scored:
    """Cases to score: uint8 images ``[n, channels, size_px, size_px]``, label maps, and groups as `Pixels` has them."""

    images: np.ndarray
    label_maps: np.ndarray
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TrainingJob:
    """What a method's ``train`` gets.

    chooses_steps: whether the inversion's steps are chosen on validation as soon as there is an encoder
    read_shifted: makes the first so many validation cases look as if from another source (`shifted_validation`)
    """

    settings: Settings
    labels: LabelSpace
    run: RunFolder
    device: torch.device
    images: np.ndarray
    labelled: Pixels
    unlabelled: Pixels
    validation: Pixels
    stage: StageName = "all"
    init_from: Path | None = None
    deadline: Deadline | None = None
    chooses_steps: bool = True
    progress: Progress | None = None
    draw: Draw | None = None
    read_shifted: Callable[[int], Scored | None] = lambda cases: None

    def labelled_stream(
        self, name: str, *, moved: bool = True, pairs: tuple[np.ndarray, np.ndarray] | None = None
    ) -> ImageStream:
        """Labelled pairs, mirrored and (``moved``) with the paper's affine changes.

        pairs: other images and their label maps instead, as `ImageStream` takes them
        """
        return ImageStream(
            self.images if pairs is None else pairs[0],
            self.labelled.label_maps if pairs is None else pairs[1],
            fine_maps=self.labelled.fine_maps if pairs is None else None,
            rows=self.labelled.rows if pairs is None else None,
            seed=self.settings.seed,
            stream_name=name,
            mirror=self.settings.data.mirror,
            affine=self._affine(moved),
            affine_probability=self.settings.data.affine_probability,
        )

    def image_stream(self, name: str, *, with_labelled: bool, moved: bool = False) -> ImageStream:
        """Images without masks, mirrored: the unlabelled ones, and where asked the labelled ones too.

        moved: with the affine changes of the labelled images
        """
        rows = self.unlabelled.rows
        if with_labelled or len(rows) == 0:
            rows = np.concatenate([rows, self.labelled.rows])
        return ImageStream(
            self.images,
            rows=rows,
            seed=self.settings.seed,
            stream_name=name,
            mirror=self.settings.data.mirror,
            affine=self._affine(moved),
            affine_probability=self.settings.data.affine_probability,
        )

    def _affine(self, moved: bool) -> Affine | None:
        data = self.settings.data
        return (
            (data.affine_scale_range or data.affine_scale, data.affine_translate, data.affine_rotate_deg)
            if moved
            else None
        )

    @property
    def scored(self) -> Scored:
        """The validation images that are scored at a preview, with their masks."""
        return self.first_validation(self.settings.run.validation_cases)

    def first_validation(self, cases: int) -> Scored:
        """The first validation images, at most so many, with their masks."""
        assert self.validation.label_maps is not None and len(self.validation)
        images, groups = np.asarray(self.images[self.validation.rows[:cases]]), self.validation.groups
        return Scored(images, self.validation.label_maps[: len(images)], groups and groups[: len(images)])

    def validate(
        self, probabilities: Callable[[Tensor], Tensor], *, batch: int = 64, on: Scored | None = None
    ) -> float:
        """The task's metric of a model on the validation list (or ``on`` others), at the network's resolution."""
        shown = self.scored if on is None else on
        return score_cases(
            probabilities,
            shown.images,
            shown.label_maps,
            self.settings.metric,
            classes=self.labels.classes,
            device=self.device,
            batch=batch,
            groups=shown.groups,
        )


def shifted_validation(dataset: Dataset, settings: Settings, count: int) -> Scored | None:
    """The first validation cases, at most ``count``, under mixed synthetic shifts (`semgan.data.shifts`); None: none.

    A function of the data set and the preprocessing alone, so that all methods and seeds meet the same images.
    """
    cases, rule = dataset.validation()[:count], settings.preprocessing
    if not cases:
        return None
    images, maps = [], []
    for number, case in enumerate(cases):
        label = load_label(case, dataset.labels, dataset.ignore)
        image, label = shifted(read_image_files(case.image), label, MIXED, seed=0, number=number)
        images.append(preprocess(image, rule))
        maps.append(resize_label(label, rule.size_px))
    by_patient = COUNTED_IN in dataset.splits
    groups = tuple(case.group or case.stem for case in cases) if by_patient else None
    return Scored(np.stack(images), np.stack(maps), groups)


def load_pixels(
    dataset: Dataset, settings: Settings, progress: Callable[..., None] | None = None
) -> tuple[ImageCache, dict[str, Pixels]]:
    """The image cache and the rows (and masks) of the labelled, unlabelled and validation cases of a dataset.

    Only the masks of labelled and validation cases are opened. Raises ValueError for fewer than 2 labelled images.
    """
    labelled = dataset.labelled(settings.labels, settings.split_seed)
    if len(labelled) < 2:
        raise ValueError(
            f"{dataset.path} has {len(labelled)} labelled training images; at least 2 are needed. "
            "Add masks and prepare the dataset again, or choose a longer list with --labels."
        )
    unlabelled = dataset.unlabelled(settings.labels, settings.split_seed)
    validation = dataset.validation()
    cache = open_cache(dataset.path, labelled + unlabelled + validation, settings.preprocessing, progress=progress)
    size_px = settings.preprocessing.size_px

    def with_masks(cases: list) -> Pixels:
        maps = load_labels(cases, size_px, dataset.labels, dataset.ignore)
        by_patient = COUNTED_IN in dataset.splits
        return Pixels(cache.rows(cases), maps, tuple(case.group or case.stem for case in cases) if by_patient else None)

    known, times = with_masks(labelled), settings.data.fine_labels
    if times > 1:
        known = replace(known, fine_maps=load_labels(labelled, times * size_px, dataset.labels, dataset.ignore))
    if not validation:
        logger.warning("%s has no validation list: the last weights and the recipe's steps are used.", dataset.path)
    pixels = {
        "labelled": known,
        "unlabelled": Pixels(cache.rows(unlabelled)),
        "validation": with_masks(validation) if validation else Pixels(np.zeros(0, np.int64)),
    }
    return cache, pixels
