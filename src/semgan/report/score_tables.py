"""Tables of scores: methods by label counts and test sets, means over seeds. For the benchmark and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import mean, stdev

from semgan.report.html import Table
from semgan.report.latex import HEAD, escaped, tabular
from semgan.results import ScoreRow
from semgan.types import Steps

NO = " (NO)"  # the paper's word for answers without optimisation: the encoder alone
TITLES = {"dice": "Dice", "jaccard": "Jaccard index", "miou": "mIoU", "miou-per-case": "mIoU per case"}


def metric_title(metric: str) -> str:
    """A metric's name for people."""
    return TITLES.get(metric, metric)


@dataclass(frozen=True)
class Entry:
    """One number of a table: mean over seeds, their spread (None: one seed), and how it compares."""

    value: float
    spread: float | None = None
    best: bool = False
    mark: str = ""

    def text(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.4f}"
        return f"{self.value:.4f}{spread}{f' {self.mark}' if self.mark else ''}"


@dataclass(frozen=True)
class ScoreTable:
    """Rows of (name, entries by column); ``columns`` have a group ("9 labels") and a name ("hannover")."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Entry | None, ...]], ...]

    @property
    def header(self) -> tuple[str, ...]:
        return ("method", *(f"{group}: {name}" if group else name for group, name in self.columns))

    def as_html(self, *, titled: bool = True) -> Table:
        """The table as a block of a page; titled: with its title as caption."""
        texts = tuple((name, *("" if e is None else e.text() for e in entries)) for name, entries in self.rows)
        strong = frozenset(
            (row, column)
            for row, (_, entries) in enumerate(self.rows)
            for column, entry in enumerate(entries, start=1)
            if entry is not None and entry.best
        )
        return Table(self.header, texts, self.title if titled else "", strong)


def names_of_step(method: str, step: Steps, reported: Steps, optimises: bool) -> list[str]:
    """Under which names a step appears: the method's own, "(NO)", both where 0 was chosen, or neither."""
    return [method] * (step == reported) + [method + NO] * (optimises and step == 0)


def values_by_place(rows: Sequence[ScoreRow]) -> dict[tuple[str, int, str, str], list[float]]:
    """(method, perhaps with NO, labels, test set, class) -> the reported value of each seed."""
    values: dict[tuple[str, int, str, str], list[float]] = {}
    optimising = {row.method for row in rows if row.steps}
    for row in rows:
        reported = row.steps if row.chosen else -1
        for name in names_of_step(row.method, row.steps, reported, row.method in optimising):
            values.setdefault((name, row.labels, row.test_set, row.class_name), []).append(row.value)
    return values


def table_body(
    names: Sequence[str],
    places: Sequence[tuple[int, str, str]],
    values: Mapping[tuple[str, int, str, str], list[float]],
    marks: Mapping[tuple[str, int, str], str],
    others: Set[str] = frozenset(),
) -> list[tuple[str, tuple[Entry | None, ...]]]:
    """Rows of a `ScoreTable`; the best of a column is marked.

    places: columns as (labels, test set, class); values: (method, labels, test set, class) -> one value per seed;
    marks:  (method, labels, test set) -> how it compares; others: names of another budget, never the best
    """
    equal = [name for name in names if name not in others]
    best = {
        place: max((mean(values[name, *place]) for name in equal if (name, *place) in values), default=0.0)
        for place in places
    }
    body = []
    for name in names:
        entries: list[Entry | None] = []
        for place in places:
            found = values.get((name, *place))
            if found is None:
                entries.append(None)
                continue
            value = mean(found)
            spread = stdev(found) if len(found) > 1 else None
            is_best = name not in others and round(value, 4) >= round(best[place], 4)
            entries.append(Entry(value, spread, is_best, marks.get((name, place[0], place[1]), "")))
        if any(entries):
            body.append((name, tuple(entries)))
    return body


def latex(tables: Sequence[ScoreTable], remarks: Sequence[str]) -> str:
    """Tabulars with \\multicolumn groups, for booktabs."""
    parts = [HEAD, *(f"% {text}" for text in remarks)]
    for table in tables:
        groups: list[tuple[str, int]] = []
        for group, _ in table.columns:
            if groups and groups[-1][0] == group:
                groups[-1] = (group, groups[-1][1] + 1)
            else:
                groups.append((group, 1))
        head = " & ".join(f"\\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}" for group, width in groups)
        heads = [f" & {head}"] if any(group for group, _ in groups) else []
        heads.append(" & ".join(["method", *(escaped(name) for _, name in table.columns)]))
        rows = [" & ".join([escaped(name), *map(_tex_entry, entries)]) for name, entries in table.rows]
        parts.append(tabular(table.title, len(table.columns), heads, rows))
    return "\n\n".join(parts) + "\n"


def _tex_entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    number = f"\\textbf{{{entry.value:.4f}}}" if entry.best else f"{entry.value:.4f}"
    spread = "" if entry.spread is None else f" $\\pm$ {entry.spread:.4f}"
    return number + spread + (f"$^{{{entry.mark}}}$" if entry.mark else "")
