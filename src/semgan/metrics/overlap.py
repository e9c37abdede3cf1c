"""Overlap of predicted and true label maps: counts first, ratios later [S sec. 5].

Counts are whole numbers per case and class; they add up in any order, so no score depends on how cases were batched,
sorted or spread over processes. Ratios are taken once, at the end:

- Dice     ``2 |A & B| / (|A| + |B|)``, Jaccard ``|A & B| / |A | B|``: per case (image, or patient: counts of its images
  added up), then averaged over cases;
- mIoU     per class the sum of intersections over the sum of unions of all images ("pixel-wise"), then the mean over
  classes; ``miou-per-case``: per case the mean over its classes, then over cases ("per image").

What is empty, by conventions of this project (MONAI and torchmetrics give nan for the first):

- Dice, Jaccard: a class that is neither in a case's prediction nor in its truth scores 1, a class in only one of them
  0. Empty slices of a patient count by their false pixels, as all slices are added up first;
- mIoU: empty images count by their false pixels. A class found in no image at all scores 1;
- mIoU per case: a class in neither does not count in that case, nor does a case with no class that counts. So the mean
  is not the mean of the classes' scores, each of which is taken over the cases that have the class (1 if none does).

The mean over classes leaves the background out, so for two classes it is the score of the foreground. Pixels whose
truth is ``IGNORE`` count nowhere, whatever was predicted there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan.types import IGNORE, METRICS


@dataclass(frozen=True)
class Counts:
    """Pixels per case and class, int64 ``[cases, classes]`` each: in both maps, in the prediction, in the truth."""

    intersection: NDArray[np.int64]
    prediction: NDArray[np.int64]
    truth: NDArray[np.int64]

    @property
    def cases(self) -> int:
        return len(self.intersection)

    @property
    def classes(self) -> int:
        return self.intersection.shape[1]

    @property
    def union(self) -> NDArray[np.int64]:
        return self.prediction + self.truth - self.intersection

    def pooled(self) -> Counts:
        """All cases added up into one."""
        return Counts(*(part.sum(axis=0, keepdims=True) for part in (self.intersection, self.prediction, self.truth)))

    def pooled_by(self, groups: Sequence[Hashable]) -> tuple[list[Hashable], Counts]:
        """Cases of the same group added up; the groups' names in order of their first case, and their counts."""
        if len(groups) != self.cases:
            raise ValueError(f"One group per case is needed; got {len(groups)} groups for {self.cases} cases.")
        names = list(dict.fromkeys(groups))
        row = {name: place for place, name in enumerate(names)}
        rows = np.array([row[name] for name in groups], dtype=np.int64)
        pooled = []
        for part in (self.intersection, self.prediction, self.truth):
            total = np.zeros((len(names), part.shape[1]), dtype=np.int64)
            np.add.at(total, rows, part)
            pooled.append(total)
        return names, Counts(*pooled)


def count(prediction: ArrayLike, truth: ArrayLike, classes: int) -> Counts:
    """Counts of one case (any shape, for example ``[height, width]`` or ``[slices, height, width]``).

    prediction: class indices 0 to classes - 1; truth: the same, or IGNORE. Raises ValueError for other values and for
    unequal shapes.
    """
    predicted, true = np.asarray(prediction), np.asarray(truth)
    if predicted.shape != true.shape:
        raise ValueError(f"Prediction {predicted.shape} and truth {true.shape} differ in size; they must be equal.")
    # Slice by slice, as a volume at once would take many times its size.
    pairs = [(predicted, true)] if true.ndim < 3 else zip(predicted.T, true.T, strict=True)
    both = sum((_joint(*pair, classes) for pair in pairs), np.zeros((classes, classes), np.int64))
    return Counts(both.diagonal()[None].copy(), both.sum(axis=0)[None], both.sum(axis=1)[None])


