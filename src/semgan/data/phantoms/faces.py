"""Phantom faces: a head turned a little, its traits drawn by chance (painted in face_painting.py).

The frame of a face: origin in the head's middle, crown at y = -1, chin at y = +1, x to the picture's right.
Eyes, brows, nose and mouth are a little larger than life, so that each covers several pixels of a 32 px picture.
Neck, clothes and jewellery are background, as in the paper's classes; beards are skin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from semgan.data.phantoms.canvas import Frame
from semgan.data.phantoms.chance import Chance

CLASSES = ("background", "ear", "eye", "eyebrow", "skin", "hair", "mouth", "nose")
BACKGROUND, EAR, EYE, EYEBROW, SKIN, HAIR, MOUTH, NOSE = range(8)

SKIN_TONES = np.array(
    [(0.97, 0.84, 0.75), (0.92, 0.74, 0.61), (0.80, 0.58, 0.43), (0.60, 0.40, 0.28), (0.40, 0.25, 0.18)]
)
HAIR_TONES = {
    "black": (0.07, 0.06, 0.07),
    "dark brown": (0.20, 0.12, 0.08),
    "brown": (0.38, 0.23, 0.13),
    "auburn": (0.50, 0.20, 0.09),
    "blond": (0.83, 0.65, 0.36),
    "sand": (0.62, 0.48, 0.30),
    "grey": (0.62, 0.61, 0.60),
    "white": (0.87, 0.86, 0.83),
}
HAIR_SHARES = {
    "black": 3,
    "dark brown": 3,
    "brown": 3,
    "auburn": 1,
    "blond": 2,
    "sand": 1.5,
    "grey": 1,
    "white": 0.5,
}
STYLE_SHARES = {
    "bald": 0.04,
    "thin": 0.08,
    "short": 0.30,
    "short fringe": 0.12,
    "bun": 0.10,
    "long": 0.22,
    "long fringe": 0.14,
}
EYE_TONES = {
    "brown": (0.27, 0.15, 0.08),
    "blue": (0.25, 0.43, 0.62),
    "green": (0.27, 0.40, 0.25),
    "grey": (0.38, 0.43, 0.46),
}


@dataclass(frozen=True)
class Hair:
    """Heights in frame units; ``opening`` is the half width of the face free of hair, in head half widths."""

    style: str
    colour: np.ndarray
    top: float
    side: float
    hairline: float
    opening: float
    parting: float
    length: float
    flare: float
    wave: float
    wave_phase: float
    fringe_line: float | None
    fringe_tilt: float


@dataclass(frozen=True)
class Face:
    """Everything that decides a face's shape and colours; light comes from ``light`` (x, y, z), a unit vector."""

    frame: Frame
    yaw: float
    pitch: float
    half_width: float
    jaw: float
    skin: np.ndarray
    hair: Hair
    brow_colour: np.ndarray
    brow_height: float
    brow_tilt: float
    brow_thickness: float
    eye_distance: float
    eye_half_width: float
    eye_half_height: float
    eye_colour: tuple[float, float, float]
    gaze: float
    nose_half_width: float
    nose_bottom: float
    mouth_half_width: float
    lip_height: float
    mouth_opening: float
    smile: float
    lip_colour: np.ndarray
    ear_height: float
    beard: float
    light: tuple[float, float, float]
    ambient: float

    def on_head(self, x: float, y: float, lift: float = 0.0) -> tuple[float, float, float]:
        """Where a point of the frontal face lies after turning the head, and how narrow things get there."""
        depth = 0.75 * math.sqrt(max(0.0, 1 - (x / self.half_width) ** 2 * 0.8 - (y / 1.2) ** 2)) + lift
        narrowing = math.cos(self.yaw) - 0.9 * x / self.half_width * math.sin(self.yaw)
        return (
            float(x * math.cos(self.yaw) + depth * math.sin(self.yaw)),
            float(y * math.cos(self.pitch) + depth * math.sin(self.pitch)),
            float(np.clip(narrowing, 0.55, 1.15)),
        )


