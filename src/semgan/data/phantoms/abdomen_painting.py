"""A phantom abdomen cut into voxels: the tissue of every voxel, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semgan.data.phantoms.abdomens import Abdomen, Blob, Point, Tissue, Tube

HALF_WIDTH, HALF_DEPTH = 165.0, 112.0  # of the standard body, mm
VERTEBRA_MM, DISC_SHARE = 30.0, 0.24
MEDIASTINUM = (
    Blob(Tissue.FAT, (0, -10, 20), (26, 72, 120)),
    Blob(Tissue.FAT, (18, -30, 22), (70, 50, 50)),
    Blob(Tissue.HEART, (18, -30, 26), (66, 46, 46)),
)
RIB_SPACING_MM, RIB_HALF_HEIGHT_MM = 27.0, 5.5


@dataclass(frozen=True)
class Grid:
    """Where voxels lie: ``[slices, rows, columns]`` upwards, to the back, to the patient's left.

    origin:     of the first voxel's centre in the patient's space (DICOM's: left, back, up), mm
    spacing_mm: between slices, rows, columns
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin: Point

    @property
    def affine(self) -> np.ndarray:
        """``[4, 4]`` of index (column, row, slice) -> mm right, anterior, superior, as NIfTI counts."""
        affine = np.diag([-self.spacing_mm[2], -self.spacing_mm[1], self.spacing_mm[0], 1.0])
        affine[:3, 3] = -self.origin[0], -self.origin[1], self.origin[2]
        return affine

    def corner(self, number: int) -> Point:
        """The first voxel's centre of a slice in the patient's space, mm."""
        x, y, z = self.origin
        return x, y, z + number * self.spacing_mm[0]

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x of the columns, y of the rows, z of the slices, mm."""
        x, y, z = (
            start + step * np.arange(count)
            for start, step, count in zip(self.origin, self.spacing_mm[::-1], self.shape[::-1], strict=True)
        )
        return x, y, z


def paint(abdomen: Abdomen, grid: Grid) -> np.ndarray:
    """`Tissue` of every voxel's centre, uint8 ``[slices, rows, columns]``."""
    x, y, z = (
        (axis - position) / scale
        for axis, position, scale in zip(grid.axes(), abdomen.position, abdomen.scale, strict=True)
    )
    tissue = np.empty(grid.shape, np.uint8)
    for number, height in enumerate(z):
        tissue[number] = _Slice(abdomen, x, y, float(height)).painted()
    return tissue


class _Slice:
    """One slice under the brush; coordinates in standard mm, ``x`` and ``y`` warped."""

    def __init__(self, abdomen: Abdomen, x: np.ndarray, y: np.ndarray, z: float) -> None:
        self.abdomen, self.z = abdomen, z
        self.x = x.astype(np.float32) + abdomen.warps[0].at(x, y, z)
        self.y = y.astype(np.float32)[:, None] + abdomen.warps[1].at(x, y, z)
        self.ripples = abdomen.surface.at(x, y, z)
        self.tissue = np.zeros(self.x.shape, np.uint8)

    def painted(self) -> np.ndarray:
        abdomen = self.abdomen
        depth = self.depth()
        cavity = depth > 0
        diaphragm = self.diaphragm()
        self.paint_wall(depth)
        abdominal = cavity & (diaphragm > 0)
        for blob in abdomen.before_liver:
            self.paint_blob(blob, abdominal)
        self.paint_liver(depth, diaphragm)
        self.paint_thorax(cavity & (diaphragm <= 0))
        for blob in abdomen.after_liver:
            self.paint_blob(blob, abdominal & (depth > 1))
        self.paint_psoas(abdominal)
        for tube in abdomen.vessels:
            self.paint_tube(tube, cavity)
        self.paint_spine()
        return self.tissue

    def depth(self) -> np.ndarray:
        """mm below the inner surface of the body's wall (negative in it); outside the body far below zero."""
        p = self.abdomen.roundness
        reach = (np.abs(self.x / HALF_WIDTH) ** p + np.abs(self.y / HALF_DEPTH) ** p) ** (1 / p) + 1e-6
        under_skin = np.hypot(self.x, self.y) * (1 / reach - 1)
        front = -self.y / HALF_DEPTH
        self.fat = self.abdomen.fat * (1 + 0.3 * front)
        self.under_skin = under_skin
        return under_skin - self.fat - self.abdomen.wall

    def diaphragm(self) -> np.ndarray:
        """mm below the diaphragm."""
        domes = [
            top - 58 * (((self.x - side * 74) / 95) ** 2 + ((self.y + 5) / 82) ** 2)
            for side, top in zip((-1, 1), self.abdomen.domes, strict=True)
        ]
        return np.maximum(*domes) - self.z

    def paint_wall(self, depth: np.ndarray) -> None:
        """Skin, fat, muscle with ribs, and fat inside."""
        wall = self.abdomen.wall
        self.tissue[self.under_skin > 0] = Tissue.MUSCLE
        self.tissue[(self.under_skin > 2) & (depth < -wall)] = Tissue.FAT
        self.tissue[depth > 0] = Tissue.FAT
        back = np.arctan2(np.abs(self.x), self.y) / np.pi  # 0 at the spine, 1 at the front
        height = self.z + self.abdomen.rib_slope * back
        off = np.abs((height / RIB_SPACING_MM + self.abdomen.rib_phase) % 1 - 0.5) * RIB_SPACING_MM
        reaches_front = back < 0.62 + np.clip((self.z + 90) / 400, -0.25, 0.2)  # the costal arch opens downwards
        from_middle = np.hypot(off / RIB_HALF_HEIGHT_MM, (depth + wall / 2) / 4.5)
        ribs = (from_middle < 1) & reaches_front & (height > -150)
        self.tissue[ribs] = Tissue.BONE
        self.tissue[ribs & (from_middle < 0.5)] = Tissue.MARROW

    def paint_thorax(self, above: np.ndarray) -> None:
        """Lungs, the heart on the diaphragm, the mediastinum between."""
        self.tissue[above] = Tissue.LUNG
        for part in MEDIASTINUM:
            self.tissue[above & (self.distance(part) < 0)] = part.tissue

    def paint_liver(self, depth: np.ndarray, diaphragm: np.ndarray) -> None:
        right, left = (self.distance(lobe) for lobe in self.abdomen.lobes)
        blend = np.clip(0.5 + (right - left) / 28, 0, 1)
        whole = right + blend * (left - right) - 14 * blend * (1 - blend) + self.ripples
        inside = (whole < 0) & (depth > 1.5) & (diaphragm > 2.5)
        if not inside.any():
            return
        fissure = (np.abs(self.x + 12 + 0.15 * self.y) < 1.8) & (self.y < -44) & (self.z < -40)
        self.tissue[inside] = Tissue.LIVER
        self.tissue[inside & fissure] = Tissue.FAT
        for tube in self.abdomen.in_liver:
            self.paint_tube(tube, inside & (whole < -3))
        for tumour in self.abdomen.tumours:
            self.tissue[inside & (self.tissue != Tissue.FAT) & (self.distance(tumour) < 0)] = tumour.tissue

    def paint_blob(self, blob: Blob, within: np.ndarray) -> None:
        if abs(self.z - blob.centre[2]) > blob.half_axes[2] + blob.margin + 5:
            return
        distance = self.distance(blob) + 0.4 * self.ripples
        if blob.margin:
            self.tissue[within & (distance < blob.margin)] = Tissue.FAT
        self.tissue[within & (distance < 0)] = blob.tissue
        if blob.wall and blob.gas is not None:
            lumen = within & (distance < -blob.wall)
            self.tissue[lumen] = Tissue.BOWEL_FLUID
            self.tissue[lumen & (self.y < blob.centre[1] + blob.gas * blob.half_axes[1])] = Tissue.GAS

    def paint_tube(self, tube: Tube, within: np.ndarray) -> None:
        low, high = sorted((tube.start[2], tube.end[2]))
        if not low - tube.radius <= self.z <= high + tube.radius:
            return
        start, along = np.array(tube.start, np.float32), np.subtract(tube.end, tube.start).astype(np.float32)
        x, y, z = self.x - start[0], self.y - start[1], self.z - start[2]
        place = np.clip((x * along[0] + y * along[1] + z * along[2]) / (along @ along), 0, 1)
        squared = (x - place * along[0]) ** 2 + (y - place * along[1]) ** 2 + (z - place * along[2]) ** 2
        self.tissue[within & (squared < tube.radius**2)] = tube.tissue

    def paint_psoas(self, within: np.ndarray) -> None:
        """The muscles beside the spine, thicker further down."""
        growth = float(np.clip((-100 - self.z) / 120, 0, 1))
        if growth:
            reach = np.hypot((np.abs(self.x) - 34) / 15, (self.y - 60) / 17)
            self.tissue[within & (reach < growth**0.5)] = Tissue.MUSCLE

    def paint_spine(self) -> None:
        """Muscles of the back, a vertebra or a disc, canal and processes."""
        x, y = np.abs(self.x), self.y
        level = (self.z / VERTEBRA_MM + self.abdomen.vertebra_phase) % 1
        inside = self.under_skin > self.fat
        self.tissue[inside & (np.hypot((x - 27) / 25, (y - 86) / 17) < 1)] = Tissue.MUSCLE
        body = np.hypot(self.x / 21, (y - 53) / 16)
        if level < DISC_SHARE:
            self.tissue[body < 1] = Tissue.DISC
        else:
            self.tissue[body < 1] = Tissue.BONE
            self.tissue[body < 0.86] = Tissue.MARROW
        arch = np.hypot(self.x / 14, (y - 77) / 13)
        self.tissue[arch < 1] = Tissue.BONE if level > 0.4 else Tissue.MUSCLE
        self.tissue[np.hypot(self.x / 8, (y - 77) / 8) < 1] = Tissue.CORD
        if level > 0.55:
            self.tissue[(x < 3.5) & (y > 86) & (y < 102)] = Tissue.BONE
        if 0.6 < level < 0.8:
            self.tissue[(np.abs(y - 80 - 0.15 * x) < 3.2) & (x > 12) & (x < 38)] = Tissue.BONE

    def distance(self, blob: Blob) -> np.ndarray:
        """About the signed mm to an ellipsoid's surface."""
        up = self.z - blob.centre[2]
        x = (self.x - blob.centre[0] - blob.lean[0] * up) / blob.half_axes[0]
        y = (self.y - blob.centre[1] - blob.lean[1] * up) / blob.half_axes[1]
        return (np.sqrt(x * x + y * y + (up / blob.half_axes[2]) ** 2) - 1) * min(blob.half_axes)
