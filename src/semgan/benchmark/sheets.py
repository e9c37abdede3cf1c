"""Qualitative sheets like Figure 3 of the supplement: input, truth and every method's mask for a few test images.

They show pictures of the test sets, which often may not be published: so they are drawn only into a folder that was
asked for, beside and not among the tidy results. Which images: evenly spaced by name, picked by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semgan.benchmark.cells import CellFolder
from semgan.benchmark.grid import Grid, Task, TestSet, held_out
from semgan.benchmark.work import SHOWN
from semgan.scoring import HeldOut

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCH = 1.1


def write_sheets(folder: Path, grid: Grid, cells: Sequence[CellFolder]) -> list[Path]:
    """One PNG per task, label count and test set, of the lowest seed that is done."""
    written = []
    for task in grid.tasks:
        for labels in task.labels:
            own = [each for each in cells if (each.cell.task.name, each.cell.labels) == (task.name, labels)]
            seeds = sorted({each.cell.seed for each in own})
            own = [each for each in own if each.cell.seed == seeds[0]]
            for entry in task.test_sets if own else ():
                path = folder / f"{task.name}-{labels}-{entry.name}.png"
                if _write_sheet(path, task, entry, own):
                    written.append(path)
    return written


def _write_sheet(path: Path, task: Task, entry: TestSet, cells: Sequence[CellFolder]) -> bool:
    """False where no run keeps masks of this test set any more."""
    from semgan.data.readers import read_label
    from semgan.report import plotting
    from semgan.report.colours import colourise
    from semgan.report.curves import write_bytes_atomic

    cells = [each for each in cells if (each.run / SHOWN / entry.name).is_dir()]
    masks = {each.cell.method: each.run / SHOWN / entry.name for each in cells}
    stems = (
        sorted(set.intersection(*({file.stem for file in folder.glob("*.png")} for folder in masks.values())))
        if masks
        else []
    )
    if not stems:
        return False
    classes = _class_count(entry, cells[0])
    images, truths = _images_and_truths(entry, stems, classes)
    columns = {"image": images, "truth": [colourise(truth, classes) for truth in truths]}
    for method, folder in masks.items():
        columns[method] = [colourise(read_label(folder / f"{stem}.png"), classes) for stem in stems]
    size = (CELL_INCH * len(columns), CELL_INCH * len(stems) + 0.3)
    write_bytes_atomic(path, plotting.draw(size, lambda figure: _paint(figure, columns), dpi=150, palette=False))
    return True


def _class_count(entry: TestSet, cell: CellFolder) -> int:
    from semgan.artifacts import find_model, read_json

    named = held_out(entry).classes
    return len(named or read_json(find_model(cell.run) / "config.json")["classes"])


def _images_and_truths(entry: TestSet, stems: Sequence[str], classes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    from semgan.data.whole_images import find_inputs
    from semgan.masks import MaskReader, masks_in
    from semgan.report.colours import as_rgb

    each = held_out(entry)
    assert isinstance(each, HeldOut)  # of volumes no masks are kept to show
    inputs = {item.stem: item for item in find_inputs(each.images, 3)[0]}
    truths, reader = masks_in(each.labels), MaskReader("label", each.mapping)
    names = [str(index) for index in range(classes)]
    return [as_rgb(inputs[stem].read()) for stem in stems], [reader.read(truths[stem], names) for stem in stems]


def _paint(figure: Figure, columns: dict[str, list[np.ndarray]]) -> None:
    rows = len(columns["image"])
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for place, (title, pictures) in enumerate(columns.items()):
        axes[0, place].set_title(title, fontsize=7, loc="center")
        for row, picture in enumerate(pictures):
            axes[row, place].imshow(picture, interpolation="nearest")
            axes[row, place].set_axis_off()
