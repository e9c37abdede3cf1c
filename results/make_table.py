"""Write the tables of a results folder from its scores.csv into its README.md, between the table marks, and a plot.

    python results/make_table.py results/lungs-64

Values are means over seeds, with their standard deviation where there are several. ``scores.png``: the score on every
test set over the optimisation steps, methods without optimisation as lines.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semgan.artifacts import write_text_atomic
from semgan.report.curves import write_bytes_atomic
from semgan.report.plotting import CYCLE, draw
from semgan.results import MEAN, ScoreRow, read_rows
from semgan.types import AUTO, step_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In-domain before out-of-domain.
SETS = "validation kermany hannover isic2017 ph2 celebamask fasseg phantom-ct phantom-mri-in phantom-mri-out"
ORDER = {name: place for place, name in enumerate(SETS.split())}
MARKS = ("<!-- table -->", "<!-- end of table -->")


def value(rows: Sequence[ScoreRow]) -> str:
    """Mean over seeds, and standard deviation of several."""
    values = [row.value for row in rows]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}" if values else ""


def by_steps(rows: Sequence[ScoreRow]) -> str:
    """The mean over classes: methods by test set, every step; bold where all seeds chose that step."""
    means = [row for row in rows if row.class_name == MEAN]
    sets = sorted({row.test_set for row in means}, key=lambda name: ORDER[name])
    lines = ["| labels | method | steps | " + " | ".join(sets) + " |", "|---" * (3 + len(sets)) + "|"]
    for labels, method in sorted({(row.labels, row.method) for row in means}):
        own = [row for row in means if (row.labels, row.method) == (labels, method)]
        for steps in sorted({row.steps for row in own}, key=step_order):
            here = [row for row in own if row.steps == steps]
            seeds = len({row.seed for row in here})
            chosen = any(row.chosen for row in here)
            cells = [value([row for row in here if row.test_set == name]) for name in sets]
            cells = [f"**{cell}**" if chosen and cell else cell for cell in cells]
            mark = (" (chosen)" if chosen else "") + (f", {seeds} seeds" if seeds > 1 else "")
            lines.append(f"| {labels} | {method} | {steps}{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_class(rows: Sequence[ScoreRow]) -> str:
    """Every class at the chosen step, a table per test set; nothing where there is one class."""
    tables = []
    for name in sorted({row.test_set for row in rows}, key=lambda name: ORDER[name]):
        here = [row for row in rows if row.test_set == name and row.chosen]
        classes = list(dict.fromkeys(row.class_name for row in here))
        if len(classes) <= 2:
            continue
        lines = [f"{name}, by class, at the chosen step:", ""]
        lines += ["| labels | method | " + " | ".join(classes) + " |", "|---" * (2 + len(classes)) + "|"]
        for labels, method in sorted({(row.labels, row.method) for row in here}):
            own = [row for row in here if (row.labels, row.method) == (labels, method)]
            cells = [value([row for row in own if row.class_name == each]) for each in classes]
            lines.append(f"| {labels} | {method} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def plot(rows: Sequence[ScoreRow]) -> bytes:
    """PNG: a panel per label count and test set."""
    means = [row for row in rows if row.class_name == MEAN and row.test_set != "validation"]
    counts = sorted({row.labels for row in means})
    sets = sorted({row.test_set for row in means}, key=lambda name: ORDER[name])
    methods = sorted({row.method for row in means})

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(counts), len(sets), squeeze=False)
        for labels, line in zip(counts, panels, strict=True):
            for name, axes in zip(sets, line, strict=True):
                here = [row for row in means if (row.labels, row.test_set) == (labels, name)]
                paint_panel(axes, here, methods)
                axes.set_title(f"{name}, {labels} labels")
        panels[0, 0].legend()

    return draw((3.6 * len(sets), 2.8 * len(counts)), paint)


def paint_panel(axes: Axes, rows: Sequence[ScoreRow], methods: Sequence[str]) -> None:
    last = max((row.steps for row in rows if isinstance(row.steps, int)), default=0) or 1
    for colour, method in zip(CYCLE, methods, strict=False):
        own = [row for row in rows if row.method == method]
        by_rule = [row.value for row in own if row.steps == AUTO]
        steps = sorted({row.steps for row in own if isinstance(row.steps, int)})
        values = [statistics.mean(row.value for row in own if row.steps == step) for step in steps]
        if len(steps) == 1:
            axes.plot([0, last], values * 2, "--", color=colour, label=method)
        elif steps:
            axes.plot(steps, values, "o-", color=colour, label=method, markersize=4)
        if by_rule:  # every image's own number of steps
            axes.plot([last], [statistics.mean(by_rule)], "*", color=colour, label=f"{method}, auto", markersize=9)
    axes.set_xlabel("optimisation steps")
    axes.set_ylabel(rows[0].metric if rows else "")


def main(folder: Path) -> None:
    page, rows = folder / "README.md", read_rows(folder / "scores.csv")
    tables = "\n\n".join(part for part in (by_steps(rows), by_class(rows)) if part)
    text = f"{MARKS[0]}\n{tables}\n{MARKS[1]}"
    write_bytes_atomic(folder / "scores.png", plot(rows))
    write_text_atomic(page, re.sub(f"{MARKS[0]}.*{MARKS[1]}", lambda _: text, page.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
