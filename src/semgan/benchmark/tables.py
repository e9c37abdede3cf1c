"""Tables of a benchmark like Tables 5 to 8 of the paper: methods by label counts and test sets, and class by class.

OUT/tables.md, tables.tex, tables.html show the same; OUT/comparisons.csv holds the paired bootstrap behind the marks.
Best of a column in bold; ``+``, ``-``: better, worse than the reference (p < 0.05), ``=``: not told apart from it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from semgan import artifacts, results
from semgan.benchmark.cells import CellFolder, read_cases
from semgan.benchmark.comparisons import COLUMNS, Comparison, Counted, compare
from semgan.benchmark.grid import Grid, Task
from semgan.report.score_tables import (
    NO,
    Entry,
    ScoreTable,
    latex,
    metric_title,
    names_of_step,
    table_body,
    values_by_place,
)
from semgan.results import MEAN, ScoreRow
from semgan.types import Steps

PUBLISHED = "published: "
PAPERS_NAMES = {"iou": "miou"}  # of metrics, where they are others
NOTE = (
    "Mean ± standard deviation over seeds (one seed: the value alone). Bold: best of our cells in the column. "
    "+ better, - worse than the reference of the column ({reference}), = not told apart from it: paired bootstrap over "
    "cases, p < 0.05. (NO): without optimisation, the encoder alone."
)


Key = tuple[str, int, str]  # method (with NO), labels, test set


def write_tables(out: Path, grid: Grid, folders: Sequence[CellFolder], unfair: Sequence[str]) -> list[Path]:
    """Write the tables and comparisons of finished cells; returns the files."""
    rows = [row for folder in folders for row in results.read_rows(folder.scores)]
    cases = _counted(folders)
    tables, comparisons = [], []
    for task in grid.tasks:
        own = [row for row in rows if row.task == task.name]
        if own:
            found = compare(task, own[0].metric, cases, grid.reference, _unequal(grid))
            comparisons += found
            tables += tables_of(task, grid, own, found)
    note = NOTE.format(reference=grid.reference or "the best")
    remarks = [
        note,
        _budget_note(grid, folders),
        *(f"Not equal: {text}." for text in [*unfair, *_other_seeds(grid, folders)]),
    ]
    files = {"tables.md": markdown(tables, remarks), "tables.tex": latex(tables, remarks)}
    for name, text in files.items():
        artifacts.write_text_atomic(out / name, text)
    artifacts.write_text_atomic(out / "comparisons.csv", _comparisons_csv(comparisons))
    _write_page(out / "tables.html", tables, remarks)
    return [out / name for name in ("scores.csv", *files, "tables.html", "comparisons.csv")]


def _unequal(grid: Grid) -> dict[str, str]:
    """Rows, also without optimisation, whose budget is not the grid's -> it: compared only with one another."""
    rows = {row: str(grid.budget_of(row)) for row in grid.methods if grid.budget_of(row) != grid.budget}
    return {name: budget for row, budget in rows.items() for name in (row, row + NO)}


def _budget_note(grid: Grid, folders: Sequence[CellFolder]) -> str:
    """What every cell had, the rows that had another budget, and the seeds that saw as many images as their first."""
    if grid.budget is None:
        note = "Lengths of training as the recipes say: not the same for all methods."
    elif grid.budget.images is not None:
        note = f"Every cell saw {grid.budget} in training."
    else:
        note = f"Every cell trained for {grid.budget}."
    others = [row for row in grid.methods if grid.budget_of(row) != grid.budget]
    told = [f"Not so {row}: {grid.budget_of(row)}; never the best here." for row in others]
    if others:
        told.append("Rows of another budget are compared with the best of that budget.")
    if repeats := sum(folder.read().repeats is not None for folder in folders):
        told.append(
            f"Not so {repeats} cells of further seeds: as many images as their row's first seed saw in its time."
        )
    return " ".join([note, *told])


def _other_seeds(grid: Grid, folders: Sequence[CellFolder]) -> list[str]:
    """Where rows that are compared are means over other seeds, in words."""
    seeds: dict[tuple[str, int, str | None], dict[str, list[int]]] = {}
    for cell in (folder.cell for folder in folders):
        place = cell.task.name, cell.labels, _unequal(grid).get(cell.method)
        seeds.setdefault(place, {}).setdefault(cell.method, []).append(cell.seed)
    told = []
    for (task, labels, _), rows in seeds.items():
        if len({tuple(sorted(own)) for own in rows.values()}) > 1:
            each = (f"{row} {', '.join(map(str, sorted(own)))}" for row, own in rows.items())
            told.append(f"{task}, {labels} labels, is of the seeds {'; '.join(each)}")
    return told


