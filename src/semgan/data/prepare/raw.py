"""Raw downloads as published: the files that lie there, and the words in which a layout tells what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semgan.data.prepare.inventory import Source
from semgan.data.readers import IMAGE_SUFFIXES, MASK_SUFFIXES, read_foreground
from semgan.data.tree import walk
from semgan.words import as_typed

FOLDER_OF = {"train": "imagesTr", "test": "imagesTs", "unlabelled": "imagesUn"}  # a layout's role -> dataset folder
IMAGES_NAMES = ("images", "image", "img", "imgs")
MASKS_NAMES = ("masks", "mask", "labels", "label")


@dataclass
class Finding:
    """What one layout found. ``columns``: stem -> manifest columns; ``left_out``: reason -> number of files.

    ``used``: all files that belong to the layout, read or not.
    """

    sources: list[Source] = field(default_factory=list)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    used: set[Path] = field(default_factory=set)

    def leave_out(self, reason: str, count: int) -> None:
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count


@dataclass(frozen=True)
class Layout:
    """One published data set. ``role``: train (in-domain), test (out-of-domain) or unlabelled.

    title:      for people, with what is looked for
    find:       all files not yet taken -> what belongs to this layout; nothing is decoded
    is_generic: other data look like this too, so it tells nothing about a folder given to the wrong task
    """

    name: str
    title: str
    role: str
    find: Callable[[Sequence[Path]], Finding]
    is_generic: bool = False


def list_files(roots: Iterable[Path]) -> list[Path]:
    """Every file below the folders, once, sorted; hidden and Mac side files left out.

    Raises FileNotFoundError for a missing folder, ValueError for a file in place of a folder.
    """
    found: set[Path] = set()
    for root in roots:
        if root.is_file():
            raise ValueError(
                f"{root} is a file; give the folder. Unpack archives first: "
                f"`semgan data unpack {as_typed(root)} -o FOLDER`."
            )
        if not root.is_dir():
            raise FileNotFoundError(f"{root} does not exist; give the folder of the unpacked download.")
        found.update(*(files for _, files in walk(root, lambda folder: folder.name.startswith("__MACOSX"))))
    return sorted(found)


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES


def is_mask(file: Path) -> bool:
    return file.suffix.lower() in MASK_SUFFIXES


def folder_name(file: Path) -> str:
    """The name of the file's folder in one spelling: ``Left_Lung`` and ``left-lung`` are ``left lung``."""
    return file.parent.name.lower().replace("_", " ").replace("-", " ")


def read_foregrounds(files: tuple[Path, ...]) -> np.ndarray:
    """Everything that any of the masks shows, as int32 0 and 1: the left lung and the right one are the lungs."""
    merged = read_foreground(files[0])
    for file in files[1:]:
        other = read_foreground(file)
        if other.shape != merged.shape:
            raise ValueError(f"{files[0]} and {file} are parts of one mask and differ in size; replace one.")
        merged = merged | other
    return merged.astype(np.int32)


def pair(
    finding: Finding,
    images: dict[str, Path],
    masks: dict[str, tuple[Path, ...]],
    *,
    prefix: str = "",
    **reading: Any,
) -> None:
    """Add a source for every image that has a mask; images without one, and masks without image, are counted.

    reading: ``read_image``, ``read_label`` and ``label_scales`` of the sources
    """
    for key in sorted(images.keys() & masks.keys()):
        finding.sources.append(Source(prefix + key, "", images[key], masks[key], **reading))
    finding.leave_out("images without mask", len(images.keys() - masks.keys()))
    finding.leave_out("masks without image", len(masks.keys() - images.keys()))
    finding.used |= {*images.values(), *(file for files in masks.values() for file in files)}


def find_paired_folders(files: Sequence[Path]) -> tuple[dict[str, Path], dict[str, tuple[Path, ...]]]:
    """Pictures in ``.../images`` and their masks in ``.../masks`` beside it, by stem, with ``_mask`` or without."""
    images: dict[str, Path] = {}
    masks: dict[str, tuple[Path, ...]] = {}
    with_images, with_masks = (
        {file.parent.parent for file in files if folder_name(file) in names} for names in (IMAGES_NAMES, MASKS_NAMES)
    )
    parents = with_images & with_masks
    for file in files:
        if file.parent.parent not in parents:
            continue
        if folder_name(file) in IMAGES_NAMES and is_picture(file):
            images.setdefault(file.stem, file)
        elif folder_name(file) in MASKS_NAMES and is_mask(file):
            masks.setdefault(file.stem.removesuffix("_mask").removesuffix("_label"), (file,))
    return images, masks
