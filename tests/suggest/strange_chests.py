"""Chests in plain folders, with pictures of another kind among the unlabelled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder

ALIENS = ("alien_0", "alien_1", "alien_2")


def write_plain(out: Path) -> Path:
    """6 images with masks, 2 to validate on, 6 without masks; and 3 pictures of stripes, two of them of one patient."""
    write_phantom_dataset(out, "chests", size_px=32, labelled=6, unlabelled=6, validation=2, test=0, seed=3)
    for number, name in enumerate(ALIENS):
        stripes = np.zeros((32, 32), np.uint8)
        stripes[np.arange(32) % (4 * (number // 2 + 2)) < 6] = 250 + number
        Image.fromarray(stripes).save(out / "unlabelled" / f"{name}.png")
    with open(out / "manifest.csv", "a", encoding="utf-8") as lines:
        lines.write("alien_0,unlabelled,stranger\nalien_1,unlabelled,stranger\n")
    return out


def prepared(plain: Path, out: Path) -> Path:
    parts = {"manifest": plain / "manifest.csv", "classes": plain / "classes.json", "workers": 1}
    prepare_folder(plain / "images", plain / "labels", out, unlabelled=plain / "unlabelled", **parts)
    return out
