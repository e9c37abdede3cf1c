"""The verb benchmark: every cell of a grid in order of importance, then the tables of all that is done.

The same command goes on where it stopped; several processes and machines may run it on one OUT at a time. A cell that
fails, or whose folder is damaged, is told and passed over; the same command tries it again.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from semgan import artifacts, claims, methods, ranks, results
from semgan.benchmark.cells import (
    DONE,
    ERROR,
    FAILED,
    OPEN,
    TRAINED,
    Cell,
    CellFolder,
    DamagedCell,
    State,
    cells_of,
    first_of,
    selected,
)
from semgan.benchmark.fairness import unfairness
from semgan.benchmark.grid import Grid, Task, held_out, read_grid
from semgan.benchmark.precision import FILE as PRECISION
from semgan.benchmark.precision import precision_of
from semgan.benchmark.tables import published_numbers, write_tables
from semgan.benchmark.training import Context, is_trained, lengths_in_images, rehearsed, settings_of
from semgan.benchmark.work import check_list, check_test_sets, conditions, prepared, work
from semgan.data.folder import Dataset
from semgan.rehearsal import stage_length
from semgan.runtime.device import choose_device
from semgan.runtime.loop import Progress

logger = logging.getLogger("semgan")

WHOLE = "whole grid, seconds"
DAMAGED, STARTED, ELSEWHERE = "damaged", "started", "elsewhere"  # beside the states of cells.py
IGNORED = "/data/\n/cells/*/run/\n/cells/*/claim*.json\n"
USER_ERRORS = (ValueError, OSError)


@dataclass(frozen=True)
class CellReport:
    """Where a cell stands. seconds: of training and scoring so far; expected_seconds: of all of it, None: not known."""

    name: str
    status: str
    problem: str | None = None
    fault: bool = False
    seconds: float = 0.0
    expected_seconds: float | None = None


@dataclass(frozen=True)
class BenchmarkResult:
    """What a call of `benchmark` found and did. unfair: conditions that were not equal; tables: files written."""

    out: str
    cells: list[CellReport]
    unfair: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    expected_seconds: float | None = None

    def count(self, status: str) -> int:
        return sum(cell.status == status for cell in self.cells)

    @property
    def problems(self) -> list[CellReport]:
        return [cell for cell in self.cells if cell.status in (FAILED, DAMAGED)]


def benchmark(
    grid: Path | str,
    out: Path | str,
    *,
    only: Sequence[str] = (),
    dry_run: bool = False,
    max_minutes: float | None = None,
    runs: Path | str | None = None,
    sheets: Path | str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Work through the cells of GRID.yaml into ``out``, and write its tables.

    only:    patterns TASK/LABELS/METHOD(/SEED)      runs:   where runs and prepared data go; default: into ``out``
    sheets:  folder for pictures of test images with every method's mask; None: none are drawn
    Raises ValueError or FileNotFoundError for a grid that cannot be read; what goes wrong in a cell is in the result.
    """
    ranks.refuse_several("semgan benchmark")
    asked = read_grid(Path(grid))
    out, runs = Path(out), None if runs is None else Path(runs)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    if any(map(asked.counts_processor, asked.methods)) and choose_device(device).type != "cpu":
        raise ValueError("A budget of cpu_minutes does not see what a GPU does; give minutes, or --device cpu.")
    chosen = selected(cells_of(asked), only)
    for task in asked.tasks:
        published_numbers(task)  # now, and not when hours are over
    if not dry_run:
        _start_folder(out)
    precision = precision_of(out, device, keep=not dry_run)
    harness = _Harness(asked, out, runs, device, deadline, progress, precision)
    if dry_run:
        return harness.plan(chosen)
    again = [cell for cell in chosen if first_of(cell, asked) in chosen]  # where the first seed came after them
    for cell in [*chosen, *again]:
        if deadline is not None and time.monotonic() >= deadline:
            break
        harness.do(cell)
    return harness.conclude(chosen, None if sheets is None else Path(sheets))


