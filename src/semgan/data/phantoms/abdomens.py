"""Phantom abdomens: what tissue lies where, as a continuous body in millimetres that any scanner may cut into voxels.

Patient coordinates as in DICOM: x to the patient's left, y to the back, z up. Organs are placed in a standard body,
whose origin lies between the flanks, at the height of the right diaphragm's dome; a patient is that body scaled, warped
by slow waves and moved. Anatomy is a function of the seed alone: it knows no modality and no voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import numpy as np

from semgan.data.phantoms.chance import Chance

Point = tuple[float, float, float]


class Tissue(IntEnum):
    """What a voxel is made of; the order is that of the tables of values in abdomen_scans."""

    OUTSIDE = 0
    FAT = 1
    MUSCLE = 2
    LUNG = 3
    BONE = 4
    MARROW = 5
    DISC = 6
    CORD = 7
    HEART = 8
    BLOOD = 9
    LIVER = 10
    LIVER_VESSEL = 11
    TUMOUR = 12
    KIDNEY = 13
    SPLEEN = 14
    PANCREAS = 15
    BOWEL_WALL = 16
    BOWEL_FLUID = 17
    GAS = 18
    BILE = 19


LIVER_TISSUES = (Tissue.LIVER, Tissue.LIVER_VESSEL)


@dataclass(frozen=True)
class Waves:
    """A slow random function of space: a sum of sines. ``numbers`` [n, 3] in radians per mm, phases and heights [n]."""

    numbers: np.ndarray
    phases: np.ndarray
    heights: np.ndarray

    @classmethod
    def choose(cls, chance: Chance, count: int, lengths_mm: tuple[float, float], deviation: float) -> Waves:
        """``count`` waves of such lengths in directions by chance, of this deviation together."""
        directions = chance.normals(count, 3).astype(np.float64)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True) + 1e-9
        lengths = lengths_mm[0] + (lengths_mm[1] - lengths_mm[0]) * chance.uniforms(count, 1)
        phases = 2 * np.pi * chance.uniforms(count)
        return cls(directions * (2 * np.pi / lengths), phases, np.full(count, deviation * np.sqrt(2 / count)))

    def at(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Values ``[rows, columns]`` on a raster of x ``[columns]`` and y ``[rows]`` at one height."""
        along_x = self.numbers[:, :1] * x
        along_y = self.numbers[:, 1:2] * y + (self.numbers[:, 2] * z + self.phases)[:, None]
        of_sine = (self.heights[:, None] * np.cos(along_y)).T @ np.sin(along_x)
        of_cosine = (self.heights[:, None] * np.sin(along_y)).T @ np.cos(along_x)
        return (of_sine + of_cosine).astype(np.float32)


@dataclass(frozen=True)
class Blob:
    """An ellipsoid; half_axes along x, y, z in mm; lean: mm of x and y that its centre moves per mm upwards."""

    tissue: Tissue
    centre: Point
    half_axes: Point
    lean: tuple[float, float] = (0.0, 0.0)
    margin: float = 0.0  # of fat around it, mm
    gas: float | None = None  # content of hollow organs: where gas ends, -1 the front (none) to 1 the back
    wall: float = 0.0  # mm; 0: not hollow


@dataclass(frozen=True)
class Tube:
    """A vessel between two points, mm."""

    tissue: Tissue
    start: Point
    end: Point
    radius: float


@dataclass(frozen=True)
class Abdomen:
    """Everything that decides a body.

    scale:  patient mm per standard mm along x, y, z; position: of the standard body's origin in the patient's space
    fat:    thickness under the skin, mm; wall: of muscle and ribs
    liver:  right and left lobe; shape: waves of its surface, mm; blobs and tubes are painted in this order
    """

    scale: Point
    position: Point
    roundness: float
    fat: float
    wall: float
    domes: tuple[float, float]
    warps: tuple[Waves, Waves]
    surface: Waves
    lobes: tuple[Blob, Blob]
    before_liver: tuple[Blob, ...]
    in_liver: tuple[Tube, ...]
    tumours: tuple[Blob, ...]
    after_liver: tuple[Blob, ...]
    vessels: tuple[Tube, ...]
    rib_phase: float
    rib_slope: float
    vertebra_phase: float


def choose_abdomen(chance: Chance) -> Abdomen:
    """A patient by chance: build, organs, findings."""
    size = chance.between(0.9, 1.1)
    return Abdomen(
        scale=(size * chance.between(0.93, 1.07), size * chance.between(0.92, 1.08), chance.between(0.9, 1.08)),
        position=(chance.around(0, 15), chance.around(-150, 40), chance.around(-300, 200)),
        roundness=chance.between(2.1, 2.6),
        fat=chance.between(6, 24),
        wall=chance.between(10, 15),
        domes=(0.0, chance.between(-22, -4)),
        warps=(Waves.choose(chance, 4, (110, 240), 2.5), Waves.choose(chance, 4, (110, 240), 2.5)),
        surface=Waves.choose(chance, 6, (45, 110), 3.0),
        lobes=_choose_lobes(chance),
        before_liver=_choose_bowel(chance),
        in_liver=_choose_liver_vessels(chance),
        tumours=_choose_tumours(chance),
        after_liver=_choose_organs(chance),
        vessels=_choose_vessels(chance),
        rib_phase=chance.between(0, 1),
        rib_slope=chance.between(50, 80),
        vertebra_phase=chance.between(0, 1),
    )


def _near(chance: Chance, centre: Point, spread: float) -> Point:
    x, y, z = (chance.around(value, spread) for value in centre)
    return x, y, z


