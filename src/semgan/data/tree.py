"""Folders of files, and folders of folders of files (of patients, of days)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

JOINED = "__"  # a/b.png is the picture a__b, as `semgan data prepare folder` names it


def walk(
    root: Path, is_left_out: Callable[[Path], bool] = lambda folder: False, *, hidden_files: bool = False
) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder of a tree with its files, in order of their names; hidden folders, and files, are passed over.

    Links to folders elsewhere are followed, and every folder is met once. Nothing where there is no folder; raises
    OSError for one that cannot be read.
    """
    if not root.is_dir():
        return
    top, met = os.path.realpath(root), set()
    for where, inner, names in os.walk(root, onerror=_raised, followlinks=True):
        real = os.path.realpath(where)
        if real in met or (os.path.islink(where) and where != os.fspath(root) and _is_within(real, top)):
            inner.clear()
            continue
        met.add(real)
        shown = sorted(name for name in inner if not name.startswith("."))
        inner[:] = [name for name in shown if not is_left_out(Path(where, name))]
        paths = (Path(where, name) for name in sorted(names) if hidden_files or not name.startswith("."))
        yield Path(where), [path for path in paths if path.is_file()]


def _raised(error: OSError) -> NoReturn:
    raise error


def _is_within(place: str, top: str) -> bool:
    return os.path.commonpath([place, top]) == top


def files_of(folder: Path, is_wanted: Callable[[Path], bool]) -> list[Path]:
    """The files of a folder, sorted; where none of them is wanted, all files of its sub-folders instead.

    So a folder of pictures that has other folders beside them (masks, thumbnails) is those pictures alone.
    """
    own = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if any(is_wanted(path) for path in own):
        return own
    found = [path for _, files in walk(folder) for path in files]
    return found if any(is_wanted(path) for path in found) else own


def stem_within(folder: Path, path: Path, stem: str, joined: str = JOINED) -> str:
    """The stem of a file after the names of the folders between it and ``folder``."""
    return joined.join((*path.relative_to(folder).parent.parts, stem))
