"""A face painted back to front: backdrop, hair behind, body, ears, head, eyes, nose, mouth, brows, hair in front."""

from __future__ import annotations

import math

import numpy as np

from semgan.data.phantoms.canvas import Canvas, ellipse, smooth_noise, smooth_step, stroke
from semgan.data.phantoms.chance import Chance
from semgan.data.phantoms.faces import BACKGROUND, EAR, EYE, EYEBROW, HAIR, MOUTH, NOSE, SKIN, Face


def draw_face(face: Face, size_px: int, chance: Chance) -> Canvas:
    """Paint the face back to front; ``chance`` decides only what no label depends on (background, texture)."""
    canvas = Canvas.blank(size_px, 3, face.frame)
    _paint_background(canvas, chance)
    strands = _strands(canvas, chance)
    _paint_back_hair(canvas, face, strands)
    _paint_body(canvas, face, chance)
    for side in (-1, 1):
        _paint_ear(canvas, face, side)
    _paint_head(canvas, face, chance)
    for side in (-1, 1):
        _paint_eye(canvas, face, side)
    _paint_nose(canvas, face)
    _paint_mouth(canvas, face)
    for side in (-1, 1):
        _paint_eyebrow(canvas, face, side)
    _paint_front_hair(canvas, face, strands)
    return canvas


def _paint_background(canvas: Canvas, chance: Chance) -> None:
    """Fill the canvas with a gradient of two colours, and a texture: none, clouds, blurred lights or panels."""
    shape = canvas.label.shape
    down = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    across = np.linspace(0, 1, shape[1], dtype=np.float32)[None, :]
    direction = chance.between(0, 6.28)
    ramp = np.clip(0.5 + (across - 0.5) * math.cos(direction) + (down - 0.5) * math.sin(direction), 0, 1)
    kind = chance.choose({"plain": 3, "clouds": 3, "lights": 2, "panels": 2})
    if kind == "clouds":
        cells = chance.between(2, 8)
        ramp = ramp + 0.5 * smooth_noise(chance, shape, (cells, cells))
    elif kind == "lights":
        cells = chance.between(4, 9)
        ramp = ramp + 1.2 * smooth_step(smooth_noise(chance, shape, (cells, cells)), 0.3, 0.9)
    elif kind == "panels":
        (first, second, floor), blurred = chance.uniforms(3).tolist(), chance.between(0.005, 0.06)
        doors = smooth_step(across - first, -blurred, blurred) + smooth_step(across - second, -blurred, blurred)
        ramp = ramp + 0.5 * doors * smooth_step(floor + 0.3 - down, -blurred, blurred)
    first, second = (0.08 + 0.88 * chance.uniforms(3) for _ in range(2))
    first, second = (colour.mean() + 0.5 * (colour - colour.mean()) for colour in (first, 0.5 * (first + second)))
    fill = first[:, None, None] + (second - first)[:, None, None] * np.clip(ramp, -0.2, 1.3)
    canvas.colour[...] = np.clip(fill, 0.02, 1)
    canvas.shade[...] = chance.between(0.75, 1.05)


def _lit(face: Face, canvas: Canvas, half_width: float, half_height: float, centre_y: float = 0.0) -> np.ndarray:
    """Light on an egg of the given size: ambient plus diffuse."""
    across, down = 0.92 * canvas.x / half_width, 0.92 * (canvas.y - centre_y) / half_height
    ahead = np.sqrt(np.maximum(1 - across * across - down * down, 0.03))
    lambert = across * face.light[0] + down * face.light[1] + ahead * face.light[2]
    return face.ambient + (1.08 - face.ambient) * np.clip(lambert, 0, 1.1)


def _strands(canvas: Canvas, chance: Chance) -> np.ndarray:
    fine = smooth_noise(chance, canvas.label.shape, (5, 34))
    coarse = smooth_noise(chance, canvas.label.shape, (4, 12))
    return (1 + 0.12 * fine + 0.10 * coarse).astype(np.float32)


