"""Who works on a cell: one file that is there or not, so that processes and machines can share a folder.

A claim is made by creating CELL/claim.json, which the file system does for one asker only, and kept by touching it. A
claim whose process has ended (seen on the same machine), or that was not touched for `STALE_S` (by the file system's
clock, so that machines need not agree on the time), is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from semgan.artifacts import locked_folder

BEAT_S = 15.0
STALE_S = 180.0
FILE = "claim.json"


class ClaimLost(RuntimeError):
    """Another process took the cell over, because this one was silent for too long."""


def holder(folder: Path) -> str | None:
    """Who works on the cell now, "host, process 12"; None where nobody does."""
    claim = folder / FILE
    found = _read(claim)
    if found is None or _is_stale(claim, found):
        return None
    return f"{found.get('host', 'another machine')}, process {found.get('pid', '?')}"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Callable[[], None] | None]:
    """Hold a cell while the block runs; gives None where another process does.

    What it gives is called by the worker now and then: it raises `ClaimLost` where the claim was taken over.
    """
    token = uuid.uuid4().hex
    if not _take(folder, token):
        yield None
        return
    lost, ended = threading.Event(), threading.Event()

    def keep() -> None:
        while not ended.wait(BEAT_S):
            if not _is_ours(folder, token):
                lost.set()
                return
            with contextlib.suppress(OSError):  # a full or absent disk for a moment does not end the training
                os.utime(folder / FILE)

    def check() -> None:
        if lost.is_set():
            raise ClaimLost(f"{folder} was taken over by another process, for this one was silent for too long.")

    thread = threading.Thread(target=keep, name=f"claim of {folder.name}", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
        if _is_ours(folder, token):
            (folder / FILE).unlink(missing_ok=True)


def _take(folder: Path, token: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    claim = folder / FILE
    with locked_folder(folder):  # two that see the same stale claim take it over one after the other
        found = _read(claim)
        if found is not None:
            if not _is_stale(claim, found):
                return False
            claim.unlink(missing_ok=True)
        try:
            handle = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"token": token, **_self(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}, file)
    return True


def _self() -> dict[str, Any]:
    return {"host": platform.node(), "space": _process_space(), "pid": os.getpid()}


def _process_space() -> str:
    """Where a process number means the same: this boot of this machine, this container."""
    parts = []
    with contextlib.suppress(OSError):
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _read(claim: Path) -> dict[str, Any] | None:
    """None where there is no claim; one that is being written, or is damaged, is held by somebody unknown."""
    try:
        found = json.loads(claim.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_ours(folder: Path, token: str) -> bool:
    found = _read(folder / FILE)
    return found is not None and found.get("token") == token


def _is_stale(claim: Path, found: dict[str, Any]) -> bool:
    own = _self()
    if own["space"] and all(found.get(name) == own[name] for name in ("host", "space")):
        return not _is_alive(int(found["pid"]))
    try:
        return _present(claim.parent) - claim.stat().st_mtime > STALE_S
    except FileNotFoundError:
        return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _present(folder: Path) -> float:
    """The time by the clock that stamps this folder's files."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # not ours to write: look only
        return time.time()
