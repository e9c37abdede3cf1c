"""What makes a comparison fair, held by code: training cannot open a test set, and cells had equal conditions."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semgan.benchmark.rows import Budget
from semgan.data.folder import Dataset
from semgan.data.readers import is_image
from semgan.data.tree import JOINED, files_of, walk
from semgan.masks import listed, masks_in
from semgan.scoring import HeldOut
from semgan.volume_scoring import VolumeSet

WHOLE_BATCHES = 256  # the last batch of every stage counts whole
ROOM = 0.1  # a clock is looked at between steps, and choosing steps takes what it takes: share of the budget


CHANNEL = re.compile(r"_\d{4}$")  # STEM_0000.png: nnU-Net's name of a channel's file


class TestSetOpened(PermissionError):
    """Training tried to open a file of a test set."""

    __test__ = False


@dataclass
class Guard:
    """Files that are closed for now, and those that somebody tried to open nevertheless.

    folders: closed as a whole; files: closed one by one (names without suffix and channel, for a folder shared with
    training)
    """

    folders: frozenset[str]
    files: frozenset[str]
    attempts: list[str] = field(default_factory=list)

    def closes(self, path: str) -> bool:
        folder, name = os.path.split(os.path.realpath(path))
        if any(f"{folder}/{stem}" in self.files for stem in _stems(name)):
            return True
        return any(folder == closed or folder.startswith(f"{closed}/") for closed in self.folders)


_active: list[Guard] = []
_hook_is_set = False


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    """Python's audit hook: hears of every file that is opened, by whatever reader, in every thread."""
    if not _active or event != "open":
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    text = os.fsdecode(path)
    for guard in _active:
        if guard.closes(text):
            guard.attempts.append(text)
            raise TestSetOpened(f"{text} belongs to a test set: it stays closed until training has ended.")


@contextlib.contextmanager
def closed(guard: Guard) -> Iterator[Guard]:
    """No file of the guard can be opened in this process while the block runs.

    After the block, raises `TestSetOpened` where one was tried, even if somebody swallowed the error.
    """
    global _hook_is_set
    if not _hook_is_set:  # a hook stays until the process ends; it does nothing while no guard is active
        sys.addaudithook(_look)
        _hook_is_set = True
    _active.append(guard)
    try:
        yield guard
    finally:
        _active.remove(guard)
        if guard.attempts:
            tried = sorted(set(guard.attempts))
            raise TestSetOpened(
                f"Training opened files of a test set: {listed(tried)}. A test set is for the end only."
            )


def guard_of(held_outs: Iterable[HeldOut | VolumeSet], dataset: Dataset) -> Guard:
    """Images, volumes and masks of the test sets, where they come from and as copied into the dataset folder.

    Folders of volumes are closed whole, ``only`` or not: training reads slices, from elsewhere.
    """
    folders, files = set(), set()
    for each in held_outs:
        only = None if each.only is None or isinstance(each, VolumeSet) else set(each.only)
        for folder in _folders_of(each):
            place = os.path.realpath(folder)
            if only is None:
                folders |= {place, *(os.path.realpath(inner) for inner, _ in walk(folder))}
            else:
                files |= {f"{place}/{stem}" for stem in only}
            files |= {os.path.splitext(file)[0] for file in _real(_all_in(folder), folder, only)}
    root = os.path.realpath(dataset.path)
    folders |= {f"{root}/imagesTs", f"{root}/labelsTs", f"{root}/volumes"}
    for stem in dataset.splits.get("test", []):
        files |= {f"{root}/labelsTr/{stem}", f"{root}/imagesTr/{stem}"}
    return Guard(frozenset(folders), frozenset(files))


def _folders_of(each: HeldOut | VolumeSet) -> tuple[Path, Path]:
    return (each.volumes if isinstance(each, VolumeSet) else each.images), each.labels


def _all_in(folder: Path) -> list[Path]:
    return [path for _, files in walk(folder) for path in files]


def _real(paths: Iterable[Path], folder: Path, only: Set[str] | None) -> list[str]:
    """Where files of a folder and its sub-folders really lie, elsewhere where links lead there.

    only: stems of the cases that count, of a/b.png a__b; None: all
    """
    wanted = [path for path in paths if only is None or _names_within(str(folder), str(path)) & only]
    return [os.path.realpath(path) for path in wanted]


def _names_within(folder: str, path: str) -> set[str]:
    """What a case may be called whose file lies in a folder or below it."""
    return _stems(JOINED.join(Path(path).relative_to(folder).parts))


