"""Bars of scores under synthetic shifts, models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from semgan.report.plotting import CYCLE, INK, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MODELS = len(CYCLE)


def draw_robustness(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG of rows with ``model``, ``shift``, ``score`` and ``interval``; the first eight models are shown."""
    models = list(dict.fromkeys(row["model"] for row in rows))[:MOST_MODELS]
    shifts = list(dict.fromkeys(row["shift"] for row in rows))
    found = {(row["model"], row["shift"]): row for row in rows}
    height = 0.8 / len(models)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for place, model in enumerate(models):
            chosen = [found[model, shift] for shift in shifts]
            scores = [row["score"] for row in chosen]
            at = [line + (place + 0.5) * height - 0.4 for line in range(len(shifts))]
            bounds = [row["interval"] or (row["score"], row["score"]) for row in chosen]
            below = [max(score - low, 0.0) for score, (low, _) in zip(scores, bounds, strict=True)]
            above = [max(high - score, 0.0) for score, (_, high) in zip(scores, bounds, strict=True)]
            axes.barh(at, scores, height * 0.92, color=CYCLE[place], label=model)
            axes.errorbar(scores, at, xerr=[below, above], fmt="none", ecolor=INK, elinewidth=0.8)
        axes.set_yticks(range(len(shifts)), ["as they are" if shift == "none" else shift for shift in shifts])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("score, 95 % interval over cases")
        axes.set_title("Validation images under synthetic shifts")
        figure.legend(loc="outside lower center", ncols=min(len(models), 3))

    return draw((7, 1.6 + len(shifts) * (0.16 + 0.14 * len(models))), paint)
