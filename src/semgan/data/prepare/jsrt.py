"""Files of the JSRT and SCR databases: 12-bit films without header, and outlines of the lungs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from semgan.data.prepare.raw import read_foregrounds
from semgan.data.readers import read_image
from semgan.data.transforms import scale_label

FILM_PX = 2048
FILM_WHITE = 4095
OUTLINE_PX = 1024  # the grid in which SCR gives masks and landmarks
LUNGS = ("left lung", "right lung")
_STRUCTURE = re.compile(r"(left|right)[ _]lung|heart|(left|right)[ _]clavicle", re.IGNORECASE)
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_POINT = re.compile(rf"{_NUMBER}[\s,;]+{_NUMBER}")
_POINTS = re.compile(r"[-\d.,;\s{}()\[\]]+")  # a line of these has no words
OUTSIDE_PX = 0.02 * OUTLINE_PX  # how far an outline may leave the picture; more is another grid


def read_film(file: Path) -> np.ndarray:
    """A JSRT image: uint16 ``[height, width]``, air dark. ``.IMG`` is 2048 x 2048 big-endian uint16 with air bright.

    Raises ValueError for an .IMG of another size or with more than 12 bits.
    """
    if file.suffix.lower() != ".img":
        return read_image(file)
    expected = FILM_PX * FILM_PX * 2
    found = file.stat().st_size
    if found != expected:
        raise ValueError(
            f"{file} has {found} bytes; a JSRT film has {expected} (2048 x 2048 of 16 bits, no header). It is "
            "truncated or another kind of .IMG: replace it, or take it out of the folder."
        )
    film = np.fromfile(file, dtype=">u2").reshape(FILM_PX, FILM_PX)
    if film.max() > FILM_WHITE:
        raise ValueError(f"{file} holds values up to {film.max()}; a JSRT film has 12 bits (0 to 4095). Replace it.")
    return (FILM_WHITE - film).astype(np.uint16)


def read_negative(file: Path) -> np.ndarray:
    """A picture of a film with air bright, turned to air dark; uint8 or uint16, of 12 bits where that holds it."""
    film = read_film(file)
    white = 255 if film.dtype == np.uint8 else FILM_WHITE if film.max() <= FILM_WHITE else 65535
    return (white - film.astype(np.int64)).astype(film.dtype)


def is_negative(film: np.ndarray, lungs: np.ndarray) -> bool:
    """Whether the lungs are brighter than what lies between and around them, within their bounding box."""
    grey = film if film.ndim == 2 else film.mean(axis=-1)
    shown = scale_label(lungs, *grey.shape) > 0
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        return False
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside, outside = grey[box][shown[box]], grey[box][~shown[box]]
    return bool(len(outside)) and bool(inside.mean() > outside.mean())


def read_lungs(files: tuple[Path, ...]) -> np.ndarray:
    """Both lungs as int32 0 and 1, from masks (one file or one per lung) or from a landmark file (.pfs)."""
    return _draw_lungs(files[0]) if files[0].suffix.lower() == ".pfs" else read_foregrounds(files)


def _draw_lungs(file: Path) -> np.ndarray:
    """Polygons of a landmark file on its grid of 1024 px.

    Any line that names a structure starts it; pairs of numbers (x, y) on the lines below are its points, one or more
    to a line, whatever the brackets.
    """
    outlines: dict[str, list[tuple[float, float]]] = {}
    current = ""
    for line in file.read_text(encoding="latin-1").splitlines():
        if name := _STRUCTURE.search(line):
            current = name.group().lower().replace("_", " ")
        elif _POINTS.fullmatch(line):
            outlines.setdefault(current, []).extend((float(x), float(y)) for x, y in _POINT.findall(line))
    lungs = [outlines.get(name, []) for name in LUNGS]
    if min(map(len, lungs)) < 3:
        raise ValueError(
            f"{file} gives {len(lungs[0])} points of the left lung and {len(lungs[1])} of the right one; at least 3 of "
            "each are needed, under lines that say 'left lung' and 'right lung'. Use SCR's masks (GIF) instead."
        )
    least, most = -OUTSIDE_PX, OUTLINE_PX + OUTSIDE_PX
    if not all(least <= value <= most for outline in lungs for point in outline for value in point):
        raise ValueError(f"{file} has points outside of SCR's grid of {OUTLINE_PX} px. Use SCR's masks (GIF) instead.")
    canvas = Image.new("1", (OUTLINE_PX, OUTLINE_PX))
    for outline in lungs:
        ImageDraw.Draw(canvas).polygon(outline, fill=1)
    return np.array(canvas).astype(np.int32)
