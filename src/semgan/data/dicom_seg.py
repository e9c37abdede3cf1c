"""Masks as DICOM SEG, drawn on a DICOM series or on one picture.

Written with the extra ``semgan[dicom]`` (highdicom), read without.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semgan.artifacts import temporary_beside
from semgan.data.dicom import is_dicom
from semgan.data.readers import decoded
from semgan.data.volumes import LPS_TO_RAS, Volume

_STRUCTURE = ("123037004", "SCT", "Anatomical Structure")  # category and, as names are free, type of every segment
_AI = ("123109", "DCM", "Artificial Intelligence")
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)


def referred_series(path: Path) -> str | None:
    """SeriesInstanceUID of the images that a DICOM SEG is drawn on; None for files that are no SEG or do not say."""
    import pydicom

    if not is_dicom(path):
        return None
    try:
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality", "ReferencedSeriesSequence"])
        series = head.get("ReferencedSeriesSequence") if head.get("Modality") == "SEG" else None
        return str(series[0].SeriesInstanceUID) if series else None
    except MemoryError:
        raise
    except Exception:  # pydicom raises almost anything on damaged files, and these are no masks
        return None


def read_dicom_seg(path: Path, volume: Volume) -> np.ndarray:
    """Segment numbers of a DICOM SEG, 0 where there is none: int32 of the volume's shape and order.

    Raises FileNotFoundError; ValueError for damaged files, probabilities, segments that overlap, and slices that are
    none of the volume's.
    """
    return decoded(path, lambda file: _drawn_on(volume, file))


def _drawn_on(volume: Volume, path: Path) -> np.ndarray:
    import pydicom

    data = pydicom.dcmread(path)
    labels = np.zeros(volume.values.shape, np.int32)
    for picture, (k, segment) in zip(_pictures(data), _places(data, volume), strict=True):
        _add(labels[..., k], picture.T, segment)
    return labels


def _pictures(data: Any) -> np.ndarray:
    """``[frames, rows, columns]`` of a SEG. Raises ValueError for kinds that are no class per pixel."""
    kind = str(data.get("SegmentationType", ""))
    if kind not in ("BINARY", "LABELMAP"):
        raise ValueError(f"its segments are {kind or 'of no known type'}; expected BINARY or LABELMAP")
    return data.pixel_array.reshape(-1, data.Rows, data.Columns)


def _add(layer: np.ndarray, picture: np.ndarray, segment: int | None) -> None:
    """Draw a frame into a layer of segment numbers; segment: of a binary frame, None: the picture holds numbers."""
    new = picture.astype(np.int32) * (1 if segment is None else segment)
    if ((layer > 0) & (new > 0)).any():
        raise ValueError("its segments overlap, and a mask has one class per voxel; save them apart")
    layer += new


def read_picture_seg(path: Path) -> np.ndarray:
    """Segment numbers of a DICOM SEG that is drawn on one picture, 0 where there is none: int32 ``[rows, columns]``.

    Raises FileNotFoundError; ValueError for damaged files, probabilities, segments that overlap, and several pictures.
    """
    return decoded(path, _drawn_flat)


def _drawn_flat(path: Path) -> np.ndarray:
    import pydicom

    data = pydicom.dcmread(path)
    if data.get("Modality") != "SEG":
        raise ValueError(f"its modality is {data.get('Modality')}; masks in DICOM are SEG, others PNG")
    pictures = _pictures(data)
    shared, frames = data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence
    sources = {
        str(source.ReferencedSOPInstanceUID)
        for frame in frames
        for derivation in _item(frame, shared, "DerivationImageSequence") or ()
        for source in derivation.get("SourceImageSequence", ())
    }
    segments = [_segment(data, frame, shared) for frame in frames]
    if len(sources) > 1 or len(set(segments)) < len(segments):
        raise ValueError("it is drawn on several pictures; save one SEG for each")
    labels = np.zeros(pictures.shape[1:], np.int32)
    for picture, segment in zip(pictures, segments, strict=True):
        _add(labels, picture, segment)
    return labels


def _item(frame: Any, shared: Any, group: str) -> Any:
    """The sequence of a functional group: the frame's own, else the shared one, else None."""
    both = (frame, *shared)
    return next((part[group].value for part in both if group in part), None)


