"""A volume as the readers of NIfTI and DICOM give it, and its axial slices whatever way it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from nibabel.nifti1 import Nifti1Header

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's world -> NIfTI's, and back
_TOLERANCE = 0.1  # of a voxel: two volumes further apart lie in different places
_AS_STORED = np.array([[0.0, 1], [1, 1], [2, 1]])  # nibabel's orientation that changes nothing
_DISPLAY = ("L", "P", "S")  # stored axes as an axial picture is shown: columns to the left, rows to the back, slices up


@dataclass(frozen=True)
class Volume:
    """Voxels in stored order.

    values:       ``[i, j, k]`` of any plain type; HU for CT
    affine:       ``[4, 4]`` stored index -> millimetres right, anterior, superior (NIfTI's world)
    modality:     "ct", "mri", or None where the file does not say
    header:       of the NIfTI file it came from; None for DICOM
    thickness:    ``[k]`` extent of each stored k relative to the affine's, where uneven (DICOM); None: all 1
    frames:       file and frame number of each stored k (DICOM)
    positions:    ``[k, 3]`` where the first voxel of each stored k lies (DICOM); None: as the affine says
    warnings:     what a user should know about the geometry
    """

    values: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    header: Nifti1Header | None = None
    thickness: np.ndarray | None = None
    frames: tuple[tuple[Path, int], ...] = ()
    positions: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between neighbours along each stored axis."""
        return tuple(float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def slices(self) -> np.ndarray:
        """The voxels as axial slices: see `axial`."""
        return axial(self.values, self.affine)

    def volume_ml(self, labels: np.ndarray, classes: int) -> list[float]:
        """Volume of every class of ``labels`` ``[i, j, k]``, in ml, for sheared and uneven volumes too."""
        voxel_ml = abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000
        share = np.ones(labels.shape[2]) if self.thickness is None else self.thickness
        layers = [np.bincount(labels[..., k].ravel(), minlength=classes) for k in range(labels.shape[2])]
        return [float(total) for total in voxel_ml * (share[:, None] * np.stack(layers)).sum(0)]


def axial(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """``[i, j, k]`` -> a view ``[slices, rows, columns]``: slices upwards, rows to the back, columns to the left.

    Which stored axis is which follows from the affine, for oblique ones the nearest. What is written into the view
    lands in ``values``, in stored order.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    turned = apply_orientation(values, ornt_transform(io_orientation(affine), axcodes2ornt(_DISPLAY)))
    return turned.transpose(2, 1, 0)


def axial_spacing_mm(affine: np.ndarray) -> tuple[float, float]:
    """Distance between the rows, and between the columns, of the slices that `axial` gives."""
    from nibabel.orientations import io_orientation

    columns, rows, _ = np.argsort(io_orientation(affine)[:, 0])  # the stored axes nearest to right, front, up
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    return float(steps[rows]), float(steps[columns])


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a file lie: its shape ``[i, j, k]``, and its affine to millimetres."""

    file: Path
    shape: tuple[int, ...]
    affine: np.ndarray


def change_of_storage(grid: Grid, like: Grid) -> np.ndarray:
    """The orientation change, as nibabel writes it, from one grid's stored order to that of ``like``.

    Raises ValueError where they are not the same voxels: others in number, or further apart than a tenth of a voxel.
    """
    from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform

    turned = ornt_transform(io_orientation(grid.affine), io_orientation(like.affine))
    nearest = np.inf
    for change in (_AS_STORED, turned):
        if tuple(grid.shape[axis] for axis in np.argsort(change[:, 0])) == like.shape:
            apart = farthest_mm(grid.affine @ inv_ornt_aff(change, grid.shape), like.affine, like.shape)
            if apart <= _TOLERANCE * np.linalg.norm(like.affine[:3, :3], axis=0).min():
                return change
            nearest = min(nearest, apart)
    if nearest == np.inf:
        sizes = [" x ".join(map(str, shape)) for shape in (grid.shape, like.shape)]
        raise ValueError(
            f"{grid.file} has {sizes[0]} voxels but {like.file} has {sizes[1]}; a mask must have its volume's shape."
        )
    raise ValueError(
        f"{grid.file} and {like.file} lie in different places: up to {nearest:.3g} mm apart. Take the mask that was "
        "made on this volume, or resample one onto the other."
    )


def stored_like(values: np.ndarray, change: np.ndarray) -> np.ndarray:
    """``[i, j, k]`` after a `change_of_storage`; a view."""
    from nibabel.orientations import apply_orientation

    return apply_orientation(values, change)


def farthest_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far the corners of two volumes of one shape lie apart at most."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], float)
    return float(np.linalg.norm((affine - other) @ corners.T, axis=0).max())


def axial_slices(shape: tuple[int, ...], affine: np.ndarray) -> int:
    """How many slices `axial` gives of a volume ``shape``."""
    return len(axial(np.broadcast_to(np.uint8(0), shape), affine))


def checked_affine(affine: np.ndarray) -> np.ndarray:
    """The affine as float64 ``[4, 4]``. Raises ValueError where it does not place voxels in space."""
    affine = np.asarray(affine, dtype=np.float64)
    cuboid = np.linalg.norm(affine[:3, :3], axis=0).prod()  # what a voxel fills unless sheared; of any size
    if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 1e-6 * cuboid:
        raise ValueError(f"its affine places no voxels in space: {affine[:3].tolist()}")
    return affine


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the stored axes are not at right angles, as behind a tilted gantry."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)
