"""Phantom chest radiographs: what lies in the beam is added up, as attenuation is, and turned into a grey picture.

The frame of a chest: origin in the middle of the chest, y = -1 at the neck, y = +1 in the abdomen, x to the picture's
right, which is the patient's left, where the heart lies. The lung label follows the usual masks of chest radiographs:
the air-filled fields without heart and mediastinum, above the diaphragm; opacities stay lung.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from semgan.data.phantoms.canvas import Canvas, Frame, ellipse, smooth_noise, smooth_step, stroke
from semgan.data.phantoms.chance import Chance

CLASSES = ("background", "lung")
LUNG = 1


@dataclass(frozen=True)
class Lung:
    """One side; x counts outwards from the midline there."""

    half_width: float
    half_height: float
    power: float
    centre_y: float
    inner: float
    diaphragm: float
    dome: float
    dome_x: float


@dataclass(frozen=True)
class Chest:
    """Everything that decides a chest's shape and what lies in it; ``lungs`` by side: -1 and +1."""

    frame: Frame
    lungs: dict[int, Lung]
    body_half_width: float
    arm_half_width: float
    shoulder_y: float
    armpit_y: float
    heart: tuple[float, float, float, float, float]  # x, y, half width, half height, tilt
    heart_density: float
    spine_density: float
    bone_density: float
    rib_spacing: float
    rib_slope: float
    rib_phase: float
    clavicle_y: float
    clavicle_tilt: float
    fat: float
    breast: float
    aeration: float
    vessels: float
    opacities: tuple[tuple[float, float, float, float, float], ...]  # x, y, half width, half height, density
    stomach_bubble: float


def choose_chest(chance: Chance) -> Chest:
    """A chest by chance: build, position, organs, findings."""
    heart_half_width = chance.between(0.25, 0.38)
    breadth, length = chance.between(0.92, 1.08), chance.between(0.90, 1.12)
    return Chest(
        frame=_choose_frame(chance),
        lungs={side: _choose_lung(chance, side, breadth, length) for side in (-1, 1)},
        body_half_width=breadth * chance.between(0.86, 1.04),
        arm_half_width=breadth * chance.between(1.0, 1.3),
        shoulder_y=chance.between(-0.88, -0.74),
        armpit_y=chance.between(-0.5, 0.6),
        heart=(
            chance.between(0.08, 0.17),
            chance.between(0.22, 0.34),
            heart_half_width,
            chance.between(0.33, 0.44),
            chance.between(0.2, 0.7),
        ),
        heart_density=chance.between(0.24, 0.34),
        spine_density=chance.between(0.10, 0.22),
        bone_density=chance.between(0.05, 0.13),
        rib_spacing=chance.between(0.145, 0.19),
        rib_slope=chance.between(0.25, 0.60),
        rib_phase=chance.between(0.0, 1.0),
        clavicle_y=chance.between(-0.72, -0.60),
        clavicle_tilt=chance.between(-0.30, 0.05),
        fat=chance.between(0.0, 0.08),
        breast=chance.between(0.05, 0.11) if chance.happens(0.35) else 0.0,
        aeration=chance.between(0.30, 0.46),
        vessels=chance.between(0.05, 0.13),
        opacities=_choose_opacities(chance),
        stomach_bubble=chance.between(0.08, 0.2) if chance.happens(0.4) else 0.0,
    )


def _choose_frame(chance: Chance) -> Frame:
    return Frame(
        angle=chance.around(0.0, 0.06),
        scale=(chance.between(0.96, 1.16), chance.between(0.96, 1.16)),
        shift=(chance.around(0.0, 0.08), chance.around(0.02, 0.12)),
    )


def _choose_lung(chance: Chance, side: int, breadth: float, length: float) -> Lung:
    return Lung(
        half_width=breadth * chance.between(0.64, 0.71),
        half_height=length * chance.between(0.82, 0.90),
        power=chance.between(2.1, 2.7),
        centre_y=chance.between(0.08, 0.16),
        inner=chance.between(0.10, 0.16) + (0.0 if side > 0 else 0.02),
        diaphragm=length * chance.between(0.56, 0.70) + (0.04 if side > 0 else 0.0),
        dome=chance.between(0.12, 0.26),
        dome_x=chance.between(0.28, 0.40),
    )


