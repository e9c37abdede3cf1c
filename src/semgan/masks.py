"""Masks as files: finding them, reading them as class indices, and telling which classes they speak of.

How a mask becomes class indices, in this order:
1. pixels with a value listed in ``ignore`` are left out (true masks only; a dataset folder's own ignore value unasked);
2. with a mapping, every value is replaced by its target (255 leaves the pixel out), and unmapped values are errors;
3. without one, and for two classes, a mask whose values are all 0 or 255 means 0 or 1, but not beside masks that use 1;
4. what is then not 0 to classes - 1 is an error.

Which classes: those given; else the ones of ``dataset.json`` or ``classes.json`` beside the folder of labels (for the
whole volumes of a dataset folder, the ``dataset.json`` of that); else two
where no value but 0 and 1 (or 255) occurs; else one per index up to the largest, with a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts
from semgan.data.tree import JOINED, files_of, stem_within
from semgan.types import IGNORE

SHOWN = 8  # names listed in a message

ClassMapping = Mapping[int, int] | Sequence[int]


@dataclass(frozen=True)
class ClassSpace:
    """Class names (empty: not known yet), label values left out, indices averaged, and a remark where inferred."""

    names: tuple[str, ...]
    ignore: tuple[int, ...] = ()
    averaged: tuple[int, ...] = ()
    remark: str | None = None


def listed(names: Sequence[object]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(str(name) for name in list(names)[:SHOWN]) + more


def masks_in(folder: Path) -> dict[str, Path]:
    """Stem -> mask file of a folder, sorted by stem. Raises for a missing folder, no masks, two files of one stem.

    A folder that holds no mask itself means its sub-folders, named as `semgan segment` names what it finds there:
    a/b.png has the stem a__b, and the volume a/b.nii.gz the stem a_b. Beside masks they are left alone: results have
    probabilities and overlays there.
    """
    from semgan.data.nifti import nifti_suffix

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; expected a folder of masks.")
    found: dict[str, Path] = {}
    for path in files_of(folder, lambda path: _suffix_of(path) is not None):
        suffix = _suffix_of(path)
        if suffix is None:
            continue
        joined = "_" if nifti_suffix(path) else JOINED
        stem = stem_within(folder, path, path.name[: -len(suffix)], joined)
        if stem in found:
            first, second = (str(file.relative_to(folder)) for file in (found[stem], path))
            raise ValueError(f"{folder} holds two masks for '{stem}': {first} and {second}. Remove one.")
        found[stem] = path
    if not found:
        raise FileNotFoundError(f"{folder} holds no masks; expected files like STEM.png or STEM.nii.gz.")
    return dict(sorted(found.items()))


def _suffix_of(path: Path) -> str | None:
    """A mask's ending, or None for what is no mask by its name."""
    from semgan.data.nifti import nifti_suffix
    from semgan.data.readers import IMAGE_SUFFIXES

    name = path.name.lower()
    return nifti_suffix(path) or next((end for end in IMAGE_SUFFIXES if name.endswith(end)), None)


# ---------------------------------------------------------------- classes


def class_space(
    classes: Sequence[str] | None, labels: Path, ignore: Sequence[int], mapping: ClassMapping | None
) -> ClassSpace:
    """The classes of a folder of true masks by the rules above; empty names where only the masks can tell."""
    if classes is not None:
        names = tuple(classes)
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError(f"Two or more different class names are needed, background first; got {list(names)}.")
        return named_space(names, ignore)
    beside = labels.resolve().parent
    if beside.parent.name in ("volumes", "test_sets"):  # DATASET/volumes/NAME/labels
        beside = beside.parent.parent
    table: Mapping[str, object] = {}
    left_out = set(ignore)
    if (beside / "dataset.json").is_file():
        stored = dict(artifacts.read_json(beside / "dataset.json").get("labels", {}))
        left_out |= {int(stored.pop("ignore"))} if "ignore" in stored else set()
        table = stored
    elif (beside / "classes.json").is_file():
        table = _values_by_name(artifacts.read_json(beside / "classes.json"))
    # Names of the masks as stored say nothing about what a mapping turns them into.
    names = () if mapping is not None else _names_by_value(table)
    return named_space(names, tuple(left_out))


def named_space(names: Sequence[str], ignore: Sequence[int]) -> ClassSpace:
    return ClassSpace(tuple(names), tuple(sorted(set(ignore))), tuple(range(1, len(names))))


