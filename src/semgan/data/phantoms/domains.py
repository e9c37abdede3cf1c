"""Shifted domains: other ways to make a picture of the same scene. None of them touches the label."""

from __future__ import annotations

import math

import numpy as np

from semgan.data.phantoms.canvas import (
    SUPERSAMPLE,
    Canvas,
    average_down,
    blur,
    grey,
    raster,
    smooth_noise,
    smooth_step,
)
from semgan.data.phantoms.chance import Chance

# ------------------------------------------------------------------------------------------------ faces


def photo(canvas: Canvas, chance: Chance) -> np.ndarray:
    """``[3, size_px, size_px]``: colour times light, a camera's exposure, white balance, sharpness and noise."""
    picture = blur(average_down(canvas.colour * canvas.shade), chance.between(0.0, 0.45))
    balance = 1 + 0.10 * (chance.uniforms(3)[:, None, None] - 0.5)
    picture = np.clip(picture * balance * chance.between(0.88, 1.18), 0, None) ** chance.between(0.85, 1.12)
    return picture + chance.between(0.004, 0.018) * chance.normals(*picture.shape)


def drawing(canvas: Canvas, chance: Chance) -> np.ndarray:
    """``[3, size_px, size_px]``: pencil lines where the scene has edges, hatching where it is dark, on paper."""
    side = canvas.label.shape[0]
    tone = blur(grey(canvas.colour), 0.006 * side)
    outline = smooth_step(_gradient(tone) * side, 2.0, 9.0)
    contour = blur(_label_borders(canvas.label), 0.0045 * side)
    lines = np.clip(0.8 * outline + 1.5 * contour, 0, 1)
    x, y = raster(side // SUPERSAMPLE)
    slant, pitch = chance.between(-1.0, 1.0), chance.between(22, 30)
    wobble = 0.8 * smooth_noise(chance, canvas.label.shape, (5, 5))
    hatching = 0.5 + 0.5 * np.sin(np.float32(pitch) * (x + np.float32(slant) * y) * np.float32(np.pi) + wobble)
    darkness = smooth_step(0.62 - tone * (0.45 + 0.55 * canvas.shade), 0.0, 0.62) * canvas.figure
    pressure = 0.85 + 0.25 * smooth_noise(chance, canvas.label.shape, (10, 10))
    ink = np.clip((lines + darkness * (0.35 + 0.5 * hatching)) * pressure, 0, 1) * chance.between(0.75, 0.95)
    paper = np.array([0.96, 0.95, 0.92]) + 0.05 * (chance.uniforms(3) - 0.5)
    pencil = np.array([0.13, 0.13, 0.14]) + np.array([0.12, 0.06, 0.0]) * chance.between(0, 1)
    ink = average_down(ink)
    picture = paper[:, None, None] + (pencil - paper)[:, None, None] * ink
    return picture + 0.018 * chance.normals(1, *ink.shape)


def marble(canvas: Canvas, chance: Chance) -> np.ndarray:
    """``[3, size_px, size_px]``: a statue: nearly one stone colour, veins, creases, strong light, dull backdrop."""
    shape = canvas.label.shape
    side = shape[0]
    veins = np.abs(smooth_noise(chance, shape, (4, 4)) + 0.5 * smooth_noise(chance, shape, (11, 11)))
    stone = 0.86 - 0.20 * (1 - smooth_step(veins, 0.0, 0.16)) + 0.04 * smooth_noise(chance, shape, (20, 20))
    crease = blur(_label_borders(canvas.label), 0.010 * side)
    light = np.clip((canvas.shade - 0.15) * 1.15, 0.05, 1.2)
    paint_left = 0.72 + 0.28 * smooth_step(grey(canvas.colour), 0.05, 0.75)
    figure = stone * paint_left * light * (1 - 0.75 * np.clip(2.2 * crease, 0, 1))
    backdrop = chance.between(0.12, 0.55) + 0.08 * smooth_noise(chance, shape, (3, 3))
    is_figure = blur(canvas.figure.astype(np.float32), 0.5)
    luminance = average_down(backdrop + is_figure * (figure - backdrop)) * chance.between(0.9, 1.08)
    tint = np.array([1.0, 0.985, 0.95]) + 0.03 * (chance.uniforms(3) - 0.5)
    return tint[:, None, None] * luminance + 0.012 * chance.normals(1, *luminance.shape)


def mosaic(canvas: Canvas, chance: Chance) -> np.ndarray:
    """``[3, size_px, size_px]``: irregular tiles of one colour each, grout between; about 24 tiles across."""
    side = canvas.label.shape[0]
    tiles = int(chance.between(21, 27))
    picture = blur(canvas.colour * canvas.shade, 0.25 * side / tiles)
    nearest, gap, centre_rows, centre_columns = _tiling(side, tiles, chance)
    colours = picture[:, centre_rows, centre_columns]
    glaze = 1.08 + 0.26 * (chance.uniforms(1, colours.shape[1]) - 0.5)
    colours = colours * glaze + 0.09 * (chance.uniforms(*colours.shape) - 0.5)
    tiled = colours[:, nearest].astype(np.float32)
    grout = (0.12 + 0.5 * chance.uniforms(1)) * np.array([1.0, 0.96, 0.9])
    joint = 1 - smooth_step(gap, 0.06, 0.20)
    tiled = tiled + 0.75 * joint * (grout[:, None, None].astype(np.float32) - tiled)
    return average_down(tiled) + 0.01 * chance.normals(3, side // SUPERSAMPLE, side // SUPERSAMPLE)


def _tiling(side: int, tiles: int, chance: Chance) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Voronoi cells of a jittered grid.

    Returns per sample its cell's number and the distance to the next cell (in tile widths), and per cell the row and
    column of its centre.
    """
    count = tiles + 2  # one row of cells beyond each edge
    jitter = (chance.uniforms(2, count, count).astype(np.float32) - 0.5) * 0.6 + 0.5
    position = (np.arange(side, dtype=np.float32) + 0.5) * (tiles / side) + 1
    cell = position.astype(int)
    best = np.full((side, side), np.inf, np.float32)
    second = best.copy()
    nearest = np.zeros((side, side), np.int64)
    for row_step in (-1, 0, 1):
        for column_step in (-1, 0, 1):
            rows = np.clip(cell + row_step, 0, count - 1)[:, None]
            columns = np.clip(cell + column_step, 0, count - 1)[None, :]
            down = position[:, None] - rows.astype(np.float32) - jitter[0][rows, columns]
            across = position[None, :] - columns.astype(np.float32) - jitter[1][rows, columns]
            distance = down * down + across * across
            closer = distance < best
            second = np.where(closer, best, np.minimum(second, distance))
            nearest = np.where(closer, rows * count + columns, nearest)
            best = np.minimum(best, distance)
    index = np.arange(count)
    centre_rows = np.clip((index[:, None] + jitter[0] - 1) * (side / tiles), 0, side - 1).astype(int).ravel()
    centre_columns = np.clip((index[None, :] + jitter[1] - 1) * (side / tiles), 0, side - 1).astype(int).ravel()
    return nearest, np.sqrt(second) - np.sqrt(best), centre_rows, centre_columns


def _gradient(tone: np.ndarray) -> np.ndarray:
    """Steepness per sample."""
    down, across = np.gradient(tone)
    return np.sqrt(down * down + across * across)


def _label_borders(label: np.ndarray) -> np.ndarray:
    """Lines of the same ink at any resolution on samples whose right or lower neighbour has another class."""
    border = np.zeros(label.shape, np.float32)
    border[:, :-1] += label[:, 1:] != label[:, :-1]
    border[:-1] += label[1:] != label[:-1]
    return np.minimum(border, 1) * np.float32(len(label) / 192)


# ------------------------------------------------------------------------------------------------ chests


def standard(canvas: Canvas, chance: Chance) -> np.ndarray:
    """``[1, size_px, size_px]``: dense is bright; exposure, contrast, sharpness, noise and sometimes a tube vary."""
    attenuation = canvas.colour[0]
    if chance.happens(0.25):
        attenuation = attenuation + _tube(canvas, chance)
    return _develop(attenuation, chance, exposure=chance.around(0.0, 0.07), noise=chance.between(0.004, 0.018))


def inverted(canvas: Canvas, chance: Chance) -> np.ndarray:
    """The standard picture as its negative: dense is dark."""
    return 1 - np.clip(standard(canvas, chance), 0, 1)


def low_exposure(canvas: Canvas, chance: Chance) -> np.ndarray:
    """Too few photons: dark, low contrast, grainy."""
    picture = np.clip(standard(canvas, chance), 0, 1)
    dark = chance.between(0.02, 0.10) + chance.between(0.28, 0.45) * picture ** chance.between(1.0, 1.4)
    grain = chance.normals(*picture.shape)
    return dark + chance.between(0.025, 0.045) * (0.6 * grain + 0.8 * blur(grain, 0.7))


def other_device(canvas: Canvas, chance: Chance) -> np.ndarray:
    """Another detector: softer, steep tone curve with sharpened edges, collimated borders, a burnt-in marker."""
    attenuation = canvas.colour[0] + _tube(canvas, chance)
    picture = _develop(attenuation, chance, exposure=chance.between(-0.06, 0.16), noise=chance.between(0.005, 0.012))
    size_px = picture.shape[-1]
    soft = blur(picture, chance.between(0.008, 0.014) * size_px)
    halo = blur(soft, 0.05 * size_px)
    steepness = chance.between(5.0, 8.0)
    contrasted = 1 / (
        1 + np.exp(-steepness * (soft + chance.between(0.3, 0.9) * (soft - halo) - chance.between(0.42, 0.58)))
    )
    return _collimate_and_mark(0.06 + 0.9 * contrasted, chance)


def _develop(attenuation: np.ndarray, chance: Chance, *, exposure: float, noise: float) -> np.ndarray:
    """``[1, size_px, size_px]`` film of summed attenuation."""
    contrast, gamma = chance.between(1.0, 1.35), chance.between(0.75, 1.25)
    grid = blur(average_down(attenuation[None]), chance.between(0.0, 0.5))
    tone = np.clip(0.52 + exposure + contrast * (grid - 0.52), 0.0, 1.0) ** gamma
    return 0.02 + 0.95 * tone + noise * chance.normals(*tone.shape)


def _tube(canvas: Canvas, chance: Chance) -> np.ndarray:
    """A thin dense line, bent, across the chest: catheter or monitor lead."""
    start, slant, bend = chance.between(-0.6, 0.6), chance.around(0.0, 0.7), chance.between(0.05, 0.25)
    centre = start + slant * canvas.y + bend * np.sin(np.float32(chance.between(2, 5)) * canvas.y)
    away = np.abs(canvas.x - centre) * np.float32(1 / math.sqrt(1 + (abs(slant) + 0.5 * bend) ** 2))
    return chance.between(0.06, 0.2) * (1 - smooth_step(away, 0.006, 0.022))


def _collimate_and_mark(picture: np.ndarray, chance: Chance) -> np.ndarray:
    """Dark shutters at the borders, of which some are open, and a bright letter-sized marker in an upper corner."""
    size_px = picture.shape[-1]
    centres = (np.arange(size_px) + 0.5) / size_px
    left, right, top, bottom = chance.uniforms(4) * 0.11 - 0.02
    shutter = chance.between(0.0, 0.08)
    open_columns = (centres > left) & (centres < 1 - right)
    open_rows = (centres > top) & (centres < 1 - bottom)
    picture = np.where(open_rows[:, None] & open_columns[None, :], picture, shutter)
    marker_x = chance.between(0.08, 0.16) if chance.happens(0.5) else chance.between(0.84, 0.92)
    marker_y, half_size = chance.between(0.07, 0.18), chance.between(0.025, 0.045)
    across, down = np.abs(centres[None, :] - marker_x), np.abs(centres[:, None] - marker_y)
    bars = (across < half_size) & (down < 1.4 * half_size) & ((down > 0.9 * half_size) | (across > 0.5 * half_size))
    return np.where(bars, chance.between(0.85, 1.0), picture)
