"""Make the pictures of docs/gallery.md from a folder in which the commands of docs/figures.md have been run.

    python scripts/gallery.py FOLDER      (writes docs/images/gallery-*.png and .webp; procedural pictures only)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from semgan.report.plotting import small_png

IMAGES = Path(__file__).parents[1] / "docs" / "images"
STILL = {
    "story": "story/test_00000.png",
    "ablation": "ablation/ablation.png",
    "walk-z": "walk_z/strips.png",
    "walk-images": "walk_images/strips.png",
    "changes": "walk_images/changes.png",
}
MOVING = {"story": "story_drawing/test_00000.webp"}


def main(folder: Path) -> None:
    for name, source in STILL.items():
        (IMAGES / f"gallery-{name}.png").write_bytes(small_png(np.asarray(Image.open(folder / source).convert("RGB"))))
    for name, source in MOVING.items():
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(folder / source))]
        target = IMAGES / f"gallery-{name}.webp"
        frames[0].save(target, save_all=True, append_images=frames[1:], duration=160, loop=0, quality=60, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
