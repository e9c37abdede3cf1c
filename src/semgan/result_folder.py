"""A folder of results that appears whole or not at all: filled beside its final name, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from semgan import artifacts
from semgan.data.tree import WRITTEN  # made where work is done; whatever else lies there is another's


class ResultFolder:
    """Results of one request (a JSON-able description of everything they depend on) in the folder ``out``.

    While work goes on it lies in ``out.partial``; the same request finds it there again and may go on. Work that was
    done, and could only not take its name, takes it now.

    Files that others put into ``out`` outlive its results: they go over to those that take their place.

    A link stays one: the folder that it leads to is the one that is made.

    derived: pattern of paths, seen from ``out``, that are made from the results later (caches) and end with them
    grows: the request does not say how many results there are, so that work that was done is gone on with, after
    `reopen`

    Raises ValueError for a path without a name, PermissionError where nothing can be written, and what `finish` raises.
    """

    def __init__(
        self, out: Path, marker: str, request: dict[str, Any], derived: str = "", *, grows: bool = False
    ) -> None:
        self.out = Path(out)
        if self.out.is_symlink():
            self.out = self.out.resolve()  # results go where the link leads, and are renamed there
        if self.out.name in ("", ".."):
            raise ValueError(f"Results take the place of a folder as a whole, and {out} has no name; give one with -o.")
        self.partial = self.out.with_name(self.out.name + ".partial")
        self.marker = marker
        self.request = request
        self.derived = derived
        if not grows and self._is_done():
            self.finish()
        if not self.is_finished():
            self._check_writable()

    def _is_done(self) -> bool:
        """Whether the partial folder only waits for its name, and ``out`` holds nothing that came since."""
        if _noted(self.partial) is None or _request_in(self.partial / self.marker) != self.request:
            return False
        since, there = self.partial / WRITTEN, self.out / self.marker
        return not self.out.exists() or (there.is_file() and there.stat().st_mtime_ns <= since.stat().st_mtime_ns)

    def _check_writable(self) -> None:
        """Said before hours of work rather than after them."""
        place = next(folder for folder in self.out.absolute().parents if folder.exists())
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(f"{place} cannot be written, so {self.out} cannot be made; choose another -o.")

    def is_finished(self) -> bool:
        """Whether ``out`` already holds the answer to this very request."""
        return _request_in(self.out / self.marker) == self.request

    def begin(self, *, overwrite: bool = False) -> bool:
        """Make the partial folder; True where it holds work on the same request already.

        Raises FileExistsError where ``out`` has other content, or the partial folder work on another request: both are
        replaced with ``overwrite``, foreign files never.
        """
        if self.out.is_file():
            raise FileExistsError(f"{self.out} is a file; give a folder with -o.")
        if self.out.is_dir() and any(self.out.iterdir()):
            ours = (self.out / self.marker).is_file()
            if not ours:
                raise FileExistsError(f"{self.out} exists and holds other files; give a new folder with -o.")
            if not overwrite:
                raise FileExistsError(
                    f"{self.out} holds results of another model, other images or other options; "
                    "give a new folder with -o, or replace them with --overwrite."
                )
        if _request_in(self.partial / self.marker) == self.request:
            return True
        held = set(_files_in(self.partial)) if self.partial.exists() else set()
        if held and self.marker not in held:
            raise FileExistsError(f"{self.partial} is in the way and holds other files; move it away.")
        if not overwrite and held - {self.marker, WRITTEN}:
            raise FileExistsError(
                f"{self.partial} holds unfinished work for another model, other images or other options; give the "
                "command that began it again to go on with it, take another folder (-o), or drop that work: remove the "
                "folder, or give --overwrite where the command has it."
            )
        shutil.rmtree(self.partial, ignore_errors=True)
        artifacts.write_json(self.partial / self.marker, self.request)
        return False

    def reopen(self) -> None:
        """Work that was done becomes work that goes on: without its note, and without files of others from ``out``."""
        written = _noted(self.partial)
        if written is None:
            return
        if self.out.is_dir():
            for name in set(_files_in(self.partial)) - set(written):
                (self.partial / name).unlink()
        (self.partial / WRITTEN).unlink(missing_ok=True)

    @contextlib.contextmanager
    def filling(self, is_worth_keeping: Callable[[], Any] = lambda: False) -> Iterator[None]:
        """While the partial folder is filled: an error before anything is worth going on from takes it away."""
        try:
            yield
        except BaseException:
            if not is_worth_keeping():
                self.discard()
            raise

    def discard(self) -> None:
        """Take the partial folder away: nothing in it is worth going on from."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Give the partial folder its final name, without what killed writers left in it.

        Raises FileExistsError where a file of another has the name of a result; the finished work stays in
        ``out.partial``, and the same request takes it up.
        """
        written = _noted(self.partial)
        if written is None:
            for path in self.partial.rglob(".*"):
                if artifacts.is_temporary(path) and path.is_file():
                    path.unlink()
            (self.partial / WRITTEN).unlink(missing_ok=True)
            written = sorted(_files_in(self.partial))
            artifacts.write_text_atomic(self.partial / WRITTEN, json.dumps(written))  # names need not be Unicode
        old = artifacts.old_beside(self.out)
        strangers = self._strangers() if self.out.is_dir() else []
        self._refuse(_in_the_way(strangers, written))
        for name in strangers:
            (self.partial / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(self.out / name, self.partial / name)
        if self.out.is_dir():
            os.replace(self.out, old)
        os.replace(self.partial, self.out)
        shutil.rmtree(old, ignore_errors=True)

    def results(self) -> list[str]:
        """Paths in ``out`` of what its verb wrote; of all files where an earlier version did not note its own."""
        own = _noted(self.out)
        if own is not None:
            return own
        return _files_in(self.out) if (self.out / self.marker).is_file() else []

    def _strangers(self) -> list[str]:
        """Files that others put into ``out``."""
        own = {*self.results(), WRITTEN}
        found = (name for name in _files_in(self.out) if name not in own)
        return [
            name
            for name in found
            if not re.fullmatch(self.derived, name) and not artifacts.is_temporary(self.out / name)
        ]

    def _refuse(self, names: list[str]) -> None:
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise FileExistsError(
                f"{self.out / names[0]}{more} was put there by others, and a result has that name; move it away and "
                "give the same command again: the work is done."
            )


def _noted(folder: Path) -> list[str] | None:
    """The paths that the verb of a folder wrote; None where it did not note them."""
    try:
        written = artifacts.read_json(folder / WRITTEN)
    except (OSError, ValueError):
        return None
    return written if isinstance(written, list) else None


def _in_the_way(strangers: Sequence[str], written: Sequence[str]) -> list[str]:
    """Files of others that have the name of a result or of a folder of results, or whose folder has a result's."""
    results = set(written)
    folders = {str(folder) for name in written for folder in PurePosixPath(name).parents}
    return [
        name
        for name in sorted(strangers)
        if name in results or name in folders or any(str(folder) in results for folder in PurePosixPath(name).parents)
    ]


def _files_in(folder: Path) -> list[str]:
    """Everything below a folder that is no folder, seen from it."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return [path.relative_to(folder).as_posix() for path in paths]


def link_or_copy(source: Path | str, target: Path | str) -> Path | str:
    """A second name of the file where the disk knows links, else a copy; a file that is there stays."""
    with contextlib.suppress(OSError):
        os.link(source, target, follow_symlinks=False)
        return target
    return target if os.path.lexists(target) else copy_whole(source, target)


def copy_whole(source: Path | str, target: Path | str) -> Path | str:
    """A copy with the file's dates, whole or not there; of a link, a link."""
    temporary = artifacts.temporary_beside(Path(target))
    shutil.copy2(source, temporary, follow_symlinks=False)
    os.replace(temporary, target)
    return target


def _request_in(path: Path) -> Any:
    try:
        return artifacts.read_json(path)
    except (OSError, ValueError):
        return None
