"""Risk-coverage curves of several methods on one plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from semgan.report import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """A curve. colour: number of the method; dashes: number of its signal, None for the best order there is."""

    label: str
    coverage: NDArray
    risk: NDArray
    colour: int
    dashes: int | None


def risk_coverage_png(lines: Sequence[Line], risk: str) -> bytes:
    """PNG bytes: risk of the most trusted images over the share of images that are answered; faint: the best order."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for line in lines:
            colour = plotting.CYCLE[line.colour % len(plotting.CYCLE)]
            is_best = line.dashes is None
            style = ":" if line.dashes is None else plotting.DASHES[line.dashes % len(plotting.DASHES)]
            width, alpha = (1.0, 0.6) if is_best else (1.8, 1.0)
            shown = {"color": colour, "linestyle": style, "linewidth": width, "alpha": alpha, "label": line.label}
            axes.plot(line.coverage, line.risk, **shown)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("coverage: share of the images, most trusted first")
        axes.set_ylabel(f"risk: mean of {risk}")
        axes.set_title("Risk of the trusted images")
        axes.legend(loc="best")

    return plotting.draw((7.0, 4.4), paint)