def inferred_space(predicted: Collection[int], true: Collection[int], ignore: Sequence[int]) -> ClassSpace:
    """Classes for the values that occur in all masks. Raises ValueError where they are no class indices."""
    present = sorted({*predicted, *true})
    if set(present) <= {0, 1, 255}:
        return named_space(("background", "foreground"), ignore)
    if present[0] < 0 or present[-1] >= IGNORE:
        raise ValueError(
            f"The masks have values {listed(present)}, which are no class indices; give the class names (--classes), a "
            "mapping (--mapping), or the values to ignore (--ignore)."
        )
    names = ("background", *(f"class {index}" for index in range(1, present[-1] + 1)))
    averaged = tuple(value for value in present if value > 0)
    remark = f"No class names were given: the {len(averaged)} indices above 0 that occur count as classes."
    alone = [sorted({*one} - {*other}) for one, other in ((predicted, true), (true, predicted))]
    if all(alone):
        remark += (
            f" Values {listed(alone[0])} occur in predictions only, and {listed(alone[1])} in labels only: where these "
            "are two codes of the same classes, the scores are wrong without a mapping (--mapping)."
        )
    return ClassSpace(names, tuple(ignore), averaged, remark)


def _values_by_name(content: Any) -> dict[str, int]:
    """``{name: value}`` from what `data prepare` takes as classes: ["background", "lung"], {"0": "background"}, or an
    object that has one at "classes"; empty for anything else."""
    if isinstance(content, dict):
        content = content.get("classes", content)
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return {}
    return {name: int(value) for value, name in content.items() if isinstance(name, str) and str(value).isdecimal()}


def _names_by_value(values: Mapping[str, object]) -> tuple[str, ...]:
    """Class names in order of their index; empty where values are not 0, 1, 2, ... (nnU-Net's regions are lists)."""
    by_value = {value: name for name, value in values.items() if isinstance(value, int)}
    if len(values) < 2 or sorted(by_value) != list(range(len(values))):
        return ()
    return tuple(by_value[value] for value in sorted(by_value))


# ---------------------------------------------------------------- reading


class MaskReader:
    """Reads the masks of one folder as class indices, by the rules above."""

    def __init__(self, what: str, mapping: ClassMapping | None, ignore: Sequence[int] = ()) -> None:
        self.what = what  # "label" or "prediction", for messages
        self._ignore = list(ignore)
        self._targets = _lookup(mapping)
        self._first_with: dict[int, Path] = {}

    def values(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The mapped mask, int32 ``[height, width]`` or ``[i, j, k]``, and which of its pixels count."""
        from semgan.data.nifti import nifti_suffix, read_label_volume
        from semgan.data.readers import read_label, values_in

        stored = read_label_volume(path).values if nifti_suffix(path) else read_label(path)
        counted = ~np.isin(stored, self._ignore)
        if self._targets is None:
            return stored, counted
        unknown = sorted(set(values_in(stored[counted])) - set(self._targets))
        if unknown:
            raise ValueError(
                f"{path} has values {listed(unknown)}, which the mapping of the {self.what}s does not name."
            )
        mapped = np.full(stored.shape, IGNORE, dtype=np.int32)
        for value, target in self._targets.items():
            mapped[stored == value] = target
        # A prediction is due everywhere: for it, 255 stays a wrong value.
        return mapped, counted & (mapped != IGNORE) if self.what == "label" else counted

    def present(self, path: Path) -> set[int]:
        """The values that count in one mask."""
        from semgan.data.readers import values_in

        values, counted = self.values(path)
        return set(values_in(values[counted]))

    def read(self, path: Path, names: Sequence[str]) -> np.ndarray:
        """Class indices of the mask's shape, with IGNORE. Raises ValueError naming the file for other values."""
        from semgan.data.readers import values_in

        values, counted = self.values(path)
        present = set(values_in(values[counted]))
        if len(names) == 2 and self._targets is None:
            for value in present & {1, 255}:
                self._first_with.setdefault(value, path)
            if present <= {0, 255}:
                values, present = values // 255, {value // 255 for value in present}
        wrong = sorted(value for value in present if not 0 <= value < len(names))
        if wrong:
            cure = "give a mapping, or list them to ignore" if self.what == "label" else "give a mapping"
            raise ValueError(
                f"{path} has values {listed(wrong)} outside the classes 0 to {len(names) - 1} "
                f"({listed(names)}); {cure}."
            )
        return np.where(counted, values, np.int32(IGNORE))

    def doubt(self) -> str | None:
        """What is wrong with the masks read so far taken together; None where nothing is."""
        first = self._first_with
        if not {1, 255} <= set(first):
            return None
        return (
            f"Some {self.what}s use 1 ({first[1].name}), some 255 ({first[255].name}): is 255 the foreground, or to be "
            "ignored? Give a mapping, or list 255 to ignore."
        )


def _lookup(mapping: ClassMapping | None) -> dict[int, int] | None:
    if mapping is None:
        return None
    items = mapping.items() if isinstance(mapping, Mapping) else enumerate(mapping)
    return {int(value): int(target) for value, target in items}