def _segment(data: Any, frame: Any, shared: Any) -> int | None:
    """The segment number of a frame of a binary SEG; None for label maps."""
    if data.SegmentationType == "LABELMAP":
        return None
    return int(_item(frame, shared, "SegmentIdentificationSequence")[0].ReferencedSegmentNumber)


def _places(data: Any, volume: Volume) -> Iterator[tuple[int, int | None]]:
    """The volume's slice and the segment number of every frame. Raises ValueError for frames that lie elsewhere."""
    assert volume.positions is not None
    flip = LPS_TO_RAS[:3, :3]
    shared = data.SharedFunctionalGroupsSequence

    def item(frame: Any, group: str) -> Any:
        return _item(frame, shared, group)[0]

    near = 0.1 * min(volume.spacing_mm)
    for frame in data.PerFrameFunctionalGroupsSequence:
        direction = np.array(item(frame, "PlaneOrientationSequence").ImageOrientationPatient, float)
        rows, columns = (float(step) for step in item(frame, "PixelMeasuresSequence").PixelSpacing)
        steps = flip @ np.column_stack([direction[:3] * columns, direction[3:] * rows])
        position = flip @ np.array(item(frame, "PlanePositionSequence").ImagePositionPatient, float)
        apart = np.linalg.norm(volume.positions - position, axis=1)
        size = np.array([data.Columns, data.Rows])
        off = np.abs((steps - volume.affine[:3, :2]) * size).max()
        if tuple(size) != volume.values.shape[:2] or apart.min() > near or off > near:
            raise ValueError(
                f"its pictures of {data.Columns} x {data.Rows} px at {np.round(position, 1).tolist()} mm are no slices "
                f"of its series ({volume.values.shape[0]} x {volume.values.shape[1]} px)"
            )
        yield int(apart.argmin()), _segment(data, frame, shared)


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
    sources = [_completed(pydicom.dcmread(file, stop_before_pixels=True), volume) for file in files]
    # Several files hold one slice each and are in order; the frames of one file are put back into the file's order.
    order = np.arange(len(files)) if len(files) > 1 else np.argsort([frame for _, frame in volume.frames])
    if len(order) != len(volume.frames):
        raise ValueError("A DICOM SEG of several multi-frame files is not supported; take the NIfTI mask.")
    pictures = np.ascontiguousarray(labels.transpose(2, 1, 0)[order]).astype(np.uint8)
    _write(path, sources, pictures, names, files[0].parent)


def write_picture_seg(path: Path, labels: np.ndarray, picture: Path, names: Sequence[str]) -> None:
    """Class indices ``[rows, columns]`` of a DICOM picture as one binary SEG object, a segment per class.

    names: classes, background first. Raises ValueError where the picture's header lacks what a SEG must repeat.
    """
    import pydicom

    head = _with_empty(pydicom.dcmread(picture, stop_before_pixels=True))
    if "ImagePositionPatient" not in head and "FrameOfReferenceUID" in head:
        del head.FrameOfReferenceUID  # a place that nothing refers to
    _write(path, [head], labels[None].astype(np.uint8), names, picture)


def _write(path: Path, sources: Sequence[Any], pictures: np.ndarray, names: Sequence[str], place: Path) -> None:
    """place: what the mask is of, for messages"""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="highdicom")  # they quote the patient's name
            segmentation = _segmentation(sources, pictures, names)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"No DICOM SEG can be made for {place} ({error}); leave out --dicom-seg.") from None
    partial = temporary_beside(path)
    try:
        segmentation.save_as(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _completed(head: Any, volume: Volume) -> Any:
    """The header with what a SEG repeats and may be empty, and what the volume tells; exports often lack both."""
    head = _with_empty(head)
    if "PixelSpacing" in head and not head.get("SliceThickness"):
        head.SliceThickness = round(volume.spacing_mm[2], 6)
    return head


def _with_empty(head: Any) -> Any:
    for name in _MAY_BE_EMPTY:
        if name not in head:
            setattr(head, name, "")
    return head


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