def _counted(folders: Sequence[CellFolder]) -> list[Counted]:
    """The cases of every cell: at the reported step, and at 0 where that is another."""
    found = []
    scores = {folder.cell.name: results.read_rows(folder.scores) for folder in folders}
    optimising = {(row.task, row.method) for rows in scores.values() for row in rows if row.steps}  # by any seed
    for folder in folders:
        cell = folder.cell
        reported: dict[str, Steps] = {row.test_set: row.steps for row in scores[cell.name] if row.chosen}
        optimises = (cell.task.name, cell.method) in optimising
        for test_set, by_step in read_cases(folder.cases).items():
            for step, cases in by_step.items():
                for name in names_of_step(cell.method, step, reported.get(test_set, 0), optimises):
                    found.append(Counted(cell.task.name, cell.labels, cell.seed, name, test_set, cases))
    return found


def tables_of(task: Task, grid: Grid, rows: Sequence[ScoreRow], comparisons: Sequence[Comparison]) -> list[ScoreTable]:
    """The task's table of means, and for more than one class a table of classes by label count and test set."""
    values = values_by_place(rows)
    names = [name for method in grid.methods for name in (method + NO, method) if any(key[0] == name for key in values)]
    marks = {(each.method, each.labels, each.test_set): each.mark for each in comparisons}
    sets = [each.name for each in task.test_sets]
    columns = [(labels, test_set) for labels in sorted(task.labels) for test_set in sets]
    columns = [column for column in columns if any(key[1:3] == column for key in values)]
    metric = metric_title(rows[0].metric)
    published = published_numbers(task, rows[0].metric)
    others = set(_unequal(grid))
    body = table_body(names, [(labels, test_set, MEAN) for labels, test_set in columns], values, marks, others)
    body += _published_rows(published, [(labels, test_set, MEAN) for labels, test_set in columns])
    shown = tuple((f"{labels} labels", test_set) for labels, test_set in columns)
    tables = [ScoreTable(f"{task.name}: {metric}", shown, tuple(body))]
    for labels, test_set in columns:
        classes = list(dict.fromkeys(key[3] for key in values if key[1:3] == (labels, test_set) and key[3] != MEAN))
        if len(classes) < 2:
            continue
        places = [(labels, test_set, name) for name in (*classes, MEAN)]
        body = table_body(names, places, values, {}, others) + _published_rows(published, places)
        shown = tuple(("", name) for _, _, name in places)
        tables.append(ScoreTable(f"{task.name}, {labels} labels, {test_set}: {metric} by class", shown, tuple(body)))
    return tables


# ---------------------------------------------------------------- published numbers


def published_numbers(task: Task, metric: str | None = None) -> dict[tuple[str, int, str, str], float]:
    """(method, labels, our test set, class) -> value, where the set is the same, and the metric (None: any).

    Raises ValueError naming file and line for another table, FileNotFoundError for none.
    """
    if task.published is None:
        return {}
    path, found = Path(task.published.file), {}
    if not path.is_file():
        raise FileNotFoundError(f"The published numbers of task '{task.name}' are missing: {path}.")
    wanted = ("task", "labels", "method", "test_set", "class", "value")
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if missing := [name for name in wanted if name not in (table.fieldnames or ())]:
            raise ValueError(f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(wanted)}.")
        for row in table:
            theirs = row.get("metric") or metric
            if row["task"] != task.published.task or metric not in (None, theirs, PAPERS_NAMES.get(str(theirs))):
                continue
            try:
                labels, value = int(row["labels"]), float(row["value"])
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {table.line_num}: labels and value are numbers; got {row}.") from None
            for ours in (ours for ours, name in task.published.sets.items() if name == row["test_set"]):
                found[row["method"], labels, ours, row["class"]] = value
    return found


def _published_rows(
    published: Mapping[tuple[str, int, str, str], float], places: Sequence[tuple[int, str, str]]
) -> list[tuple[str, tuple[Entry | None, ...]]]:
    rows = []
    for name in dict.fromkeys(key[0] for key in published):
        entries = tuple(Entry(published[name, *place]) if (name, *place) in published else None for place in places)
        if any(entries):
            rows.append((PUBLISHED + name, entries))
    return rows


# ---------------------------------------------------------------- as text


def markdown(tables: Sequence[ScoreTable], remarks: Sequence[str]) -> str:
    parts = []
    for table in tables:
        lines = [_line(table.header), "|---" * len(table.header) + "|"]
        for name, entries in table.rows:
            texts = ["" if e is None else f"**{e.text()}**" if e.best else e.text() for e in entries]
            lines.append(_line([name, *texts]))
        parts.append(f"## {table.title}\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, *remarks]) + "\n"


def _line(cells: Sequence[str]) -> str:
    """A row of a markdown table; a bar within a cell does not end it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _write_page(path: Path, tables: Sequence[ScoreTable], remarks: Sequence[str]) -> None:
    from semgan.report.html import Page, Section, write_page

    sections = [Section(table.title, (table.as_html(titled=False),)) for table in tables]
    write_page(path, Page("Benchmark", remarks[1], (), tuple(sections), " ".join([remarks[0], *remarks[2:]])))


def _comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for each in comparisons:
        table.writerow(each.line())
    return text.getvalue()
