"""The results tables, ``results/NAME/scores.csv``: one row per task, model, test set, class and optimisation step.

steps:  0 for the encoder alone (and for methods without optimisation), ``auto`` for every image's own by a rule;
chosen: 1 where it was picked on the validation list (the reported number), else 0; class ``mean``: mean over the
classes that count; n: cases.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from semgan import artifacts
from semgan.metrics.overlap import METRICS
from semgan.types import AUTO, Steps, parse_steps

MEAN = "mean"
NOT_IN_KEY = ("chosen", "n", "value", "commit")  # the rest tells which number a row gives
NOT_IN_SUBJECT = (*NOT_IN_KEY, "class_name", "steps")  # the rest tells which model and which test set


@dataclass(frozen=True)
class ScoreRow:
    """One number of a results table. labels: size of the labelled list, 0 where none was used; value: in [0, 1]."""

    task: str
    metric: str
    resolution: int
    labels: int
    split_seed: int
    seed: int
    method: str
    test_set: str
    class_name: str
    steps: Steps
    chosen: int
    n: int
    value: float
    commit: str

    def __post_init__(self) -> None:
        texts = {"task": self.task, "method": self.method, "test_set": self.test_set, "class": self.class_name}
        empty = [name for name, text in {**texts, "commit": self.commit}.items() if not str(text).strip()]
        if empty:
            raise ValueError(f"A row of scores needs {', '.join(empty)}; got nothing there: {self}.")
        if self.metric not in METRICS:
            raise ValueError(f"Unknown metric '{self.metric}' in a row of scores; choose one of {', '.join(METRICS)}.")
        limits = {"resolution": 1, "labels": 0, "split_seed": 0, "seed": 0, "n": 1}
        limits |= {} if self.steps == AUTO else {"steps": 0}
        for name, least in limits.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"{name} in a row of scores is a whole number from {least}; got {number!r}.")
        if self.chosen not in (0, 1):
            raise ValueError(f"chosen is 1 (picked on validation) or 0; got {self.chosen!r}.")
        if not 0 <= self.value <= 1:  # also catches nan
            raise ValueError(f"A score lies between 0 and 1; got {self.value!r} for {self.method}, {self.test_set}.")

    @property
    def key(self) -> tuple[object, ...]:
        """What the row is about."""
        return tuple(value for name, value in asdict(self).items() if name not in NOT_IN_KEY)

    @property
    def subject(self) -> tuple[object, ...]:
        """Which model on which test set."""
        return tuple(value for name, value in asdict(self).items() if name not in NOT_IN_SUBJECT)


# "class" is a word of Python, so the field is class_name and the column class.
COLUMNS = tuple("class" if item.name == "class_name" else item.name for item in fields(ScoreRow))


def read_rows(path: Path) -> list[ScoreRow]:
    """Rows of a scores.csv, checked. Raises ValueError naming the file and line, FileNotFoundError for no file."""
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.reader(file)
        header = next(table, [])
        if tuple(header) != COLUMNS:
            raise ValueError(f"{path} has the columns {', '.join(header)}; expected {', '.join(COLUMNS)}.")
        return [_parsed(line, path, table.line_num) for line in table if line]


def append_rows(path: Path, rows: Sequence[ScoreRow], *, replace: bool = False) -> None:
    """Add rows to ``results/NAME/scores.csv``, all or none; safe beside other processes that do the same.

    replace: all old rows of the same models and test sets give way, steps that are not scored again included; without
        it, the same number twice is an error (ValueError).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with artifacts.locked_folder(path.parent):
        old = read_rows(path) if path.is_file() else []
        new = [row.key for row in rows]
        twice = {key for key in new if new.count(key) > 1} | (set() if replace else set(new) & {row.key for row in old})
        if twice:
            raise ValueError(
                f"{path} would give the same number twice: {sorted(map(str, twice))[0]}. "
                "Take the old row out, or replace it."
            )
        renewed = {row.subject for row in rows} if replace else set()
        kept = [row for row in old if row.subject not in renewed]
        artifacts.write_text_atomic(path, _text([*kept, *rows]))


def write_rows(path: Path, rows: Sequence[ScoreRow]) -> None:
    """A table of these rows alone, in place of whatever was there."""
    artifacts.write_text_atomic(path, _text(rows))


def _text(rows: Sequence[ScoreRow]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        table.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in astuple(row)])
    return text.getvalue()


def _parsed(line: Sequence[str], path: Path, number: int) -> ScoreRow:
    kinds = {"int": int, "float": float, "str": str, "Steps": parse_steps}
    try:
        values = [kinds[str(item.type)](text) for item, text in zip(fields(ScoreRow), line, strict=True)]
        return ScoreRow(*values)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