def _choose_opacities(chance: Chance) -> tuple[tuple[float, float, float, float, float], ...]:
    """None in most chests, else up to three, of any size; a few cover much of a lung."""
    if not chance.happens(0.4):
        return ()
    count = 1 + int(chance.between(0, 3))
    return tuple(
        (
            (1 if chance.happens(0.5) else -1) * chance.between(0.2, 0.55),
            chance.between(-0.45, 0.5),
            chance.between(0.07, 0.28),
            chance.between(0.07, 0.28),
            chance.between(0.08, 0.28),
        )
        for _ in range(count)
    )


def draw_chest(chest: Chest, size_px: int, chance: Chance) -> Canvas:
    """Add up the parts; ``colour[0]`` is attenuation, 0 in air to about 1. ``chance``: texture, seen by no label."""
    canvas = Canvas.blank(size_px, 1, chest.frame)
    heart = _heart_distance(canvas, chest)
    lungs = np.minimum(*(_lung_distance(canvas, chest, heart, side) for side in (-1, 1)))
    canvas.label[lungs < 0] = LUNG
    attenuation = canvas.colour[0]
    attenuation += _body(canvas, chest)
    attenuation += _abdomen(canvas, chest)
    attenuation += _heart_and_vessels(canvas, chest, heart)
    attenuation += _spine(canvas, chest)
    attenuation += _ribs(canvas, chest)
    attenuation += _clavicles_and_shoulders(canvas, chest)
    inside = _inside(lungs, 0.02)
    attenuation += inside * (_vessels(canvas, chest, chance) - _air(chest, lungs) + _opacities(canvas, chest, chance))
    attenuation += 0.018 * smooth_noise(chance, attenuation.shape, (9, 9))
    return canvas