def _hair_outline(canvas: Canvas, face: Face, length: float) -> np.ndarray:
    """Signed distance to the outer contour of the hair down to ``length``."""
    hair = face.hair
    below = np.maximum(canvas.y, 0)
    swing = hair.wave * np.sin(np.float32(9) * canvas.y + 5 * canvas.x + np.float32(hair.wave_phase))
    contour = ellipse(
        canvas.x / (1 + hair.flare * below), np.minimum(canvas.y, 0), face.half_width + hair.side, 1 + hair.top
    )
    end = canvas.y - length - 0.5 * hair.wave * np.sin(11 * canvas.x + np.float32(hair.wave_phase))
    return np.maximum(contour + swing, end)


def _paint_back_hair(canvas: Canvas, face: Face, strands: np.ndarray) -> None:
    hair = face.hair
    if hair.style == "bun":
        bun = canvas.window(0.3 * hair.parting, -1.12 - hair.top, 0.5)
        distance = ellipse(bun.x - 0.3 * hair.parting, bun.y + 1.1 + hair.top, 0.34, 0.28)
        bun.paint(distance, hair.colour, label=HAIR, shade=_lit(face, bun, 0.6, 0.5, -1.1 - hair.top))
    if hair.length > 0.5:
        inside = 0.55 * strands * (0.6 + 0.4 * face.ambient)
        canvas.paint(_hair_outline(canvas, face, hair.length), hair.colour, label=HAIR, shade=inside)


def _paint_body(canvas: Canvas, face: Face, chance: Chance) -> None:
    """Shoulders in clothes, neck, and the shadow of the chin: all background."""
    clothes = 0.06 + 0.85 * chance.uniforms(3)
    neckline = chance.between(1.25, 1.5)
    light = _lit(face, canvas, 1.8, 1.6, 2.2)
    shoulders = ellipse(canvas.x, canvas.y - 2.15, 1.55, 0.95, 2.5)
    canvas.paint(shoulders, clothes, label=BACKGROUND, shade=light)
    neck = np.abs(canvas.x) - 0.40 - 0.25 * np.maximum(canvas.y - 1.1, 0) ** 2
    neck = np.maximum(neck, np.maximum(canvas.y - neckline - 0.45 + 0.9 * canvas.x * canvas.x, 0.3 - canvas.y))
    shadow = 0.62 + 0.3 * smooth_step(canvas.y, 0.95, 1.45)
    canvas.paint(neck, face.skin, label=BACKGROUND, shade=light * shadow)


def _paint_ear(canvas: Canvas, face: Face, side: int) -> None:
    """The ear on one side; turning the head hides the far ear behind it and brings the near one forward."""
    half_width = 0.15 + 0.05 * max(-side * math.sin(face.yaw) * 2, 0)
    x = side * (face.half_width + 0.055) - 0.16 * math.sin(face.yaw)
    y = 0.06 + 0.3 * math.sin(face.pitch)
    ear = canvas.window(x, y, 0.4)
    lean = ear.x - x - side * 0.12 * (ear.y - y) * -1
    shape = ellipse(lean, ear.y - y, half_width, face.ear_height)
    tone = face.skin * np.array([0.98, 0.86, 0.84])
    light = face.ambient + (1 - face.ambient) * np.clip(0.62 + 0.5 * side * face.light[0], 0.15, 1)
    ear.paint(shape, tone, label=EAR, shade=light)
    ear.paint(
        ellipse(lean, ear.y - y + 0.02, 0.5 * half_width, 0.6 * face.ear_height),
        tone * 0.62,
        softness=0.08,
        opacity=0.8,
    )


def _head_distance(canvas: Canvas, face: Face) -> np.ndarray:
    """Signed distance to an egg: a round skull, a jaw that narrows towards the chin."""
    below = np.maximum(canvas.y, 0)
    narrowing = 1 - np.float32(face.jaw) * below * below
    lean = 0.10 * math.sin(face.yaw) * below
    return ellipse((canvas.x - lean) / np.maximum(narrowing, 0.3), canvas.y, face.half_width, 1.0, 2.15)


