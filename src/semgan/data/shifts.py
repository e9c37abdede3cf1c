"""Synthetic shifts: labelled images made to look as if they came from another source.

A validation list tells little about images of another hospital, camera or style. These changes stand in for them where
settings are chosen and models are compared, so that real test images of another source stay unseen. They are of other
kinds than the default training augmentation (`semgan.data.photometric`: noise, blur, brightness, contrast, gamma), or
go beyond its range (nnU-Net's zooms and turns go as far), and happen to the decoded image, before any preprocessing,
as another device would.

What happens to an image depends on (seed, name of the shift, its number) alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from semgan import seeding

Planes = np.ndarray  # float32 [channels, height, width], 0 black and 1 white of the image
Random = np.random.Generator
MIXED = "mixed"  # of every image another MIXED_KINDS of the shifts, one after the other
MIXED_KINDS = 3


def zoom(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Closer or farther, by 20 to 40 %; what comes in from outside is black and background."""
    factor = math.exp(random.choice((-1, 1)) * random.uniform(math.log(1.2), math.log(1.4)))
    return _moved(planes, label, factor, factor, 0.0)


def proportions(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Wider or higher, by 15 to 35 %: pictures are squashed to a square, and sources differ in format."""
    factor = math.exp(random.choice((-1, 1)) * random.uniform(math.log(1.15), math.log(1.35)))
    return _moved(planes, label, factor, 1.0, 0.0)


def turn(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """By 15 to 30 degrees."""
    return _moved(planes, label, 1.0, 1.0, random.choice((-1, 1)) * random.uniform(15, 30))


def shading(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Uneven exposure: a smooth factor between a half and one and a half (heel effect, coil, side light)."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in planes.shape[1:])
    angle, bend = random.uniform(0, 2 * math.pi), random.uniform(-0.5, 0.5)
    slope = math.cos(angle) * x[None, :] + math.sin(angle) * y[:, None]
    field = slope / math.sqrt(2) + bend * (x[None, :] ** 2 + y[:, None] ** 2 - 1)
    factor = 1 + random.uniform(0.3, 0.5) * field / np.abs(field).max()
    return np.clip(planes * factor, 0, 1), label


def vignette(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Corners that fall to black, as through a dermatoscope or a round collimator."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in planes.shape[1:])
    radius, soft = random.uniform(0.95, 1.15), random.uniform(0.03, 0.25)
    distance = np.hypot(x[None, :], y[:, None])
    return planes * np.clip((radius - distance) / soft + 0.5, 0, 1).astype(np.float32), label


def frame(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Black or white margins of up to an eighth on each side, over the picture."""
    height, width = planes.shape[1:]
    top, bottom = (round(random.uniform(0, 0.125) * height) for _ in range(2))
    left, right = (round(random.uniform(0, 0.125) * width) for _ in range(2))
    framed = np.full_like(planes, float(random.random() < 0.25))
    inside = np.s_[top : height - bottom, left : width - right]
    framed[(slice(None), *inside)] = planes[(slice(None), *inside)]
    return framed, label


def overlays(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Three to six bright or dark bars and patches: markers, rulers, tubes, hair."""
    planes = planes.copy()
    height, width = planes.shape[1:]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(random.integers(3, 7))):
        angle, value = random.uniform(0, math.pi), float(random.random() < 0.5)
        along = (x - random.uniform(0, width)) * math.cos(angle) + (y - random.uniform(0, height)) * math.sin(angle)
        across = (x - random.uniform(0, width)) * -math.sin(angle) + (y - random.uniform(0, height)) * math.cos(angle)
        long, thick = random.uniform(0.1, 0.5) * width, random.uniform(0.008, 0.03) * width
        planes[:, (np.abs(along) < long / 2) & (np.abs(across) < thick)] = value
    return planes, label


def local_contrast(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Details enhanced against their surroundings, as many devices do (unsharp mask of 3 to 8 % of the side)."""
    from scipy.ndimage import gaussian_filter

    size = random.uniform(0.03, 0.08) * max(planes.shape[1:])
    around = np.stack([gaussian_filter(plane, size) for plane in planes])
    return np.clip(planes + random.uniform(1.0, 2.0) * (planes - around), 0, 1), label


def tone_curve(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """A rising curve through four random points: another film, screen or window."""
    knots = np.cumsum(np.concatenate([[0], random.dirichlet(np.full(4, 1.2))]))
    low, high = random.uniform(0, 0.2), random.uniform(0.8, 1.0)
    curve = low + (high - low) * knots
    return np.interp(planes, np.linspace(0, 1, 5), curve).astype(np.float32), label


def tint(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """A factor of 0.7 to 1.3 for every channel: white balance; grey images get darker or lighter."""
    factor = np.exp(random.uniform(math.log(0.7), math.log(1.3), len(planes))).astype(np.float32)
    return np.clip(planes * factor[:, None, None], 0, 1), label


def coarse(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """Shrunk to 24 to 48 px and grown again."""
    height, width = planes.shape[1:]
    share = random.uniform(24, 48) / max(height, width)
    small = (max(round(width * share), 1), max(round(height * share), 1))
    grown = [
        Image.fromarray(plane).resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BICUBIC)
        for plane in planes
    ]
    return np.clip(np.stack([np.asarray(plane, np.float32) for plane in grown]), 0, 1), label


def compressed(planes: Planes, label: np.ndarray, random: Random) -> tuple[Planes, np.ndarray]:
    """JPEG of quality 5 to 20, channel by channel."""
    quality, found = int(random.integers(5, 21)), []
    for plane in planes:
        file = io.BytesIO()
        Image.fromarray(np.rint(plane * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file), np.float32) / 255)
    return np.stack(found), label


SHIFTS: dict[str, Callable[[Planes, np.ndarray, Random], tuple[Planes, np.ndarray]]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        zoom, proportions, turn, shading, vignette, frame, overlays, local_contrast, tone_curve, tint, coarse,
        compressed,
    )
}  # fmt: skip


def checked_shifts(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each of a shift or MIXED. Raises ValueError for others and for none."""
    known = (*SHIFTS, MIXED)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"Unknown shift '{unknown[0]}'. There are: {', '.join(known)}.")
    if not names:
        raise ValueError(f"Name at least one shift; there are: {', '.join(known)}.")
    return tuple(dict.fromkeys(names))


def shifted(
    image: np.ndarray, label: np.ndarray, name: str, *, seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """A decoded image and its label map as another source might show them; of the same shapes, types and units.

    image: ``[height, width]`` or ``[height, width, channels]`` of any type; values are kept within the image's range
    (uint8: 0 to 255). label: ``[height, width]`` class indices, 0 the background. number: of the image
    Raises ValueError for unknown names.
    """
    checked_shifts([name])
    random = seeding.generator(seed, f"shift/{name}", number)
    kinds = [name] if name != MIXED else random.choice(list(SHIFTS), MIXED_KINDS, replace=False).tolist()
    is_byte = image.dtype == np.uint8
    low, high = (0.0, 255.0) if is_byte else (float(image.min()), float(image.max()))
    span = high - low or 1.0
    planes = ((image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)).astype(np.float32) - low) / span
    for kind in kinds:
        planes, label = SHIFTS[kind](planes, label, random)
    values = np.clip(planes, 0, 1) * span + low
    values = values[0] if image.ndim == 2 else np.moveaxis(values, 0, -1)
    return (np.rint(values) if image.dtype.kind in "ui" else values).astype(image.dtype), label


def _moved(
    planes: Planes, label: np.ndarray, across: float, down: float, degrees: float
) -> tuple[Planes, np.ndarray]:
    """Scaled about the middle by ``across`` and ``down`` and turned; image bilinear, label nearest."""
    height, width = label.shape
    angle, middle = math.radians(degrees), ((width - 1) / 2, (height - 1) / 2)
    a, b = math.cos(angle) / across, math.sin(angle) / across
    d, e = -math.sin(angle) / down, math.cos(angle) / down
    coefficients = (
        a, b, middle[0] - a * middle[0] - b * middle[1], d, e, middle[1] - d * middle[0] - e * middle[1],
    )  # fmt: skip

    def warped(plane: np.ndarray, how: Image.Resampling) -> np.ndarray:
        picture = Image.fromarray(plane)
        return np.asarray(picture.transform((width, height), Image.Transform.AFFINE, coefficients, how))

    moved = np.stack([warped(plane, Image.Resampling.BILINEAR) for plane in planes])
    return moved, warped(label.astype(np.uint8), Image.Resampling.NEAREST).astype(label.dtype)
