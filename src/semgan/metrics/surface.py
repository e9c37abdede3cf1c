"""How far the outlines of predicted and true masks lie apart, and how much their sizes differ; any number of axes.

The surface of a mask: its elements with a face neighbour outside the mask; what lies beyond the array is outside. Axes
of length 1 are no axes here, so that a volume of one slice is measured like an image. Distances go from the centre of
every surface element to the nearest one of the other surface.

- HD95: the 95th percentile (linear interpolation) of the distances of each direction, the larger of both;
- ASSD: the mean of the distances of both directions together (average symmetric surface distance).

Both as in MONAI, but for empty masks:

- both masks empty: 0, they agree;
- one of them empty: no distance exists, nan. Summaries leave it out of their means and count it as ``undefined``.

Size differences are prediction minus truth (signed: their mean is the bias), and as a share of the truth without sign;
the share of an empty truth is 0 for an empty prediction, else nan, counted likewise. Elements whose truth is ``IGNORE``
belong to no mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan.metrics.intervals import mean_interval
from semgan.metrics.overlap import defined_mean
from semgan.types import IGNORE

PERCENTILE = 95
MM3_PER_ML = 1000
MM_AXES = (2, 3)  # images and volumes


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances of each surface element to the other surface, in the unit of the spacing; nan where there is none."""

    to_truth: NDArray[np.float64]
    to_prediction: NDArray[np.float64]

    @property
    def hd95(self) -> float:
        directions = [part for part in (self.to_truth, self.to_prediction) if part.size]
        return float(max((np.percentile(part, PERCENTILE) for part in directions), default=0.0))

    @property
    def average(self) -> float:
        """The average symmetric surface distance."""
        both = np.concatenate([self.to_truth, self.to_prediction])
        return float(both.mean()) if both.size else 0.0


def surface_distances(prediction: ArrayLike, truth: ArrayLike, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two boolean masks of any shape.

    spacing_mm: distance of neighbouring elements along each axis of the arrays (1 each: distances in pixels)
    Raises ValueError for unequal shapes, and where the spacing is not one positive number per axis.
    """
    predicted, true = _masks(prediction, truth)
    spacing = checked_spacing(spacing_mm, predicted.ndim)
    if not (predicted.any() and true.any()):
        # With one of them empty, as many unknown distances as the other one has elements.
        return SurfaceDistances(np.full(predicted.sum(), np.nan), np.full(true.sum(), np.nan))
    long = [axis for axis, length in enumerate(predicted.shape) if length > 1] or [0]
    predicted, true = (mask.reshape([mask.shape[axis] for axis in long]) for mask in (predicted, true))
    sampling = [spacing[axis] for axis in long]
    box = tuple(_extent(predicted | true, axis) for axis in range(len(long)))
    own, other = _surface(predicted[box]), _surface(true[box])
    return SurfaceDistances(_distances(own, other, sampling), _distances(other, own, sampling))


def volume_difference_ml(prediction: ArrayLike, truth: ArrayLike, spacing_mm: Sequence[float]) -> float:
    """Volume of the prediction minus that of the truth, ``[depth, height, width]`` masks in any order of the axes."""
    predicted, true = _masks(prediction, truth)
    if predicted.ndim != 3:
        raise ValueError(f"A volume in ml needs masks with three axes; got {predicted.ndim}.")
    return _size_difference(predicted, true) * float(np.prod(checked_spacing(spacing_mm, 3))) / MM3_PER_ML


def relative_difference(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Size difference of two masks without sign as a share of the truth; both empty: 0, only the truth: nan."""
    predicted, true = _masks(prediction, truth)
    whole, difference = int(true.sum()), abs(_size_difference(predicted, true))
    return difference / whole if whole else (float("nan") if difference else 0.0)


def checked_spacing(spacing_mm: Sequence[float], axes: int) -> tuple[float, ...]:
    """One number per axis; a single one is that of every axis. Raises ValueError for anything else."""
    spacing = tuple(float(value) for value in spacing_mm)
    spacing = spacing * axes if len(spacing) == 1 else spacing
    if len(spacing) != axes or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise ValueError(
            f"A spacing of {', '.join(f'{value:g}' for value in spacing) or 'nothing'} mm was given for masks with "
            f"{axes} axes; give one positive number, or one per axis in the order of the array (height, width)."
        )
    return spacing


def measures(
    prediction: ArrayLike, truth: ArrayLike, classes: int, spacing_mm: Sequence[float] | None
) -> dict[str, NDArray[np.float64]]:
    """Every measure of one case by name, one value per class ``[classes]``; names end with the unit.

    prediction, truth: class indices of equal shape, two or three axes; truth may hold IGNORE
    spacing_mm:        None: an image in pixels (``hd95_px``); volumes need it
    Raises ValueError for other numbers of axes, and for volumes without spacing.
    """
    predicted, true = np.asarray(prediction), np.asarray(truth)
    axes = predicted.ndim
    if axes not in MM_AXES or (spacing_mm is None and axes == 3):
        raise ValueError(
            f"Surfaces are measured of images, and of volumes with spacing; got masks with {axes} axes"
            f"{' without spacing' if spacing_mm is None else ''}."
        )
    spacing = checked_spacing(spacing_mm or (1.0,), axes)
    unit = "px" if spacing_mm is None else "mm"
    what = "volume" if axes == 3 else "area"
    size_unit = "ml" if axes == 3 else ("px" if spacing_mm is None else "mm2")
    names = (f"hd95_{unit}", f"assd_{unit}", f"{what}_difference_{size_unit}", f"{what}_difference_relative")
    rows, kept = [], true != IGNORE
    for index in range(classes):
        masks = (predicted == index) & kept, (true == index) & kept
        distances = surface_distances(*masks, spacing)
        difference = volume_difference_ml if axes == 3 else _area_difference
        rows.append((distances.hd95, distances.average, difference(*masks, spacing), relative_difference(*masks)))
    return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))


