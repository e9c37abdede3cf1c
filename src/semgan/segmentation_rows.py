"""Rows of segmentation.csv: noted one by one while work goes on, so that it can go on after a stop."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semgan import artifacts

if TYPE_CHECKING:
    from semgan.data.whole_images import SegmentedImage

TABLE = "segmentation.csv"
ROWS = "rows.jsonl"  # one finished image per line; only while work goes on
SCORED = r"scores\.json|cases\.csv"  # what `semgan evaluate` puts beside masks, and is said of no others
LOOK_AT = "look_at"  # column: 1 where an answer should be looked at; only where trust was fitted
Row = dict[str, Any]


def answer_row(answer: SegmentedImage, columns: Callable[[SegmentedImage], Row]) -> Row:
    """An image's row but for what names it: steps, confidence, losses, what ``columns`` says of it, seconds."""
    losses = {name: round(value, 6) for name, value in answer.losses.items()}
    return {
        "steps": answer.steps,
        "confidence": round(answer.confidence, 6),
        **losses,
        **columns(answer),
        "seconds": round(answer.seconds, 4),
    }


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """A short name for inputs (stem, file) that changes with any name, size or time of change."""
    known = hashlib.sha256()
    for stem, path in files:
        about = path.stat()
        known.update(f"{stem} {path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return known.hexdigest()[:16]


def noted(rows: io.TextIOBase | Any, row: Row) -> Row:
    """The row, once it is written down."""
    rows.write(json.dumps(row) + "\n")
    rows.flush()
    return row


def taken_up(partial: Path, suffix: str, *, goes_on: bool) -> list[Row]:
    """Rows of an earlier start whose masks STEM + suffix are on disk; none where work begins anew.

    Leaves whole lines only, so that a line cut off by a kill is not continued by the next.
    """
    rows: list[Row] = []
    if goes_on and (partial / ROWS).is_file():
        rows = artifacts.read_metrics(partial / ROWS)
    elif goes_on and (partial / TABLE).is_file():  # stopped between the table and the final name
        rows = read_rows(partial / TABLE)
    done = [row for row in rows if (partial / f"{row['stem']}{suffix}").is_file()]
    artifacts.write_text_atomic(partial / ROWS, "".join(json.dumps(row) + "\n" for row in done))
    return done


def write_table(partial: Path, done: Sequence[Row], name: str = TABLE) -> list[Row]:
    """A table instead of the notes; its rows, sorted by stem."""
    rows = sorted(done, key=lambda row: row["stem"])
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    artifacts.write_text_atomic(partial / name, text.getvalue())
    (partial / ROWS).unlink(missing_ok=True)
    return rows


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, numbers as numbers. Raises ValueError for a value that is none."""
    kinds = {"stem": str, "method": str, "answer": str, "steps": int, "slices": int, "draws": int, "look_at": int}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for line, row in enumerate(rows, start=2):
        for name, value in row.items():
            try:
                row[name] = kinds.get(name, float)(value)
            except (TypeError, ValueError):  # TypeError: a line that is cut off
                raise ValueError(f"{path}, line {line}, has '{value}' as {name}; make the folder again.") from None
    return rows


def swapped(predictions: Path, labels: Path) -> str | None:
    """A remark where a folder of labels, and not that of predictions, has the table that `semgan segment` writes."""
    if not (labels / TABLE).is_file() or (predictions / TABLE).is_file():
        return None
    return (
        f"{labels}, given as the true masks, holds predictions of `semgan segment`, and {predictions} does not. If "
        "they are swapped, missed and wrong pixels change places, and scores.json lies beside the true masks."
    )
