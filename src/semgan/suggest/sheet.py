"""A contact sheet: suggested images with outlines of the model's masks, each below its rank and name."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from semgan.data.transforms import scale_label
from semgan.data.whole_images import to_pixels
from semgan.report.colours import as_rgb, outlined

MOST = 60
TILE_PX, LINE_PX = 160, 14
LETTERS = 24  # of a line that fits on a tile


def drawn(images: Tensor, label_maps: np.ndarray, names: Sequence[str], classes: int) -> np.ndarray:
    """RGB uint8 of images ``[n, channels, size_px, size_px]`` in [-1, 1] and label maps ``[n, size_px, size_px]``."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * TILE_PX, rows * (TILE_PX + LINE_PX)))
    pen = ImageDraw.Draw(sheet)
    for place, (image, label_map) in enumerate(zip(images, label_maps, strict=True)):
        row, column = divmod(place, columns)
        left, top = column * TILE_PX, row * (TILE_PX + LINE_PX)
        large = Image.fromarray(as_rgb(to_pixels(image))).resize((TILE_PX, TILE_PX), Image.Resampling.BILINEAR)
        tile = outlined(np.asarray(large), scale_label(label_map, TILE_PX, TILE_PX), classes)
        sheet.paste(Image.fromarray(tile), (left, top + LINE_PX))
        pen.text((left + 2, top + 1), f"{place + 1} {names[place]}"[:LETTERS], fill=(255, 255, 255))
    return np.asarray(sheet)
