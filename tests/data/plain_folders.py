"""Small plain folders of images and masks, and ready dataset folders, for the tests of semgan.data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from semgan.data.prepare.folder import prepare_folder


def picture(number: int, height: int = 12, width: int = 10, channels: int | None = None) -> np.ndarray:
    """A uint8 picture that no other number gives."""
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def mask(number: int, height: int = 12, width: int = 10, values: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """A uint8 mask that shows all values."""
    drawn = np.random.default_rng(1000 + number).choice(values, (height, width)).astype(np.uint8)
    drawn.ravel()[: len(values)] = values
    return drawn


def save(folder: Path, stem: str, pixels: np.ndarray, suffix: str = ".png") -> Path:
    file = folder / f"{stem}{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def write_pairs(root: Path, count: int = 4, *, values: tuple[int, ...] = (0, 1), channels: int | None = None) -> Path:
    """``images`` and ``labels`` with the stems case_0, case_1, ..."""
    for number in range(count):
        save(root / "images", f"case_{number}", picture(number, channels=channels))
        save(root / "labels", f"case_{number}", mask(number, values=values))
    return root


def write_unlabelled(root: Path, count: int = 3, *, channels: int | None = None) -> Path:
    for number in range(count):
        save(root / "unlabelled", f"extra_{number}", picture(100 + number, channels=channels))
    return root / "unlabelled"


def ready_dataset(root: Path, count: int = 4, extra: int = 3, manifest: str | None = None) -> Path:
    """A prepared dataset folder; ``manifest``: the text of its CSV file."""
    write_pairs(root, count)
    table = None
    if manifest is not None:
        table = root / "manifest.csv"
        table.write_text(manifest)
    more = write_unlabelled(root, extra) if extra else None
    prepare_folder(root / "images", root / "labels", root / "dataset", unlabelled=more, manifest=table, workers=1)
    return root / "dataset"


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
