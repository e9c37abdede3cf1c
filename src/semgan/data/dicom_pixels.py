"""Pixels of DICOM files, compressed or not. Every failure is one ValueError that names the file and the cure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset


def read_pixels(path: Path) -> np.ndarray:
    """Grey values of a file, ``[frames, rows, columns]``; MONOCHROME1 is turned so that high is bright (not CT).

    Raises ValueError naming the file and the cure.
    """
    data, pixels = stored_pixels(path)
    if data.get("PhotometricInterpretation") == "MONOCHROME1" and data.get("Modality") != "CT":
        lowest = -(1 << (data.BitsStored - 1)) if data.PixelRepresentation else 0
        pixels = (2 * lowest + (1 << data.BitsStored) - 1) - pixels.astype(np.int32)
    return pixels.reshape(-1, *pixels.shape[-2:])


def stored_pixels(path: Path) -> tuple[Dataset, np.ndarray]:
    """The header, and the values as stored: ``[frames, rows, columns, samples]`` without the axes of length 1.

    YBR is turned into RGB. Raises ValueError naming the file and the cure.
    """
    import pydicom

    try:
        data = pydicom.dcmread(path)
        if "PixelData" not in data:
            raise ValueError(f"{path} has no pixel data. Export the images, not only their headers.")
        _check_decodable(path, data)
        return data, data.pixel_array
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: its pixels cannot be read ({error}). Copy the file again.") from None


def _check_decodable(path: Path, data: Dataset) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        able = get_decoder(syntax).is_available
    except NotImplementedError:
        able = False
    if not able:
        raise ValueError(
            f"{path} is compressed as {syntax.name}, which needs further packages: pip install 'semgan[dicom]', "
            "or export it uncompressed."
        )
