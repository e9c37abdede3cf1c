"""The course of a run as pictures, drawn from metrics.jsonl alone."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semgan.report import plotting
from semgan.report.colours import hex_colour
from semgan.report.history import STAGES, Curve, History, is_distance, read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 8  # beyond that a panel is unreadable; the last ones are left out
SMOOTHING_SHARE = 0.04
SPEED = "Speed"
PANEL_INCH = (5.4, 3.3)
PANEL_DPI = 130
TITLE_INCH = 0.4
MOST_COLUMNS = 3


@dataclass(frozen=True)
class Line:
    label: str
    curve: Curve
    colour: str
    smooth: bool = True


@dataclass(frozen=True)
class Panel:
    """One plot: lines over images seen. ``note`` says how to read it."""

    stage: str
    title: str
    note: str
    lines: tuple[Line, ...]
    log: bool = False
    level: float | None = None

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """uint8 ``[height, width, 3]``, legible on a phone; drawn once for the report and the sheet of a run."""

        def paint(figure: Figure) -> None:
            _paint(figure.add_subplot(), self)
            figure.subplots_adjust(left=0.13, right=0.97, bottom=0.15, top=0.89)

        return plotting.draw_pixels(PANEL_INCH, paint, dpi=PANEL_DPI, layout=None)


def panels(history: History) -> list[Panel]:
    """Every plot the history has data for, stage by stage."""
    found: list[Panel] = []
    for stage in sorted(history.stages, key=lambda name: list(STAGES).index(name) if name in STAGES else len(STAGES)):
        found += _loss_panels(history, stage)
        found += _critic_panels(history, stage)
        found += _quality_panels(history, stage)
        found += _pace_panels(history, stage)
    return [panel for panel in found if panel.lines]


def _lines(curves: Mapping[str, Curve], *, smooth: bool = True) -> tuple[Line, ...]:
    chosen = list(curves.items())[:MOST_LINES]
    return tuple(
        Line(name.replace("_", " ").replace("/", " "), curve, plotting.CYCLE[i % len(plotting.CYCLE)], smooth)
        for i, (name, curve) in enumerate(chosen)
    )


def _loss_panels(history: History, stage: str) -> list[Panel]:
    curves = history.losses(stage)
    largest = {name: float(np.median(np.abs(curve.values))) for name, curve in curves.items()}
    typical = [value for value in largest.values() if value > 0]
    log = bool(typical) and max(typical) / min(typical) > 30 and all((c.values > 0).all() for c in curves.values())
    adversarial = any("critic" in name for name in curves)
    note = (
        "Adversarial losses do not fall to zero; look for steady ones."
        if adversarial
        else "On the training images; lower is better."
    )
    return [Panel(stage, "Losses", note, _lines(curves), log)]


def _critic_panels(history: History, stage: str) -> list[Panel]:
    found = []
    for kind, note in (
        ("image", "Real and fake should stay within reach of each other."),
        ("pair", "Hinge: real above 1 and fake below -1 together mean that the critic has nothing left to learn."),
    ):
        scores = {f"{side} {kind}s": history.curve(stage, f"score/{kind}_{side}") for side in ("real", "fake")}
        known = {name: curve for name, curve in scores.items() if curve is not None}
        found.append(Panel(stage, f"{kind.capitalize()} critic's scores", note, _lines(known), level=0.0))
    penalties = {f"R1 {name}": curve for name, curve in history.named(stage, "r1/").items()}
    path = history.curve(stage, "path_length")
    penalties |= {"path length": path} if path is not None else {}
    positive = {n: Curve(c.images, np.maximum(c.values, 1e-8)) for n, c in penalties.items()}
    found.append(
        Panel(
            stage, "Regularisers", "R1 that climbs by orders of magnitude announces divergence.", _lines(positive), True
        )
    )
    return found


def _quality_panels(history: History, stage: str) -> list[Panel]:
    shares = history.class_shares(stage)
    ratios = []
    for i, (name, (ours, truth)) in enumerate(shares.items()):
        reference = np.interp(ours.images, truth.images, truth.values)
        ratio = np.clip(ours.values / np.maximum(reference, 1e-6), 1e-2, 1e2)
        ratios.append(Line(name, Curve(ours.images, ratio), _class_colour(i, name, len(shares)), smooth=False))
    distances = {
        name.replace("_", " "): curve for name, curve in history.stages.get(stage, {}).items() if is_distance(name)
    }
    scores = history.validation(stage)
    return [
        Panel(
            stage,
            "Pixels per class, samples / labelled",
            "1 means as much as in the labelled set.",
            tuple(ratios),
            True,
            1.0,
        ),
        Panel(
            stage, "Fréchet distance", "Lower is better: samples against real images.", _lines(distances, smooth=False)
        ),
        Panel(
            stage, "Validation score", "Higher is better, on held-out labelled images.", _lines(scores, smooth=False)
        ),
    ]


def _class_colour(place: int, name: str, count: int) -> str:
    return plotting.FAINT if name == "background" or count < 2 else hex_colour(place, max(count, place + 1))


def _pace_panels(history: History, stage: str) -> list[Panel]:
    augment = history.curve(stage, "augment_probability")
    pace = history.curve(stage, "images_per_second")
    changing = augment is not None and float(np.ptp(augment.values)) > 0
    return [
        Panel(
            stage,
            "Augmentation",
            "Probability of changing what the critics see.",
            _lines({"p": augment}) if changing and augment else (),
        ),
        Panel(stage, SPEED, "Images per second.", _lines({"images/s": pace}) if pace is not None else ()),
    ]


def _paint(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        images, values = line.curve.images, line.curve.values
        window = int(len(values) * SMOOTHING_SHARE) if line.smooth else 1
        few = len(values) <= 30
        if window >= 2:
            axes.plot(images, values, color=line.colour, alpha=0.22, linewidth=0.8)
        axes.plot(
            images,
            line.curve.smoothed(window),
            color=line.colour,
            label=line.label,
            marker="o" if few else None,
            markersize=3.5,
        )
    if panel.log:
        axes.set_yscale("log")
        _plain_log_ticks(axes)
    if panel.title == SPEED:
        axes.set_ylim(0, 1.15 * max(float(line.curve.values.max()) for line in panel.lines))
    if panel.level is not None:
        axes.axhline(panel.level, color=plotting.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _limit_outliers(axes, panel)
    stage = STAGES.get(panel.stage, panel.stage)
    axes.set_title(f"{stage}: {panel.title}")
    plotting.thousands(axes)
    if len(panel.lines) > 1 or panel.title in ("Validation score", "Fréchet distance"):
        axes.legend(loc="best", ncols=2 if len(panel.lines) > 3 else 1, handlelength=1.4)


def _plain_log_ticks(axes: Axes) -> None:
    """0.1, 1, 10 rather than powers, and at least a factor of four in view."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    if high / low < 4:
        middle = math.sqrt(low * high)
        axes.set_ylim(middle / 2.4, middle * 2.4)
    decades = math.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _limit_outliers(axes: Axes, panel: Panel) -> None:
    """The first steps of a GAN dwarf all others; show the range that 98 % of the values take."""
    values = np.concatenate([line.curve.values for line in panel.lines])
    if panel.log or panel.title == SPEED or len(values) < 50:
        return
    low, high = np.percentile(values, [1, 99])
    room = 0.1 * (high - low) or 0.1
    axes.set_ylim(max(low - room, values.min() - room), min(high + room, values.max() + room))


