"""Tiny replicas of LiTS and CHAOS: right names, orientations, values and quirks, drawn organs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from raw_replicas import put

from semgan.data.phantoms.abdomen_painting import Grid
from semgan.data.phantoms.abdomen_scans import CHAOS_GREY
from semgan.data.phantoms.scan_files import Series, write_dicom_slice
from semgan.data.phantoms.write_abdomens import write_chaos_mri, write_lits_volume

SIZE = 32
LPS = np.diag([-0.8, -0.7, 2.5, 1.0])  # as LiTS is mostly stored: columns to the left, rows to the back, slices up
MR_SPACING = (6.0, 1.5, 1.4)  # between slices, rows, columns


def abdomen(seed: int, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """HU ``[columns, rows, slices]`` and mask of 1 liver, 2 tumour; no two slices alike."""
    random = np.random.default_rng(seed)
    mask = np.zeros((SIZE, SIZE, slices), np.uint8)
    for k in range(1, slices):
        mask[4 : 14 + k, 8 : 20 + k, k] = 1
        mask[6 : 8 + k % 3, 10:12, k] = 2
    body = np.array([-50, 100, 30])[mask] + random.normal(0, 15, mask.shape)
    body[:2] = -1000
    return np.rint(body).astype(np.int16), mask


def write_lits(root: Path, count: int = 6, tests: int = 2, slices: int = 4, suffix: str = ".nii") -> Path:
    """Training volumes in two batches, masks beside or apart; the second volume has an odd orientation."""
    folder = root / "LITS17"
    for number in range(count + tests):
        is_test = number >= count
        where = folder / ("LITS-Challenge-Test-Data" if is_test else f"Training Batch {1 + number % 2}")
        values, mask = abdomen(number, slices)
        affine = np.diag([0.8, -0.7, -2.5, 1.0]) if number == 1 else LPS
        labels = None if is_test else mask
        write_lits_volume(where, number - count if is_test else number, values, labels, affine, suffix)
    return folder


def organs(seed: int, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """MR values and CHAOS grey values, ``[slices, rows, columns]``, no two slices alike."""
    random = np.random.default_rng(seed)
    grey = np.zeros((slices, SIZE, SIZE), np.uint8)
    for k in range(slices):
        grey[k, 6 : 12 + k, 4 : 16 + k] = CHAOS_GREY["liver"]
        grey[k, 24:28, 4:10] = CHAOS_GREY["right kidney"]
        grey[k, 24:28, 20:26] = CHAOS_GREY["left kidney"]
        grey[k, 4:10, 26:31] = CHAOS_GREY["spleen"]
    values = 100 + 3 * grey.astype(np.int32) + random.integers(0, 40, grey.shape)
    return values.astype(np.uint16), grey


def write_chaos(root: Path, patients: tuple[int, ...] = (1, 13), slices: int = 5) -> Path:
    """In phase on even numbers, opposed phase on odd ones, from top to bottom; every file a series of its own."""
    folder = root / "CHAOS_Train_Sets"
    for patient in patients:
        place = folder / "Train_Sets/MR" / str(patient)
        values, grey = organs(patient, slices)
        grid = Grid((slices, SIZE, SIZE), MR_SPACING, (-50.0, -40.0, 100 - MR_SPACING[0] * (slices - 1)))
        phases = {"in": values[::-1], "out": values[::-1] // 2}
        write_chaos_mri(place / "T1DUAL", phases, grey[::-1], grid, patient, own_uids=True)
        write_mr(place / "T2SPIR/DICOM_anon/IMG-0002-00001.dcm", values[0], 0)
        put(place / "T2SPIR/Ground/IMG-0002-00001.png", grey[0])
    write_mr(folder / "Train_Sets/CT/1/DICOM_anon/i0000,0000b.dcm", values[0], 0)
    put(folder / "Train_Sets/CT/1/Ground/liver_GT_000.png", grey[0])
    return folder


def write_mr(path: Path, stored: np.ndarray, height: float) -> None:
    series = Series("MR", "chaos", path.stem, 4, MR_SPACING, own_uids=True)
    write_dicom_slice(path, stored, series, instance=1, position=(-50.0, -40.0, height))
