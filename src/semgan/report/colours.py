"""One colour per class, everywhere: reports, overlays, sample grids.

The first seven classes take the palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any
common colour vision can tell apart; later classes repeat it lighter and darker.
"""

from __future__ import annotations

import numpy as np

BACKGROUND = (27, 30, 36)
IGNORED = (140, 140, 140)
IGNORE = 255
OKABE_ITO = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
)
METHODS = {
    "semgan": "#0072B2",
    "semgan-start": "#7FB8D8",
    "semgan-shipped": "#00334F",
    "unet": "#D55E00",
    "unet-strong": "#E69F00",
    "labelled": "#555B66",
}


def class_colours(classes: int) -> np.ndarray:
    """``[256, 3]`` uint8: colour by label value; background dark, `IGNORE` and values beyond the classes grey."""
    if not 2 <= classes <= IGNORE:
        raise ValueError(f"Colours are for 2 to {IGNORE} classes, background included; got {classes}.")
    table = np.full((256, 3), IGNORED, np.uint8)
    table[0] = BACKGROUND
    for value in range(1, classes):
        round_, place = divmod(value - 1, len(OKABE_ITO))
        table[value] = _shade(np.asarray(OKABE_ITO[place], float), round_)
    table[IGNORE] = IGNORED
    return table


def _shade(colour: np.ndarray, round_: int) -> np.ndarray:
    """Round 0 as it is; then lighter and darker in turn, ever further."""
    share = 0.45 * (1 - 0.6 ** ((round_ + 1) // 2)) / 0.4 if round_ else 0.0
    goal = 255.0 if round_ % 2 else 0.0
    return np.round(colour + (goal - colour) * min(share, 0.85)).astype(np.uint8)


def hex_colour(value: int, classes: int) -> str:
    """``#rrggbb`` of a class, for plots and pages."""
    return "#{:02x}{:02x}{:02x}".format(*class_colours(classes)[value])


def colourise(label_map: np.ndarray, classes: int) -> np.ndarray:
    """Label map ``[height, width]`` of class values -> RGB uint8 ``[height, width, 3]``."""
    return class_colours(classes)[np.asarray(label_map).astype(np.uint8)]


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 ``[height, width]``, ``[height, width, channels]`` or ``[channels, height, width]`` -> RGB uint8.

    One channel becomes grey; of more than three channels (or of two) the first is shown.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] in (1, 2, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[2] != 3:
        image = image[..., 0]
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image, dtype=np.uint8)


def eight_bit(image: np.ndarray) -> np.ndarray:
    """A decoded image for people's eyes, uint8: deeper ones are stretched from their minimum to their maximum."""
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return np.round((image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def overlay(image: np.ndarray, label_map: np.ndarray, classes: int, *, opacity: float = 0.5) -> np.ndarray:
    """The image with every class but the background laid over it in its colour: RGB uint8 ``[height, width, 3]``.

    image: uint8, grey or RGB; label_map: ``[height, width]`` of the same size; opacity: 0 (image) to 1 (colours).
    Pixels at the border between two values are drawn at full strength, so that small parts stay visible.
    """
    picture = as_rgb(image)
    label_map = np.asarray(label_map)
    if picture.shape[:2] != label_map.shape:
        raise ValueError(
            f"An overlay needs image and mask of one size; got {picture.shape[:2]} and {label_map.shape}. Resize one."
        )
    colour = colourise(label_map, classes).astype(float)
    weight = np.where((label_map > 0) & (label_map != IGNORE), opacity, 0.0)
    weight[_borders(label_map) & (label_map > 0)] = min(1.0, opacity + 0.35)
    mixed = picture * (1 - weight[..., None]) + colour * weight[..., None]
    return np.round(mixed).astype(np.uint8)


def outlined(image: np.ndarray, label_map: np.ndarray, classes: int) -> np.ndarray:
    """The image with the border of every class but the background in its colour, one pixel wide, inside the class.

    image: uint8, grey or RGB; label_map: ``[height, width]`` of the same size; returns RGB uint8.
    """
    picture = as_rgb(image).copy()
    border = _borders(label_map) & (label_map > 0)
    picture[border] = colourise(label_map[border], classes)
    return picture


def _borders(label_map: np.ndarray) -> np.ndarray:
    edge = np.zeros(label_map.shape, bool)
    edge[1:] |= label_map[1:] != label_map[:-1]
    edge[:-1] |= label_map[:-1] != label_map[1:]
    edge[:, 1:] |= label_map[:, 1:] != label_map[:, :-1]
    edge[:, :-1] |= label_map[:, :-1] != label_map[:, 1:]
    return edge
