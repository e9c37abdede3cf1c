"""An opened dataset folder: nnU-Net's layout plus ``imagesUn``, and who belongs to which set.

    DATASET/
      dataset.json            channel_names, labels, numTraining, file_ending (nnU-Net v2) and "semgan": {...}
      imagesTr/STEM_0000.png  images with masks: training pool, validation, possibly test (see splits.json)
      labelsTr/STEM.png       8-bit class indices; 255 marks pixels to ignore
      imagesTs/, labelsTs/    test images and their masks
      imagesUn/               images that never need masks
      splits.json             "test", "validation", "pool", "labelled_N_seedS", "unlabelled_extra"; lists of stems
      manifest.csv            stem, set, group and any further column (patient, hospital, ...)
      cache/                  decoded images (see cache.py)

A grey or colour picture is one file; two channels, or more than three, are ``STEM_0000.png``, ``STEM_0001.png``, ...
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from semgan.artifacts import read_json
from semgan.data.tree import channel_files
from semgan.types import IGNORE, METRICS, Case, LabelSpace, Segmenter
from semgan.words import as_typed

FORMAT = 1
GROUP_COLUMNS = ("group", "patient")  # the first that the manifest has names a case's group
IMAGE_FOLDERS = ("imagesTr", "imagesTs", "imagesUn")
LABEL_FOLDERS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}
SET_NAMES = ("train", "validation", "test", "unlabelled")
LABELLED_NAME = re.compile(r"labelled_(\d+)_seed(\d+)")


@dataclass(frozen=True)
class Description:
    """What dataset.json says. ``ignore``: the stored mask value of pixels to leave out, or None."""

    name: str
    labels: LabelSpace
    channels: int
    ignore: int | None
    metric: str
    file_ending: str
    content_sha256: str | None


@dataclass(frozen=True)
class Dataset:
    """A dataset folder whose lists are read; pixels are opened by the readers only."""

    path: Path
    description: Description
    splits: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)

    @staticmethod
    def open(path: Path | str) -> Dataset:
        """Raises FileNotFoundError or ValueError that names what is missing or wrong, and the cure."""
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(
                f"{path} is not a folder. Make it with `semgan data prepare folder ... -o {as_typed(path)}`."
            )
        return Dataset(path, read_description(path), read_splits(path), read_manifest(path / "manifest.csv"))

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def labels(self) -> LabelSpace:
        return self.description.labels

    @property
    def channels(self) -> int:
        return self.description.channels

    @property
    def ignore(self) -> int | None:
        """The mask value that is left out of losses and scores; None where there is none."""
        return self.description.ignore

    @property
    def metric(self) -> str:
        """The metric of the task, one of METRICS; the splits' protocol goes before dataset.json."""
        return self.splits.get("metric", self.description.metric)

    @cached_property
    def files(self) -> dict[str, dict[str, Path]]:
        """``{"imagesTr": {stem: first channel's file}, "imagesTs": ..., "imagesUn": ...}``, sorted by stem."""
        return {name: image_files(self.path / name, self.description.file_ending) for name in IMAGE_FOLDERS}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the pixels as prepared; for folders made elsewhere, of file names and sizes."""
        if self.description.content_sha256:
            return self.description.content_sha256
        digest = hashlib.sha256()
        for folder, files in self.files.items():
            for stem, file in files.items():
                sizes = " ".join(str(each.stat().st_size) for each in channel_files(file))
                digest.update(f"{folder}/{stem} {sizes}\n".encode())
        return digest.hexdigest()

    def group(self, stem: str) -> str | None:
        """The patient (or other group) of a case, from the manifest; None where it names none."""
        row = self.columns.get(stem, {})
        return next((row[name] for name in GROUP_COLUMNS if row.get(name)), None)

    def cases(self, set_name: str) -> list[Case]:
        """The cases of "train" (the whole pool), "validation", "test", "unlabelled" or a list "labelled_N_seedS"."""
        if set_name == "train":
            return self.labelled(None, 0)
        if set_name == "validation":
            return self.validation()
        if set_name == "test":
            return self.test()
        if set_name == "unlabelled":
            return self.unlabelled(None, 0)
        if match := LABELLED_NAME.fullmatch(set_name):
            return self.labelled(int(match[1]), int(match[2]))
        raise ValueError(f"Unknown set '{set_name}'; expected one of {', '.join(SET_NAMES)} or labelled_N_seedS.")

    def labelled(self, labels: int | None, split_seed: int) -> list[Case]:
        """The labelled training cases: a list of splits.json, or with None every case of the pool."""
        if labels is None:
            return self._with_masks(self.pool())
        name = f"labelled_{labels}_seed{split_seed}"
        if name not in self.splits:
            known = ", ".join(key for key in self.splits if LABELLED_NAME.fullmatch(key)) or "no labelled lists"
            raise ValueError(
                f"{self.path / 'splits.json'} has no list '{name}'; it has {known}. Make it with "
                f"`semgan data split {as_typed(self.path)} --labels {labels} --split-seed {split_seed}`."
            )
        held_out = {*self.splits.get("validation", []), *self.splits.get("test", [])}
        if both := sorted(held_out.intersection(self.splits[name])):
            raise ValueError(
                f"{self.path / 'splits.json'}: the list '{name}' holds {len(both)} cases of validation or test, "
                f"{', '.join(both[:5])}; nothing is trained on these. Take them out of one of the two."
            )
        return self._with_masks(self.splits[name])

    def unlabelled(self, labels: int | None, split_seed: int) -> list[Case]:
        """Pool cases outside the labelled list, and imagesUn. No case names a mask, so that none is ever opened."""
        taken = {case.stem for case in self.labelled(labels, split_seed)}
        pool = [stem for stem in self.pool() if stem not in taken]
        extra = self.splits.get("unlabelled_extra", {}).get("stems", self.files["imagesUn"])
        return [self._bare(stem, "imagesTr") for stem in pool] + [self._bare(stem, "imagesUn") for stem in extra]

    def validation(self) -> list[Case]:
        """The validation list; empty where none was made."""
        return self._with_masks(self.splits.get("validation", []))

    def validation_for(self, model: Segmenter, count: int | None = None, *, name: str = "the model") -> list[Case]:
        """The validation list (its first ``count`` cases) to judge a model on.

        Raises ValueError for a model of other classes or channels, and where there is no such list.
        """
        self.check_classes(model.labels, name)
        self.check_channels(model.rules["default"].channels, name)
        cases = self.validation()[:count]
        if not cases:
            raise ValueError(
                f"{self.path} has no validation list, and settings are never chosen on test images. "
                "Make one with `semgan data split ... --validation 0.1`, or `data prepare folder --manifest`."
            )
        return cases

    @staticmethod
    def judged_by(cases: Sequence[Case]) -> str:
        """A short name for the masks and groups of cases, which `fingerprint` does not know of, by their contents."""
        known = hashlib.sha256()
        for case in cases:
            pixels = b"" if case.label is None else Path(case.label).read_bytes()
            known.update(f"{case.stem}\n{case.group}\n{hashlib.sha256(pixels).hexdigest()}\n".encode())
        return known.hexdigest()[:16]

    def check_classes(self, labels: LabelSpace, model: str = "the model") -> None:
        """Raises ValueError where a model of these classes is not of this dataset's task."""
        if self.labels != labels:
            theirs, ours = ", ".join(self.labels.names), ", ".join(labels.names)
            raise ValueError(
                f"{self.path} has the classes {theirs}, {model} {ours}; give the dataset that it was trained on, or "
                "one of the same task."
            )

    def check_channels(self, channels: int, model: str = "the model") -> None:
        """Raises ValueError where a model takes images of another number of channels."""
        if self.channels != channels:
            raise ValueError(
                f"{self.path} has images of {self.channels} channels and {model} takes {channels}; give the dataset "
                "that it was trained on, or one of such images."
            )

    def test(self) -> list[Case]:
        """The in-domain test list of splits.json and every image of imagesTs; ``label`` is None where no mask is."""
        listed = self.splits.get("test", [])
        known = set(listed)
        others = [stem for stem in self.files["imagesTs"] if stem not in known]
        return self._with_masks(listed) + self._with_masks(others, mask_required=False)

    def everything(self) -> list[Case]:
        """Every image of the folder, without masks."""
        return [self._bare(stem, folder) for folder, files in self.files.items() for stem in files]

    def pool(self) -> list[str]:
        """Stems of the training pool, labelled or not: as listed, else imagesTr; never validation or test."""
        held_out = {*self.splits.get("validation", []), *self.splits.get("test", [])}
        return [stem for stem in self.splits.get("pool", self.files["imagesTr"]) if stem not in held_out]

    def _bare(self, stem: str, folder: str) -> Case:
        if stem not in self.files[folder]:
            raise ValueError(f"splits.json names '{stem}', which {self.path / folder} lacks. {self._cure}")
        return Case(stem, self.files[folder][stem], None, self.group(stem))

    def _with_masks(self, stems: Iterable[str], mask_required: bool = True) -> list[Case]:
        cases = []
        for stem in stems:
            folder = "imagesTr" if stem in self.files["imagesTr"] else "imagesTs"
            case = self._bare(stem, folder)
            mask: Path | None = self.path / LABEL_FOLDERS[folder] / f"{stem}{self.description.file_ending}"
            if stem not in self._masks[folder]:
                if mask_required:
                    raise ValueError(f"'{stem}' has no mask: {mask} does not exist. {self._cure}")
                mask = None
            cases.append(Case(stem, case.image, mask, case.group))
        return cases

    @cached_property
    def _masks(self) -> dict[str, set[str]]:
        ending = self.description.file_ending
        return {images: mask_stems(self.path / masks, ending) for images, masks in LABEL_FOLDERS.items()}

    @property
    def _cure(self) -> str:
        return f"`semgan data check {as_typed(self.path)}` lists all such problems."


