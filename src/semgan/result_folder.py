"""A folder of results that appears whole or not at all: filled beside its final name, then renamed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from semgan import artifacts


class ResultFolder:
    """Results of one request (a JSON-able description of everything they depend on) in the folder ``out``.

    While work goes on it lies in ``out.partial``; the same request finds it there again and may go on.

    own: pattern of the paths, seen from ``out``, that the verb writes: whatever else lies in ``out`` outlives its
    results. None: all of ``out`` is the verb's
    """

    def __init__(self, out: Path, marker: str, request: dict[str, Any], own: str | None = None) -> None:
        self.out = Path(out)
        if self.out.name in ("", ".."):
            raise ValueError(f"Results take the place of a folder as a whole, and {out} has no name; give one with -o.")
        self.partial = self.out.with_name(self.out.name + ".partial")
        self.marker = marker
        self.request = request
        self.own = own

    def is_finished(self) -> bool:
        """Whether ``out`` already holds the answer to this very request."""
        return _request_in(self.out / self.marker) == self.request

    def begin(self, *, overwrite: bool = False) -> bool:
        """Make the partial folder; True where it holds work on the same request already.

        Raises FileExistsError where ``out`` has other content: results of another request are replaced with
        ``overwrite``, foreign files never.
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
        if self.partial.exists() and not (self.partial / self.marker).is_file() and any(self.partial.iterdir()):
            raise FileExistsError(f"{self.partial} is in the way and holds other files; move it away.")
        shutil.rmtree(self.partial, ignore_errors=True)
        artifacts.write_json(self.partial / self.marker, self.request)
        return False

    def discard(self) -> None:
        """Take the partial folder away: nothing in it is worth going on from."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Give the partial folder its final name, without what killed writers left in it."""
        for path in self.partial.rglob(".*"):
            if artifacts.is_temporary(path) and path.is_file():
                path.unlink()
        old = self.out.with_name(f".{self.out.name}.old-{os.getpid()}")
        if self.out.is_dir():
            self._keep_strangers()
            os.replace(self.out, old)
        os.replace(self.partial, self.out)
        shutil.rmtree(old, ignore_errors=True)

    def _keep_strangers(self) -> None:
        """Files that others put into ``out``: links in the partial folder, or copies where the disk knows none."""
        if self.own is None:
            return
        for path in self.out.rglob("*"):
            name = path.relative_to(self.out)
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder or re.fullmatch(self.own, name.as_posix()) or artifacts.is_temporary(path):
                continue
            (self.partial / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, self.partial / name)


def link_or_copy(source: Path | str, target: Path | str) -> Path | str:
    """A second name of the file where the disk knows links, else a copy; a file that is there stays."""
    with contextlib.suppress(OSError):
        os.link(source, target, follow_symlinks=False)
        return target
    return target if os.path.lexists(target) else shutil.copy2(source, target, follow_symlinks=False)


def _request_in(path: Path) -> Any:
    try:
        return artifacts.read_json(path)
    except (OSError, ValueError):
        return None
