"""Slices of a DICOM series -> their order in the patient and one affine, or the reason why they are no volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semgan.data.volumes import LPS_TO_RAS, checked_affine

_SAME_PLACE_MM = 0.01
_EVEN = 0.02  # share of the spacing by which distances between slices may differ
_ALIKE_MM = 1e-3  # by which steps between neighbours may differ from slice to slice: headers are rounded
_SQUARE = 0.05  # by which directions may miss length 1 and the right angle: they are rounded, never other things


@dataclass(frozen=True)
class Frame:
    """One slice: ``position`` of its first voxel and the directions of ``columns`` and ``rows``, LPS millimetres."""

    path: Path
    index: int
    size: tuple[int, int]
    position: np.ndarray
    columns: np.ndarray  # along a row: from one column to the next
    rows: np.ndarray
    slope: float
    intercept: float
    thickness: float | None = None  # as the header says, millimetres

    @property
    def normal(self) -> np.ndarray:
        normal = np.cross(self.columns, self.rows)
        return normal / np.linalg.norm(normal)


def check_alike(frames: Sequence[Frame]) -> None:
    """Raises ValueError where slices are not of one size, spacing and direction."""
    _refuse_several("size", [f"{frame.size[0]} x {frame.size[1]}" for frame in frames])
    steps = np.stack([np.concatenate([frame.columns, frame.rows]) for frame in frames])
    if np.abs(steps - np.median(steps, axis=0)).max() > _ALIKE_MM:
        _refuse_several("direction or pixel spacing", [tuple(row) for row in (steps.round(3) + 0.0).tolist()])


def _refuse_several(what: str, kinds: Sequence[Hashable]) -> None:
    counts = Counter(kinds)
    if len(counts) > 1:
        some = "; ".join(f"{count} with {kind}" for kind, count in counts.most_common(3))
        raise ValueError(
            f"its {len(kinds)} slices differ in {what} ({some}), so this is no single volume; sort the files into one "
            "folder per volume"
        )


def are_directions(directions: np.ndarray) -> bool:
    """Whether ImageOrientationPatient holds two directions of length 1 at right angles."""
    axes = directions.reshape(2, 3)
    return bool(np.abs(axes @ axes.T - np.eye(2)).max() <= _SQUARE)


def arranged(frames: list[Frame]) -> tuple[list[Frame], np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Slices in order, affine to RAS, relative extent of each where they differ, and remarks."""
    normal = frames[0].normal  # one for all: far from the origin, a hair of difference would be millimetres
    frames = sorted(frames, key=lambda frame: frame.position @ normal)
    first, last = frames[0], frames[-1]
    heights = np.array([frame.position @ normal for frame in frames])
    steps = np.diff(heights)
    _check_positions(frames, heights)
    remarks = []
    if len(frames) == 1:
        step = normal * (first.thickness or 1.0)
        source = "from its header" if first.thickness else "taken as 1 mm"
        remarks.append(f"It has one slice only; its thickness of {first.thickness or 1:.3g} mm is {source}.")
    else:
        step = (last.position - first.position) / (len(frames) - 1)
    uneven = len(steps) > 0 and bool(np.abs(steps - np.median(steps)).max() > max(_EVEN * np.median(steps), 0.02))
    if uneven:
        remarks.append(
            f"Its slices lie {steps.min():.3g} to {steps.max():.3g} mm apart: they are in the right order, but NIfTI "
            f"knows one distance only, here the mean of {steps.mean():.3g} mm. Volumes in ml count the true distances."
        )
    sideways = step - (step @ normal) * normal
    _check_line(frames, heights, normal)
    if np.linalg.norm(sideways) > _SAME_PLACE_MM:
        angle = np.degrees(np.arctan2(np.linalg.norm(sideways), step @ normal))
        remarks.append(f"Its slices are sheared by {angle:.3g} degrees (tilted gantry); the affine says so.")
    affine = np.eye(4)
    affine[:3, :4] = np.column_stack([first.columns, first.rows, step, first.position])
    thickness = None
    if uneven:
        edges = np.concatenate([[heights[0] - steps[0] / 2], heights[:-1] + steps / 2, [heights[-1] + steps[-1] / 2]])
        thickness = np.diff(edges) / steps.mean()
    return frames, checked_affine(LPS_TO_RAS @ affine), thickness, tuple(remarks)


def _check_positions(frames: Sequence[Frame], heights: np.ndarray) -> None:
    """Raises ValueError for two slices at one place, and for gaps of whole slices."""
    steps = np.diff(heights)
    twice = np.flatnonzero(steps < _SAME_PLACE_MM)
    if len(twice):
        one, other = frames[twice[0]], frames[twice[0] + 1]
        height = heights[twice[0]]
        raise ValueError(
            f"{len(twice)} slices lie where another one does, for example {one.path.name} and {other.path.name} at "
            f"{height:.2f} mm: several echoes, phases or copies in one series. Sort them into one folder each"
        )
    if len(steps) < 3:
        return
    usual = float(np.median(steps))
    times = steps / usual
    regular = np.abs(times - 1) <= _EVEN
    whole = (times > 1.5) & (np.abs(times - np.rint(times)) <= 2 * _EVEN)
    if whole.any() and (regular | whole).all():
        place = int(np.flatnonzero(whole)[0])
        missing = int(np.rint(times[whole]).sum() - whole.sum())
        raise ValueError(
            f"{missing} of {len(frames) + missing} slices are missing, for example between "
            f"{frames[place].path.name} and {frames[place + 1].path.name}, {steps[place]:.3g} mm apart instead of "
            f"{usual:.3g} mm. Copy the series again"
        )


def _check_line(frames: Sequence[Frame], heights: np.ndarray, normal: np.ndarray) -> None:
    """Raises ValueError where the slices' first voxels do not lie on one straight line."""
    if len(frames) < 3:
        return
    positions = np.stack([frame.position for frame in frames])
    sideways = positions - heights[:, None] * normal
    share = (heights - heights[0]) / (heights[-1] - heights[0])
    expected = sideways[0] + share[:, None] * (sideways[-1] - sideways[0])
    off = float(np.linalg.norm(sideways - expected, axis=1).max())
    if off > 0.5 * min(np.linalg.norm(frames[0].columns), np.linalg.norm(frames[0].rows)):
        raise ValueError(f"its slices are shifted sideways by up to {off:.3g} mm, so no volume can be made of them")
