"""Volumes as the files that scanners and archives give: NIfTI in any orientation, DICOM slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

AXIAL = (1, 0, 0, 0, 1, 0)
_STORAGE = {"CT": "CTImageStorage", "MR": "MRImageStorage"}


def stored_as(values: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same volume in space, ``[i, j, k]`` and affine, stored along other axes; codes: like "LPS"."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(values, change), affine @ inv_ornt_aff(change, values.shape)


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    """``[i, j, k]`` as a NIfTI file in millimetres, compressed where the name ends in .gz; returns its path."""
    import nibabel

    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


@dataclass(frozen=True)
class Series:
    """What the slices of one DICOM series have in common.

    modality:  "CT" or "MR"; spacing_mm: between slices, rows, columns
    patient:   PatientID; its UIDs follow from it and ``name``, so that the same call writes the same file
    own_uids:  every file says that it is a series of its own, as some archives' exports do
    intercept: HU of the stored 0
    """

    modality: str
    patient: str
    name: str
    number: int
    spacing_mm: tuple[float, float, float]
    own_uids: bool = False
    intercept: int | None = None


def write_dicom_slice(
    path: Path, stored: np.ndarray, series: Series, *, instance: int, position: Sequence[float]
) -> None:
    """Stored values ``[rows, columns]`` of 16 bits as one axial slice; position: of its first voxel, LPS mm."""
    import pydicom.uid
    from pydicom.dataset import Dataset, FileMetaDataset

    def uid(*words: object) -> pydicom.uid.UID:
        return pydicom.uid.generate_uid(entropy_srcs=["semgan phantom", series.patient, *map(str, words)])

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = getattr(pydicom.uid, _STORAGE[series.modality])
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid(series.name, instance)
    data.StudyInstanceUID, data.FrameOfReferenceUID = uid("study"), uid("frame")
    data.SeriesInstanceUID = uid(series.name, "series", instance if series.own_uids else "")
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = series.patient, "Phantom", "", ""
    data.StudyID, data.StudyDate, data.StudyTime, data.AccessionNumber = "1", "20000101", "120000", ""
    data.ReferringPhysicianName, data.Manufacturer, data.Modality = "", "semgan", series.modality
    data.SeriesDescription, data.SeriesNumber, data.InstanceNumber = series.name, series.number, instance
    data.ImagePositionPatient, data.ImageOrientationPatient = [round(float(mm), 4) for mm in position], list(AXIAL)
    data.SliceThickness, *between = series.spacing_mm
    data.PixelSpacing = between
    if series.intercept is not None:
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, series.intercept, "HU"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = np.ascontiguousarray(stored, "<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