def choose_face(chance: Chance) -> Face:
    """A face by chance: pose, shape, expression, colours, light."""
    half_width = chance.between(0.70, 0.84)
    hair = _choose_hair(chance)
    skin = _choose_skin(chance)
    side_light = chance.between(-0.75, 0.75)
    light = np.array([side_light, chance.between(-0.65, -0.15), 0.85])
    smile = chance.around(0.06, 0.22)
    return Face(
        frame=_choose_frame(chance, hair),
        yaw=chance.around(0.0, 0.50),
        pitch=chance.around(0.0, 0.14),
        half_width=half_width,
        jaw=chance.between(0.02, 0.34),
        skin=skin,
        hair=hair,
        brow_colour=np.minimum(hair.colour * 0.75, skin * 0.48),
        brow_height=chance.between(0.24, 0.31),
        brow_tilt=chance.around(-0.10, 0.20),
        brow_thickness=chance.between(0.055, 0.085),
        eye_distance=chance.between(0.32, 0.37),
        eye_half_width=chance.between(0.18, 0.215),
        eye_half_height=chance.between(0.085, 0.135),
        eye_colour=EYE_TONES[chance.choose({"brown": 5, "blue": 3, "green": 1, "grey": 1})],
        gaze=chance.around(0.0, 0.05),
        nose_half_width=chance.between(0.13, 0.185),
        nose_bottom=chance.between(0.34, 0.42),
        mouth_half_width=chance.between(0.25, 0.31) + 0.25 * max(smile, 0.0),
        lip_height=chance.between(0.065, 0.10),
        mouth_opening=chance.between(0.04, 0.17) if chance.happens(0.4) else 0.0,
        smile=smile,
        lip_colour=_choose_lips(chance, skin),
        ear_height=chance.between(0.22, 0.29),
        beard=chance.between(0.25, 0.75) if hair.length < 0.5 and chance.happens(0.3) else 0.0,
        light=tuple((light / np.linalg.norm(light)).tolist()),
        ambient=chance.between(0.35, 0.65),
    )


def _choose_frame(chance: Chance, hair: Hair) -> Frame:
    size = chance.between(0.66, 0.78)
    return Frame(
        angle=chance.around(0.0, 0.20),
        scale=(size * chance.between(0.96, 1.04), size),
        shift=(chance.around(0.0, 0.10), chance.around(0.04 + 0.2 * hair.top, 0.08)),
    )


def _choose_skin(chance: Chance) -> np.ndarray:
    position = chance.between(0.0, len(SKIN_TONES) - 1.001)
    lower = int(position)
    tone = SKIN_TONES[lower] + (position - lower) * (SKIN_TONES[lower + 1] - SKIN_TONES[lower])
    return np.clip(tone + 0.06 * (chance.uniforms(3) - 0.5), 0.05, 1.0)


def _choose_lips(chance: Chance, skin: np.ndarray) -> np.ndarray:
    red = np.array([chance.between(0.55, 0.85), chance.between(0.10, 0.25), chance.between(0.15, 0.30)])
    strength = chance.between(0.40, 0.80)
    return (skin * np.array([0.82, 0.55, 0.55])) * (1 - strength) + red * strength * (0.55 + 0.5 * skin[0])


def _choose_hair(chance: Chance) -> Hair:
    style = chance.choose(STYLE_SHARES)
    colour = np.array(HAIR_TONES["grey" if style == "thin" and chance.happens(0.4) else chance.choose(HAIR_SHARES)])
    if chance.happens(0.03):
        colour = 0.15 + 0.7 * chance.uniforms(3)
    is_long, has_fringe = style.startswith("long"), style.endswith("fringe")
    return Hair(
        style=style,
        colour=np.clip(colour + 0.08 * (chance.uniforms(3) - 0.5), 0.02, 1.0),
        top=0.02 if style in ("bald", "thin") else chance.between(0.08, 0.26),
        side=0.03
        if style in ("bald", "thin")
        else chance.between(0.14, 0.34)
        if is_long
        else chance.between(0.04, 0.10),
        hairline=chance.between(-0.99, -0.86) if style == "thin" else chance.between(-0.72, -0.55),
        opening=chance.between(0.80, 0.99) if is_long else chance.between(0.84, 0.93),
        parting=chance.around(0.0, 0.25),
        length=chance.between(0.75, 1.9) if is_long else chance.between(-0.16, 0.06),
        flare=chance.between(-0.05, 0.22),
        wave=chance.between(0.0, 0.07) if is_long or chance.happens(0.3) else 0.01,
        wave_phase=chance.between(0.0, 6.28),
        fringe_line=chance.between(-0.50, -0.40) if has_fringe else None,
        fringe_tilt=chance.around(0.0, 0.25),
    )