def _start_folder(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "cells").is_dir()):
        names = {path.name for path in out.iterdir()} if out.is_dir() else set()
        if not names <= {"README.md", "grid.yaml", "run.sh", ".gitignore", PRECISION}:
            raise FileExistsError(
                f"{out} exists and holds no benchmark; give another folder with -o, or empty this one."
            )
    (out / "cells").mkdir(parents=True, exist_ok=True)
    if not (out / ".gitignore").is_file():
        artifacts.write_text_atomic(out / ".gitignore", IGNORED)


class _Harness:
    """The grid in one folder, with what was measured so far."""

    def __init__(
        self,
        grid: Grid,
        out: Path,
        runs: Path | None,
        device: str,
        deadline: float | None,
        progress: Progress | None,
        precision: str,
    ) -> None:
        self.grid, self.out, self.runs = grid, out, runs
        self.device, self.deadline, self.progress = device, deadline, progress
        self.precision = precision
        self.began = time.monotonic()
        self.cells = cells_of(grid)
        self._folders = {cell.name: CellFolder(out, cell, grid, runs) for cell in self.cells}
        self._datasets: dict[str, Path | Exception] = {}
        self._attempts = {name: report.attempts for name, report in self._states().items()}

    # ------------------------------------------------------------ doing

    def do(self, cell: Cell) -> None:
        """Work on one cell unless it is done, damaged, or somebody else's."""
        folder = self._folders[cell.name]
        try:
            state = folder.read()
        except DamagedCell as error:
            logger.error("%s", error)
            return
        if state.status == DONE or (state.error and state.attempts > self._attempts.get(cell.name, 0)):
            return  # done, or failed beside us a moment ago
        if (first := self._awaited(cell, state)) is not None:
            logger.warning("%s waits for %s, whose number of images it is to see.", cell.name, first)
            return
        with claims.claimed(folder.path) as check:
            if check is None:
                logger.info("%s: %s works on it.", cell.name, claims.holder(folder.path))
                return
            logger.info("%s", cell.name)
            try:
                work(folder, self._context(cell.task, check))
            except claims.ClaimLost as error:
                logger.warning("%s", error)
            except DamagedCell as error:
                logger.error("%s", error)
            except Exception as error:  # whatever it is, the other cells go on
                self._fail(folder, error, check)
        if any(report.status == DONE for report in self._reports([cell])):
            self._gather()

    def _awaited(self, cell: Cell, state: State) -> str | None:
        """The first seed's cell, where its images are not known yet; a damaged one is told elsewhere."""
        first = first_of(cell, self.grid)
        if first is None or state.lengths:
            return None
        known = self._states().get(first.name)
        return None if known is not None and is_trained(known) else first.name

    def _fail(self, folder: CellFolder, error: Exception, check: Callable[[], None]) -> None:
        """Note what went wrong, unless the cell is another's by now (``check``), or damaged."""
        fault = not isinstance(error, USER_ERRORS)
        try:
            check()
            state = folder.begin()
        except (claims.ClaimLost, DamagedCell) as trouble:
            logger.error("%s", trouble)
            return
        if fault:
            artifacts.write_text_atomic(folder.path / ERROR, traceback.format_exc())
        text = f"{type(error).__name__}: {error} (traceback: {folder.path / ERROR})" if fault else str(error)
        places = [folder.path] if folder.path in folder.run.parents else [folder.path, folder.run]
        if any(str(place) in str(error) for place in places):
            both = " and ".join(map(str, places))
            text += f" If a file there is damaged: remove {both}, and the cell is made again."
        state.status, state.error, state.fault = (TRAINED if state.status == TRAINED else FAILED), text, fault
        state.attempts = max(state.attempts, self._attempts.get(folder.cell.name, 0) + 1)
        folder.write(state)
        logger.error("%s failed: %s", folder.cell.name, text)

    def _context(self, task: Task, check: Any = lambda: None) -> Context:
        where = (self.grid, self._dataset(task), self.device, self.deadline)
        return Context(*where, self._report, check, self.precision)

    def _dataset(self, task: Task) -> Path:
        """The task's dataset, prepared once by this process. Raises what went wrong then."""
        if task.name not in self._datasets:
            try:
                self._datasets[task.name] = prepared(task, (self.runs or self.out) / "data", self.progress)
            except USER_ERRORS as error:
                self._datasets[task.name] = error
        found = self._datasets[task.name]
        if isinstance(found, Exception):
            raise found
        return found

    def _report(self, done: int, total: int, what: str) -> None:
        if self.progress is None:
            return
        self.progress(done, total, what)
        used = time.monotonic() - self.began
        left = self._left()
        if left is not None:
            self.progress(int(used), int(used + max(left, 1)), WHOLE)

    # ------------------------------------------------------------ looking

    def _states(self) -> dict[str, State]:
        """The states of all cells that can be read."""
        found = {}
        for name, folder in self._folders.items():
            try:
                found[name] = folder.read()
            except DamagedCell:
                continue
        return found

    def _reports(self, cells: Sequence[Cell]) -> list[CellReport]:
        expected = _Expected(self.grid, self._folders, self._states())
        reports = []
        for cell in cells:
            folder = self._folders[cell.name]
            try:
                state = folder.read()
            except DamagedCell as error:
                reports.append(CellReport(cell.name, DAMAGED, str(error)))
                continue
            used = state.training_seconds + state.scoring_seconds
            status = FAILED if state.error else STARTED if state.status == OPEN and used else state.status
            if status not in (DONE, FAILED) and claims.holder(folder.path) is not None:
                status = ELSEWHERE
            reports.append(
                CellReport(cell.name, status, state.error, state.fault, round(used, 1), expected.seconds(cell))
            )
        return reports

    def _left(self) -> float | None:
        """Expected seconds until the grid is done, shared out among those who work on it now; None: not known."""
        now = time.monotonic()
        if now - getattr(self, "_looked", -1e9) > 30:
            self._looked = now
            reports = [report for report in self._reports(self.cells) if report.status not in (DONE, FAILED, DAMAGED)]
            known = [report for report in reports if report.expected_seconds is not None]
            workers = max(sum(report.status == ELSEWHERE for report in reports), 1)
            left = [max((report.expected_seconds or 0) - report.seconds, 0) for report in known]
            self._known_left = sum(left) / workers * (len(reports) / len(known)) if known else None
        return None if self._known_left is None else self._known_left - (now - self._looked)

    # ------------------------------------------------------------ telling

    def plan(self, chosen: Sequence[Cell]) -> BenchmarkResult:
        """What would be done, how long it would take, and what is wrong already. Writes nothing."""
        reports, rehearsals = [], {}
        for cell, report in zip(chosen, self._reports(chosen), strict=True):
            expected, problem = report.expected_seconds, report.problem
            if report.status not in (DONE, DAMAGED):
                try:
                    self._check(cell)
                    key = (cell.task.name, cell.method)
                    if expected is None and self._can_rehearse(cell):
                        rehearsals.setdefault(key, None)
                        if rehearsals[key] is None:
                            rehearsals[key] = self._rehearsed_seconds(cell)
                        expected = rehearsals[key]
                except USER_ERRORS as error:
                    problem = str(error)
            reports.append(CellReport(report.name, report.status, problem, report.fault, report.seconds, expected))
        open_reports = [report for report in reports if report.status != DONE and report.problem is None]
        times = [None if r.expected_seconds is None else max(r.expected_seconds - r.seconds, 0) for r in open_reports]
        known = [seconds for seconds in times if seconds is not None]
        total = sum(known) if len(known) == len(times) else None
        return BenchmarkResult(str(self.out), reports, expected_seconds=total)

    def _check(self, cell: Cell) -> None:
        """Raise for what would fail for sure: unknown methods and recipes, missing files, lists that do not exist."""
        from semgan import recipes

        methods.get(self.grid.method_of(cell.method))
        recipes.load(cell.task.recipe)
        for entry in cell.task.test_sets:
            each = held_out(entry)
            for folder in (entry.inputs, entry.labels):
                if not Path(folder).is_dir():
                    raise FileNotFoundError(f"Test set '{each.name}': {folder} is not a folder.")
        check_list(cell.task, cell.labels, cell.seed)
        if cell.task.dataset is not None:
            Dataset.open(cell.task.dataset).labelled(cell.labels, cell.seed)
        if (self._place(cell.task) / "dataset.json").is_file():
            check_test_sets([held_out(entry) for entry in cell.task.test_sets], Dataset.open(self._place(cell.task)))

    def _place(self, task: Task) -> Path:
        """Where the task's dataset lies, prepared or not yet."""
        return Path(task.dataset) if task.dataset is not None else (self.runs or self.out) / "data" / task.name

    def _can_rehearse(self, cell: Cell) -> bool:
        """Whether there is a dataset, with the labelled list, that a dry run may not draw."""
        place = self._place(cell.task)
        wanted = f"labelled_{cell.labels}_seed{cell.seed}"
        return (place / "dataset.json").is_file() and wanted in Dataset.open(place).splits

    def _rehearsed_seconds(self, cell: Cell) -> float:
        place = self._place(cell.task)
        plan = rehearsed(cell, Context(self.grid, place, self.device, precision=self.precision))
        budget = self.grid.budget_of(cell.method)
        if budget is None or budget.images is None:
            return 60 * sum(plan.expected_minutes.values())
        settings = settings_of(cell, Dataset.open(place), self.grid)
        lengths = lengths_in_images(cell.method, settings, self.grid, budget.images)
        minutes = (
            plan.expected_minutes[stage] * lengths[stage] / stage_length(settings, stage)[0] for stage in lengths
        )
        return 60 * sum(minutes)

    def _gather(self) -> None:
        """OUT/scores.csv: the rows of every cell that is done."""
        done = [name for name, state in self._states().items() if state.status == DONE]
        rows = [row for name in done for row in results.read_rows(self._folders[name].scores)]
        results.write_rows(self.out / "scores.csv", rows)

    def conclude(self, chosen: Sequence[Cell], sheets: Path | None) -> BenchmarkResult:
        """Scores and tables of all that is done, by whomever; sheets where asked for."""
        from semgan.benchmark.sheets import write_sheets

        states = self._states()
        done = {name: self._folders[name] for name, state in states.items() if state.status == DONE}
        unfair = unfairness([conditions(folder, states[name], self.grid) for name, folder in done.items()])
        written: list[Path] = []
        if done:
            self._gather()
            written = write_tables(self.out, self.grid, list(done.values()), unfair)
            if sheets is not None:
                written += write_sheets(sheets, self.grid, list(done.values()))
        return BenchmarkResult(str(self.out), self._reports(chosen), unfair, [str(path) for path in written])


class _Expected:
    """How long cells take: as those of the same task and method took, else as the budget says."""

    def __init__(self, grid: Grid, folders: dict[str, CellFolder], states: dict[str, State]) -> None:
        self._grid = grid
        self._measured: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self._scoring: list[float] = []
        for name, state in states.items():
            if state.status == DONE:
                cell = folders[name].cell
                for key in ((cell.task.name, cell.method), (cell.method,)):
                    self._measured[key].append(state.training_seconds + state.scoring_seconds)
                self._scoring.append(state.scoring_seconds)

    def seconds(self, cell: Cell) -> float | None:
        for key in ((cell.task.name, cell.method), (cell.method,)):
            if key in self._measured:
                return mean(self._measured[key])
        budget = self._grid.budget_of(cell.method)
        if budget is None or budget.time is None:
            return None
        return 60 * budget.time + (mean(self._scoring) if self._scoring else 0.0)
