"""One unit at work: claimed, its masks and rows gathered under a temporary name, put in place whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from semgan.archive.inputs import Item, Source
from semgan.archive.plan import Plan, UnitSpan
from semgan.claims import claimed
from semgan.segmentation_rows import LOOK_AT, Row

MASKS, ROWS, PROBLEMS, ABOUT = "masks.tar", "rows.csv", "problems.csv", "unit.json"
REPEATED = "an image before it in the list has the same name; give stems of their own in a manifest"
PROBLEM_COLUMNS = ("stem", "unit", "source", "problem")


class OpenUnit:
    """A unit that this worker holds. ``open`` it, add rows and problems in order, then ``finish``; or ``abandon``."""

    def __init__(self, plan: Plan, source: Source, span: UnitSpan, check: Callable[[], None], held: Any) -> None:
        self.plan, self.source, self.span, self.check = plan, source, span, check
        self.given_up = False  # read by the thread that feeds the network
        self.is_closed = False
        self._held: contextlib.ExitStack = held
        work = plan.out / "open" / span.name
        for old in work.iterdir():  # what a worker left that was killed
            if old.is_dir():
                _take_away(old)
        self._folder = work / uuid.uuid4().hex
        self._folder.mkdir()
        self._files = contextlib.ExitStack()
        self._masks = self._files.enter_context(tarfile.open(self._folder / MASKS, "w", format=tarfile.PAX_FORMAT))
        self._rows: csv.DictWriter | None = None
        self._problems: csv.DictWriter | None = None
        self.images = self.failed = 0
        self.flagged: int | None = None  # to be looked at; None: nothing judges the answers

    @classmethod
    def open(cls, plan: Plan, source: Source, span: UnitSpan) -> OpenUnit | None:
        """The unit, claimed; None where it is done, or another worker is at it."""
        if plan.is_done(span):
            return None
        with contextlib.ExitStack() as stack:
            check = stack.enter_context(claimed(plan.out / "open" / span.name))
            if check is None or plan.is_done(span):  # done between our look and our claim
                return None
            return cls(plan, source, span, check, stack.pop_all())

    def items(self) -> Iterator[Item]:
        """The unit's images in order, until it is given up. A second image of one name becomes a problem."""
        seen: set[str] = set()
        for item in self._all_items():
            if self.given_up:
                return
            if item.problem is None and item.name in seen:
                item = Item(item.name, item.address, problem="another image of this unit has the same name")
            seen.add(item.name)
            yield item

    def _all_items(self) -> Iterator[Item]:
        for entry in self.plan.entries(self.span):
            if self.plan.images is None:
                yield from self.source.members_of(entry.address)
            else:
                yield Item(entry.name, entry.address, problem=REPEATED if entry.repeated else None)

    def add(self, item: Item, row: Row, mask: bytes) -> None:
        """One image's results: its row without stem and unit, its mask as PNG."""
        info = tarfile.TarInfo(f"{item.name}.png")
        info.size = len(mask)
        self._masks.addfile(info, io.BytesIO(mask))
        self._masks.members = []  # else it keeps every header  # type: ignore[attr-defined]
        row = {"stem": item.name, "unit": self.span.name, **row}
        if self._rows is None:
            self._rows = self._table(ROWS, tuple(row))
        self._rows.writerow(row)
        self.images += 1
        if LOOK_AT in row:
            self.flagged = (self.flagged or 0) + row[LOOK_AT]

    def add_problem(self, item: Item, problem: str) -> None:
        if self._problems is None:
            self._problems = self._table(PROBLEMS, PROBLEM_COLUMNS)
        row = {"stem": item.name, "unit": self.span.name, "source": item.address, "problem": problem}
        self._problems.writerow(row)
        self.failed += 1

    def finish(self) -> bool:
        """Put the results in place; False where another worker already had.

        Raises FileNotFoundError where the one who took the unit over has taken our files away.
        """
        self._files.close()
        counts = {"images": self.images, "failed": self.failed}
        about = json.dumps(counts if self.flagged is None else counts | {"flagged": self.flagged}, indent=2)
        # Not by `artifacts`, which would make a folder anew that another worker has taken away, without the masks.
        (self._folder / ABOUT).write_text(about + "\n", encoding="utf-8")
        for path in self._folder.iterdir():
            _flush(path)
        _flush(self._folder)
        target = self.plan.done_folder(self.span)
        target.parent.mkdir(exist_ok=True)
        try:
            os.rename(self._folder, target)
            _flush(target.parent)
            return True
        except OSError:
            if not target.is_dir():
                raise
            return False
        finally:
            self._let_go()

    def abandon(self) -> None:
        """Leave the unit to others; nothing of it stays."""
        self.given_up = True
        with contextlib.suppress(OSError):  # of a full disk, whose files go now
            self._files.close()
        self._let_go()

    def _let_go(self) -> None:
        self.is_closed = True
        shutil.rmtree(self._folder, ignore_errors=True)
        self._held.close()

    def _table(self, name: str, columns: tuple[str, ...]) -> csv.DictWriter:
        # Addresses may hold bytes that are no text, as file names may.
        file: IO[str] = open(self._folder / name, "w", encoding="utf-8", errors="backslashreplace", newline="")
        table = csv.DictWriter(self._files.enter_context(file), columns, lineterminator="\n")
        table.writeheader()
        return table


def _take_away(folder: Path) -> None:
    """Remove the work of a worker that may only be silent, at once by its name: it cannot put half in place."""
    gone = folder.with_name(f"gone-{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):  # it has just put all of it in place
        os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have the disk hold what was written, before a name promises it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
