"""Tiny NIfTI volumes in odd orientations, for tests."""

from itertools import permutations, product

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

ORIENTATIONS = ["".join(c) for p in permutations(("LR", "PA", "IS")) for c in product(*p)]


def rotation(angles_deg):
    a, b, c = np.radians(angles_deg)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def oblique(angles_deg=(12, -8, 20), spacing=(0.7, 0.8, 2.5)):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles_deg) * spacing
    affine[:3, 3] = (-90.5, 33.25, 1200)
    return affine


def stored_as(values, affine, codes):
    """The same volume in space, stored in another orientation."""
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    moved = affine @ nibabel.orientations.inv_ornt_aff(change, values.shape)
    return apply_orientation(values, change), moved


def save(path, values, affine):
    """A NIfTI file in millimetres; returns its path."""
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path
