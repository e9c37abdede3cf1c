"""Every problem of a dataset folder at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semgan.data.folder import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    Dataset,
    Description,
    image_files,
    mask_stems,
    read_description,
    read_manifest,
    read_splits,
)
from semgan.data.parallel import Progress, each
from semgan.data.readers import read_image_files, read_label
from semgan.data.splits import problems_of_splits


@dataclass(frozen=True)
class Problem:
    """``level``: "error" (training or scoring would fail or be wrong) or "warning"."""

    level: str
    file: str
    message: str


def check_dataset(path: Path | str, workers: int | None = None, progress: Progress | None = None) -> list[Problem]:
    """Decode every image and mask, read every list, and report all that is wrong; errors before warnings.

    Nothing is raised for what is wrong inside the folder; an empty list means that all is well.
    """
    path = Path(path)
    if not path.is_dir():
        return [Problem("error", str(path), "is not a folder; make a dataset with `semgan data prepare`.")]
    try:
        description = read_description(path)
    except (ValueError, OSError) as error:
        # Without the description the pixels cannot be judged; the lists still can.
        unreadable = [Problem("error", str(path / "dataset.json"), _short(error, path / "dataset.json"))]
        return unreadable + _lists(path)[0]
    problems, dataset = _lists(path, description)
    problems += _stray_files(path, description) + _pairs(path, description)
    problems += [Problem(level, str(path / "splits.json"), message) for level, message in problems_of_splits(dataset)]
    problems += _pixels(dataset, workers, progress)
    return sorted(problems, key=lambda problem: problem.level)


def _lists(path: Path, description: Description | None = None) -> tuple[list[Problem], Dataset]:
    """splits.json and manifest.csv; an unreadable one is reported and then taken as empty."""
    problems, contents = [], []
    readers = {"splits.json": lambda: read_splits(path), "manifest.csv": lambda: read_manifest(path / "manifest.csv")}
    for name, read in readers.items():
        file = path / name
        try:
            contents.append(read())
        except (ValueError, OSError) as error:
            problems.append(Problem("error", str(file), _short(error, file)))
            contents.append({})
    return problems, Dataset(path, description, contents[0], contents[1])  # type: ignore[arg-type]


def _short(error: Exception, file: Path) -> str:
    return str(error).removeprefix(str(file)).lstrip(": ")


def _stray_files(path: Path, description: Description) -> list[Problem]:
    problems = []
    channels = range(description.channels)
    endings = tuple(f"_{channel:04d}{description.file_ending}" for channel in channels)
    for name in (*IMAGE_FOLDERS, *LABEL_FOLDERS.values()):
        allowed = endings if name in IMAGE_FOLDERS else (description.file_ending,)
        folder = path / name
        strays = sorted(e.name for e in os.scandir(folder) if not e.name.endswith(allowed)) if folder.is_dir() else []
        kind = f"STEM_0000{description.file_ending}" if name in IMAGE_FOLDERS else f"STEM{description.file_ending}"
        message = f"is never read: names here are {kind}"
        problems += [Problem("warning", str(folder / stray), message) for stray in strays]
    return problems


def _pairs(path: Path, description: Description) -> list[Problem]:
    """Images without masks, masks without images, stems in two folders, too few cases."""
    problems: list[Problem] = []
    folder_of: dict[str, str] = {}
    for name in IMAGE_FOLDERS:
        files = image_files(path / name, description.file_ending)
        for stem, file in files.items():
            if stem in folder_of:
                problems.append(Problem("error", str(file), f"its stem is in {folder_of[stem]} too; keep one of them"))
            folder_of.setdefault(stem, name)
        if name not in LABEL_FOLDERS:
            continue
        masks = mask_stems(path / LABEL_FOLDERS[name], description.file_ending)
        level = "error" if name == "imagesTr" else "warning"
        problems += [
            Problem(level, str(file), f"has no mask in {LABEL_FOLDERS[name]}; add it, or move the image to imagesUn")
            for stem, file in files.items()
            if stem not in masks
        ]
        folder = path / LABEL_FOLDERS[name]
        problems += [
            Problem("error", str(folder / f"{stem}{description.file_ending}"), f"has no image in {name}")
            for stem in sorted(masks - files.keys())
        ]
        if name == "imagesTr" and len(masks & files.keys()) < 2:
            message = f"holds {len(masks & files.keys())} image(s) with a mask; at least 2 are needed"
            problems.append(Problem("error", str(path / name), message))
    return problems


@dataclass(frozen=True)
class _Look:
    image: Path
    label: Path | None
    channels: int
    classes: int
    ignore: int | None


def _pixels(dataset: Dataset, workers: int | None, progress: Progress | None) -> list[Problem]:
    looks, stems = [], []
    for name, files in dataset.files.items():
        for stem, file in files.items():
            mask = dataset.path / LABEL_FOLDERS.get(name, "") / f"{stem}{dataset.description.file_ending}"
            label = mask if name in LABEL_FOLDERS and mask.is_file() else None
            looks.append(_Look(file, label, dataset.channels, dataset.labels.classes, dataset.ignore))
            stems.append(stem)
    results = each(_look, looks, workers=workers, progress=progress, what="checking images")
    shown: dict[str, set[int]] = {}
    problems = []
    for stem, (found, classes) in zip(stems, results, strict=True):
        problems += found
        shown[stem] = classes
    if looks and not problems:
        seen = set().union(*shown.values())
        problems += _lists_without_a_class(dataset, shown, seen)
        absent = [name for index, name in enumerate(dataset.labels.names) if index not in seen]
        if absent:
            message = f"no mask shows the class(es) {', '.join(absent)}"
            problems.append(Problem("warning", str(dataset.path / "labelsTr"), message))
    return problems


def _lists_without_a_class(dataset: Dataset, shown: dict[str, set[int]], seen: set[int]) -> list[Problem]:
    """Labelled lists none of whose masks shows a class that other masks show: it cannot be learnt from them."""
    problems = []
    for name in sorted(key for key in dataset.splits if key.startswith("labelled_")):
        own = set().union(*(shown.get(stem, set()) for stem in dataset.splits[name]))
        absent = [each for index, each in enumerate(dataset.labels.names) if index in seen - own]
        if absent:
            message = f"no mask of {name} shows the class(es) {', '.join(absent)}; take more labels or another seed"
            problems.append(Problem("warning", str(dataset.path / "splits.json"), message))
    return problems


def _look(look: _Look) -> tuple[list[Problem], set[int]]:
    """Decode one image and its mask: the problems, and the classes that the mask shows."""
    problems: list[Problem] = []
    size = None
    try:
        image = read_image_files(look.image)
        size = image.shape[:2]
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels != look.channels and {channels, look.channels} != {1, 3}:
            message = f"has {channels} channel(s); dataset.json says {look.channels}"
            problems.append(Problem("error", str(look.image), message))
        elif channels != look.channels:
            message = f"has {channels} channel(s), and is read as {look.channels}"
            problems.append(Problem("warning", str(look.image), message))
    except (ValueError, OSError) as error:
        problems.append(Problem("error", str(look.image), _short(error, look.image)))
    if look.label is None:
        return problems, set()
    try:
        label = read_label(look.label)
    except (ValueError, OSError) as error:
        return [*problems, Problem("error", str(look.label), _short(error, look.label))], set()
    values = set(np.unique(label).tolist()) - {look.ignore}
    wrong = sorted(value for value in values if not 0 <= value < look.classes)
    if wrong:
        message = f"holds the values {wrong[:10]}, which are no classes (0 to {look.classes - 1}); correct the mask"
        problems.append(Problem("error", str(look.label), message))
    if size is not None and label.shape != size:
        message = f"is {label.shape[1]}x{label.shape[0]} px and its image {size[1]}x{size[0]} px; make them equal"
        problems.append(Problem("error", str(look.label), message))
    return problems, values
