"""Published faces with parts: which files are what, and how 19 classes become the paper's 8."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semgan.data.prepare.raw import Finding, Layout, find_paired_folders, folder_name, is_mask, is_picture, pair
from semgan.data.readers import read_foreground, read_label

CLASSES = ("background", "ear", "eye", "eyebrow", "skin", "hair", "mouth", "nose")
# CelebAMask-HQ's parts in the order of its own merging script: a later part covers an earlier one where they overlap,
# so hair lies on skin and a hat on hair. Their place here, from 1, is their index among the 19 classes.
PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
FROM_19 = (0, 4, 7, 2, 2, 2, 3, 3, 1, 1, 6, 6, 6, 5, 0, 0, 0, 0, 0)  # glasses are eye; hat, neck, cloth background
PART_FILE = re.compile(r"(\d{5})_([a-z]+(?:_[a-z]+)?)")


def find_celebamask(files: Sequence[Path]) -> Finding:
    """``CelebA-HQ-img/7.jpg`` and ``CelebAMask-HQ-mask-anno/0/00007_hair.png`` ..., one file per part that shows."""
    finding = Finding()
    images = {
        f"{int(file.stem):05d}": file
        for file in files
        if file.stem.isdecimal() and folder_name(file) == "celeba hq img" and is_picture(file)
    }
    parts: dict[str, list[Path]] = {}
    for file in files:
        match = PART_FILE.fullmatch(file.stem)
        if match and match[2] in PARTS and is_mask(file):
            parts.setdefault(match[1], []).append(file)
    masks = {key: tuple(found) for key, found in parts.items()}
    pair(finding, images, masks, prefix="celeba__", read_label=read_parts, label_scales=True)
    return finding


def read_parts(files: tuple[Path, ...]) -> np.ndarray:
    """The parts of one face merged into the paper's 8 classes, int32 ``[height, width]``; see `PARTS` for overlaps."""
    part_of = {PARTS.index(match[2]): file for file in files if (match := PART_FILE.fullmatch(file.stem))}
    merged: np.ndarray | None = None
    for index in sorted(part_of):
        shown = read_foreground(part_of[index])
        if merged is None:
            merged = np.zeros(shown.shape, np.int32)
        if shown.shape != merged.shape:
            raise ValueError(f"{part_of[index]} differs in size from the other parts of the face; replace it.")
        merged[shown] = FROM_19[index + 1]
    assert merged is not None, "a face without parts is no case"
    return merged


def find_metfaces(files: Sequence[Path]) -> Finding:
    """MetFaces-40: ``images`` and label masks in ``masks`` beside it, of our 8 classes or CelebAMask-HQ's 19.

    Any value of 8 or more in any mask says that all of them have 19.
    """
    finding = Finding()
    images, masks = find_paired_folders(files)
    reader = read_label_of_8
    for (file,) in masks.values():
        try:
            if read_label(file).max(initial=0) >= len(CLASSES):
                reader = read_label_of_19
                break
        except (ValueError, OSError):
            continue  # told with all other problems when the masks are checked
    pair(finding, images, masks, prefix="metfaces__", read_label=reader, label_scales=True)
    return finding


def read_label_of_8(files: tuple[Path, ...]) -> np.ndarray:
    """A mask that holds the paper's 8 classes."""
    return _with_classes(files[0], range(len(CLASSES)))


def read_label_of_19(files: tuple[Path, ...]) -> np.ndarray:
    """A mask of CelebAMask-HQ's 19 classes, as the paper's 8."""
    return _with_classes(files[0], FROM_19)


def _with_classes(file: Path, targets: Sequence[int]) -> np.ndarray:
    values = read_label(file)
    if values.min(initial=0) < 0 or values.max(initial=0) >= len(targets):
        raise ValueError(
            f"{file} holds values up to {values.max()}; a face's label mask holds 0 to 7 ({', '.join(CLASSES)}) or "
            "0 to 18 (CelebAMask-HQ's classes). Convert it with `semgan data prepare folder --mapping`."
        )
    return np.array(targets, np.int32)[values]


LAYOUTS = (
    Layout(
        "celebamask-hq",
        "CelebAMask-HQ (CelebA-HQ-img/7.jpg; CelebAMask-HQ-mask-anno/0/00007_hair.png)",
        "train",
        find_celebamask,
    ),
    Layout("metfaces", "MetFaces-40 (images and label masks beside each other)", "test", find_metfaces, True),
)
