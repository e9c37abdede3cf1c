"""Cells: one folder each, OUT/cells/TASK-LABELS-METHOD-seedK/.

cell.json    what the cell is: everything its numbers depend on      state.json   how far it came
claim.json   who works on it, while somebody does                    scores.csv   rows of `semgan.results`
cases.csv    pixel counts of every case, for paired comparisons      logs/        settings, log, metrics of the run
run/         the run itself, or run.json: {"run": where it lies}     error.txt    traceback of a fault of ours
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts, results
from semgan.benchmark.grid import Grid, Task, TestSet
from semgan.benchmark.parts import part
from semgan.benchmark.rows import has_count, shares_of
from semgan.methods import METHODS
from semgan.metrics import overlap
from semgan.scoring import Scored
from semgan.types import Steps, parse_steps

FORMAT = 1
OPEN, TRAINED, DONE, FAILED = "open", "trained", "done", "failed"
ERROR = "error.txt"
CASE_COLUMNS = ("test_set", "steps", "stem", "class", "in_mean", "intersection", "prediction", "truth")
CONTENTS = "contents of files"  # in cell.json
NO_FOLDER = "remove the folder, and the same command makes it again"


@dataclass(frozen=True)
class Cell:
    """One number of labels, one seed, one task; method: a row of the grid, whose name may be that of a variant."""

    task: Task
    labels: int
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task.name}-{self.labels}-{self.method}-seed{self.seed}"


@dataclass
class State:
    """state.json. seconds: of training, by piece; opened: test set -> when it was opened; facts: equal for all methods.

    lengths: stage -> images; schedules: setting -> images at which a falling rate and ramps end, before a clock does
    repeats: the cell whose images these lengths are, see `first_of`
    model: hash of the trained model from the moment a test set was opened; after that it may not change
    """

    status: str = OPEN
    error: str | None = None
    fault: bool = False
    attempts: int = 0
    lengths: dict[str, int] = field(default_factory=dict)
    schedules: dict[str, int] = field(default_factory=dict)
    repeats: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    done_pieces: list[str] = field(default_factory=list)
    images_seen: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    opened: dict[str, list[str]] = field(default_factory=dict)
    scored: list[str] = field(default_factory=list)
    scoring_seconds: float = 0.0

    @property
    def training_seconds(self) -> float:
        return sum(self.seconds.values())


class DamagedCell(ValueError):
    """A cell's folder that cannot be gone on with."""