def _paint_head(canvas: Canvas, face: Face, chance: Chance) -> None:
    light = _lit(face, canvas, 1.12 * face.half_width, 1.15)
    mottle = 1 + 0.02 * smooth_noise(chance, canvas.label.shape, (14, 14))
    canvas.paint(_head_distance(canvas, face), face.skin, label=SKIN, shade=(light * mottle).astype(np.float32))
    blush = face.skin * np.array([1.0, 0.80, 0.78])
    for side in (-1, 1):
        x, y, narrowing = face.on_head(side * 0.42, 0.30)
        cheek = canvas.window(x, y, 0.4)
        cheek.paint(ellipse(cheek.x - x, cheek.y - y, 0.2 * narrowing, 0.17), blush, softness=0.25, opacity=0.55)
    if face.beard:
        _paint_beard(canvas, face)


def _paint_beard(canvas: Canvas, face: Face) -> None:
    x, y, _ = face.on_head(0.0, 0.62)
    around_mouth = ellipse(canvas.x - x, canvas.y - y - 0.18, face.half_width * 0.78, 0.58)
    cheeks_free = ellipse(canvas.x - x, canvas.y - 0.12, face.half_width * 0.72, 0.36)
    region = np.maximum(np.maximum(around_mouth, -cheeks_free), _head_distance(canvas, face))
    canvas.paint(region, np.minimum(face.hair.colour, face.skin * 0.7), softness=0.12, opacity=face.beard)


def _paint_eye(canvas: Canvas, face: Face, side: int) -> None:
    """Socket, white, iris, pupil, glint, upper lid; all within the lids is eye."""
    x, y, narrowing = face.on_head(side * face.eye_distance, -0.04)
    eye = canvas.window(x, y, 0.55)
    half_width, half_height = face.eye_half_width * narrowing, face.eye_half_height
    across, down = eye.x - x, eye.y - y
    socket = ellipse(across, down + 0.03, 1.4 * half_width, 2.0 * half_height)
    eye.paint(socket, face.skin * np.array([0.74, 0.66, 0.64]), softness=0.14, opacity=0.55)
    bow = 1 - (across / half_width) ** 2
    lids = np.maximum(-down - 1.1 * half_height * bow, down - 0.9 * half_height * bow)
    shadow = 0.80 + 0.18 * face.ambient
    eye.paint(lids, (0.95, 0.94, 0.93), label=EYE, shade=shadow)
    looking_x, looking_y = face.gaze + 0.06 * math.sin(face.yaw), -0.005
    iris = ellipse(across - looking_x, down - looking_y, 0.095 * narrowing, 0.095)
    eye.paint(np.maximum(iris, lids), face.eye_colour)
    eye.paint(np.maximum(iris + 0.05, lids), (0.03, 0.03, 0.03))
    glint = ellipse(across - looking_x - 0.035 * math.copysign(1.0, face.light[0]), down + 0.035, 0.024, 0.024)
    eye.paint(np.maximum(glint, lids), (1.0, 1.0, 1.0), shade=1.0)
    upper_lid = np.maximum(lids, down + 1.1 * half_height * bow - 0.05)
    eye.paint(upper_lid, face.skin * 0.18)


def _paint_eyebrow(canvas: Canvas, face: Face, side: int) -> None:
    """An arched bar above the eye, thinner outwards."""
    x, y, narrowing = face.on_head(side * (face.eye_distance + 0.01), -0.04 - face.brow_height)
    brow = canvas.window(x, y, 0.5)
    outwards = side * (brow.x - x) / narrowing
    arch = brow.y - y + face.brow_tilt * outwards - 1.1 * outwards * outwards + 0.03
    thickness = face.brow_thickness * (1 - 0.9 * np.clip(outwards, -0.1, 0.3))
    brow.paint(stroke(outwards, arch, 0.20, thickness), face.brow_colour, label=EYEBROW, shade=0.85)


