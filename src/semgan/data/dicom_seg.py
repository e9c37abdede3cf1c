"""Masks as DICOM SEG beside the series that they were drawn on; needs the extra ``semgan[dicom]`` (highdicom)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semgan.artifacts import temporary_beside
from semgan.data.volumes import Volume

_STRUCTURE = ("123037004", "SCT", "Anatomical Structure")  # category and, as names are free, type of every segment
_AI = ("123109", "DCM", "Artificial Intelligence")


def check_at_hand() -> None:
    """Raises ValueError naming the extra where highdicom cannot be used."""
    _highdicom()


def write_dicom_seg(path: Path, labels: np.ndarray, volume: Volume, names: Sequence[str]) -> None:
    """Class indices ``[columns, rows, slices]`` of a DICOM volume as one binary SEG object, a segment per class.

    names: classes, background first. Every slice is written, empty ones too: viewers then need no guesses. Raises
    ValueError where the volume is no DICOM, or its headers lack what a SEG object must repeat.
    """
    import pydicom

    if not volume.frames:
        raise ValueError("A DICOM SEG refers to DICOM images, and this volume has none.")
    files = list(dict.fromkeys(file for file, _ in volume.frames))
    sources = [pydicom.dcmread(file) for file in files]
    # Several files hold one slice each and are in order; the frames of one file are put back into the file's order.
    order = np.arange(len(files)) if len(files) > 1 else np.argsort([frame for _, frame in volume.frames])
    if len(order) != len(volume.frames):
        raise ValueError("A DICOM SEG of several multi-frame files is not supported; take the NIfTI mask.")
    pictures = np.ascontiguousarray(labels.transpose(2, 1, 0)[order]).astype(np.uint8)
    try:
        segmentation = _segmentation(sources, pictures, names)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"No DICOM SEG can be made for {files[0].parent} ({error}); leave out --dicom-seg.") from None
    partial = temporary_beside(path)
    try:
        segmentation.save_as(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _highdicom() -> Any:
    try:
        import highdicom  # pyright: ignore[reportMissingImports]  # an extra
    except Exception as error:  # a half-installed package raises anything
        raise ValueError(f"DICOM SEG needs highdicom ({error}): pip install 'semgan[dicom]'.") from None
    return highdicom


def _segmentation(sources: Sequence[Any], pictures: np.ndarray, names: Sequence[str]) -> Any:
    from importlib.metadata import version

    hd = _highdicom()
    coded = hd.sr.CodedConcept
    algorithm = hd.AlgorithmIdentificationSequence("semgan", coded(*_AI), version("semgan"))
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=coded(*_STRUCTURE),
            segmented_property_type=coded(*_STRUCTURE),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(names[1:], start=1)
    ]
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pictures,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=int(sources[0].get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="semgan",
        manufacturer_model_name="semgan",
        software_versions=version("semgan"),
        device_serial_number="0",
        omit_empty_frames=False,
    )
