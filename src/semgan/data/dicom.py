"""DICOM series -> volumes: slices in order of their position in the patient, values in the file's own unit.

Order and spacing come from ImagePositionPatient along the slice normal, never from InstanceNumber. Uneven spacing keeps
the order and says so; a tilted gantry becomes a sheared affine; missing slices, two images at one place, mixed sizes or
directions are refused. Every failure is one ValueError that names the series.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semgan.data.dicom_geometry import Frame, are_directions, arranged, check_alike
from semgan.data.dicom_pixels import read_pixels
from semgan.data.volumes import LPS_TO_RAS, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom")
MAGIC_OFFSET = 128  # bytes of preamble before "DICM"
_MODALITIES = {"CT": "ct", "MR": "mri"}
_PROJECTIONS = ("CR", "DX", "MG", "XA", "RF")
_DERIVED = ("SEG", "RTDOSE")  # pixels that are drawn upon images


@dataclass(frozen=True)
class Series:
    """The image files of one SeriesInstanceUID in one folder; ``number`` is SeriesNumber where there is one.

    modality: "ct", "mri", or None for others
    patient:  stands for PatientID where there is one: a hash, salted anew in every process, so that series of one
              patient can be told while nothing that is written or shown can be traced back
    """

    folder: Path
    files: tuple[Path, ...]
    uid: str
    number: int | None = None
    broken: tuple[Path, ...] = ()  # DICOM files of the folder that cannot be read: the series may lack them
    modality: str | None = None
    patient: str | None = None

    def geometry(self) -> tuple[tuple[int, ...], np.ndarray]:
        """Shape and affine, by the headers alone. Raises as `read`."""
        _, frames, affine, _, _ = _opened(self.files, self.broken)
        return (*frames[0].size, len(frames)), affine

    def read(self) -> Volume:
        return read_series(self.files, broken=self.broken)


def is_dicom(path: Path) -> bool:
    """Whether the file says that it is DICOM: "DICM" after the preamble, or a name ending in .dcm."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with open(path, "rb") as file:
        return file.read(MAGIC_OFFSET + 4)[MAGIC_OFFSET:] == b"DICM"


def find_series(folder: Path, files: Sequence[Path]) -> tuple[list[Series], list[Path]]:
    """The series among a folder's DICOM files, in order of SeriesNumber, and the files that hold no slices.

    Without slices are directories, reports, plans, masks, localisers and pictures of the screen. Files that cannot be
    read are the series' ``broken`` ones, or a series of their own where there is no other.
    """
    series: dict[str, list[Path]] = {}
    firsts: dict[str, Dataset] = {}
    broken, others = [], []
    for path in files:
        try:
            head = read_head(path, _IDENTITY)
        except ValueError:
            broken.append(path)
            continue
        if "Rows" not in head:
            (broken if is_cut_off(head) else others).append(path)
            continue
        if is_aside(head) or is_screen(head):
            others.append(path)
            continue
        uid = str(head.get("SeriesInstanceUID", ""))
        series.setdefault(uid, []).append(path)
        firsts.setdefault(uid, head)
    found = [
        Series(folder, tuple(paths), uid, _series_number(head), tuple(broken), _modality(head), _pseudonym(head))
        for (uid, paths), head in zip(series.items(), firsts.values(), strict=True)
    ]
    if not found and broken:
        found = [Series(folder, (), "", broken=tuple(broken))]
    return sorted(found, key=lambda one: (one.number is None, one.number or 0, one.uid)), others


def read_series(files: Sequence[Path], *, broken: Sequence[Path] = ()) -> Volume:
    """One volume from the files of one series: float32 ``[columns, rows, slices]``, affine to RAS millimetres.

    CT in HU by rescale slope and intercept; MONOCHROME1 is turned so that high is bright (not CT, where the unit
    counts). broken: files beside them that cannot be read, an error here since they may be missing slices.

    Raises ValueError, see the module.
    """
    head, frames, affine, thickness, remarks = _opened(files, broken)
    values = _values(frames)
    if _modality(head) == "ct" and frames[0].intercept == 0 and (lowest := float(values.min())) >= 0:
        told = f"Its values begin at {lowest:g} and its header does not shift them: they may be no HU, though it is CT."
        remarks = (*remarks, told)
    places = tuple((frame.path, frame.index) for frame in frames)
    positions = np.stack([frame.position for frame in frames]) * LPS_TO_RAS.diagonal()[:3]
    return Volume(values, affine, _modality(head), None, thickness, places, positions, remarks)


def _opened(
    files: Sequence[Path], broken: Sequence[Path]
) -> tuple[Dataset, list[Frame], np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """The first file's header, and what `arranged` makes of the slices of all. Raises ValueError."""
    if broken:
        raise ValueError(
            f"{broken[0]} is no readable DICOM file{_and_more(broken)}: truncated, encrypted or foreign. "
            "Copy it again, or take it out of the folder."
        )
    heads = [read_head(path) for path in files]
    where = files[0] if len(files) == 1 else files[0].parent
    try:
        frames = [frame for path, head in zip(files, heads, strict=True) for frame in _frames(path, head)]
        check_alike(frames)
        return heads[0], *arranged(frames)
    except MemoryError:
        raise
    except Exception as error:  # headers hold almost anything, and are decoded when asked for
        raise ValueError(f"{where}: {error}") from None


# ---------------------------------------------------------------- headers

_IDENTITY = [
    *("SeriesInstanceUID", "SeriesNumber", "Rows", "ImageType", "Modality", "SOPClassUID", "ImageOrientationPatient"),
    "PatientID",
]
_SALT = os.urandom(16)


def read_head(path: Path, tags: list[str] | None = None) -> Dataset:
    """A file's header without its pixels. Raises ValueError for what is no DICOM."""
    import pydicom

    try:
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)  # type: ignore[arg-type]
        list(head)  # values are decoded when asked for; damage must show here
        return head
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises almost anything on damaged files
        raise ValueError(f"{path} is no readable DICOM file ({error}). Copy it again, or take it out.") from None


