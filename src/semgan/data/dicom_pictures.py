"""DICOM files that are pictures: projections (CR, DX, MG, RF, XA), photographs, ultrasound, secondary captures.

What says where it lies in the patient is a slice and belongs to `semgan.data.dicom`. Pictures come as a viewer shows
them: modality and VOI tables, the first window, high is bright. Every failure is one ValueError that names the file.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semgan.data.dicom import is_aside, is_cut_off, is_dicom, is_screen, read_head, sop_class
from semgan.data.dicom_pixels import stored_pixels
from semgan.data.transforms import stretch

if TYPE_CHECKING:
    from pydicom import Dataset

_IDENTITY = [
    *("Rows", "NumberOfFrames", "SOPClassUID", "Modality", "ImageType", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PerFrameFunctionalGroupsSequence"),
]
_FLAT = (  # beginnings of names of SOP classes
    *("Computed Radiography", "Digital X-Ray", "Digital Mammography", "Digital Intra-Oral", "X-Ray Angiographic"),
    *("X-Ray Radiofluoroscopic", "Enhanced XA", "Enhanced XRF", "Ultrasound", "VL ", "Video ", "Dermoscopic"),
    "Ophthalmic Photography",
)
_SLICED = ("CT", "MR", "PT")
_WHITE_8, _WHITE_16 = 255, 65535


class Kind(StrEnum):
    """What a DICOM file holds."""

    picture = "picture"
    screen = "secondary capture"  # a picture, but among slices one of the screen
    slice = "slice of a volume"
    aside = "localiser, mask or map of doses"
    mask = "DICOM SEG"
    other = "object without pixels"  # reports, documents, directories
    broken = "damaged file"


def dicom_kind(path: Path) -> Kind | None:
    """What a file holds, by its header; None for what is no DICOM."""
    if not is_dicom(path):
        return None
    try:
        return _kind(read_head(path, _IDENTITY))
    except MemoryError:
        raise
    except Exception:  # headers hold almost anything, and sequences are decoded when asked for
        return Kind.broken


def _kind(head: Dataset) -> Kind:
    if "Rows" not in head:
        return Kind.broken if is_cut_off(head) else Kind.other
    if is_aside(head):
        return Kind.mask if head.get("Modality") == "SEG" else Kind.aside
    if is_screen(head):
        return Kind.screen
    groups = head.get("PerFrameFunctionalGroupsSequence")
    if groups and "PlanePositionSequence" in groups[0]:
        return Kind.slice
    if sop_class(head).startswith(_FLAT):
        return Kind.picture
    has_place = "ImagePositionPatient" in head or "ImageOrientationPatient" in head
    return Kind.slice if has_place or head.get("Modality") in _SLICED or groups else Kind.picture


def read_picture(path: Path) -> np.ndarray:
    """One picture as a viewer shows it: uint8 or uint16, ``[rows, columns]``, or RGB ``[rows, columns, 3]``.

    Up to 8 bits stored fill 0 to 255. Deeper grey is what is stored (so 0 to 4095 for 12 bits) without VOI table and
    window, and the window's 0 to 65535 with one. Pixel padding is as dark as the darkest pixel.

    Raises ValueError for slices, several frames, objects without pixels, and what cannot be decoded.
    """
    _check(path, read_head(path, _IDENTITY))
    data, stored = stored_pixels(path)
    try:
        return _colour(data, stored) if _is_colour(data) else _grey(data, stored)
    except MemoryError:
        raise
    except Exception as error:  # headers hold almost anything
        raise ValueError(f"{path}: its pixels cannot be shown ({error}). Export it again, or save it as PNG.") from None


def _check(path: Path, head: Dataset) -> None:
    kind = _kind(head)
    if kind is Kind.broken:
        raise ValueError(f"{path} has no pixel data. Export the image, not only its header.")
    if kind is Kind.other:
        raise ValueError(f"{path} holds no image: it is {sop_class(head)}. Take it out of the folder.")
    if kind not in (Kind.picture, Kind.screen):
        raise ValueError(
            f"{path} is no picture, but a {kind} ({sop_class(head)}). Take it out; volumes are given without pictures."
        )
    frames = int(head.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ValueError(
            f"{path} holds {frames} frames (a cine loop or a film), and a picture has one. Export the frame you mean "
            "as a file of its own."
        )


# ---------------------------------------------------------------- colour


def _is_colour(data: Dataset) -> bool:
    return int(data.get("SamplesPerPixel", 1)) != 1 or data.PhotometricInterpretation == "PALETTE COLOR"


def _colour(data: Dataset, stored: np.ndarray) -> np.ndarray:
    if data.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        pixels = apply_color_lut(stored, data)[..., :3]
        is_wide = pixels.dtype == np.uint16 and pixels.max() > _WHITE_8
        return (pixels >> 8 if is_wide else pixels).astype(np.uint8)  # palettes are for screens: high bytes
    if stored.ndim != 3 or stored.shape[-1] != 3 or stored.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"its colours are {data.PhotometricInterpretation}, {stored.shape} {stored.dtype}")
    return stored


# ---------------------------------------------------------------- grey


def _grey(data: Dataset, stored: np.ndarray) -> np.ndarray:
    padding = _padding(data, stored)
    if padding is not None:
        stored = np.where(padding, stored[~padding].min(), stored)
    levels, white = _levels(data, stored)
    if data.PhotometricInterpretation == "MONOCHROME1":
        levels = levels.dtype.type(white) - levels
    if padding is not None:
        levels[padding] = levels[~padding].min()
    return levels


def _padding(data: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Where pixels lie outside the picture; None where none or all do."""
    value = data.get("PixelPaddingValue")
    if value is None:
        return None
    limit = data.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    padding = (stored >= low) & (stored <= high)
    return padding if padding.any() and not padding.all() else None


