"""The optimisation of one image as a picture (the paper's Figures 1, 4, 5, 6): reconstruction and mask by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semgan.report import pictures, plotting
from semgan.report.colours import colourise
from semgan.report.sheet import metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL_INCH, PLOTS_INCH = 1.3, 2.3
FRAME_MS = 160


@dataclass(frozen=True)
class Story:
    """One image's optimisation, at the size at which it is shown.

    image:           RGB uint8 ``[height, width, 3]``; truth: label map ``[height, width]`` or None
    shown:           the steps with a column of their own
    reconstructions: step -> RGB; masks: step -> label map; every step of the animation, those shown among them
    trace:           loss term -> ``[steps + 1]``, unweighted, ``loss`` the weighted sum
    scores:          step -> score in [0, 1]; empty without truth
    """

    stem: str
    classes: tuple[str, ...]
    metric: str
    image: np.ndarray
    truth: np.ndarray | None
    shown: tuple[int, ...]
    reconstructions: Mapping[int, np.ndarray]
    masks: Mapping[int, np.ndarray]
    trace: Mapping[str, np.ndarray]
    scores: Mapping[int, float]


def write_story(folder: Path, story: Story, formats: Sequence[str]) -> list[Path]:
    """FOLDER/STEM.png, .pdf, .gif, .webp, as asked for."""
    height, width = story.masks[story.shown[0]].shape
    cell = CELL_INCH * min(max(height / width, 0.5), 2.0)
    size = (CELL_INCH * (1 + len(story.shown)) + 0.3, 2 * (cell + 0.25) + PLOTS_INCH + 0.7)
    path = folder / story.stem
    written = pictures.save_figure(path, formats, (max(size[0], 5.0), size[1]), lambda figure: _paint(figure, story))
    if set(formats) & set(pictures.MOVING):
        written += pictures.save_animation(path, formats, story_frames(story), FRAME_MS)
    return written


def story_frames(story: Story) -> list[np.ndarray]:
    """One frame for every step that was kept: input, reconstruction, mask and truth; step and score below."""
    classes = len(story.classes)
    frames = []
    steps = sorted(story.masks)
    scores = {step: f"   {metric_title(story.metric)} {score:.3f}" for step, score in story.scores.items()}
    captions = {step: f"step {step}{scores.get(step, '')}" for step in steps}
    width_px = pictures.text_px(captions.values())
    for step in steps:
        cells = [
            ("input", story.image),
            ("reconstruction", story.reconstructions[step]),
            ("mask", colourise(story.masks[step], classes)),
        ]
        if story.truth is not None:
            cells.append(("truth", colourise(story.truth, classes)))
        frames.append(pictures.frame(cells, captions[step], least_px=width_px))
    return frames


def _paint(figure: Figure, story: Story) -> None:
    classes = len(story.classes)
    halves: Any = figure.subfigures(2, 1, height_ratios=[_pictures_inch(story), PLOTS_INCH])
    upper, lower = halves
    axes = upper.subplots(2, 1 + len(story.shown), squeeze=False)
    pictures.show_picture(axes[0, 0], story.image, "input")
    pictures.show_mask(axes[1, 0], story.truth, classes, "truth")
    for column, step in enumerate(story.shown, 1):
        pictures.show_picture(axes[0, column], story.reconstructions[step], f"step {step}")
        score = f"{story.scores[step]:.3f}" if step in story.scores else ""
        pictures.show_mask(axes[1, column], story.masks[step], classes, score)
    plots = lower.subplots(1, 2 if story.scores else 1, squeeze=False)[0]
    plot_terms(plots[0], story.trace)
    if story.scores:
        plot_scores(plots[1], story.scores, marker="o", markersize=3.5)
        plots[1].set_title(f"{metric_title(story.metric)} against the truth")
    for plot in plots:
        mark_steps(plot, story.shown)
    pictures.class_legend(figure, story.classes)


def _pictures_inch(story: Story) -> float:
    height, width = story.masks[story.shown[0]].shape
    return 2 * (CELL_INCH * min(max(height / width, 0.5), 2.0) + 0.25)


# ---------------------------------------------------------------- curves


def plot_terms(axes: Axes, trace: Mapping[str, np.ndarray]) -> None:
    """Loss terms over steps, logarithmic: colour and dashes differ, for eyes of every kind."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    for number, (name, values) in enumerate(trace.items()):
        positive = np.where(np.asarray(values) > 0, values, np.nan)
        axes.plot(
            positive,
            label="weighted sum" if name == "loss" else name,
            color=plotting.INK if name == "loss" else plotting.CYCLE[(number - 1) % len(plotting.CYCLE)],
            linestyle=plotting.DASHES[number % len(plotting.DASHES)],
            marker="o" if len(positive) == 1 else None,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # the default writes mathematics
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    axes.set_title("Loss terms")
    axes.set_xlabel("step")
    axes.legend(ncols=2, fontsize=8)


def plot_scores(axes: Axes, curve: Mapping[int, float], **style: Any) -> None:
    """One score over steps."""
    steps = sorted(curve)
    axes.plot(steps, [curve[step] for step in steps], **{"color": plotting.CYCLE[0], **style})
    axes.set_xlabel("step")


def mark_steps(axes: Axes, steps: Sequence[int]) -> None:
    """Thin vertical lines where the pictures were taken."""
    for step in steps:
        axes.axvline(step, color=plotting.GRID, linewidth=1, zorder=0)


def write_summary(
    path: Path,
    formats: Sequence[str],
    trace: Mapping[str, np.ndarray],
    curves: Sequence[Mapping[int, float]],
    means: Mapping[int, float],
    metric: str,
    count: int,
) -> list[Path]:
    """All images together: mean loss terms, and with truth every image's score and the mean, over steps."""

    def paint(figure: Figure) -> None:
        plots = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
        plot_terms(plots[0], trace)
        plots[0].set_title(f"Loss terms, mean of {count} images")
        if curves:
            for curve in curves:
                plot_scores(plots[1], curve, linewidth=0.8, alpha=0.45)
            plot_scores(plots[1], means, color=plotting.INK, marker="o", markersize=3.5)
            plots[1].set_title(f"{metric_title(metric)}: images, and all together")

    return pictures.save_figure(path, formats, (9.0 if curves else 5.0, 3.0), paint)