def _sized(chance: Chance, half_axes: Point, spread: float = 0.15) -> Point:
    """Half axes times 1 +- spread, together and each for itself."""
    common = chance.around(1, spread)
    x, y, z = (value * common * chance.around(1, spread / 2) for value in half_axes)
    return x, y, z


def _choose_lobes(chance: Chance) -> tuple[Blob, Blob]:
    right = Blob(Tissue.LIVER, _near(chance, (-74, 6, -70), 6), _sized(chance, (68, 82, 84), 0.1), lean=(0.12, -0.1))
    reach = chance.between(50, 85)
    left = Blob(Tissue.LIVER, _near(chance, (0, -48, -58), 7), _sized(chance, (reach, 34, 42)), lean=(0, 0.25))
    return right, left


def _choose_bowel(chance: Chance) -> tuple[Blob, ...]:
    """Loops in the fat of the lower abdomen; the liver lies in front of what it meets."""
    loops = []
    for _ in range(int(chance.between(30, 65))):
        centre = chance.between(-85, 90), chance.between(-72, 20), chance.between(-290, -105)
        axes = _sized(chance, (18, 16, 26), 0.3)
        gas = chance.between(-0.6, 0.6) if chance.happens(0.3) else -1.0
        loops.append(Blob(Tissue.BOWEL_WALL, centre, axes, margin=1.5, gas=gas, wall=3))
    transverse = Blob(
        Tissue.BOWEL_WALL, _near(chance, (10, -66, -165), 15), (85, 17, 17), gas=chance.between(-0.4, 0.9), wall=3
    )
    return (*loops, transverse)


def _choose_organs(chance: Chance) -> tuple[Blob, ...]:
    """What lies beside and behind the liver, and dents it."""
    hollow = partial(Blob, Tissue.BOWEL_WALL, margin=3.0, wall=4.0)
    flexure = -150 + chance.around(0, 20)
    return (
        Blob(Tissue.PANCREAS, _near(chance, (14, 2, -112), 6), _sized(chance, (50, 10, 14)), lean=(0, -0.3), margin=4),
        hollow(
            _near(chance, (66, -22, -66), 8),
            _sized(chance, (40, 42, 48), 0.2),
            lean=(0.25, 0.3),
            gas=chance.between(-0.9, 0.5),
        ),
        Blob(Tissue.SPLEEN, _near(chance, (104, 36, -64), 6), _sized(chance, (27, 40, 50), 0.18), margin=2),
        Blob(Tissue.KIDNEY, _near(chance, (-58, 52, -146), 7), _sized(chance, (27, 25, 52), 0.1), (0.2, 0.1), margin=7),
        Blob(Tissue.KIDNEY, _near(chance, (60, 50, -132), 7), _sized(chance, (27, 25, 52), 0.1), (-0.2, 0.1), margin=7),
        Blob(Tissue.FAT, (-42, 46, -146), (14, 9, 26)),
        Blob(Tissue.FAT, (44, 44, -132), (14, 9, 26)),
        Blob(Tissue.BILE, _near(chance, (-42, -42, -118), 8), _sized(chance, (13, 16, 26), 0.3), (0, 0.4), margin=1),
        hollow((-92, 0, flexure - 80), (23, 24, 62), gas=chance.between(-0.5, 0.6)),
        hollow((106, 14, -190), (16, 17, 95), gas=chance.between(-0.8, 0.6)),
    )


def _choose_liver_vessels(chance: Chance) -> tuple[Tube, ...]:
    """Three hepatic veins that meet at the vena cava, and the portal vein with its branches."""
    confluence: Point = (-24, 30, -18)
    hilum: Point = _near(chance, (-34, 4, -88), 5)
    tubes = []
    for far in ((-112, 10, -50), (-68, -48, -56), (-6, -52, -44)):
        middle = _near(chance, tuple(np.add(confluence, far) / 2), 6)
        tubes += [Tube(Tissue.LIVER_VESSEL, confluence, middle, 4.5)]
        tubes += [Tube(Tissue.LIVER_VESSEL, middle, _near(chance, far, 12), 3.2)]
    for far in ((-104, -6, -84), (-98, 34, -66), (-84, -22, -124), (4, -50, -66)):
        middle = _near(chance, tuple(np.add(hilum, far) / 2), 6)
        tubes += [Tube(Tissue.LIVER_VESSEL, hilum, middle, 5.0)]
        tubes += [Tube(Tissue.LIVER_VESSEL, middle, _near(chance, far, 12), 3.2)]
    return tuple(tubes)


def _choose_tumours(chance: Chance) -> tuple[Blob, ...]:
    """None in two of five patients, else one to five, small ones more often."""
    if chance.happens(0.4):
        return ()
    found = []
    for _ in range(1 + int(chance.between(0, 5))):
        radius = 5 + 22 * chance.between(0, 1) ** 2
        centre = _near(chance, (-72, -4, -74), 52)
        found.append(Blob(Tissue.TUMOUR, centre, _sized(chance, (radius, radius, radius), 0.2)))
    return tuple(found)


def _choose_vessels(chance: Chance) -> tuple[Tube, ...]:
    aorta, cava = chance.between(8.5, 12), chance.between(9, 13)
    bend = chance.around(12, 6)
    return (
        Tube(Tissue.BLOOD, (bend, 34, 80), (14, 27, -110), aorta),
        Tube(Tissue.BLOOD, (14, 27, -110), (6, 26, -320), aorta * 0.85),
        Tube(Tissue.BLOOD, (-24, 30, 0), (-22, 26, -130), cava),
        Tube(Tissue.BLOOD, (-22, 26, -130), (-20, 27, -320), cava * 0.85),
        Tube(Tissue.BLOOD, (8, 4, -118), (-30, 4, -92), 6.5),
    )
