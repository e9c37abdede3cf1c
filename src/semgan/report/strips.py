"""Walks between codes as pictures (the paper's Figures 7 to 10): strips of images above their masks, and animations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semgan.report import pictures, plotting
from semgan.report.colours import colourise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCH = 1.0
COLUMNS = 9  # most pictures of a walk in its strip
MOST_WALKS = 24  # in a figure: laying out more takes minutes
FRAME_MS = 80
LETTERS = 14  # of a name above one picture


@dataclass(frozen=True)
class Walk:
    """From one code to the next.

    names:  of the two codes; ends: RGB pictures that were embedded, None for random codes
    t:      ``[frames]`` from 0 to 1; images: RGB uint8 per frame; label_maps: ``[frames, height, width]``
    image_change, mask_change: ``[frames]`` against the frame before, nan for the first
    """

    names: tuple[str, str]
    ends: tuple[np.ndarray | None, np.ndarray | None]
    t: np.ndarray
    images: Sequence[np.ndarray]
    label_maps: np.ndarray
    image_change: np.ndarray
    mask_change: np.ndarray


def write_walks(folder: Path, walks: Sequence[Walk], classes: Sequence[str], formats: Sequence[str]) -> list[Path]:
    """FOLDER/strips, changes (png, pdf) and video (gif, webp), as asked for; strips of the first `MOST_WALKS` walks."""
    inputs = any(end is not None for walk in walks for end in walk.ends)
    columns = min(COLUMNS, len(walks[0].t)) + 2 * inputs
    size = (CELL_INCH * columns + 0.2, 2 * min(len(walks), MOST_WALKS) * (CELL_INCH + 0.18) + 0.4)
    written = pictures.save_figure(
        folder / "strips", formats, (max(size[0], 5.0), size[1]), lambda figure: _paint(figure, walks, classes, inputs)
    )
    written += pictures.save_figure(folder / "changes", formats, (9.0, 2.8), lambda figure: _changes(figure, walks))
    if set(formats) & set(pictures.MOVING):
        written += pictures.save_animation(folder / "video", formats, walk_frames(walks, len(classes)), FRAME_MS)
    return written


def walk_frames(walks: Sequence[Walk], classes: int) -> list[np.ndarray]:
    """Image beside mask for every frame of every walk; where a walk begins with the last one's end, that shows once."""
    width_px = pictures.text_px(_caption(walk, 0) for walk in walks)
    return [
        pictures.frame(
            [("image", walk.images[place]), ("mask", colourise(walk.label_maps[place], classes))],
            _caption(walk, place),
            least_px=width_px,
        )
        for number, walk in enumerate(walks)
        for place in range(1 if number else 0, len(walk.t))
    ]


def _caption(walk: Walk, place: int) -> str:
    return f"{walk.names[0]} to {walk.names[1]}, {walk.t[place]:.2f}"


def _paint(figure: Figure, walks: Sequence[Walk], classes: Sequence[str], inputs: bool) -> None:
    if len(walks) > MOST_WALKS:
        figure.supxlabel(f"the first {MOST_WALKS} of {len(walks)} walks", fontsize=8)
        walks = walks[:MOST_WALKS]
    places = np.unique(np.linspace(0, len(walks[0].t) - 1, COLUMNS).round().astype(int))
    axes = figure.subplots(2 * len(walks), len(places) + 2 * inputs, squeeze=False)
    for number, walk in enumerate(walks):
        above, below = axes[2 * number], axes[2 * number + 1]
        for column, place in enumerate(places, int(inputs)):
            ends = {0: _short(walk.names[0]), len(walk.t) - 1: _short(walk.names[1])}
            title = ends.get(int(place), f"{walk.t[place]:.2f}")
            pictures.show_picture(above[column], walk.images[place], title)
            pictures.show_mask(below[column], walk.label_maps[place], len(classes))
        if inputs:
            pictures.show_picture(above[0], walk.ends[0], "input")
            pictures.show_picture(above[-1], walk.ends[1], "input")
            pictures.show_picture(below[0], None)
            pictures.show_picture(below[-1], None)
    pictures.class_legend(figure, classes)


def _short(name: str) -> str:
    """A name that fits above one picture; the end tells most names apart."""
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def _changes(figure: Figure, walks: Sequence[Walk]) -> None:
    """How far image and mask move at every step: a flat line is an even walk, a peak a jump."""
    left, right = figure.subplots(1, 2)
    most = len(plotting.CYCLE)
    for number, walk in enumerate(walks[:most]):
        look = {"color": plotting.CYCLE[number], "linestyle": plotting.DASHES[number % len(plotting.DASHES)]}
        left.plot(walk.t, walk.image_change, label=f"{walk.names[0]} to {walk.names[1]}", **look)
        right.plot(walk.t, 100 * walk.mask_change, **look)
    left.set_title("Image: perceptual distance per step")
    if len(walks) > most:
        figure.supxlabel(f"the first {most} of {len(walks)} walks; all of them are in frames.csv", fontsize=8)
    right.set_title("Mask: % of pixels that change class per step")
    for axes in (left, right):
        axes.set_xlabel("share of the way")
        axes.set_ylim(bottom=0)
    left.legend(handles=left.get_lines(), fontsize=8)  # named one by one, as names may begin with _