def _joint(predicted: NDArray, true: NDArray, classes: int) -> NDArray[np.int64]:
    """How many elements have which truth and which prediction, ``[classes, classes]``. Raises as `count`."""
    kept = true != IGNORE
    predicted, true = predicted[kept], true[kept]
    for name, values in (("prediction", predicted), ("truth", true)):
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            raise ValueError(f"The {name} has fractions; expected class indices.")  # 0.9999 would count as 0
    predicted, true = predicted.astype(np.int64), true.astype(np.int64)
    for name, values in (("prediction", predicted), ("truth", true)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            wrong = sorted({int(v) for v in np.unique(values) if v < 0 or v >= classes})
            raise ValueError(f"The {name} has values {wrong} outside the classes 0 to {classes - 1}.")
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def concatenate(parts: Iterable[Counts]) -> Counts:
    """Cases of several counts below one another. Raises ValueError for none."""
    parts = list(parts)
    if not parts:
        raise ValueError("There is no case to score; give at least one prediction with its label.")
    columns = zip(*((part.intersection, part.prediction, part.truth) for part in parts), strict=True)
    return Counts(*(np.concatenate(column) for column in columns))


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    # Empty against empty is agreement: 1 (our convention).
    return np.divide(part, whole, out=np.ones(whole.shape, dtype=np.float64), where=whole > 0)


def dice(counts: Counts) -> NDArray[np.float64]:
    """Dice per case and class, ``[cases, classes]`` in [0, 1]."""
    return _ratio(2 * counts.intersection, counts.prediction + counts.truth)


def jaccard(counts: Counts) -> NDArray[np.float64]:
    """Jaccard index (intersection over union) per case and class, ``[cases, classes]`` in [0, 1]."""
    return _ratio(counts.intersection, counts.union)


def case_scores(counts: Counts, metric: str) -> NDArray[np.float64]:
    """The metric of each case alone, ``[cases, classes]``; for mIoU the case's own IoU. nan where it does not count."""
    _check(metric)
    if metric == "dice":
        return dice(counts)
    return np.where(counts.union > 0, jaccard(counts), np.nan) if metric == "miou-per-case" else jaccard(counts)


def class_scores(counts: Counts, metric: str) -> NDArray[np.float64]:
    """The metric over all cases, ``[classes]``: mean of the cases' scores; for mIoU the ratio of the summed counts."""
    _check(metric)
    if metric == "miou":
        return jaccard(counts.pooled())[0]
    return np.nan_to_num(defined_mean(case_scores(counts, metric), axis=0), nan=1.0)


def case_means(counts: Counts, metric: str, over: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Mean of each case over the class indices ``over``, ``[cases]``; nan for a case that does not count."""
    return defined_mean(case_scores(counts, metric)[:, averaged(counts.classes, over)], axis=1)


def overall(counts: Counts, metric: str, over: Sequence[int] | None = None) -> float:
    """The metric in one number, over the class indices ``over``; None: every class but the background."""
    if metric == "miou-per-case":
        return float(np.nan_to_num(defined_mean(case_means(counts, metric, over), axis=0), nan=1.0))
    return mean_score(class_scores(counts, metric), over)


def mean_score(scores: NDArray[np.float64], over: Sequence[int] | None = None) -> float:
    """Mean of ``[classes]`` scores over the class indices ``over``; None: every class but the background (index 0)."""
    return float(np.mean(scores[averaged(len(scores), over)]))


def averaged(classes: int, over: Sequence[int] | None) -> list[int]:
    """The class indices of a mean: ``over``, or all but the background."""
    return list(range(1, classes)) if over is None else list(over)


def defined_mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean along an axis over what is not nan; nan where everything is."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=axis)
    total = np.where(defined, values, 0).sum(axis=axis)
    return np.divide(total, number, out=np.full(np.shape(number), np.nan), where=number > 0)


def _check(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"Unknown metric '{metric}'; choose one of {', '.join(METRICS)}.")
