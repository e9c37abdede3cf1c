"""The demo on one sheet: for every domain an image, its true mask, each method's mask, and the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semgan.report import plotting
from semgan.report.colours import METHODS, colourise, hex_colour
from semgan.report.curves import write_bytes_atomic
from semgan.report.demo_files import Answers, Record, find_score, read_answers, read_inputs, score_rows
from semgan.report.score_tables import metric_title
from semgan.results import ScoreRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCH = 0.92
NAMES_CELLS = 1.15  # the column of domain names, in cells
CHART_INCH = 3.1
COLOURS = {
    "semgan-live": METHODS["semgan-start"],
    "semgan-shipped": METHODS["semgan"],
    "unet-live": METHODS["unet"],
    "unet-shipped": METHODS["unet-strong"],
}


@dataclass(frozen=True)
class Column:
    """One column of pictures: heading and RGB uint8 pictures, one per domain."""

    group: str
    title: str
    pictures: tuple[np.ndarray, ...]


def write_sheet(out: Path, record: Record) -> Path:
    """Draw OUT/demo.png from the demo's files."""
    path = Path(out) / "demo.png"
    rows = score_rows(out)
    columns = sheet_columns(out, record)
    width = CELL_INCH * (len(columns) + NAMES_CELLS) + CHART_INCH
    height = CELL_INCH * len(record.domains) + 1.15
    write_bytes_atomic(
        path,
        plotting.draw((width, height), lambda figure: _paint(figure, record, columns, rows), dpi=150, palette=False),
    )
    return path


def sheet_columns(out: Path, record: Record) -> list[Column]:
    """Input and truth, then each method's picks: mask, and the reconstruction where there is one."""
    inputs = {domain: read_inputs(out, domain) for domain in record.domains}
    shown = typical_image(out, record)
    classes = len(record.classes)
    columns = [
        Column("", "image", tuple(inputs[d].image[shown] for d in record.domains)),
        Column("", "true mask", tuple(colourise(inputs[d].truth[shown], classes) for d in record.domains)),
    ]
    for name, method in record.methods.items():
        answers = {domain: read_answers(out, name, domain) for domain in record.domains}
        masks, recons = [], []
        for domain in record.domains:
            place = answers[domain].steps.index(method.chosen_steps)
            masks.append(colourise(answers[domain].masks[place, shown], classes))
            pictures = answers[domain].reconstructions
            if pictures is not None:
                recons.append(pictures[place, shown])
        group = f"{method.title}\n({method.weights})"
        if recons:
            columns.append(Column(group, "image found", tuple(recons)))
        columns.append(Column(group, "mask", tuple(masks)))
    return columns


def typical_image(out: Path, record: Record) -> int:
    """The image whose agreement with the truth, over all methods and domains, is nearest to the median: not the best.

    The same number for every domain, since phantoms of one number have one shape in all domains.
    """
    agreement = np.zeros(record.images_per_domain)
    for domain in record.domains:
        truth = read_inputs(out, domain).truth[: record.images_per_domain]
        for name, method in record.methods.items():
            answers = read_answers(out, name, domain)
            agreement += (answers.masks[answers.steps.index(method.chosen_steps)] == truth).mean((1, 2))
    distance = np.abs(agreement - np.median(agreement))
    return int(np.argmin(distance[: min(kept_images(out, record, domain) for domain in record.domains)]))


def kept_images(out: Path, record: Record, domain: str) -> int:
    """How many images of a domain have reconstructions."""
    counts = [_shown(read_answers(out, name, domain)) for name in record.methods]
    return min([count for count in counts if count is not None] or [record.images_per_domain])


def _shown(answers: Answers) -> int | None:
    return None if answers.reconstructions is None else answers.reconstructions.shape[1]


