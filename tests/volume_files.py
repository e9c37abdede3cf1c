"""Tiny NIfTI volumes in odd orientations, for tests."""

from itertools import permutations, product

import numpy as np

from semgan.data.phantoms.scan_files import stored_as
from semgan.data.phantoms.scan_files import write_nifti as save

__all__ = ["ORIENTATIONS", "oblique", "rotation", "save", "stored_as"]

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
