"""What ``segment`` writes beside the mask of a volume, collected slice by slice: probabilities, a contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from semgan.config import Preprocessing
from semgan.data.nifti import write_probability_volume
from semgan.data.transforms import scale_label, windowed
from semgan.data.volumes import Volume, axial, axial_spacing_mm
from semgan.data.whole_images import SegmentedImage
from semgan.report.colours import outlined

MOST_TILES = 24
TILES_PER_ROW = 6
TILE_PX = 256  # the longer side of a slice on the sheet
_LINE_PX = 14  # above a tile, for the slice's number


class ProbabilityVolume:
    """uint8 probabilities of one volume: a byte per voxel for two classes, else one per voxel and class."""

    def __init__(self, volume: Volume, classes: int) -> None:
        self.volume = volume
        self.shown = [1] if classes == 2 else list(range(classes))
        self.levels = np.zeros((*volume.values.shape, len(self.shown)), np.uint8, order="F")
        self.into = [axial(self.levels[..., place], volume.affine) for place in range(len(self.shown))]

    def add(self, number: int, answer: SegmentedImage) -> None:
        """Take the answer for the axial slice ``number``, counted upwards from 0."""
        for index, into in zip(self.shown, self.into, strict=True):
            into[number] = np.rint(255 * answer.probabilities[index])

    def save(self, path: Path) -> None:
        """The foreground's probability as a 3-D NIfTI for two classes, else 4-D with the classes as its last axis."""
        levels = self.levels[..., 0] if len(self.shown) == 1 else self.levels
        write_probability_volume(path.with_name(f"{path.name}.nii.gz"), levels, self.volume)


class ContactSheet:
    """Up to `MOST_TILES` evenly spaced axial slices as the model's rule shows them, with the classes' outlines."""

    def __init__(self, volume: Volume, rule: Preprocessing, classes: int) -> None:
        self.slices, self.rule, self.classes = volume.slices, rule, classes
        count = len(self.slices)
        self.chosen = set(np.linspace(0, count - 1, min(count, MOST_TILES)).round().astype(int).tolist())
        extent = np.array(self.slices.shape[1:]) * axial_spacing_mm(volume.affine)
        self.tile = tuple(max(1, round(float(side))) for side in extent * TILE_PX / extent.max())
        self.tiles: dict[int, np.ndarray] = {}

    def add(self, number: int, answer: SegmentedImage) -> None:
        """Take the answer for the axial slice ``number``, counted upwards from 0."""
        if number not in self.chosen:
            return
        height, width = self.tile
        shown = np.moveaxis(windowed(self.slices[number], self.rule), 0, -1)
        picture = Image.fromarray(shown.squeeze(-1) if shown.shape[-1] == 1 else shown)
        resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        self.tiles[number] = outlined(resized, scale_label(answer.label_map, height, width), self.classes)

    def save(self, path: Path) -> None:
        """One PNG, from the lowest slice to the highest, each below its number."""
        height, width = self.tile[0] + _LINE_PX, self.tile[1]
        rows = -(-len(self.tiles) // TILES_PER_ROW)
        sheet = Image.new("RGB", (width * min(len(self.tiles), TILES_PER_ROW), height * rows))
        pen = ImageDraw.Draw(sheet)
        for place, (number, tile) in enumerate(sorted(self.tiles.items())):
            row, column = divmod(place, TILES_PER_ROW)
            pen.text((column * width + 4, row * height + 1), str(number), fill=(255, 255, 255))
            sheet.paste(Image.fromarray(tile), (column * width, row * height + _LINE_PX))
        sheet.save(path.with_name(f"{path.name}.png"))