# ---------------------------------------------------------------- over cases


@dataclass(frozen=True)
class Summary:
    """One measure over all cases.

    mean, interval: mean over cases of their mean over classes, and its 95 % interval; None where nothing is defined
    n:              cases in the mean
    classes:        class -> mean over the cases where it is defined
    undefined:      class -> number of images without a value
    """

    mean: float | None
    interval: tuple[float, float] | None
    n: int
    classes: dict[str, float | None]
    undefined: dict[str, int]


def summarise(
    values: NDArray[np.float64], names: Sequence[str], over: Sequence[int], groups: Sequence[str] | None = None
) -> Summary:
    """Summary of one measure.

    values: ``[images, classes]``, nan where not defined; over: the class indices that the mean is taken over
    groups: one per image; the images of a group are averaged to one case first. None: every image is a case
    """
    cases = values if groups is None else _group_means(values, groups)
    means = defined_mean(cases[:, list(over)], axis=1)
    undefined = np.isnan(values).sum(axis=0)
    per_class: Mapping[str, float] = dict(zip(names, defined_mean(cases, axis=0).tolist(), strict=True))
    return Summary(
        mean=_or_none(float(defined_mean(means, axis=0))),
        interval=mean_interval(means),
        n=int(np.isfinite(means).sum()),
        classes={name: _or_none(value) for name, value in per_class.items()},
        undefined=dict(zip(names, undefined.tolist(), strict=True)),
    )


def _group_means(values: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return np.stack([defined_mean(values[own], axis=0) for own in rows.values()])


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


# ---------------------------------------------------------------- one pair of masks


def _masks(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    predicted, true = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if predicted.shape != true.shape:
        raise ValueError(f"Prediction {predicted.shape} and truth {true.shape} differ in size; they must be equal.")
    return predicted, true


def _size_difference(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> int:
    return int(predicted.sum()) - int(true.sum())


def _area_difference(predicted: NDArray[np.bool_], true: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    return _size_difference(predicted, true) * float(np.prod(spacing))


def _extent(mask: NDArray[np.bool_], axis: int) -> slice:
    """From the first to the last element along one axis; beyond, nothing can be nearest."""
    places = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
    return slice(int(places[0]), int(places[-1]) + 1)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion

    return mask & ~binary_erosion(mask)


def _distances(places: NDArray[np.bool_], others: NDArray[np.bool_], sampling: Sequence[float]) -> NDArray[np.float64]:
    from scipy.ndimage import distance_transform_edt

    field = np.asarray(distance_transform_edt(~others, sampling=sampling), dtype=np.float64)
    return field[places]
