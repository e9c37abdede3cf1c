"""Folders of files, and folders of folders of files (of patients, of days)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

WRITTEN = ".written.json"  # in results: the paths that their verb wrote
JOINED = "__"  # a/b.png is the picture a__b, as `semgan data prepare folder` names it


def walk(
    root: Path, is_left_out: Callable[[Path], bool] = lambda folder: False, *, hidden_files: bool = False
) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder of a tree with its files, in order of their names; hidden folders, and files, are passed over.

    Links to folders elsewhere are followed, and every folder is met once. Nothing where there is no folder; raises
    OSError for one that cannot be read, FileNotFoundError for links to what is not there.
    """
    if not root.is_dir():
        return
    top, met = os.path.realpath(root), set()
    for where, inner, names in os.walk(root, onerror=_raised, followlinks=True):
        real = os.path.realpath(where)
        if real in met or (os.path.islink(where) and where != os.fspath(root) and _is_met_elsewhere(real, top)):
            inner.clear()
            continue
        met.add(real)
        shown = sorted(name for name in inner if not name.startswith("."))
        inner[:] = [name for name in shown if not is_left_out(Path(where, name))]
        paths = (Path(where, name) for name in sorted(names) if hidden_files or not name.startswith("."))
        yield Path(where), [path for path in paths if _is_there(path)]


def _raised(error: OSError) -> NoReturn:
    raise error


def _is_there(path: Path) -> bool:
    """Whether it is a file. Raises FileNotFoundError for a link to what is not there, which is no file left out.

    Not for hidden ones: editors lock files with such links.
    """
    if path.is_symlink() and not path.exists() and not path.name.startswith("."):
        raise FileNotFoundError(f"{path} is a link to what is not there: mount the disk, fetch the file, or remove it.")
    return path.is_file()


def _is_met_elsewhere(real: str, top: str) -> bool:
    """Whether a link's folder is met under its own name, or holds the whole tree."""
    above = os.path.commonpath([real, top])
    is_hidden = any(part.startswith(".") for part in Path(os.path.relpath(real, top)).parts)
    return above == real or (above == top and not is_hidden)


def holds_results(folder: Path) -> bool:
    """Whether a folder is of results, finished (`semgan.result_folder`) or not: no input, wherever it lies."""
    return folder.name.endswith(".partial") or (folder / WRITTEN).is_file()


def files_of(folder: Path, is_wanted: Callable[[Path], bool]) -> list[Path]:
    """The files of a folder, sorted; where none of them is wanted, all files of its sub-folders instead.

    So a folder of pictures that has other folders beside them (masks, thumbnails) is those pictures alone. Results
    among the sub-folders are passed over, and so are the sub-folders of results.
    """
    own = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _is_there(path))
    if any(is_wanted(path) for path in own) or holds_results(folder):
        return own
    found = [path for _, files in walk(folder, holds_results) for path in files]
    return found if any(is_wanted(path) for path in found) else own


def stem_within(folder: Path, path: Path, stem: str, joined: str = JOINED) -> str:
    """The stem of a file after the names of the folders between it and ``folder``."""
    return joined.join((*path.relative_to(folder).parent.parts, stem))


def channel_files(first: Path) -> list[Path]:
    """The files of an image: ``STEM_0000.png`` and the ``STEM_0001.png``, ... there are, or a file of another name."""
    files = [first]
    if first.stem.endswith("_0000"):
        while (path := first.with_name(f"{first.stem[:-4]}{len(files):04d}{first.suffix}")).exists():
            files.append(path)
    return files
