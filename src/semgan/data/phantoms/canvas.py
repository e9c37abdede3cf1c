"""What all phantoms are drawn with: a canvas for implicit shapes, smooth noise, blur.

Pictures are ``[channels, side, side]`` float32 in [0, 1] on a raster SUPERSAMPLE times finer than what was asked.
SUPERSAMPLE is odd, so that the middle sample of every pixel lies on the pixel's centre: there the label is read.
Coordinates: x to the right, y down, both -1 to 1 over the picture; every family draws in its own moved *frame*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semgan.data.phantoms.chance import Chance

SUPERSAMPLE = 3

Colour = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Frame:
    """A frame moved over the picture: picture = rotate(angle) (scale * point) + shift; angle in radians."""

    angle: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)

    def points(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frame coordinates of picture coordinates."""
        cosine, sine = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        x, y = x - np.float32(self.shift[0]), y - np.float32(self.shift[1])
        return (x * cosine + y * sine) / np.float32(self.scale[0]), (y * cosine - x * sine) / np.float32(self.scale[1])

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Picture coordinates of one point of the frame."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x, y = x * self.scale[0], y * self.scale[1]
        return x * cosine - y * sine + self.shift[0], x * sine + y * cosine + self.shift[1]


@dataclass(frozen=True)
class Canvas:
    """Colour, shade and label under the brush, and the frame coordinates (x, y) of every sample.

    colour ``[channels, side, side]``: what things are made of. shade ``[side, side]``: how much light they get.
    label ``[side, side]`` uint8: the class whose exact shape was painted last on the sample.
    figure ``[side, side]`` bool: where any labelled shape was painted, those of class 0 (neck, clothes) included.
    """

    x: np.ndarray
    y: np.ndarray
    colour: np.ndarray
    shade: np.ndarray
    label: np.ndarray
    figure: np.ndarray
    frame: Frame
    sample: float  # size of one sample in frame units

    @classmethod
    def blank(cls, size_px: int, channels: int, frame: Frame) -> Canvas:
        x, y = raster(size_px)
        side = x.shape[1]
        frame_x, frame_y = frame.points(x, y)
        return cls(
            x=frame_x,
            y=frame_y,
            colour=np.zeros((channels, side, side), np.float32),
            shade=np.ones((side, side), np.float32),
            label=np.zeros((side, side), np.uint8),
            figure=np.zeros((side, side), bool),
            frame=frame,
            sample=2.0 / side / min(frame.scale),
        )

    def window(self, x: float, y: float, radius: float) -> Canvas:
        """The part of this canvas within ``radius`` (frame units) of a point; it shares memory: cheap painting."""
        side = self.label.shape[0]
        centre_x, centre_y = self.frame.place(x, y)
        reach = radius * max(self.frame.scale)
        columns = slice(*_bounds(centre_x - reach, centre_x + reach, side))
        rows = slice(*_bounds(centre_y - reach, centre_y + reach, side))
        return Canvas(
            x=self.x[rows, columns],
            y=self.y[rows, columns],
            colour=self.colour[:, rows, columns],
            shade=self.shade[rows, columns],
            label=self.label[rows, columns],
            figure=self.figure[rows, columns],
            frame=self.frame,
            sample=self.sample,
        )

    def paint(
        self,
        distance: np.ndarray,
        colour: Colour | None = None,
        *,
        label: int | None = None,
        shade: np.ndarray | float | None = None,
        softness: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Paint where the signed distance is negative; the edge is ``softness`` wide (frame units)."""
        width = max(softness, 1.5 * self.sample)
        cover = np.clip(0.5 - distance / np.float32(width), 0.0, 1.0) * np.float32(opacity)
        if colour is not None:
            target = np.asarray(colour, np.float32)
            target = target.reshape(-1, 1, 1) if target.ndim < 3 else target
            self.colour[...] += cover * (target - self.colour)
        if shade is not None:
            self.shade[...] += cover * (np.asarray(shade, np.float32) - self.shade)
        if label is not None:
            inside = distance < 0
            self.label[inside] = label
            self.figure[inside] = True

    def label_at_pixel_centres(self) -> np.ndarray:
        return np.ascontiguousarray(self.label[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE])


def _bounds(low: float, high: float, side: int) -> tuple[int, int]:
    start = min(max(int(np.floor((low + 1) * side / 2)), 0), side)
    return start, max(min(int(np.ceil((high + 1) * side / 2)), side), start)


def raster(size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture coordinates of all samples of a picture: x ``[1, side]`` and y ``[side, 1]``."""
    side = size_px * SUPERSAMPLE
    axis = ((np.arange(side) + 0.5) * (2.0 / side) - 1.0).astype(np.float32)
    return axis[None, :], axis[:, None]


def ellipse(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float, power: float = 2.0) -> np.ndarray:
    """About the signed distance to a (super)ellipse around the origin: negative inside, exact sign."""
    wide, high = np.float32(half_width), np.float32(half_height)
    if power == 2.0:
        radius = np.sqrt((x / wide) ** 2 + (y / high) ** 2)
    else:
        exponent = np.float32(power)
        radius = (np.abs(x / wide) ** exponent + np.abs(y / high) ** exponent) ** np.float32(1.0 / power)
    return (radius - 1) * min(wide, high)


def stroke(x: np.ndarray, y: np.ndarray, half_length: float, half_width: np.ndarray | float) -> np.ndarray:
    """Signed distance to a round-ended horizontal bar around the origin; bend it by bending ``y``."""
    beyond = np.maximum(np.abs(x) - np.float32(half_length), 0)
    return np.sqrt(beyond * beyond + y * y) - half_width


def smooth_step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_noise(chance: Chance, shape: tuple[int, int], cells: tuple[float, float]) -> np.ndarray:
    """Smooth noise of mean 0 and deviation about 0.75; ``cells`` = number of bumps down and across the picture."""
    knots = chance.normals(int(np.ceil(cells[0])) + 1, int(np.ceil(cells[1])) + 1)
    return _between_knots(_between_knots(knots.T, shape[1], cells[1]).T, shape[0], cells[0])


def _between_knots(knots: np.ndarray, length: int, cells: float) -> np.ndarray:
    """``[knots, n] -> [length, n]``, blended with smooth-step weights."""
    position = (np.arange(length) + 0.5) * (cells / length)
    knot = np.floor(position).astype(int)
    t = (position - knot).astype(np.float32)[:, None]
    t = t * t * (3 - 2 * t)
    return knots[knot] + t * (knots[knot + 1] - knots[knot])


def blur(picture: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian blur of ``[..., height, width]``, deviation in samples, edges repeated; costs time by the deviation.

    Written without matrix products: BLAS threads are slower than this on such sizes, and round differently elsewhere.
    """
    radius = int(np.ceil(2.5 * deviation - 0.3))
    if radius < 1:
        return picture
    weights = np.exp(-0.5 * (np.arange(radius + 1) / deviation) ** 2)
    weights = (weights / (2 * weights.sum() - weights[0])).astype(np.float32)
    for axis in (-2, -1):
        picture = np.moveaxis(_blur_rows(np.moveaxis(picture, axis, -2), weights), -2, axis)
    return picture


def _blur_rows(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    radius, length = len(weights) - 1, picture.shape[-2]
    padded = np.concatenate(
        [np.repeat(picture[..., :1, :], radius, -2), picture, np.repeat(picture[..., -1:, :], radius, -2)], axis=-2
    )
    total = padded[..., radius : radius + length, :] * weights[0]
    for step in range(1, radius + 1):
        pair = (
            padded[..., radius - step : radius - step + length, :]
            + padded[..., radius + step : radius + step + length, :]
        )
        total += pair * weights[step]
    return total


def grey(picture: np.ndarray) -> np.ndarray:
    """``[height, width]`` luminance of ``[3, height, width]``."""
    return 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]


def average_down(picture: np.ndarray) -> np.ndarray:
    """Mean of the samples of each pixel: ``[..., side, side] -> [..., size_px, size_px]``."""
    rows = picture[..., ::SUPERSAMPLE, :].copy()
    for offset in range(1, SUPERSAMPLE):
        rows += picture[..., offset::SUPERSAMPLE, :]
    pixels = rows[..., ::SUPERSAMPLE].copy()
    for offset in range(1, SUPERSAMPLE):
        pixels += rows[..., offset::SUPERSAMPLE]
    return pixels * np.float32(1 / SUPERSAMPLE**2)


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """``[channels, height, width]`` in [0, 1] -> uint8 ``[height, width, 3]``, one channel ``[height, width]``."""
    rounded = np.floor(np.clip(picture, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return rounded[0] if len(rounded) == 1 else np.ascontiguousarray(rounded.transpose(1, 2, 0))
