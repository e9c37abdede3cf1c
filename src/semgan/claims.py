"""Who works on a piece of work: files that are there or not, so that processes and machines can share a folder.

A claim is made by creating FOLDER/claim.json, which the file system does for one asker only, and kept by touching it. A
claim whose process has ended (seen on the same machine), or that was not touched for `STALE_S` (by the file system's
clock, so that machines need not agree on the time), is taken over: by creating claim.1.json, then claim.2.json, ...
The highest number holds. No locks, which shared file systems may lack.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BEAT_S = 15.0
STALE_S = 180.0
FILE = "claim.json"
_CLAIM = re.compile(r"claim(?:\.(\d+))?\.json")


class ClaimLost(RuntimeError):
    """Another process took the work over, because this one was silent for too long."""


def holder(folder: Path) -> str | None:
    """Who works in the folder now, "host, process 12"; None where nobody does."""
    for _, claim in reversed(_claims(folder)):
        found = _read(claim)
        if found is not None and not _is_stale(claim, found):
            return f"{found.get('host', 'another machine')}, process {found.get('pid', '?')}"
    return None


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Callable[[], None] | None]:
    """Hold a folder while the block runs; gives None where another process does.

    What it gives is called by the worker now and then: it raises `ClaimLost` where the claim was taken over.
    """
    token = uuid.uuid4().hex
    claim = _take(folder, token)
    if claim is None:
        yield None
        return
    lost, ended = threading.Event(), threading.Event()

    def look() -> None:
        with contextlib.suppress(OSError):  # a full or absent disk for a moment does not end the work
            if _is_lost(claim, token):
                lost.set()

    def keep() -> None:
        while not (ended.wait(BEAT_S) or lost.is_set()):
            look()
            with contextlib.suppress(OSError):
                if not lost.is_set():
                    os.utime(claim)

    def check() -> None:
        look()  # after a long silence the thread has not looked yet
        if lost.is_set():
            raise ClaimLost(f"{folder} was taken over by another process, for this one was silent for too long.")

    thread = threading.Thread(target=keep, name=f"claim of {folder.name}", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
        if _is_ours(claim, token):
            for _, path in _claims(folder):  # those it took over first, its own last
                path.unlink(missing_ok=True)


def _take(folder: Path, token: str) -> Path | None:
    """The claim, made; None where somebody else holds the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _claims(folder)
        if any(_is_held(path) for _, path in before):
            return None
        number = before[-1][0] + 1 if before else 0
        claim = folder / (FILE if number == 0 else f"claim.{number}.json")
        handle = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except (FileExistsError, FileNotFoundError):  # another was faster, or is tidying up after the end
        return None
    with open(handle, "w", encoding="utf-8") as file:
        json.dump({"token": token, **_self(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}, file)
    # One may have come in under another number, where a holder ended between our look and our claim: both give way.
    if any(_is_held(path) for _, path in _claims(folder) if path != claim):
        claim.unlink(missing_ok=True)
        return None
    return claim


def _claims(folder: Path) -> list[tuple[int, Path]]:
    """All claims of a folder with their numbers, lowest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [(match, folder / match[0]) for match in map(_CLAIM.fullmatch, names) if match]
    return sorted((int(match[1] or 0), path) for match, path in found)


def _is_held(claim: Path) -> bool:
    found = _read(claim)
    return found is not None and not _is_stale(claim, found)


def _self() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": platform.node(), "space": _process_space(), "pid": pid, "started": _state_of(pid)[1]}


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


def _is_ours(claim: Path, token: str) -> bool:
    return (_read(claim) or {}).get("token") == token and _is_highest(claim)


def _is_lost(claim: Path, token: str) -> bool:
    """Whether it is gone, or another's; one that cannot be read for the moment is not lost."""
    found = _read(claim)
    return found is None or found.get("token", token) != token or not _is_highest(claim)


def _is_highest(claim: Path) -> bool:
    return [path for _, path in _claims(claim.parent)][-1:] == [claim]


def _is_stale(claim: Path, found: dict[str, Any]) -> bool:
    own = _self()
    if own["space"] and all(found.get(name) == own[name] for name in ("host", "space")):
        return not _is_alive(int(found["pid"]), found.get("started"))
    try:
        return _present(claim.parent) - claim.stat().st_mtime > STALE_S
    except FileNotFoundError:
        return True


def _is_alive(pid: int, started: str | None) -> bool:
    """Whether the process of this number, begun then, goes on: numbers are given again, and the dead may keep theirs
    until their parent asks for them. ``started`` None: not known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, began = _state_of(pid)
    return state not in ("Z", "X") and (not started or began in (started, ""))


def _state_of(pid: int) -> tuple[str, str]:
    """A process' state (Z, X: dead), and when it began, in ticks since the boot; "" where the system does not tell."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    return "", ""


def _present(folder: Path) -> float:
    """The time by the clock that stamps this folder's files."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # not ours to write: look only
        return time.time()