def image_files(folder: Path, file_ending: str) -> dict[str, Path]:
    """``{stem: STEM_0000 file}`` of one images folder, sorted; empty where the folder is missing."""
    ending = f"_0000{file_ending}"
    return {name[: -len(ending)]: folder / name for name in _names(folder) if name.endswith(ending)}


def mask_stems(folder: Path, file_ending: str) -> set[str]:
    return {name[: -len(file_ending)] for name in _names(folder) if name.endswith(file_ending)}


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []


def read_description(path: Path) -> Description:
    """dataset.json of a folder. Raises FileNotFoundError or ValueError naming the key and the cure."""
    file = path / "dataset.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is no dataset folder: no dataset.json. Make one with `semgan data prepare`.")
    content = read_object(file)
    missing = [key for key in ("channel_names", "labels", "file_ending") if key not in content]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}; prepare the dataset again, or add what is missing.")
    own = content.get("semgan", {})
    labels, ignore = _label_space(content["labels"], file)
    metric = own.get("metric", "dice" if labels.classes == 2 else "miou")
    if metric not in METRICS:
        raise ValueError(f"{file}: metric is '{metric}'; expected one of {', '.join(METRICS)}.")
    if own.get("format", FORMAT) > FORMAT:
        raise ValueError(f"{file} was written by a newer semgan (format {own['format']}); update semgan.")
    return Description(
        name=content.get("name", path.resolve().name),
        labels=labels,
        channels=len(content["channel_names"]),
        ignore=ignore,
        metric=metric,
        file_ending=content["file_ending"],
        content_sha256=own.get("content_sha256"),
    )


