"""The tables of all units as one: streamed, in the plan's order, written once however many workers ask."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from semgan import artifacts
from semgan.archive.plan import POLL_S, Plan
from semgan.archive.unit import ABOUT, PROBLEMS, ROWS
from semgan.claims import claimed
from semgan.segmentation_rows import TABLE

SUMMARY = "summary.json"
COUNTED = {ROWS: "images", PROBLEMS: "failed"}  # table of a unit -> what its unit.json says of its rows


def merged(plan: Plan) -> dict[str, Any]:
    """Write OUT/segmentation.csv, problems.csv and summary.json of finished units, unless that is done; the summary."""
    state = _state(plan)
    while (summary := _summary(plan.out)).get("state") != state:
        with claimed(plan.out / "open" / "merge") as check:
            if check is not None and _summary(plan.out).get("state") != state:
                _concatenated(plan, ROWS, plan.out / TABLE)
                _concatenated(plan, PROBLEMS, plan.out / PROBLEMS)
                artifacts.write_json(plan.out / SUMMARY, {**_totals(plan), "state": state})
                continue
        time.sleep(POLL_S)
    shutil.rmtree(plan.out / "open", ignore_errors=True)
    return summary


def _summary(out: Path) -> dict[str, Any]:
    return artifacts.read_json(out / SUMMARY) if (out / SUMMARY).is_file() else {}


def _state(plan: Plan) -> str:
    """Changes when any unit was done again."""
    known = hashlib.sha256()
    for unit in plan.units:
        about = plan.done_folder(unit) / ABOUT
        if not about.is_file():
            raise ValueError(_damaged(about))
        known.update(f"{unit.name} {about.stat().st_mtime_ns}\n".encode())
    return known.hexdigest()[:16]


def _damaged(lost: Path) -> str:
    return f"{lost} is missing. Remove the folder {lost.parent}, and the same command makes that unit again."


def _totals(plan: Plan) -> dict[str, int]:
    totals = {"units": len(plan.units), "images": 0, "failed": 0}
    for unit in plan.units:
        about = artifacts.read_json(plan.done_folder(unit) / ABOUT)
        for name in ("images", "failed"):
            totals[name] += about[name]
        if "flagged" in about:  # only where trust was fitted
            totals["flagged"] = totals.get("flagged", 0) + about["flagged"]
    return totals


def _concatenated(plan: Plan, name: str, target: Path) -> None:
    """One table of the units' tables called ``name``; none where no unit has one."""
    header = b""
    temporary = plan.out / "open" / "merge" / f"{name}-{uuid.uuid4().hex}"  # goes with the claims where we are killed
    try:
        with open(temporary, "wb") as out:
            for path in _tables(plan, name):
                with open(path, "rb") as file:
                    first = file.readline()
                    if not header:
                        header = first
                        out.write(header)
                    elif first != header:
                        raise ValueError(
                            f"{path} has other columns than the units before it, so another version of semgan wrote "
                            f"it. Remove the folder {path.parent.name} and run the same command again."
                        )
                    shutil.copyfileobj(file, out, 2**20)
            out.flush()
            os.fsync(out.fileno())
        if header:
            os.replace(temporary, target)
        else:
            target.unlink(missing_ok=True)
    finally:
        temporary.unlink(missing_ok=True)


def _tables(plan: Plan, name: str) -> Iterator[Path]:
    for unit in plan.units:
        path = plan.done_folder(unit) / name
        if path.is_file():
            yield path
        elif artifacts.read_json(path.with_name(ABOUT))[COUNTED[name]]:
            raise ValueError(_damaged(path))


def first_problems(out: Path, most: int) -> list[str]:
    """Up to ``most`` lines for people about images that could not be segmented."""
    path = out / PROBLEMS
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [f"{row['source']}: {row['problem']}" for row in islice(csv.DictReader(file), most)]
