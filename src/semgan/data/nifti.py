"""NIfTI volumes in and out, geometry kept exactly. Every failure of reading is one ValueError that names the file."""

from __future__ import annotations

import gzip
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semgan.artifacts import temporary_beside
from semgan.data.readers import class_values, decoded
from semgan.data.volumes import Grid, Volume, change_of_storage, checked_affine, farthest_mm, is_sheared

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

NIFTI_SUFFIXES = (".nii.gz", ".nii")
_MOST_PACKED = 1032  # bytes that one byte of gzip can stand for, by the limits of deflate
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}  # millimetres and unknown units: 1
_FREE_TEXT = ("descrip", "aux_file", "intent_name", "intent_code", "intent_p1", "intent_p2", "intent_p3")


def nifti_suffix(path: Path) -> str | None:
    """ ".nii.gz" or ".nii" as the name has it, or None for other files."""
    return next((path.name[-len(end) :] for end in NIFTI_SUFFIXES if path.name.lower().endswith(end)), None)


def read_volume(path: Path) -> Volume:
    """A volume with its geometry; values as stored, or float32 where the header scales them.

    Raises FileNotFoundError; ValueError for damaged files, other than three axes, values that are not finite.
    """
    return decoded(path, _decode)


def read_geometry(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine in millimetres, by the header alone. Raises as `read_volume`."""
    return decoded(path, _geometry)


def read_label_volume(path: Path) -> Volume:
    """As `read_volume`, with int32 values. Raises ValueError for fractions and for larger numbers too."""

    def decode(file: Path) -> Volume:
        volume = _decode(file)
        return replace(volume, values=class_values(volume.values))

    return decoded(path, decode)


def write_label_volume(path: Path, labels: np.ndarray, like: Volume) -> None:
    """Class indices ``[i, j, k]`` as uint8 NIfTI with the geometry of ``like``: shape, affines, codes, units.

    Only geometry is taken over: no free text, no extensions, which may name the patient. Raises ValueError for another
    shape and for indices over 255.
    """
    if labels.shape != like.values.shape:
        raise ValueError(f"The mask is {labels.shape} and its volume {like.values.shape}; they must be equal.")
    if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise ValueError(f"Class indices are 0 to 255; got {labels.min()} to {labels.max()}.")
    _write(path, labels.astype(np.uint8), like)


def write_probability_volume(path: Path, levels: np.ndarray, like: Volume) -> None:
    """uint8 ``[i, j, k]`` or ``[i, j, k, classes]``, 255 for the probability 1, as NIfTI with ``like``'s geometry.

    The header's scl_slope is 1/255, so that readers see probabilities: NIfTI has no float16, and float32 would take
    four times the space for digits that mean nothing.
    """
    _write(path, levels, like, slope=1 / 255)


def write_volume(path: Path, volume: Volume) -> None:
    """The values in their own type, and the geometry, as NIfTI; nothing else of the source is kept."""
    _write(path, volume.values, volume)


def _write(path: Path, values: np.ndarray, like: Volume, *, slope: float = 1.0) -> None:
    import nibabel

    header = _new_header(like) if like.header is None else _geometry_only(like.header)
    header.set_data_dtype(values.dtype)
    if values.ndim > 3:
        header.set_data_shape(values.shape)
        header["pixdim"][4:] = 1
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    image = kind(values.reshape(header.get_data_shape()), header.get_best_affine(), header)
    image.header.set_slope_inter(slope, 0)  # the image's own header: nibabel drops it from one that is given
    partial = temporary_beside(path, ".nii.gz")  # nibabel goes by the ending
    try:
        nibabel.save(image, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def common_grid(prediction: Path, label: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Of two NIfTI masks of the same voxels: the prediction's `change_of_storage` to the label's, the label's affine.

    None for two pictures. Raises ValueError for volumes of other shapes or places, and for a volume beside a picture.
    """
    volumes = [nifti_suffix(path) is not None for path in (prediction, label)]
    if not any(volumes):
        return None
    if not all(volumes):
        raise ValueError(f"{prediction} and {label} cannot be compared: one is a volume, the other a picture.")
    grid, like = (Grid(path, *read_geometry(path)) for path in (prediction, label))
    return change_of_storage(grid, like), like.affine


def _open(path: Path) -> Any:
    """A Nifti1Image or its kind of three axes, voxels still on disk."""
    import nibabel

    image: Any = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError(f"it is no NIfTI but {type(image).__name__}")
    if len(image.shape) < 3 or any(size > 1 for size in image.shape[3:]) or 0 in image.shape:
        raise ValueError(f"it has the shape {image.shape}; expected three axes, so split series over time")
    return image


def _check_size(image: Any, path: Path) -> None:
    """Raises ValueError where a header announces more than the file can hold, before that much memory is asked for."""
    announced, size = math.prod(image.shape) * np.dtype(image.get_data_dtype()).itemsize, path.stat().st_size
    if announced > size * (_MOST_PACKED if _is_packed(path) else 1):
        raise ValueError(f"its header announces {announced:,} bytes of voxels, more than its {size:,} bytes can hold")


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _geometry(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    image = _open(path)
    unit = _MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0)
    return image.shape[:3], checked_affine(np.diag([unit, unit, unit, 1]) @ image.affine)


def _decode(path: Path) -> Volume:
    image = _open(path)
    shape, affine = _geometry(path)
    stored = image.get_data_dtype()
    if stored.kind not in "uif":
        raise ValueError(f"it holds values of type {stored}; expected one number per voxel")
    _check_size(image, path)
    values = _unpacked(image, path) if _is_packed(path) else _voxels(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite (NaN or infinity); replace them first")
    header = image.header
    return Volume(values.reshape(shape), affine, header=header.copy(), warnings=_remarks(header))


def _voxels(image: Any) -> np.ndarray:
    """Numbers as stored, or float32 where the header scales them."""
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    return image.get_fdata(dtype=np.float32, caching="unchanged") if scaled else np.asarray(image.dataobj)


def _unpacked(image: Any, path: Path) -> np.ndarray:
    """`_voxels` of a gzip file, its checksum verified: it comes last, and nibabel stops before it."""
    with gzip.open(path) as content:
        values = _voxels(type(image).from_stream(content))
        while content.read(2**20):
            pass
    return values


def _remarks(header: Any) -> tuple[str, ...]:
    """What the header leaves open about the place in space."""
    has_qform, has_sform = header["qform_code"] > 0, header["sform_code"] > 0
    if not (has_qform or has_sform):
        return ("its header does not say how it lies in space; taken as NIfTI's default",)
    if has_qform and has_sform:
        step = float(np.min(header.get_zooms()[:3]))
        apart = farthest_mm(header.get_qform(), header.get_sform(), header.get_data_shape()[:3])
        if apart > step:
            return (f"its header gives two places in space, up to {apart:.3g} mm apart; the sform is taken",)
    return ()


def _geometry_only(header: Nifti1Header) -> Nifti1Header:
    """A copy without the source's scaling, texts and extensions."""
    header = header.copy()
    for name in (*_FREE_TEXT, "cal_min", "cal_max"):
        header[name] = 0 if header[name].dtype.kind != "S" else b""
    for name in ("db_name", "data_type"):
        if name in header:
            header[name] = b""
    header.extensions.clear()
    return header


def _new_header(like: Volume) -> Nifti1Header:
    import nibabel

    image = nibabel.Nifti1Image(np.broadcast_to(np.uint8(0), like.values.shape), None)
    image.set_sform(like.affine, code=1)
    if not is_sheared(like.affine):  # a qform holds rotations only
        image.set_qform(like.affine, code=1)
    else:
        image.header.set_zooms(like.spacing_mm)
    image.header.set_xyzt_units("mm")
    return image.header
