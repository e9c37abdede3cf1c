"""Tiny DICOM files as scanners write them, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)


def header(storage=CTImageStorage, modality="CT", **more) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = storage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2.3.9"
    data.PatientID, data.PatientName, data.StudyID = "p1", "Doe^Jane", "1"
    data.StudyDate, data.StudyTime, data.AccessionNumber = "20200101", "120000", ""
    data.PatientBirthDate, data.PatientSex, data.ReferringPhysicianName = "", "", ""
    data.Manufacturer, data.InstanceNumber = "test", 1
    data.Modality = modality
    for name, value in more.items():
        setattr(data, name, value)
    return data


def with_pixels(data: Dataset, stored: np.ndarray, photometric="MONOCHROME2") -> Dataset:
    """``[rows, columns]`` or ``[frames, rows, columns]`` of 16 bits."""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(stored.dtype.kind == "i")
    if stored.ndim == 3:
        data.NumberOfFrames = len(stored)
    data.PixelData = np.ascontiguousarray(stored).tobytes()
    return data


def write_series(
    folder: Path,
    hu: np.ndarray,
    *,
    positions: np.ndarray | None = None,
    spacing: tuple[float, float, float] = (0.8, 0.7, 2.5),
    direction: tuple[float, ...] = AXIAL,
    uid: str = "1.2.3.4",
    number: int = 1,
    order: list[int] | None = None,
    **more,
) -> list[Path]:
    """``[slices, rows, columns]`` HU as one file per slice, in slope 2 and intercept -1024.

    spacing: between rows, columns, slices. order: the InstanceNumber of each slice, and so its place among the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(direction[:3], direction[3:])
    if positions is None:
        positions = np.array([-50.0, -40.0, 100.0]) + np.arange(len(hu))[:, None] * spacing[2] * normal
    paths = []
    for place, (picture, position) in enumerate(zip(hu, positions, strict=True)):
        instance = place if order is None else order[place]
        data = header(SeriesInstanceUID=uid, SeriesNumber=number, RescaleSlope=2, RescaleIntercept=-1024)
        data.InstanceNumber = instance
        data.ImagePositionPatient = [round(float(x), 6) for x in position]
        data.ImageOrientationPatient = [round(float(x), 9) for x in direction]
        data.PixelSpacing = list(spacing[:2])
        data.SliceThickness = spacing[2]
        for name, value in more.items():
            setattr(data, name, value)
        photometric = more.get("PhotometricInterpretation", "MONOCHROME2")
        with_pixels(data, ((picture + 1024) // 2).astype(np.uint16), photometric)
        paths.append(folder / f"IM{instance:04d}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_multi_frame(path: Path, hu: np.ndarray, *, spacing: tuple[float, float, float] = (0.8, 0.7, 2.5)) -> Path:
    """The same as one enhanced multi-frame file, its frames stored from top to bottom."""
    data = header(EnhancedCTImageStorage, SeriesInstanceUID="1.2.3.5", SeriesNumber=2)
    data.PerFrameFunctionalGroupsSequence = Sequence()
    for place in reversed(range(len(hu))):
        group, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = [-50.0, -40.0, 100.0 + place * spacing[2]]
        group.PlanePositionSequence = Sequence([plane])
        data.PerFrameFunctionalGroupsSequence.append(group)
    shared, orientation, measures, unit = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = list(spacing[:2]), spacing[2]
    unit.RescaleSlope, unit.RescaleIntercept = 2, -1024
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([unit])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    with_pixels(data, ((hu[::-1] + 1024) // 2).astype(np.uint16))
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_picture(path: Path, stored: np.ndarray, photometric="MONOCHROME2", *, bits=None, **more) -> Path:
    """A DX film, or what ``more`` says: ``[rows, columns(, 3)]`` in ``bits``, without a place in the patient."""
    storage = more.pop("SOPClassUID", DigitalXRayImageStorageForPresentation)
    data = header(storage, more.pop("Modality", "DX"), SeriesInstanceUID="1.2.77", SeriesNumber=1)
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = stored.ndim * 2 - 3, photometric
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * stored.dtype.itemsize
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(stored.dtype.kind == "i")
    data.PixelData = np.ascontiguousarray(stored).tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