def _inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 inside, 0 outside, soft between."""
    return smooth_step(-distance, -0.5 * softness, 0.5 * softness)


def _heart_distance(canvas: Canvas, chest: Chest) -> np.ndarray:
    """The left ventricle, a tilted ellipse, together with the right heart border and the great vessels above."""
    x, y, half_width, half_height, tilt = chest.heart
    cosine, sine = math.cos(tilt), math.sin(tilt)
    across = (canvas.x - x) * np.float32(cosine) + (canvas.y - y) * np.float32(sine)
    down = (canvas.y - y) * np.float32(cosine) - (canvas.x - x) * np.float32(sine)
    ventricle = ellipse(across, down, half_width, half_height)
    atrium = ellipse(canvas.x + 0.05, canvas.y - y + 0.05, 0.19, 0.34)
    arch = ellipse(canvas.x - 0.08, canvas.y + 0.24, 0.13, 0.22)
    return _joined(_joined(ventricle, atrium, 0.12), arch, 0.25)


def _joined(first: np.ndarray, second: np.ndarray, fillet: float) -> np.ndarray:
    """Union of two shapes with a rounded inner corner."""
    near = np.maximum(np.float32(fillet) - np.abs(first - second), 0)
    return np.minimum(first, second) - near * near * np.float32(0.25 / fillet)


def _lung_distance(canvas: Canvas, chest: Chest, heart: np.ndarray, side: int) -> np.ndarray:
    """Signed distance to one lung: rib cage, mediastinum, diaphragm and heart bound it."""
    lung = chest.lungs[side]
    outwards = side * canvas.x
    cage = ellipse(outwards - 0.03, canvas.y - lung.centre_y, lung.half_width, lung.half_height, lung.power)
    mediastinum = lung.inner + 0.10 * (canvas.y + 0.1) ** 2 - outwards
    diaphragm = 0.8 * _below_diaphragm(canvas, lung, outwards)
    bounds = np.maximum(np.maximum(cage, mediastinum), np.maximum(diaphragm, -heart))
    return bounds.astype(np.float32)


def _below_diaphragm(canvas: Canvas, lung: Lung, outwards: np.ndarray) -> np.ndarray:
    """Height below the dome: it falls steeply to the ribs and a little to the midline."""
    beyond_top = (outwards - np.float32(lung.dome_x)) / np.float32(0.42)
    fall = np.where(beyond_top > 0, 1.0, 0.3).astype(np.float32) * beyond_top * beyond_top
    return canvas.y - np.float32(lung.diaphragm) + np.float32(lung.dome) * (1 - np.minimum(fall, 2.5))


def _body(canvas: Canvas, chest: Chest) -> np.ndarray:
    """Soft tissue of trunk, neck and upper arms; thin at the skin."""
    trunk = ellipse(canvas.x, np.minimum(canvas.y - 0.6, 0), chest.body_half_width, 2.0, 2.0)
    arms = np.abs(canvas.x) - chest.arm_half_width * (1 + 0.15 * canvas.y)
    slope = chest.shoulder_y - canvas.y + 0.30 * canvas.x * canvas.x - 0.05
    trunk = np.maximum(_joined(trunk, np.maximum(arms, canvas.y - chest.armpit_y), 0.1), slope)
    neck = np.abs(canvas.x) - 0.24 - 0.3 * np.maximum(canvas.y + 0.95, 0) + 4 * np.maximum(canvas.y + 0.6, 0)
    body = _joined(trunk, neck, 0.15)
    thickness = 0.30 * _inside(body, 0.02) + 0.16 * _inside(body + 0.06, 0.16) + chest.fat * _inside(body + 0.02, 0.1)
    breasts = sum(_inside(ellipse(side * canvas.x - 0.42, canvas.y - 0.42, 0.34, 0.30), 0.10) for side in (-1, 1))
    return thickness + chest.breast * breasts


def _abdomen(canvas: Canvas, chest: Chest) -> np.ndarray:
    """Liver, spleen and stomach below the domes; sometimes air in the stomach."""
    total = np.zeros(canvas.label.shape, np.float32)
    for side in (-1, 1):
        lung = chest.lungs[side]
        below = _below_diaphragm(canvas, lung, side * canvas.x)
        inside = _inside(np.maximum(-below, np.abs(canvas.x) - chest.body_half_width * 0.93), 0.02)
        half = smooth_step(side * canvas.x, -0.06, 0.06)
        total += half * inside * (0.18 + 0.10 * smooth_step(below, 0.0, 0.5))
    lung = chest.lungs[1]
    bubble = ellipse(canvas.x - 0.33, canvas.y - lung.diaphragm + lung.dome - 0.17, 0.14, 0.09)
    return total - chest.stomach_bubble * _inside(bubble, 0.05)


def _heart_and_vessels(canvas: Canvas, chest: Chest, heart: np.ndarray) -> np.ndarray:
    """Heart and mediastinum, brighter towards the middle; the dark windpipe above."""
    column = np.abs(canvas.x) - 0.13 - 0.10 * (canvas.y + 0.1) ** 2
    density = chest.heart_density * (0.7 * _inside(heart, 0.02) + 0.3 * _inside(heart + 0.1, 0.2))
    upper = 0.5 + 0.5 * smooth_step(canvas.y, -0.95, -0.5)
    windpipe = np.maximum(np.abs(canvas.x + 0.01) - 0.045, canvas.y + 0.25)
    return np.maximum(density, 0.18 * upper * _inside(column, 0.06)) - 0.10 * _inside(windpipe, 0.05)


def _spine(canvas: Canvas, chest: Chest) -> np.ndarray:
    """A column of vertebrae with darker discs."""
    column = _inside(np.abs(canvas.x) - 0.10, 0.04)
    discs = 0.75 + 0.25 * np.cos(canvas.y * np.float32(2 * np.pi / (0.8 * chest.rib_spacing)))
    return chest.spine_density * column * discs


def _ribs(canvas: Canvas, chest: Chest) -> np.ndarray:
    """Posterior ribs that fall outwards and fainter anterior ribs that fall inwards, both denser at their edges."""
    outwards = np.abs(canvas.x)
    cage = np.minimum(
        ellipse(canvas.x - 0.03, canvas.y - 0.15, 0.73, 1.0, 2.4),
        ellipse(canvas.x + 0.03, canvas.y - 0.15, 0.73, 1.0, 2.4),
    )
    region = _inside(np.maximum(cage, 0.09 - outwards), 0.03) * smooth_step(-canvas.y, -0.75, -0.55)
    posterior = (
        canvas.y - chest.rib_slope * (outwards * outwards - 0.35 * outwards)
    ) / chest.rib_spacing + chest.rib_phase
    anterior = (canvas.y + 0.55 * outwards - 0.5 * outwards * outwards) / (1.15 * chest.rib_spacing) + chest.rib_phase
    bones = _bar(posterior, 0.24) + 0.45 * _bar(anterior, 0.28) * smooth_step(outwards, 0.25, 0.55)
    return chest.bone_density * region * bones


def _bar(phase: np.ndarray, half_width: float) -> np.ndarray:
    """Repeated soft bars, one per unit of ``phase``, with brighter rims."""
    away = np.abs(phase - np.floor(phase) - np.float32(0.5))
    inside = smooth_step(half_width - away, -0.06, 0.06)
    return inside * (0.75 + 0.5 * smooth_step(away, 0.5 * half_width, half_width))


def _clavicles_and_shoulders(canvas: Canvas, chest: Chest) -> np.ndarray:
    total = np.zeros(canvas.label.shape, np.float32)
    for side in (-1, 1):
        outwards = side * canvas.x - 0.40
        bent = canvas.y - chest.clavicle_y - chest.clavicle_tilt * outwards + 0.05 * np.sin(np.float32(5) * outwards)
        total += 1.3 * chest.bone_density * _inside(stroke(outwards, bent, 0.32, 0.035), 0.025)
        joint = ellipse(side * canvas.x - 0.92, canvas.y - chest.shoulder_y - 0.12, 0.13, 0.15)
        blade = ellipse(side * canvas.x - 0.78 + 0.2 * canvas.y, canvas.y + 0.35, 0.10, 0.32)
        total += 1.5 * chest.bone_density * _inside(joint, 0.05) + 0.6 * chest.bone_density * _inside(blade, 0.06)
    return total


def _air(chest: Chest, distance: np.ndarray) -> np.ndarray:
    """What air takes away, more towards the middle of the field."""
    return chest.aeration * (0.72 + 0.28 * smooth_step(-distance, 0.0, 0.18))


def _vessels(canvas: Canvas, chest: Chest, chance: Chance) -> np.ndarray:
    """Vessels that branch from the hilum on both sides and fade outwards."""
    across, down = np.abs(canvas.x) - np.float32(0.20), canvas.y
    far = np.sqrt(across * across + down * down)
    angle = np.arctan2(down, across)
    bends = 2.5 * smooth_noise(chance, canvas.label.shape, (4, 4))
    branches = np.cos(11 * angle + bends) * np.cos(17 * angle - 2 * bends + 5 * far)
    hilum = 0.5 * smooth_step(-far, -0.24, 0.0)
    return chest.vessels * (0.55 * smooth_step(branches, 0.1, 0.9) + hilum) * np.clip(1.1 - 1.3 * far, 0, 1)


def _opacities(canvas: Canvas, chest: Chest, chance: Chance) -> np.ndarray | float:
    """Cloudy patches within the lungs."""
    if not chest.opacities:
        return 0.0
    clouds = 1 + 0.45 * smooth_noise(chance, canvas.label.shape, (12, 12))
    patches = sum(
        density * np.exp(-(((canvas.x - x) / wide) ** 2) - ((canvas.y - y) / high) ** 2)
        for x, y, wide, high, density in chest.opacities
    )
    return patches * clouds
