"""Who may be suggested, who is labelled already, and the lists with the suggestions added."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semgan.data.cache import open_cache
from semgan.data.folder import LABEL_FOLDERS, Dataset, mask_stems
from semgan.data.parallel import Progress
from semgan.data.splits import COUNTED_IN, labelled_names
from semgan.data.transforms import to_unit
from semgan.data.tree import channel_files
from semgan.segment import check_inputs, pictures
from semgan.types import Case, Segmenter

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """``load``: the preprocessed image ``[channels, size_px, size_px]`` in [-1, 1]."""

    stem: str
    files: tuple[Path, ...]  # several where its channels lie in files of their own
    load: Callable[[], Tensor]


@dataclass(frozen=True)
class Unit:
    """What is labelled at once: an image, or all slices of a volume where the dataset counts labels so.

    group: of units that look alike (a patient); a unit without one is its own
    """

    name: str
    group: str
    pictures: tuple[Picture, ...]

    @property
    def stems(self) -> tuple[str, ...]:
        return tuple(picture.stem for picture in self.pictures)


@dataclass(frozen=True)
class Field:
    """Labelled units and candidates, each sorted by name."""

    labelled: tuple[Unit, ...]
    candidates: tuple[Unit, ...]


def known_list(dataset: Dataset, labels: int | None, split_seed: int | None, settings: dict) -> tuple[int | None, int]:
    """Size and seed of the labelled list: as asked; else as the model was trained; None: every case with a mask.

    A dataset that lacks the model's list may be another one: its masks all count, which is told. A seed that was asked
    for names the list of the model's size, which then has to be there (`Dataset.labelled` tells).
    """
    own = settings["labels"]
    seed = settings["split_seed"] if split_seed is None else split_seed
    if labels is not None or own is None:
        return labels, seed
    if split_seed is None and (name := f"labelled_{own}_seed{seed}") not in dataset.splits:
        logger.warning(
            "%s has no list '%s', on which the model was trained: every image with a mask counts as labelled. Name "
            "another list with --labels N --split-seed S.",
            dataset.path,
            name,
        )
        return None, seed
    return own, seed


def of_dataset(
    dataset: Dataset, segmenter: Segmenter, labels: int | None, split_seed: int, progress: Progress | None = None
) -> Field:
    """The labelled list and every other image of the pool and of imagesUn, but those of held-out groups.

    Raises ValueError for a model of other channels or classes, and where a list is missing.
    """
    rule = segmenter.rules["default"]
    dataset.check_channels(rule.channels)
    dataset.check_classes(segmenter.labels)
    held_out = {case.group for case in (*dataset.validation(), *dataset.test())} - {None}
    labelled = dataset.labelled(labels, split_seed)
    others = [case for case in dataset.unlabelled(labels, split_seed) if case.group not in held_out]
    cache = open_cache(dataset.path, labelled + others, rule, progress=progress)

    def picture(case: Case) -> Picture:
        row = cache.row(case)
        return Picture(case.stem, tuple(channel_files(case.image)), lambda: _from_levels(cache.images[row]))

    def units(cases: Sequence[Case]) -> tuple[Unit, ...]:
        members: dict[str, list[Case]] = {}
        for case in sorted(cases, key=lambda case: case.stem):
            members.setdefault(_counted_as(dataset, case.stem), []).append(case)
        return tuple(
            Unit(name, own[0].group or name, tuple(map(picture, own))) for name, own in sorted(members.items())
        )

    return Field(units(labelled), units(others))


def _counted_as(dataset: Dataset, stem: str) -> str:
    """The name of what is labelled at once with an image."""
    column = dataset.splits.get(COUNTED_IN)
    return dataset.columns.get(stem, {}).get(column, "") or stem if column else stem


def _from_levels(levels: Any) -> Tensor:
    import torch

    return to_unit(torch.from_numpy(levels.copy()))


def of_folder(images: Path, segmenter: Segmenter, progress: Progress | None = None) -> tuple[Unit, ...]:
    """Every image of a folder. Raises one ValueError that lists all that the model cannot take."""
    import torch

    inputs = pictures(images, segmenter.rules["default"].channels)
    check_inputs(segmenter, inputs, progress=progress)

    def loader(item: Any) -> Callable[[], Tensor]:
        return lambda: torch.as_tensor(segmenter.preprocess(item.read()))

    return tuple(Unit(item.stem, item.stem, (Picture(item.stem, tuple(item.files), loader(item)),)) for item in inputs)


@dataclass(frozen=True)
class Enlarged:
    """The lists of a dataset with one more, ``labelled_N_seedS``; waiting: stems that have no mask there yet."""

    labels: int
    split_seed: int
    lists: dict[str, Any]
    waiting: tuple[str, ...]


def enlarged(dataset: Dataset, field: Field, picked: Sequence[Unit], split_seed: int) -> Enlarged:
    """The labelled list and the picked units as a new list, as `semgan.data.splits.import_splits` takes it.

    Its seed is the next one free where another list has that name, so that no list is lost. Picked images of imagesUn
    join the pool: the lists fit the dataset as soon as it is prepared with their masks.
    """
    lists, pool = dict(dataset.splits), dataset.pool()
    added = [stem for unit in picked for stem in unit.stems]
    stems = [stem for unit in field.labelled for stem in unit.stems] + added
    labels = len(field.labelled) + len(picked)
    lists["pool"] = pool + [stem for stem in added if stem not in set(pool)]
    if "unlabelled_extra" in lists:
        extra = lists["unlabelled_extra"]
        lists["unlabelled_extra"] = extra | {"stems": [stem for stem in extra["stems"] if stem not in set(added)]}
    taken = labelled_names(lists)
    while (name := f"labelled_{labels}_seed{split_seed}") in taken and set(lists[name]) != set(stems):
        split_seed += 1
    lists[name] = stems
    masks = mask_stems(dataset.path / LABEL_FOLDERS["imagesTr"], dataset.description.file_ending)
    return Enlarged(labels, split_seed, lists, tuple(stem for stem in added if stem not in masks))
