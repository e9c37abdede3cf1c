"""``semgan sample``: random images with their masks.

OUT/images/<seed>.png   (more than 3 channels: <seed>_0000.png, <seed>_0001.png, ...)
OUT/masks/<seed>.png    8-bit class indices
OUT/grid.png            images above their masks in colour, to look at
OUT/samples.json        what was asked
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semgan import artifacts, ranks
from semgan.data.picture_files import picture_files
from semgan.report.colours import as_rgb, colourise
from semgan.result_folder import ResultFolder
from semgan.types import MOST_SEED

MARKER = "samples.json"
GRID_MOST = 64  # pairs shown in the grid

Progress = Callable[[int, int, str], Any]  # (done, total, what)


def sample(
    model: Path | str | Any,
    out: Path | str,
    *,
    seeds: Sequence[int] | None = None,
    count: int = 16,
    seed: int = 0,
    truncation: float = 1.0,
    grid: bool = True,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draw pairs from a model; pair i depends on its seed alone. Returns what samples.json holds.

    Stopped, the same call goes on with the pairs that are left.

    seeds: the seeds to draw; None: ``count`` of them from ``seed`` on
    truncation: 1 the model's own distribution; towards 0 ever closer to the mean image

    Raises ValueError for a method that cannot draw images, FileExistsError where ``out`` has other content.
    """
    ranks.refuse_several("semgan sample")
    chosen = list(range(seed, seed + count)) if seeds is None else [int(each) for each in seeds]
    if not chosen or min(chosen) < 0 or max(chosen) > MOST_SEED or len(set(chosen)) < len(chosen):
        raise ValueError(f"Sampling takes one or more different seeds from 0 to {MOST_SEED}; got {chosen[:8]}.")
    if not (math.isfinite(truncation) and truncation >= 0):
        raise ValueError(f"The truncation is a number from 0 on, 1 as learnt; got {truncation:g}.")
    from semgan.segment import load_identified

    drawer: Any
    drawer, identity = load_identified(model, device)
    if not hasattr(drawer, "sample"):
        from semgan.student_answer import gan_of

        drawer = gan_of(drawer)  # of a semgan-student
    if drawer is None:
        raise ValueError("This model segments but cannot draw images; sampling takes a model of method semgan.")
    source = str(model) if isinstance(model, (Path, str)) else None
    request = {"format": 2, "model": source, "identity": identity, "seeds": chosen, "truncation": truncation}
    folder = ResultFolder(Path(out), MARKER, request)
    goes_on = folder.begin(overwrite=overwrite or folder.is_finished()) and identity is not None
    masks = folder.partial / "masks"
    with folder.filling(lambda: any(masks.glob("*.png"))):
        for name in ("images", "masks"):
            (folder.partial / name).mkdir(exist_ok=True)
        for first in range(0, len(chosen), GRID_MOST):
            if progress is not None:
                progress(first, len(chosen), "sample")
            block = chosen[first : first + GRID_MOST]
            left = [number for number in block if not (goes_on and (masks / _mask_name(number)).is_file())]
            drawn = grid and not first  # the first block is drawn anew: the grid shows it
            if left or drawn:
                pairs = drawer.sample(block if drawn else left, truncation=truncation)
                _write(folder.partial, pairs)
                if drawn:
                    picture = sample_grid(pairs.images, pairs.label_maps, len(drawer.labels.names))
                    _save(folder.partial / "grid.png", picture)
        if progress is not None:
            progress(len(chosen), len(chosen), "sample")
    folder.finish()
    return artifacts.read_json(Path(out) / MARKER)


def _mask_name(number: int) -> str:
    return f"{number:06d}.png"


def _write(folder: Path, pairs: Any) -> None:
    """Images and masks of drawn pairs (`semgan.stages.semantic_gan.Samples`); a mask says that its pair is whole."""
    for number, picture, label_map in zip(pairs.seeds, pairs.images, pairs.label_maps, strict=True):
        for name, pixels in picture_files(picture, f"{number:06d}", numbered=False).items():
            _save(folder / "images" / name, pixels)
        _save(folder / "masks" / _mask_name(number), label_map)


def _save(path: Path, pixels: np.ndarray) -> None:
    temporary = artifacts.temporary_beside(path)
    try:
        Image.fromarray(pixels).save(temporary, "PNG")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sample_grid(images: np.ndarray, label_maps: np.ndarray, classes: int) -> np.ndarray:
    """Pairs in a near-square grid, each image above its coloured mask: RGB uint8.

    images: uint8 ``[n, height, width]`` or ``[n, height, width, channels]``; label_maps ``[n, height, width]``
    """
    pairs = [
        np.concatenate([as_rgb(image), colourise(label_map, classes)])
        for image, label_map in zip(images, label_maps, strict=True)
    ]
    columns = math.ceil(math.sqrt(2 * len(pairs)))
    blank = np.zeros_like(pairs[0])
    pairs += [blank] * (-len(pairs) % columns)
    rows = [np.concatenate(pairs[start : start + columns], 1) for start in range(0, len(pairs), columns)]
    return np.concatenate(rows)