def sheet(shown: Sequence[Panel], title: str) -> np.ndarray:
    """Panels side by side below a title, uint8 ``[height, width, 3]``. Raises ValueError where there are none."""
    if not shown:
        raise ValueError("No curves to draw: metrics.jsonl holds no numbers yet. Train for longer, then ask again.")
    columns = min(MOST_COLUMNS, len(shown))
    pictures = [panel.pixels for panel in shown]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]

    def paint(figure: Figure) -> None:
        figure.text(0.01, 0.35, title, fontsize=13, fontweight="bold", color=plotting.INK)

    size_inch = (PANEL_INCH[0] * columns, TITLE_INCH)
    return np.concatenate([plotting.draw_pixels(size_inch, paint, dpi=PANEL_DPI, layout=None), *rows])


def write_curves(run: Path, shown: Sequence[Panel] | None = None) -> Path:
    """Draw RUN/curves.png from RUN/metrics.jsonl. Raises FileNotFoundError where the run has no metrics.

    shown: the panels, where they are at hand already
    """
    metrics = Path(run) / "metrics.jsonl"
    if not metrics.is_file():
        raise FileNotFoundError(f"{metrics} does not exist; name the folder that `semgan train ... -o RUN` wrote.")
    picture = Path(run) / "curves.png"
    shown = panels(read_history(metrics)) if shown is None else shown
    write_bytes_atomic(picture, plotting.small_png(sheet(shown, Path(run).name)))
    return picture


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