class CellFolder:
    """The files of one cell. runs: where runs lie; None: inside the cells."""

    def __init__(self, out: Path, cell: Cell, grid: Grid, runs: Path | None = None) -> None:
        self.cell, self.path = cell, out / "cells" / cell.name
        self.scores, self.cases = self.path / "scores.csv", self.path / "cases.csv"
        self._state, self._identity, self._pointer = (
            self.path / name for name in ("state.json", "cell.json", "run.json")
        )
        self.asked = identity(cell, grid)
        self._runs = runs

    @property
    def run(self) -> Path:
        """Where the cell's run lies: as noted when it was begun, wherever runs are to lie now."""
        if self._pointer.is_file():
            return (self.path / artifacts.read_json(self._pointer)["run"]).resolve()
        if self._runs is None or self._identity.is_file():
            return self.path / "run"
        return self._runs / self.cell.name

    def begin(self) -> State:
        """Make the folder, or read it. Raises DamagedCell for one that is damaged or of another grid."""
        state = self.read()
        if not self._identity.is_file():
            if self._runs is not None:  # first: what has an identity and no pointer lies here
                place = os.path.relpath(os.path.realpath(self.run), os.path.realpath(self.path))
                artifacts.write_json(self._pointer, {"run": place})
            artifacts.write_json(self._identity, self.asked)
        return state

    def read(self) -> State:
        """The cell's state; a new one where there is none. Raises DamagedCell."""
        try:
            if self.path.exists() and not self.path.is_dir():
                raise ValueError("it is a file")
            known = artifacts.read_json(self._identity) if self._identity.is_file() else self.asked
            if isinstance(known, dict):  # cells of before knew the names of files only
                known = {CONTENTS: self.asked[CONTENTS]} | known
            state = self._read_state()
            if state.status == DONE:
                self._check_results(state)
            _ = self.run  # its pointer can be read
        except (ValueError, OSError, TypeError, KeyError, csv.Error) as error:
            what = f"{self._pointer.name} lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
            raise DamagedCell(f"Damaged cell {self.path}: {what}; {NO_FOLDER}.") from None
        if known != self.asked:
            unlike = sorted(
                key for key in self.asked if not isinstance(known, dict) or known.get(key) != self.asked[key]
            )
            raise DamagedCell(
                f"{self.path} was made by another grid ({', '.join(unlike)} differ); give another folder with -o, or "
                f"{NO_FOLDER}."
            )
        return state

    def _read_state(self) -> State:
        if not self._state.is_file():
            if self._identity.is_file() and self.scores.is_file():
                raise ValueError(f"{self._state.name} is missing")
            return State()
        if not self._identity.is_file():  # else another grid's cell would pass for this one's
            raise ValueError(f"{self._identity.name} is missing")
        state = State(**artifacts.read_json(self._state))
        usual = {name: value for name, value in asdict(State()).items() if value is not None}
        kinds = {name: int | float if isinstance(value, float) else type(value) for name, value in usual.items()}
        if strange := [name for name, kind in kinds.items() if not isinstance(getattr(state, name), kind)]:
            raise ValueError(f"{self._state.name} says nothing that makes sense about {', '.join(strange)}")
        return state

    def _check_results(self, state: State) -> None:
        found = {row.test_set for row in results.read_rows(self.scores)}
        missing = sorted({each.name for each in self.cell.task.test_sets} - found)
        if missing or set(state.scored) - set(read_cases(self.cases)):
            raise ValueError(f"it is done, and scores of {', '.join(missing) or 'single cases'} are missing")

    def write(self, state: State) -> None:
        artifacts.write_json(self._state, asdict(state))

    def add_scores(self, rows: Sequence[results.ScoreRow], scored: Scored, steps: Iterable[Steps]) -> None:
        """Keep a test set's rows, and the counts of its cases at some steps."""
        results.append_rows(self.scores, rows, replace=True)
        kept = self.cases.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if self.cases.is_file() else []
        kept = [line for line in kept if not line.startswith(f"{scored.held_out},")]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(CASE_COLUMNS)
        text.write("".join(kept))
        for step in steps:
            counts = scored.counts[step]
            for row, stem in enumerate(scored.stems):
                for place, name in enumerate(scored.classes):
                    numbers = (part[row, place] for part in (counts.intersection, counts.prediction, counts.truth))
                    averaged = int(place in scored.over)
                    table.writerow([scored.held_out, step, stem, name, averaged, *map(int, numbers)])
        artifacts.write_text_atomic(self.cases, text.getvalue())


@dataclass(frozen=True)
class Cases:
    """Counts of a test set's cases at one step."""

    stems: tuple[str, ...]
    over: tuple[int, ...]
    counts: overlap.Counts

    def same_as(self, other: Cases) -> bool:
        """Whether these are the same cases with the same truth, whatever was predicted."""
        return self.stems == other.stems and np.array_equal(self.counts.truth, other.counts.truth)