def description_json(
    name: str,
    labels: LabelSpace,
    channels: int,
    training: int,
    file_ending: str = ".png",
    *,
    ignores: bool = False,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What dataset.json holds for ``training`` labelled images; ignores: whether masks mark pixels to leave out.

    own: further keys of our part, ``content_sha256`` for example
    """
    other_names = tuple(f"channel {index}" for index in range(channels))
    channel_names = {1: ("grey",), 3: ("R", "G", "B")}.get(channels, other_names)
    values = {label: index for index, label in enumerate(labels.names)} | ({"ignore": IGNORE} if ignores else {})
    return {
        "name": name,
        "channel_names": {str(index): channel for index, channel in enumerate(channel_names)},
        "labels": values,
        "numTraining": training,
        "file_ending": file_ending,
        "semgan": {"format": FORMAT, "metric": "dice" if labels.classes == 2 else "miou", **(own or {})},
    }


def _label_space(labels: Any, file: Path) -> tuple[LabelSpace, int | None]:
    if not isinstance(labels, dict) or not all(isinstance(value, int) for value in labels.values()):
        raise ValueError(f"{file}: labels must be like {{'background': 0, 'lung': 1}}; got {labels!r}.")
    ignore = labels.get("ignore")
    names = sorted((value, name) for name, value in labels.items() if name != "ignore")
    if [value for value, _ in names] != list(range(len(names))):
        raise ValueError(f"{file}: label values must be 0, 1, 2, ... without gaps; got {labels!r}.")
    return LabelSpace(tuple(name for _, name in names)), ignore


def read_splits(path: Path) -> dict[str, Any]:
    """splits.json of a dataset folder, or {} where there is none. Raises ValueError for a wrong shape."""
    file = path / "splits.json"
    return check_splits_shape(read_object(file), file) if file.exists() else {}


def check_splits_shape(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """The content where every list is a list of stems; raises ValueError naming the key otherwise."""
    for key, value in content.items():
        is_list = key in ("test", "validation", "pool") or LABELLED_NAME.fullmatch(key)
        if is_list and not _are_stems(value):
            raise ValueError(f"{file}: '{key}' must be a list of stems; got {str(value)[:80]}.")
    extra = content.get("unlabelled_extra", {"stems": []})
    if not isinstance(extra, dict) or not _are_stems(extra.get("stems")):
        raise ValueError(f"{file}: 'unlabelled_extra' must be like {{'set': NAME, 'stems': [...]}}.")
    if content.get("metric", METRICS[0]) not in METRICS:
        raise ValueError(f"{file}: metric is '{content['metric']}'; expected one of {', '.join(METRICS)}.")
    return content


def _are_stems(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(stem, str) for stem in value)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file whose top level is an object; raises ValueError naming the file otherwise."""
    try:
        content = read_json(file)
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not valid JSON: it is not text.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object {{...}}; got {type(content).__name__}.")
    return content


def read_manifest(file: Path) -> dict[str, dict[str, str]]:
    """``{stem: {column: value}}`` of a CSV with a column ``stem``; {} where the file is missing.

    Raises ValueError for a missing column, a repeated stem or an unknown set.
    """
    if not file.exists():
        return {}
    with open(file, newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        if "stem" not in (table.fieldnames or []):
            raise ValueError(f"{file} has no column 'stem'; its first line names the columns: {table.fieldnames}.")
        rows: dict[str, dict[str, str]] = {}
        for row in table:
            stem, set_name = row["stem"], row.get("set") or ""
            if stem in rows:
                raise ValueError(f"{file} lists '{stem}' twice; keep one line per image.")
            if set_name and set_name not in SET_NAMES:
                raise ValueError(f"{file}: '{stem}' has set '{set_name}'; expected {', '.join(SET_NAMES)} or nothing.")
            rows[stem] = {key: value or "" for key, value in row.items() if key}
    return rows
