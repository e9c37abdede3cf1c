"""Folders of files, and folders of folders of files (of patients, of days)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

JOINED = "__"  # a/b.png is the picture a__b, as `semgan data prepare folder` names it


def files_of(folder: Path, is_wanted: Callable[[Path], bool]) -> list[Path]:
    """The files of a folder, sorted; where none of them is wanted, all files of its sub-folders instead.

    So a folder of pictures that has other folders beside them (masks, thumbnails) is those pictures alone. Hidden files
    and folders are passed over.
    """
    own = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if any(is_wanted(path) for path in own):
        return own
    found = []
    for where, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [Path(where) / name for name in sorted(names) if not name.startswith(".")]
    return found if any(is_wanted(path) for path in found) else own


def stem_within(folder: Path, path: Path, stem: str, joined: str = JOINED) -> str:
    """The stem of a file after the names of the folders between it and ``folder``."""
    return joined.join((*path.relative_to(folder).parent.parts, stem))