def read_cases(path: Path) -> dict[str, dict[Steps, Cases]]:
    """Test set -> step -> counts of its cases. Raises ValueError for another or a cut table."""
    blocks: dict[tuple[str, Steps], list[list[str]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.reader(file)
        if tuple(next(table, [])) != CASE_COLUMNS:
            raise ValueError(f"{path} has other columns than {', '.join(CASE_COLUMNS)}")
        for line in table:
            if len(line) != len(CASE_COLUMNS):
                raise ValueError(f"{path}, line {table.line_num} is cut off")
            blocks.setdefault((line[0], parse_steps(line[1])), []).append(line)
    found: dict[str, dict[Steps, Cases]] = {}
    for (test_set, step), lines in blocks.items():
        stems = tuple(dict.fromkeys(line[2] for line in lines))
        classes = len(lines) // len(stems)
        numbers = np.array([line[5:] for line in lines], np.int64).reshape(len(stems), classes, 3)
        over = tuple(place for place, line in enumerate(lines[:classes]) if line[4] == "1")
        counts = overlap.Counts(*(numbers[..., part] for part in range(3)))
        found.setdefault(test_set, {})[step] = Cases(stems, over, counts)
    return found


# ---------------------------------------------------------------- which cells, in which order


def cells_of(grid: Grid) -> list[Cell]:
    """Every cell in order of importance: by `priority`, then seed, label count (fewest first), method, task."""
    cells = [
        Cell(task, labels, method, seed)
        for task in grid.tasks
        for labels in task.labels
        for method in grid.methods
        if has_count(grid.variant(method).labels, labels, task.labels)
        for seed in grid.seeds_of.get(method, grid.seeds)
    ]
    tasks = [task.name for task in grid.tasks]

    def place(cell: Cell) -> tuple[int, ...]:
        rank = next((i for i, each in enumerate(grid.priority) if _matches(cell, each)), len(grid.priority))
        size = sorted(cell.task.labels).index(cell.labels)
        return rank, cell.seed, size, grid.methods.index(cell.method), tasks.index(cell.task.name)

    return sorted(cells, key=place)


def first_of(cell: Cell, grid: Grid) -> Cell | None:
    """The cell of the row's first seed, whose number of images this one sees; None: this one has the row's budget.

    So the spread over seeds is not one of the machine's pace, and any machine can make the further seeds.
    """
    first = grid.seeds_of.get(cell.method, grid.seeds)[0]
    if grid.further_seeds == "budget" or cell.seed == first or not grid.has_clock(cell.method):
        return None
    return replace(cell, seed=first)


def _matches(cell: Cell, selector: Any) -> bool:
    if not has_count(selector.labels, cell.labels, cell.task.labels):
        return False
    wanted = (
        (selector.tasks, cell.task.name),
        (selector.methods, cell.method),
        (selector.seeds, cell.seed),
    )
    return all(allowed is None or value in allowed for allowed, value in wanted)


def selected(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells that one of the patterns TASK/LABELS/METHOD(/SEED) names; ``*`` and left out parts match everything.

    Raises ValueError for a pattern that names none.
    """
    if not patterns:
        return list(cells)
    chosen: set[str] = set()
    for pattern in patterns:
        parts = [*pattern.split("/"), "*", "*", "*"][:4]
        words = [(cell, (cell.task.name, str(cell.labels), cell.method, str(cell.seed))) for cell in cells]
        found = {
            cell.name
            for cell, own in words
            if all(fnmatch.fnmatchcase(word, part or "*") for word, part in zip(own, parts, strict=True))
        }
        if not found or pattern.count("/") > 3:
            known = ", ".join(dict.fromkeys("/".join(own[:3]) for _, own in words))
            raise ValueError(f"--only {pattern} names no cell; TASK/LABELS/METHOD out of: {known[:400]}.")
        chosen |= found
    return [cell for cell in cells if cell.name in chosen]


def identity(cell: Cell, grid: Grid) -> dict[str, Any]:
    """Everything a cell's numbers depend on, without places of files: folders may move between machines."""
    task = cell.task
    own, method, budget = grid.variant(cell.method), grid.method_of(cell.method), grid.budget_of(cell.method)
    settings = {"task": task.settings, "method": grid.settings_of(cell.method)}
    trains = {"trains": method} if own.method else {}
    sets = [_without_places(each) for each in task.test_sets]
    return {
        "format": FORMAT,
        "task": task.name,
        "labels": cell.labels,
        "method": cell.method,
        "seed": cell.seed,
        "recipe": Path(task.recipe).name,
        "metric": task.metric,
        "steps": list(task.steps),
        "budget": None if budget is None else budget.model_dump(exclude_none=True),
        "shares": shares_of(cell.method, grid) if method in METHODS else {},  # the training tells of unknown ones
        "settings": _digest(settings),
        "test_sets": sets,
        CONTENTS: _contents(task),
    } | trains


def _contents(task: Task) -> str:
    """A digest of what a recipe's own file and the lists and mappings of test sets hold, whose names `identity` has.

    What cannot be read is told where it is needed, cell by cell.
    """
    names = ("only", "mapping", "map_predictions", "classes", "mean_over")
    held: list[Any] = []
    for value in (getattr(each, name) for each in task.test_sets for name in names):
        try:
            held.append(part(value))
        except (OSError, ValueError):
            held.append(None)
    if task.recipe.endswith((".yaml", ".yml")) and Path(task.recipe).is_file():
        held.append(Path(task.recipe).read_text(encoding="utf-8"))
    return _digest(held)


def _without_places(each: TestSet) -> dict[str, Any]:
    """A test set by names of files alone; what only volumes have is left out of others."""
    of_volumes = {"modality", "manifest"} if each.volumes is None else {"manifest"} if each.manifest is None else set()
    entry = each.model_dump(mode="json", exclude={"images", "volumes", "labels"} | of_volumes)
    return {key: Path(value).name if isinstance(value, str) else value for key, value in entry.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
