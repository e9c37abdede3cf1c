"""Tiny replicas of LiTS and CHAOS: right names, orientations, values and quirks, drawn organs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_files import AXIAL, header, with_pixels
from pydicom.uid import generate_uid
from raw_replicas import put
from volume_files import save

SIZE = 32
LPS = np.diag([-0.8, -0.7, 2.5, 1.0])  # as LiTS is mostly stored: columns to the left, rows to the back, slices up
CHAOS_VALUES = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}


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
        where.mkdir(parents=True, exist_ok=True)
        values, mask = abdomen(number, slices)
        affine = np.diag([0.8, -0.7, -2.5, 1.0]) if number == 1 else LPS
        name = f"test-volume-{number - count}" if is_test else f"volume-{number}"
        save(where / f"{name}{suffix}", values, affine)
        if not is_test:
            save(where / f"segmentation-{number}{suffix}", mask, affine)
    return folder


def organs(seed: int, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """MR values and CHAOS grey values, ``[slices, rows, columns]``, no two slices alike."""
    random = np.random.default_rng(seed)
    grey = np.zeros((slices, SIZE, SIZE), np.uint8)
    for k in range(slices):
        grey[k, 6 : 12 + k, 4 : 16 + k] = CHAOS_VALUES["liver"]
        grey[k, 24:28, 4:10] = CHAOS_VALUES["right kidney"]
        grey[k, 24:28, 20:26] = CHAOS_VALUES["left kidney"]
        grey[k, 4:10, 26:31] = CHAOS_VALUES["spleen"]
    values = 100 + 3 * grey.astype(np.int32) + random.integers(0, 40, grey.shape)
    return values.astype(np.uint16), grey


def write_chaos(root: Path, patients: tuple[int, ...] = (1, 13), slices: int = 5) -> Path:
    """In phase on even numbers, opposed phase on odd ones, from top to bottom; every file a series of its own."""
    folder = root / "CHAOS_Train_Sets"
    for patient in patients:
        place = folder / "Train_Sets/MR" / str(patient)
        values, grey = organs(patient, slices)
        for k in range(slices):
            height = 100 - 6.0 * k  # the first file is the highest slice
            in_name, out_name = (f"IMG-0004-{number:05d}" for number in (2 * k + 2, 2 * k + 1))
            write_mr(place / f"T1DUAL/DICOM_anon/InPhase/{in_name}.dcm", values[k], height)
            write_mr(place / f"T1DUAL/DICOM_anon/OutPhase/{out_name}.dcm", values[k] // 2, height)
            put(place / f"T1DUAL/Ground/{in_name}.png", grey[k])
        write_mr(place / "T2SPIR/DICOM_anon/IMG-0002-00001.dcm", values[0], 0)
        put(place / "T2SPIR/Ground/IMG-0002-00001.png", grey[0])
    write_mr(folder / "Train_Sets/CT/1/DICOM_anon/i0000,0000b.dcm", values[0], 0)
    put(folder / "Train_Sets/CT/1/Ground/liver_GT_000.png", grey[0])
    return folder


def write_mr(path: Path, stored: np.ndarray, height: float) -> None:
    data = header(modality="MR", SeriesInstanceUID=generate_uid(), SeriesNumber=4)
    data.ImagePositionPatient = [-50.0, -40.0, height]
    data.ImageOrientationPatient, data.PixelSpacing, data.SliceThickness = list(AXIAL), [1.5, 1.4], 6
    path.parent.mkdir(parents=True, exist_ok=True)
    with_pixels(data, stored).save_as(path, enforce_file_format=True)
