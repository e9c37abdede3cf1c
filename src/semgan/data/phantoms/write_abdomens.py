"""Phantom abdomens in the layouts in which LiTS and CHAOS are published: input of ``semgan data prepare liver``.

    LITS17/Training Batch 1/volume-0.nii, segmentation-0.nii     CT in HU; 1 liver, 2 tumour; some volumes turned
    LITS17/LITS-Challenge-Test-Data/test-volume-0.nii            CT without mask
    CHAOS_Train_Sets/Train_Sets/MR/1/T1DUAL/                     MRI of other patients
        DICOM_anon/InPhase/*.dcm, DICOM_anon/OutPhase/*.dcm      in phase on even numbers, opposed phase on odd ones
        Ground/*.png                                             a grey value per organ, drawn on the in-phase slices
    CHAOS_Train_Sets/Train_Sets/CT/1/DICOM_anon/*.dcm, Ground/   CT of the same patients (in CHAOS: of others)
    phantoms.json                                                what was asked
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from semgan.data.parallel import Progress, each
from semgan.data.phantoms.abdomen_painting import Grid
from semgan.data.phantoms.abdomen_scans import Scan, scan_ct, scan_mri
from semgan.data.phantoms.scan_files import Series, stored_as, write_dicom_slice, write_nifti
from semgan.data.phantoms.write import building_folder, is_there, phantom_seed

DRAWING_VERSION = 1  # as in write.py
ROLES = ("lits", "lits-test", "chaos")
ORIENTATIONS = ("LPS", "LPS", "LAS", "RAI")  # of one volume after the other; most of LiTS is LPS
WHITE = 255  # the liver in the masks of CHAOS' CT


@dataclass(frozen=True)
class Job:
    """One patient to write; ``number`` is that of the file or folder."""

    role: str
    number: int
    seed: int


def write_abdomens(
    out: Path | str,
    *,
    volumes: int,
    mri: int,
    unlabelled: int = 0,
    size_px: int = 128,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write CT and MRI of phantom patients as files of LiTS and CHAOS, and return the folder.

    volumes, unlabelled: CT with and without mask (LiTS); mri: patients with both MRI phases and CT, and with healthy
    livers (CHAOS); no patient is in two of them. The folder appears complete or not at all; asked again for the same
    data, it is returned as it is.
    Raises ValueError for an impossible request, FileExistsError where ``out`` holds anything else.
    """
    counts = dict(zip(ROLES, (volumes, unlabelled, mri), strict=True))
    if min(counts.values()) < 0 or not any(counts.values()):
        got = f"{volumes}, {unlabelled}, {mri}"
        raise ValueError(f"volumes, unlabelled and mri are 0 or more, and not all 0; got {got}.")
    if size_px < 16 or seed < 0:
        raise ValueError(f"Scans are 16 px or larger and the seed is 0 or more; got {size_px} px and seed {seed}.")
    out = Path(out)
    record = {"drawing_version": DRAWING_VERSION, "family": "abdomens", "size_px": size_px, "seed": seed, **counts}
    if is_there(out, record):
        return out
    jobs = [
        Job(role, number, phantom_seed(seed, place, number))
        for place, role in enumerate(ROLES)
        for number in range(counts[role])
    ]
    with building_folder(out, record) as building:
        work = partial(_write_patient, building, size_px)
        for _ in each(work, jobs, workers=workers, progress=progress, what="draw patients", chunk=1):
            pass
    return out


def _write_patient(folder: Path, size_px: int, job: Job) -> None:
    if job.role == "chaos":
        patient = job.number + 1
        sets = folder / "CHAOS_Train_Sets/Train_Sets"
        scan = scan_mri(job.seed, size_px, is_healthy=True)
        write_chaos_mri(sets / f"MR/{patient}/T1DUAL", scan.values, scan.chaos_labels, scan.grid, patient)
        write_chaos_ct(sets / f"CT/{patient}", scan_ct(job.seed, size_px, is_healthy=True), patient)
        return
    scan = scan_ct(job.seed, size_px)
    is_test = job.role == "lits-test"
    batch = "LITS-Challenge-Test-Data" if is_test else f"Training Batch {1 + job.number % 2}"
    codes = ORIENTATIONS[job.number % len(ORIENTATIONS)]
    values, affine = stored_as(scan.values["ct"].transpose(2, 1, 0), scan.grid.affine, codes)
    labels = None if is_test else stored_as(scan.lits_labels.transpose(2, 1, 0), scan.grid.affine, codes)[0]
    write_lits_volume(folder / "LITS17" / batch, job.number, values, labels, affine)


def write_lits_volume(
    folder: Path, number: int, values: np.ndarray, labels: np.ndarray | None, affine: np.ndarray, suffix: str = ".nii"
) -> None:
    """``volume-N`` and ``segmentation-N``, or ``test-volume-N`` where there are no labels; arrays ``[i, j, k]``."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "test-volume" if labels is None else "volume"
    write_nifti(folder / f"{name}-{number}{suffix}", values, affine)
    if labels is not None:
        write_nifti(folder / f"segmentation-{number}{suffix}", labels, affine)


def write_chaos_mri(
    folder: Path,
    phases: Mapping[str, np.ndarray],
    labels: np.ndarray,
    grid: Grid,
    patient: int,
    *,
    own_uids: bool = False,
) -> None:
    """T1DUAL of one patient: "in" and "out" of phase and CHAOS' grey values, all ``[slices, rows, columns]`` of grid.

    Files are numbered from top to bottom. own_uids: every file says that it is a series of its own.
    """
    common = {"modality": "MR", "patient": f"chaos-{patient}", "spacing_mm": grid.spacing_mm, "own_uids": own_uids}
    out_phase, in_phase = (
        Series(name=f"T1DUAL {name} phase", number=number, **common) for number, name in ((4, "out"), (5, "in"))
    )
    for k, place in enumerate(reversed(range(grid.shape[0]))):
        in_name, out_name = (f"IMG-0004-{number:05d}" for number in (2 * k + 2, 2 * k + 1))
        at = {"position": grid.corner(place)}
        files = folder / "DICOM_anon"
        write_dicom_slice(files / f"InPhase/{in_name}.dcm", phases["in"][place], in_phase, instance=2 * k + 2, **at)
        write_dicom_slice(files / f"OutPhase/{out_name}.dcm", phases["out"][place], out_phase, instance=2 * k + 1, **at)
        _write_png(folder / f"Ground/{in_name}.png", labels[place])


def write_chaos_ct(folder: Path, scan: Scan, patient: int) -> None:
    """CT of one patient as a DICOM series from bottom to top, with masks of the liver."""
    intercept = -1024
    series = Series("CT", f"chaos-{patient}", "CT", 2, scan.grid.spacing_mm, intercept=intercept)
    labels = np.where(scan.lits_labels > 0, np.uint8(WHITE), np.uint8(0))
    for k in range(scan.grid.shape[0]):
        file, position = folder / f"DICOM_anon/i{k:04d},0000b.dcm", scan.grid.corner(k)
        write_dicom_slice(file, scan.values["ct"][k] - intercept, series, instance=k + 1, position=position)
        _write_png(folder / f"Ground/liver_GT_{k:03d}.png", labels[k])


def _write_png(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