def _paint_nose(canvas: Canvas, face: Face) -> None:
    """A bridge that widens towards the wings, lit on one side, with nostrils and a shadow below."""
    top, bottom = 0.02, face.nose_bottom
    root_x, root_y, _ = face.on_head(0.0, top, 0.05)
    tip_x, tip_y, _ = face.on_head(0.0, bottom, 0.14)
    nose = canvas.window(0.5 * (root_x + tip_x), 0.5 * (root_y + tip_y), 0.55)
    along = (nose.y - root_y) / (tip_y - root_y)
    across = nose.x - (root_x + (tip_x - root_x) * np.clip(along, 0, 1))
    width = 0.075 + (face.nose_half_width - 0.075) * np.clip(along, 0, 1) ** 2
    shape = np.maximum(np.abs(across) - width, root_y - nose.y)
    shape = np.maximum(shape, nose.y - tip_y - 0.03 + 2.2 * across * across)
    below = ellipse(across - 0.05 * -face.light[0], nose.y - tip_y - 0.05, 0.9 * face.nose_half_width, 0.06)
    nose.paint(below, shade=nose.shade * 0.66, softness=0.06)
    slope = np.clip(across / width, -1, 1)
    light = face.ambient + (1.1 - face.ambient) * np.clip(
        0.72 + 0.85 * slope * face.light[0] - 0.15 * slope * slope, 0.1, 1.15
    )
    nose.paint(shape, face.skin * np.array([1.0, 0.91, 0.88]), label=NOSE, shade=light.astype(np.float32))
    ridge = np.maximum(ellipse(across, nose.y - tip_y + 0.10, 0.055, 0.09), shape)
    nose.paint(ridge, np.minimum(face.skin * 1.15 + 0.08, 1.0), softness=0.06, opacity=0.8)
    for side in (-1, 1):
        nostril = ellipse(across - side * 0.55 * face.nose_half_width, nose.y - tip_y + 0.015, 0.05, 0.034)
        nose.paint(np.maximum(nostril, shape), face.skin * 0.25)


def _paint_mouth(canvas: Canvas, face: Face) -> None:
    """Two lips, their line or the opening between them, teeth in a wide opening."""
    x, y, narrowing = face.on_head(0.0, 0.64)
    mouth = canvas.window(x, y, 0.6)
    across = (mouth.x - x) / (face.mouth_half_width * narrowing)
    bow = 1 - across * across
    down = mouth.y - y - face.smile * (0.35 - across * across) * 0.5
    gap = 0.5 * face.mouth_opening * bow
    upper = -down - gap - face.lip_height * bow * (0.9 + 0.1 * np.cos(9 * across))
    lips = np.maximum(upper, down - gap - 1.25 * face.lip_height * bow)
    light = face.ambient + (1 - face.ambient) * (0.8 + 0.25 * smooth_step(down, 0.0, 0.1))
    mouth.paint(lips, face.lip_colour, label=MOUTH, shade=light.astype(np.float32))
    opening = np.maximum(np.abs(down) - gap - 0.014, lips)
    mouth.paint(opening, np.array([0.22, 0.05, 0.06]) * (0.6 + 0.4 * face.skin[0]))
    if face.mouth_opening > 0.07:
        teeth = np.maximum(np.maximum(-down - gap, down - gap * 0.5 + 0.01), np.abs(across) - 0.8)
        mouth.paint(np.maximum(teeth, lips), (0.96, 0.95, 0.91))


def _paint_front_hair(canvas: Canvas, face: Face, strands: np.ndarray) -> None:
    hair = face.hair
    if hair.style == "bald":
        return
    shift = 0.18 * math.sin(face.yaw)
    opening = ellipse(
        canvas.x - shift - hair.parting * np.clip(-canvas.y, 0, 1) * 0.5,
        np.minimum(canvas.y - 0.42, 0),
        hair.opening * face.half_width,
        0.42 - hair.hairline,
        2.4,
    )
    if hair.fringe_line is not None:
        ragged = 0.035 * np.sin(17 * canvas.x + np.float32(hair.wave_phase))
        opening = np.maximum(opening, hair.fringe_line + hair.fringe_tilt * canvas.x + ragged - canvas.y)
    distance = np.maximum(_hair_outline(canvas, face, hair.length), -opening)
    light = _lit(face, canvas, face.half_width + hair.side + 0.1, 1.1 + hair.top)
    shine = 1 + 0.35 * np.exp(-(((canvas.y + 0.72 - 0.25 * canvas.x * canvas.x) / 0.14) ** 2))
    canvas.paint(distance, hair.colour, label=HAIR, shade=(light * strands * shine).astype(np.float32))