def _series_number(head: Dataset) -> int | None:
    try:
        return int(head.SeriesNumber)
    except (AttributeError, TypeError, ValueError):  # none, empty, or several
        return None


def _modality(head: Dataset) -> str | None:
    return _MODALITIES.get(str(head.get("Modality", "")))


def sop_class(head: Dataset) -> str:
    """The name of a file's SOP class, empty where it has none; a DICOMDIR has it before the data only."""
    uid = head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID")
    return getattr(uid, "name", "")  # damaged ones may be several


def is_cut_off(head: Dataset) -> bool:
    """Whether a header without Rows should have some."""
    return not sop_class(head) or "Image Storage" in sop_class(head)


def is_aside(head: Dataset) -> bool:
    """Whether an image is neither slice nor picture: a localiser, a mask, a map of doses."""
    return "LOCALIZER" in (head.get("ImageType") or ()) or head.get("Modality") in _DERIVED


def is_screen(head: Dataset) -> bool:
    """Whether an image is a secondary capture: of the screen, where it lies among slices (dose report, 3D view)."""
    return "Secondary Capture" in sop_class(head) and "ImageOrientationPatient" not in head


def _pseudonym(head: Dataset) -> str | None:
    patient = str(head.get("PatientID") or "").strip()
    return hashlib.blake2b(patient.encode(), key=_SALT, digest_size=8).hexdigest() if patient else None


def _frames(path: Path, head: Dataset) -> Iterator[Frame]:
    """The slices of one file; one, or those of a multi-frame file by its functional groups."""
    if "ModalityLUTSequence" in head:
        raise ValueError(f"{path.name} gives its values by a table (Modality LUT); export it with rescale slope")
    if int(head.get("SamplesPerPixel", 1)) != 1:
        raise ValueError(f"{path.name} is in colour ({head.get('PhotometricInterpretation')}); expected grey slices")
    count = int(head.get("NumberOfFrames") or 1)
    groups: Sequence[Any] = head.get("PerFrameFunctionalGroupsSequence") or ()
    if count > 1 and len(groups) != count:
        raise ValueError(
            f"{path.name} holds {count} frames without a position for each; export it as enhanced multi-frame or as "
            "one file per slice"
        )
    shared = (head.get("SharedFunctionalGroupsSequence") or [None])[0]
    for index in range(count):
        yield _frame(path, index, head, [groups[index] if groups else None, shared])


def _frame(path: Path, index: int, head: Dataset, groups: Sequence[Any]) -> Frame:
    def value(keyword: str, group: str) -> Any:
        """From the frame's own group, the shared one, or the file's top."""
        for part in groups:
            items = part.get(group) if part is not None else None
            if items and keyword in items[0]:
                return items[0].get(keyword)
        return head.get(keyword)

    position = _numbers(value("ImagePositionPatient", "PlanePositionSequence"), 3)
    direction = _numbers(value("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = _numbers(value("PixelSpacing", "PixelMeasuresSequence"), 2)
    missing = [
        name
        for name, numbers in (
            ("ImagePositionPatient", position),
            ("ImageOrientationPatient", direction),
            ("PixelSpacing", spacing),
        )
        if numbers is None
    ]
    if position is None or direction is None or spacing is None:
        flat = head.get("Modality") in _PROJECTIONS
        cure = "; it is a projection, so a picture: take it out, and give it without volumes" if flat else ""
        raise ValueError(f"{path.name} has no {', '.join(missing)}, so it is not known where the slice lies{cure}")
    if spacing.min() <= 0 or not are_directions(direction):
        raise ValueError(
            f"{path.name} gives ImageOrientationPatient {direction.tolist()} and PixelSpacing {spacing.tolist()}; "
            "expected two directions of length 1 at right angles, and positive millimetres"
        )
    slope = value("RescaleSlope", "PixelValueTransformationSequence")
    intercept = value("RescaleIntercept", "PixelValueTransformationSequence")
    if slope == 0:
        raise ValueError(f"{path.name} has a rescale slope of 0, by which all its values are one")
    thickness = value("SliceThickness", "PixelMeasuresSequence") or None
    return Frame(
        path,
        index,
        size=(int(head.Columns), int(head.Rows)),
        position=position,
        columns=direction[:3] * spacing[1],
        rows=direction[3:] * spacing[0],
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        thickness=None if thickness is None else float(thickness),
    )


def _numbers(value: Any, count: int) -> np.ndarray | None:
    """``count`` finite numbers, or None where the header has others or none."""
    try:
        numbers = np.array([float(number) for number in value])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


# ---------------------------------------------------------------- values


def _values(frames: Sequence[Frame]) -> np.ndarray:
    """float32 ``[columns, rows, slices]``; a multi-frame file is decoded once."""
    values = np.empty(0, np.float32)
    places: dict[Path, list[int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(frame.path, []).append(place)
    for path, own in places.items():
        pixels = read_pixels(path)
        if values.size == 0:  # not before: a damaged header would ask for any memory
            values = np.empty((*frames[0].size, len(frames)), np.float32, order="F")
        for place in own:
            frame = frames[place]
            values[..., place] = pixels[frame.index].T * np.float32(frame.slope) + np.float32(frame.intercept)
    return values


def _and_more(paths: Sequence[Path]) -> str:
    return f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