def _paint(figure: Figure, record: Record, columns: Sequence[Column], rows: Sequence[ScoreRow]) -> None:
    figure.set_layout_engine("none")
    width, height = (float(value) for value in figure.get_size_inches())
    cell_w, cell_h = CELL_INCH / width, CELL_INCH / height
    left, top = NAMES_CELLS * CELL_INCH / width, 1 - 0.72 / height
    gaps = _group_gaps(columns)
    for i, column in enumerate(columns):
        x = left + i * cell_w + gaps[i] / width
        figure.text(
            x + 0.47 * cell_w,
            top + 0.05 / height,
            column.title,
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=plotting.FAINT,
        )
        for row, picture in enumerate(column.pictures):
            axes = figure.add_axes((x, top - (row + 1) * cell_h, cell_w * 0.94, cell_h * 0.94))
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
    for group in dict.fromkeys(column.group for column in columns if column.group):
        members = [i for i, column in enumerate(columns) if column.group == group]
        middle = left + (members[0] + members[-1] + 0.94) / 2 * cell_w + gaps[members[0]] / width
        figure.text(
            middle,
            top + 0.26 / height,
            group,
            ha="center",
            va="bottom",
            fontsize=9.5,
            fontweight="bold",
            linespacing=1.1,
        )
    for row, domain in enumerate(record.domains):
        note = "\n(as trained)" if row == 0 else ""
        figure.text(
            0.94 * left, top - (row + 0.53) * cell_h, domain_title(domain) + note, ha="right", va="center", fontsize=9.5
        )
    chart_left = left + len(columns) * cell_w + (gaps[-1] + 0.25) / width
    box = (chart_left, top - len(record.domains) * cell_h, 1 - chart_left - 0.25 / width, len(record.domains) * cell_h)
    _paint_bars(figure, record, rows, box)
    _paint_classes(figure, record, 0.3 / height, left)


def domain_title(domain: str) -> str:
    return domain.replace("_", " ").replace("-", " ")


def _group_gaps(columns: Sequence[Column]) -> list[float]:
    """Inches added left of each column: a little space wherever a new method begins."""
    gaps, total = [], 0.0
    for i, column in enumerate(columns):
        total += 0.1 if i and column.group != columns[i - 1].group else 0.0
        gaps.append(total)
    return gaps


def _paint_bars(
    figure: Figure, record: Record, rows: Sequence[ScoreRow], box: tuple[float, float, float, float]
) -> None:
    axes = figure.add_axes(box)
    methods = list(record.methods)
    thick = 0.8 / max(len(methods), 1)
    highest = 0.0
    for place, name in enumerate(methods):
        for row, domain in enumerate(record.domains):
            value = find_score(rows, name, domain) or 0.0
            highest = max(highest, value)
            y = row + 0.5 + (place - (len(methods) - 1) / 2) * thick
            axes.barh(y, value, 0.9 * thick, color=COLOURS.get(name, plotting.FAINT))
            offset = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{value:.2f}", (value, y), **offset, fontsize=8, color=plotting.INK)
    axes.set_ylim(len(record.domains), 0)
    axes.set_xlim(0, max(1.17 * highest, 0.1))
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="x", length=0)
    for row in range(1, len(record.domains)):
        axes.axhline(row, color=plotting.GRID, linewidth=1)
    axes.set_title(
        f"{metric_title(record.metric)}, {record.images_per_domain} images each",
        fontsize=9.5,
        pad=22 + 11 * ((len(methods) - 1) // 2),
    )
    handles = [axes.barh(-1, 0, color=COLOURS.get(name, plotting.FAINT)) for name in methods]
    labels = [f"{method.title} ({method.weights})" for method in record.methods.values()]
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.03, 1.0),
        ncols=2,
        fontsize=8,
        handlelength=0.9,
        columnspacing=0.9,
    )


def _paint_classes(figure: Figure, record: Record, y: float, left: float) -> None:
    """One line of squares and class names below the pictures."""
    width = float(figure.get_size_inches()[0])
    x = left
    for value, name in enumerate(record.classes):
        if value:
            figure.text(x, y, "■", color=hex_colour(value, len(record.classes)), fontsize=12, va="center")
            figure.text(x + 0.15 / width, y, name, fontsize=9, va="center", color=plotting.INK)
            x += (0.34 + 0.073 * len(name)) / width
