"""Own volumes as they come, NIfTI files or DICOM series with NIfTI or DICOM SEG masks -> what there is to prepare.

A NIfTI mask belongs to the volume of its stem, as `semgan.data.studies` names volumes; a DICOM SEG to the series that
it refers to, wherever both lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semgan.data.dicom_seg import read_dicom_seg, referred_series
from semgan.data.nifti import nifti_suffix, read_geometry, read_label_volume
from semgan.data.prepare.inventory import Inventory, PlainFolders, match, read_manifest_into
from semgan.data.prepare.patients import name_patients
from semgan.data.prepare.slices import cut
from semgan.data.readers import IMAGE_SUFFIXES
from semgan.data.studies import Study, find_studies, holds_volumes
from semgan.data.volumes import Grid, Volume, axial_slices, change_of_storage, stored_like

COLLECTION = "test"  # volumes/test of the dataset folder
UNIT = "patient"  # column of the manifest that labels are counted in


@dataclass(frozen=True)
class StudyScan:
    """A study and its mask, None without."""

    study: Study
    mask: Path | None
    modality: str

    @property
    def files(self) -> tuple[Path, ...]:
        return self.study.files if self.mask is None else (*self.study.files, self.mask)

    def look(self) -> tuple[int, tuple[str, ...]]:
        """Number of axial slices, and no remarks. Raises ValueError for a NIfTI mask of another shape or place."""
        shape, affine = self.study.geometry()
        if self.mask is not None and nifti_suffix(self.mask):
            change_of_storage(Grid(self.mask, *read_geometry(self.mask)), Grid(self.study.place, shape, affine))
        return axial_slices(shape, affine), ()

    def read(self) -> tuple[Volume, np.ndarray | None]:
        """The volume, and its mask's values as stored, in the volume's order. Raises ValueError."""
        volume = self.study.read()
        if self.mask is None:
            return volume, None
        if not nifti_suffix(self.mask):
            return volume, read_dicom_seg(self.mask, volume)
        drawn = read_label_volume(self.mask)
        grids = Grid(self.mask, drawn.values.shape, drawn.affine), Grid(
            self.study.place, volume.values.shape, volume.affine
        )
        return volume, stored_like(drawn.values, change_of_storage(*grids))


def are_volumes(folder: Path) -> bool:
    """Whether a folder of labelled images holds volumes; pictures among volumes are the inventory's to tell."""
    try:
        return folder.is_dir() and holds_volumes(folder)
    except ValueError:
        return False


def take_volumes(folders: PlainFolders, manifest: Path | None, *, group_by_patient: bool = False) -> Inventory:
    """Match volumes and masks and cut them to slices; only headers are read. Problems are collected, not raised.

    Test volumes stay whole. The column ``patient`` of the slices is the manifest's group or patient of their volume,
    else, with ``group_by_patient``, one name for all series of one PatientID, else the volume's stem; labels are
    counted in it.
    """
    inventory = Inventory(counted_in=UNIT)
    read_manifest_into(inventory, manifest)
    studies: dict[str, Study] = {}
    images = [
        _studies(inventory, folder, option, studies)
        for folder, option in (
            (folders.images, "--images"),
            (folders.unlabelled, "--unlabelled"),
            (folders.test_images, "--test-images"),
        )
    ]
    masks = [
        _masks(inventory, folder, option, [studies[stem] for stem in given])
        for folder, option, given in (
            (folders.labels, "--labels", images[0]),
            (folders.test_labels, "--test-labels", images[2]),
        )
    ]
    match(inventory, folders, manifest, labelled=(images[0], masks[0]), bare=images[1], test=(images[2], masks[1]))
    patients = name_patients(inventory, studies, by_id=group_by_patient)
    rows = {}
    for place, source in enumerate(inventory.sources):
        study = studies[source.stem]
        modality = study.series.modality if study.series is not None else None
        inventory.sources[place] = replace(source, scan=StudyScan(study, source.label, modality or ""))
        row = {"stem": source.stem, "set": "", **inventory.columns.get(source.stem, {})}
        rows[source.stem] = {**row, UNIT: patients[source.stem], "modality": modality or ""}
        if source.folder == "imagesTs":
            rows[source.stem] |= {"set": "test", "collection": COLLECTION}
    inventory.columns = rows
    cut(inventory)
    return inventory


def _studies(inventory: Inventory, folder: Path | None, option: str, known: dict[str, Study]) -> dict[str, Path]:
    """``{stem: first file}`` of a folder's volumes, which join ``known``."""
    if folder is None:
        return {}
    if not folder.is_dir():
        inventory.problems.append(f"{option}: {folder} is not a folder; check the path.")
        return {}
    try:
        found, others = find_studies(folder)
    except ValueError as error:
        inventory.problems.append(f"{option}: {error}")
        return {}
    pictures = [file for file in others if file.suffix.lower() in IMAGE_SUFFIXES]
    if pictures:
        inventory.problems.append(f"{option}: {pictures[0]} is a picture, and --images are volumes; give one kind.")
    if not found:
        inventory.problems.append(f"{option}: {folder} holds no volumes (NIfTI or DICOM series).")
    for study in found:
        known.setdefault(study.stem, study)
    return {study.stem: study.files[0] for study in found}


def _masks(inventory: Inventory, folder: Path | None, option: str, studies: list[Study]) -> dict[str, Path]:
    """``{stem: mask}``: NIfTI files by their stems, DICOM SEG by the series that they refer to."""
    if folder is None:
        return {}
    if not folder.is_dir():
        inventory.problems.append(f"{option}: {folder} is not a folder; check the path.")
        return {}
    stem_of = {study.series.uid: study.stem for study in studies if study.series is not None}
    images = {file for study in studies for file in study.files}
    masks: dict[str, Path] = {}
    try:
        found, others = find_studies(folder)
    except ValueError as error:
        inventory.problems.append(f"{option}: {error}")
        return {}
    niftis = [(study.stem, study.files[0]) for study in found if study.series is None]
    drawn = [(stem_of.get(uid), file) for file in others if (uid := referred_series(file)) is not None]
    for stem, file in [*niftis, *drawn]:
        if file in images:
            continue
        if stem is None:
            inventory.warnings.append(f"{option}: {file} is drawn on a series that is not among the images; left out.")
        elif stem in masks:
            inventory.problems.append(f"{file} and {masks[stem]} are both masks of '{stem}'; remove one.")
        else:
            masks[stem] = file
    if not masks:
        inventory.problems.append(f"{option}: {folder} holds no masks of these volumes (NIfTI or DICOM SEG).")
    return masks