def _stems(name: str) -> set[str]:
    """What a file may be called without its suffix and channel. DICOM files may have none, and dots in their names."""
    names = {name, os.path.splitext(name)[0], name.removesuffix(".nii.gz")}
    return names | {CHANNEL.sub("", each) for each in names}


def check_separate(held_outs: Iterable[HeldOut | VolumeSet], dataset: Dataset, sources: Iterable[Path]) -> None:
    """Raise ValueError where a test set shares files with the dataset that are trained or validated on, or links there.

    sources: folders that the dataset was prepared from
    """
    shared = {os.path.realpath(folder) for folder in (*sources, dataset.path / "imagesTr", dataset.path / "imagesUn")}
    taken = {*dataset.pool(), *dataset.files["imagesUn"], *(case.stem for case in dataset.validation())}
    for each in held_outs:
        if isinstance(each, VolumeSet):
            _check_volumes_apart(each, dataset, shared)
            continue
        only = None if each.only is None else set(each.only)
        files = _real(files_of(each.images, is_image), each.images, only)  # those that are scored
        names = [_names_within(root, file) for root in shared for file in files if file.startswith(f"{root}/")]
        if both := sorted(set().union(*names) & taken):
            raise ValueError(
                f"Test set '{each.name}' names {len(both)} cases of the training pool or the validation list: "
                f"{listed(both)}. Take them out of one of the two."
            )


def _check_volumes_apart(each: VolumeSet, dataset: Dataset, sources: set[str]) -> None:
    """Volumes that lie with the dataset may not be those whose slices it trains or validates on."""
    root, place = os.path.realpath(dataset.path), os.path.realpath(each.volumes)
    if f"{root}/".startswith(f"{place}/"):
        raise ValueError(
            f"Test set '{each.name}': the dataset {dataset.path} lies inside {each.volumes}, which stays closed while "
            "training reads the dataset. Give the folder of the test volumes alone."
        )
    if not (place in sources or place.startswith(f"{root}/")):
        return
    seen = (*dataset.pool(), *dataset.files["imagesUn"], *dataset.splits.get("validation", []))
    volumes = {dataset.group(stem) or stem for stem in seen}
    if both := sorted(set(each.only or masks_in(each.labels)) & volumes):
        raise ValueError(
            f"Test set '{each.name}' names {len(both)} volumes of the training pool or the validation list: "
            f"{listed(both)}. Take them out of one of the two."
        )


# ---------------------------------------------------------------- equal conditions


OF_CLOCKS = ("precision",)  # facts of cells whose length depends on their pace; those of others lack them


@dataclass(frozen=True)
class Conditions:
    """What one finished cell had: of the same task, labels and seed all facts must be equal.

    budget: what it was to have, as its row of the grid says; repeats: the cell whose number of images it was to see
    """

    cell: str
    group: tuple[str, int, int]
    facts: Mapping[str, Any]
    images_seen: int
    seconds: float
    budget: Budget | None = None
    repeats: str | None = None


def unfairness(cells: Sequence[Conditions]) -> list[str]:
    """What was not equal, in words; empty where the comparison is fair."""
    problems = []
    groups: dict[tuple[str, int, int], list[Conditions]] = defaultdict(list)
    for cell in cells:
        groups[cell.group].append(cell)
    for members in groups.values():
        unlike: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in dict.fromkeys(name for each in members for name in each.facts):
            first, *others = [each for each in members if name in each.facts or name not in OF_CLOCKS]
            for other in others:
                if first.facts.get(name) != other.facts.get(name):
                    unlike[other.cell, first.cell].append(name)
        problems += [f"{other} and {first} differ in {', '.join(names)}" for (other, first), names in unlike.items()]
    seen = {cell.cell: cell.images_seen for cell in cells}
    for cell in cells:
        problems += _budget_problem(cell)
        if cell.repeats is not None and cell.images_seen != (wanted := seen.get(cell.repeats, cell.images_seen)):
            problems.append(
                f"{cell.cell} saw {cell.images_seen} images, and {cell.repeats}, which it repeats, {wanted}"
            )
    return problems


def _budget_problem(cell: Conditions) -> list[str]:
    images, minutes = (None, None) if cell.budget is None else (cell.budget.images, cell.budget.time)
    if images is not None and not images <= cell.images_seen < images + WHOLE_BATCHES:
        return [f"{cell.cell} saw {cell.images_seen} images instead of {images}"]
    if minutes is not None and abs(cell.seconds - 60 * minutes) > ROOM * 60 * minutes + 30:
        return [f"{cell.cell} trained {cell.seconds:.0f} s instead of {60 * minutes:.0f} s"]
    return []
