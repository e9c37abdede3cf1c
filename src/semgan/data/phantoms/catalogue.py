"""One phantom from family, seed and domain."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from semgan.data.phantoms import chests, domains, face_painting, faces
from semgan.data.phantoms.canvas import Canvas, Frame, to_uint8
from semgan.data.phantoms.chance import Chance

FAMILIES = ("faces", "chests")
CLASSES = {"faces": faces.CLASSES, "chests": chests.CLASSES}
DOMAINS = {
    "faces": ("photo", "drawing", "marble", "mosaic"),
    "chests": ("standard", "inverted", "low_exposure", "other_device", "rotated"),
}
SMALLEST_PX = 16

FINISHES = {
    "photo": domains.photo,
    "drawing": domains.drawing,
    "marble": domains.marble,
    "mosaic": domains.mosaic,
    "standard": domains.standard,
    "inverted": domains.inverted,
    "low_exposure": domains.low_exposure,
    "other_device": domains.other_device,
    "rotated": domains.standard,
}
SHAPE, TEXTURE, FINISH, ROTATION = range(4)  # streams of chance; a new one never disturbs the others


def phantom(family: str, seed: int, *, domain: str | None = None, size_px: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """One picture and its exact mask.

    domain: one of ``DOMAINS[family]``; None for the first, the standard one.
    Returns image uint8 ``[size_px, size_px, 3]`` (faces) or ``[size_px, size_px]`` (chests), and label uint8
    ``[size_px, size_px]``: index into ``CLASSES[family]`` of the shape in front at the pixel's centre.
    Raises ValueError for an unknown family or domain, a negative seed, a size below 16.
    """
    domain = check_request(family, domain, size_px)
    if seed < 0:
        raise ValueError(f"A phantom's seed is 0 or more; got {seed}.")
    key = (FAMILIES.index(family), seed)
    canvas = _draw_face(key, size_px) if family == "faces" else _draw_chest(key, size_px, domain == "rotated")
    picture = FINISHES[domain](canvas, Chance(*key, FINISH))
    return to_uint8(picture), canvas.label_at_pixel_centres()


def check_request(family: str, domain: str | None, size_px: int) -> str:
    """The domain's name, or ValueError with what was expected."""
    if family not in FAMILIES:
        raise ValueError(f"Unknown phantom family {family!r}; choose one of {', '.join(FAMILIES)}.")
    domain = DOMAINS[family][0] if domain is None else domain
    if domain not in DOMAINS[family]:
        raise ValueError(f"Unknown domain {domain!r} of phantom {family}; choose one of {', '.join(DOMAINS[family])}.")
    if size_px < SMALLEST_PX:
        raise ValueError(f"Phantoms are {SMALLEST_PX} px or larger, eyes and ribs vanish below; got size_px={size_px}.")
    return domain


def _draw_face(key: tuple[int, int], size_px: int) -> Canvas:
    return face_painting.draw_face(faces.choose_face(Chance(*key, SHAPE)), size_px, Chance(*key, TEXTURE))


def _draw_chest(key: tuple[int, int], size_px: int, is_rotated: bool) -> Canvas:
    chest = chests.choose_chest(Chance(*key, SHAPE))
    if is_rotated:
        chest = replace(chest, frame=_rotated(chest.frame, Chance(*key, ROTATION)))
    return chests.draw_chest(chest, size_px, Chance(*key, TEXTURE))


def _rotated(frame: Frame, chance: Chance) -> Frame:
    """The frame turned to between 8 and 20 degrees, to either side."""
    degrees = chance.between(8.0, 20.0) * (1 if chance.happens(0.5) else -1)
    return replace(frame, angle=math.radians(degrees))
