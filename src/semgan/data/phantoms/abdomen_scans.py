"""Phantom abdomens as scanners show them: CT in Hounsfield units, T1-weighted MRI in and out of phase.

Values are the tissue's, a little other in every patient, blurred as the scanner's own resolution does, with its noise.
MRI keeps water and fat apart until the end: their signals add in phase and cancel out of phase, so that organs get the
dark outlines ("India ink") of real opposed-phase images wherever a voxel holds both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from semgan.data.phantoms.abdomen_painting import HALF_DEPTH, Grid, paint
from semgan.data.phantoms.abdomens import LIVER_TISSUES, Abdomen, Tissue, Waves, choose_abdomen
from semgan.data.phantoms.canvas import blur
from semgan.data.phantoms.chance import Chance

FAMILY = 2  # beside faces and chests, see catalogue
ANATOMY, CT, MRI = range(3)  # streams of chance
AIR_HU, LEAST_HU, MOST_HU = -1000.0, -1024, 3071
LITS_LIVER, LITS_TUMOUR = 1, 2
CHAOS_GREY = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}

# HU without contrast medium and in the portal venous phase, texture (deviation, HU).
_HU: dict[Tissue, tuple[float, float, float]] = {
    Tissue.OUTSIDE: (AIR_HU, AIR_HU, 0),
    Tissue.FAT: (-105, -102, 8),
    Tissue.MUSCLE: (52, 60, 8),
    Tissue.LUNG: (-850, -840, 45),
    Tissue.BONE: (620, 640, 120),
    Tissue.MARROW: (230, 240, 45),
    Tissue.DISC: (85, 90, 6),
    Tissue.CORD: (32, 36, 4),
    Tissue.HEART: (44, 135, 8),
    Tissue.BLOOD: (42, 160, 4),
    Tissue.LIVER: (62, 106, 5),
    Tissue.LIVER_VESSEL: (44, 158, 4),
    Tissue.TUMOUR: (38, 62, 12),
    Tissue.KIDNEY: (34, 182, 12),
    Tissue.SPLEEN: (48, 122, 5),
    Tissue.PANCREAS: (40, 95, 10),
    Tissue.BOWEL_WALL: (42, 85, 8),
    Tissue.BOWEL_FLUID: (18, 20, 16),
    Tissue.GAS: (-960, -960, 15),
    Tissue.BILE: (8, 8, 3),
}
# T1-weighted signal, its share that comes from fat, texture (share of the signal).
_T1: dict[Tissue, tuple[float, float, float]] = {
    Tissue.OUTSIDE: (0, 0, 0),
    Tissue.FAT: (1050, 0.9, 0.05),
    Tissue.MUSCLE: (400, 0.04, 0.06),
    Tissue.LUNG: (35, 0, 0.4),
    Tissue.BONE: (130, 0.4, 0.2),
    Tissue.MARROW: (430, 0.42, 0.12),
    Tissue.DISC: (330, 0, 0.05),
    Tissue.CORD: (250, 0, 0.1),
    Tissue.HEART: (330, 0.02, 0.1),
    Tissue.BLOOD: (210, 0, 0.15),
    Tissue.LIVER: (570, 0, 0.03),  # its fat is the patient's
    Tissue.LIVER_VESSEL: (360, 0, 0.05),
    Tissue.TUMOUR: (380, 0.02, 0.1),
    Tissue.KIDNEY: (400, 0.01, 0.07),
    Tissue.SPLEEN: (360, 0, 0.03),
    Tissue.PANCREAS: (560, 0.1, 0.08),
    Tissue.BOWEL_WALL: (400, 0.03, 0.1),
    Tissue.BOWEL_FLUID: (260, 0, 0.25),
    Tissue.GAS: (15, 0, 0.3),
    Tissue.BILE: (200, 0, 0.04),
}


@dataclass(frozen=True)
class Scan:
    """A scanned patient; all arrays ``[slices, rows, columns]`` of ``grid``.

    values: modality -> int16: "ct" in HU; "in" and "out" of phase in arbitrary units, about 0 to 1500
    tissue: `Tissue` as uint8
    """

    grid: Grid
    values: dict[str, np.ndarray]
    tissue: np.ndarray

    @property
    def lits_labels(self) -> np.ndarray:
        """As LiTS: 1 liver with its vessels, 2 tumour."""
        labels = np.isin(self.tissue, LIVER_TISSUES).astype(np.uint8) * LITS_LIVER
        labels[self.tissue == Tissue.TUMOUR] = LITS_TUMOUR
        return labels

    @property
    def chaos_labels(self) -> np.ndarray:
        """As CHAOS: a grey value per organ; the liver with its tumours."""
        grey = np.where(self.lits_labels > 0, CHAOS_GREY["liver"], 0).astype(np.uint8)
        grey[self.tissue == Tissue.SPLEEN] = CHAOS_GREY["spleen"]
        kidneys = self.tissue == Tissue.KIDNEY
        middle = self.grid.shape[2] // 2  # columns run to the patient's left
        grey[..., :middle][kidneys[..., :middle]] = CHAOS_GREY["right kidney"]
        grey[..., middle:][kidneys[..., middle:]] = CHAOS_GREY["left kidney"]
        return grey


def scan_ct(seed: int, size_px: int = 128, *, is_healthy: bool = False) -> Scan:
    """CT of the patient ``seed``: a table below, a round field of view, slices 4 to 5 mm apart.

    size_px: columns and rows of a field a little wider than the patient, 300 to 430 mm; is_healthy: without tumours.
    Raises ValueError for a negative seed and for under 16 px.
    """
    abdomen, chance = _patient(seed, size_px, is_healthy), Chance(FAMILY, seed, CT)
    field = 2 * max(165 * abdomen.scale[0], 120 * abdomen.scale[1]) * chance.between(1.06, 1.2)
    grid = _grid(abdomen, chance, (size_px, size_px), field / size_px, chance.between(4, 5))
    tissue = paint(abdomen, grid)
    in_portal_phase = chance.happens(0.75)
    means = np.array([_HU[kind][int(in_portal_phase)] for kind in Tissue], np.float32)
    soft = np.abs(means) < 300
    means[soft] += chance.normals(len(Tissue))[soft] * 5
    means[Tissue.LIVER] = np.clip(means[Tissue.LIVER], *((90, 120) if in_portal_phase else (55, 75)))
    textures = np.array([_HU[kind][2] for kind in Tissue], np.float32)
    values = means[tissue] + textures[tissue] * blur(chance.normals(*grid.shape), 1.0) * 3
    _lay_table(values, tissue, abdomen, grid)
    values = blur(values, 0.55)
    noise = blur(chance.normals(*grid.shape), 0.6)
    values += noise * np.float32(chance.between(10, 20) / noise.std())
    values = np.clip(np.rint(values), LEAST_HU, MOST_HU).astype(np.int16)
    axis = (np.arange(size_px) + 0.5) / size_px * 2 - 1
    values[:, np.hypot(axis[:, None], axis) > 1] = LEAST_HU
    return Scan(grid, {"ct": values}, tissue)


def scan_mri(seed: int, size_px: int = 128, *, is_healthy: bool = False) -> Scan:
    """Dual-echo T1 of the patient ``seed``: "in" and "out" of phase of one grid, slices 5.5 to 9 mm apart.

    size_px: columns of a field as wide as for CT; there are fewer rows. is_healthy, errors as `scan_ct`.
    """
    abdomen, chance = _patient(seed, size_px, is_healthy), Chance(FAMILY, seed, MRI)
    field = 2 * 165 * abdomen.scale[0] * chance.between(1.04, 1.16)
    grid = _grid(abdomen, chance, (round(size_px * 0.8), size_px), field / size_px, chance.between(5.5, 9))
    tissue = paint(abdomen, grid)
    signals, fat_shares, textures = (np.array([_T1[kind][part] for kind in Tissue], np.float32) for part in range(3))
    signals = signals * (1 + 0.06 * chance.normals(len(Tissue)))
    signals[Tissue.BILE] *= np.float32(chance.between(0.7, 2.4))  # by how thick it is
    fat_shares[Tissue.LIVER] = fat_shares[Tissue.LIVER_VESSEL] = np.float32(0.02 + 0.16 * chance.between(0, 1) ** 3)
    bias = Waves.choose(chance, 5, (250, 700), chance.between(0.1, 0.22))
    signal = signals[tissue] * (1 + textures[tissue] * blur(chance.normals(*grid.shape), 1.0) * 3)
    x, y, heights = grid.axes()
    signal *= np.exp(np.stack([bias.at(x, y, float(z)) for z in heights]))
    water, fat = blur((1 - fat_shares)[tissue] * signal, 0.75), blur(fat_shares[tissue] * signal, 0.75)
    gain, noise = chance.between(0.6, 1.25), chance.between(10, 22)
    phases = {"in": water + fat, "out": 0.95 * np.abs(water - 0.9 * fat)}
    return Scan(grid, {name: _magnitude(gain * part, noise, chance) for name, part in phases.items()}, tissue)


def _patient(seed: int, size_px: int, is_healthy: bool) -> Abdomen:
    if seed < 0 or size_px < 16:
        raise ValueError(f"A phantom's seed is 0 or more and its size 16 px or more; got {seed} and {size_px} px.")
    abdomen = choose_abdomen(Chance(FAMILY, seed, ANATOMY))
    return replace(abdomen, tumours=()) if is_healthy else abdomen


def _grid(abdomen: Abdomen, chance: Chance, size: tuple[int, int], pixel_mm: float, slice_mm: float) -> Grid:
    """Rows and columns around the patient, slices from below the liver to the lungs; spacing as headers round it."""
    pixel_mm, slice_mm = round(pixel_mm, 4), round(slice_mm, 1)
    top = abdomen.position[2] + abdomen.scale[2] * chance.between(18, 45)
    bottom = abdomen.position[2] - abdomen.scale[2] * chance.between(195, 240)
    centre = abdomen.position[0] + chance.around(0, 6), abdomen.position[1] + chance.between(0, 10)
    rows, columns = size
    origin = (
        round(centre[0] - pixel_mm * (columns - 1) / 2, 3),
        round(centre[1] - pixel_mm * (rows - 1) / 2, 3),
        round(bottom, 3),
    )
    return Grid((int((top - bottom) / slice_mm) + 1, rows, columns), (slice_mm, pixel_mm, pixel_mm), origin)


def _lay_table(values: np.ndarray, tissue: np.ndarray, abdomen: Abdomen, grid: Grid) -> None:
    """A thin hollow couch under the back, curved as a trough."""
    x, y, _ = grid.axes()
    x, y = x - abdomen.position[0], (y - abdomen.position[1])[:, None]
    height = (HALF_DEPTH + 5) * abdomen.scale[1] - 0.0011 * x**2
    shell = (np.abs(y - height) < 3) | (np.abs(y - height - 32) < 3)
    couch = (shell & (np.abs(x) < 190)) & (tissue == Tissue.OUTSIDE)
    values[couch] = -80


def _magnitude(signal: np.ndarray, noise: float, chance: Chance) -> np.ndarray:
    """Of a signal with noise in both its channels (Rician), int16."""
    real = signal + noise * chance.normals(*signal.shape)
    imaginary = noise * chance.normals(*signal.shape)
    return np.rint(np.hypot(real, imaginary)).clip(0, 4095).astype(np.int16)
