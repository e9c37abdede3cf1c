"""The list of inputs, frozen by the first worker and cut into units; the others read it."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from semgan import artifacts
from semgan.archive.inputs import Entry
from semgan.claims import ClaimLost, claimed

MARKER = "archive.json"
INPUTS = "inputs.jsonl"
UNITS = "units.csv"
POLL_S = 1.0
_BEGUN = {"open", INPUTS, UNITS}  # all that an archive holds before its marker


@dataclass(frozen=True, slots=True)
class UnitSpan:
    """One unit: its lines in the list of inputs."""

    name: str
    offset: int  # bytes
    count: int
    first: int  # number of its first line


class Plan:
    """The frozen inputs of an archive folder."""

    def __init__(self, out: Path, described: dict[str, Any]) -> None:
        self.out = out
        self.images: int | None = described["images"]  # None: shards, whose content nobody has counted
        self._repeated = frozenset(described.get("repeated", ()))  # numbers of lines
        self.units: list[UnitSpan] = []
        first = 0
        for name, at, count in _csv_rows(out / UNITS):
            self.units.append(UnitSpan(name, int(at), int(count), first))
            first += int(count)

    def entries(self, unit: UnitSpan) -> Iterator[Entry]:
        """The lines of one unit, read as they are needed."""
        with open(self.out / INPUTS, "rb") as file:
            file.seek(unit.offset)
            for number, line in enumerate(islice(file, unit.count), unit.first):
                entry = Entry(*json.loads(line))
                yield replace(entry, repeated=True) if number in self._repeated else entry

    def done_folder(self, unit: UnitSpan) -> Path:
        return self.out / "units" / unit.name

    def is_done(self, unit: UnitSpan) -> bool:
        return self.done_folder(unit).is_dir()

    def done_units(self) -> set[str]:
        folder = self.out / "units"
        return set(os.listdir(folder)) if folder.is_dir() else set()


def joined_plan(
    out: Path, request: dict[str, Any], entries: Callable[[], Iterable[Entry]], *, unit_images: int | None
) -> Plan:
    """The plan in ``out``: made by the worker that comes first, while the others wait.

    unit_images: images per unit; None: each entry, a shard, is one
    Raises FileExistsError where ``out`` holds other results or foreign files, and what ``entries`` raises.
    """
    while True:
        plan = found_plan(out, request)
        if plan is not None:
            return plan
        with claimed(out / "open" / "plan") as check:
            if check is not None and not (out / MARKER).is_file():
                try:
                    images, repeated = _write_lists(out, entries(), unit_images, check)
                except ClaimLost:  # to another worker, which makes the lists
                    continue
                except BaseException:
                    with contextlib.suppress(ClaimLost):  # what another has begun stays
                        check()
                        discard(out)
                    raise
                artifacts.write_json(out / MARKER, {"request": request, "images": images, "repeated": repeated})
                continue
        time.sleep(POLL_S)


def found_plan(out: Path, request: dict[str, Any]) -> Plan | None:
    """The plan that is there; None where ``out`` is new. Raises FileExistsError as `joined_plan`."""
    if out.is_file():
        raise FileExistsError(f"{out} is a file; give a folder with -o.")
    if (out / MARKER).is_file():
        described = artifacts.read_json(out / MARKER)
        if described.get("request") != request:
            raise FileExistsError(
                f"{out} holds results {_difference(described.get('request'), request)}; give a new folder with -o, or "
                "remove this one: archives are never mixed nor replaced."
            )
        return Plan(out, described)
    content = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(name for name in content - _BEGUN if not name.startswith("."))
    if foreign and not (out / MARKER).is_file():
        raise FileExistsError(f"{out} exists and holds other files ({foreign[0]}); give a new folder with -o.")
    return None


def _difference(found: Any, request: dict[str, Any]) -> str:
    """What was found, in words, where it was not made by ``request``."""
    judged = ("trust", "temperature")  # options that a fit of trust puts there
    try:
        known, asked = (
            {**one, "options": {name: value for name, value in one["options"].items() if name not in judged}}
            for one in (found, request)
        )
        before, now = (one["options"].get("trust") for one in (found, request))
    except (KeyError, TypeError, AttributeError):
        return "in another format"
    if known != asked:
        return "of another model, other images or other options"
    if before is None:
        return (
            "without predicted scores, of before `semgan trust fit` or of an older version (which go on, without "
            "scores, while trust.json is out of the model folder)"
        )
    return "of another `semgan trust fit`" if now is not None else "judged by a trust.json that is not used now"


def _write_lists(
    out: Path, entries: Iterable[Entry], unit_images: int | None, check: Callable[[], None]
) -> tuple[int | None, list[int]]:
    """Write inputs.jsonl and units.csv as the entries come; the number of images, None for shards, and the lines whose
    name an earlier one has."""
    lists = out / INPUTS, out / UNITS
    temporary = [out / "open" / "plan" / f"{path.name}-{uuid.uuid4().hex}" for path in lists]  # goes with the claims
    count = units = start = 0
    repeated: list[int] = []
    try:
        with (
            contextlib.closing(_Names()) as names,
            open(temporary[0], "wb") as inputs,
            open(temporary[1], "w", encoding="utf-8", newline="") as table,
        ):
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(["unit", "offset", "lines"])
            size, at = unit_images or 1, 0
            name = ""
            for entry in entries:
                if count - start == size:
                    writer.writerow([name, at, size])
                    at, start, units = inputs.tell(), count, units + 1
                    check()
                name = f"{units:06d}" if unit_images else entry.name
                if names.has(entry.name):
                    repeated.append(count)
                inputs.write(json.dumps([entry.name, entry.address]).encode() + b"\n")
                count += 1
            if count == 0:
                raise FileNotFoundError("There is nothing to segment: no image, or no line in the manifest.")
            writer.writerow([name, at, count - start])
            for file in (inputs, table):
                file.flush()
                os.fsync(file.fileno())
        check()  # others may work with their own lists, whose order may differ
        for path, final in zip(temporary, lists, strict=True):
            os.replace(path, final)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    return count if unit_images else None, repeated


class _Names:
    """Which names came before, in a temporary database on disk: memory does not grow with them.

    By 64 bits of each: two of 10 million share them once in 400,000 such lists.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # its file is deleted when it is closed
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("BEGIN")
        self._database.execute("CREATE TABLE names (hash INTEGER PRIMARY KEY)")

    def has(self, name: str) -> bool:
        """Whether the name came before; it has come now. Raises OSError where the temporary folder is full."""
        try:
            return self._database.execute("INSERT OR IGNORE INTO names VALUES (?)", (hash(name),)).rowcount == 0
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC, str(error), tempfile.gettempdir()) from error

    def close(self) -> None:
        self._database.close()


def discard(out: Path) -> None:
    """Take away an archive that was never begun."""
    shutil.rmtree(out / "open", ignore_errors=True)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def _csv_rows(path: Path) -> Iterator[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        yield from rows