def _levels(data: Dataset, stored: np.ndarray) -> tuple[np.ndarray, int]:
    """Levels as displayed, before MONOCHROME1 is turned, and which one is white [DICOM PS3.3 C.11.1, C.11.2]."""
    values, bits = stored, int(data.BitsStored)
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    if data.get("ModalityLUTSequence"):
        values, bits = _through_table(data, data.ModalityLUTSequence[0], values)
    elif slope and intercept is not None:
        values = values * float(slope) + float(intercept)
    if data.get("VOILUTSequence"):
        return _integers(*_through_table(data, data.VOILUTSequence[0], values))
    shares = _windowed(data, values)
    if shares is None:
        return _integers(values, bits)
    kind, white = (np.uint8, _WHITE_8) if bits <= 8 else (np.uint16, _WHITE_16)
    return np.rint(shares * white).astype(kind), white


def _integers(values: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """The values themselves where they are whole numbers of ``bits`` bits, 8 or less over 0 to 255; else stretched."""
    white = min((1 << bits) - 1, _WHITE_16)
    if values.min() < 0 or values.max() > white or not np.array_equal(values, np.rint(values)):
        return stretch(values[None])[0], _WHITE_16
    if bits <= 8:
        return np.rint(values * (_WHITE_8 / white)).astype(np.uint8), _WHITE_8
    return values.astype(np.uint16), white


def _through_table(data: Dataset, item: Any, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Values through a look-up table of the header, and its bits.

    Not pydicom's: that one's indices into a table of 8 bits have 8 bits themselves.
    """
    from pydicom.uid import ExplicitVRBigEndian

    count, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = item.LUTData
    if isinstance(entries, bytes):
        order = ">" if data.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
        table = np.frombuffer(entries, np.uint8 if len(entries) <= (count or 65536) + 1 else f"{order}u2")
    else:
        table = np.atleast_1d(np.asarray(entries))
    if first > 32767 and values.min() < 0:
        first -= 65536
    last = min(count or 65536, len(table)) - 1
    return table[np.clip(np.rint(values) - first, 0, last).astype(np.int64)], bits


def _windowed(data: Dataset, values: np.ndarray) -> np.ndarray | None:
    """Share of white by the first window, [0, 1]; None without a window, or with one in which nothing is to be seen."""
    centre, width = (_first_number(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(data.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width < (1 if function == "LINEAR" else 1e-6):
        return None
    if function == "SIGMOID":
        shares = 0.5 * (1 + np.tanh(2 * (values - centre) / width))
    elif function == "LINEAR":
        shares = np.clip((values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5, 0, 1)
    else:
        shares = np.clip((values - centre) / width + 0.5, 0, 1)
    return None if shares.min() == shares.max() else shares


def _first_number(value: Any) -> float | None:
    """The first of one or several finite numbers; None for anything else."""
    try:
        number = float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None
