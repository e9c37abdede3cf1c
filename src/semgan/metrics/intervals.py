"""How sure a score is: percentile bootstrap over cases [Efron and Tibshirani 1993, ch. 13 and 16].

The cases (images, or patients: what was sampled independently) are drawn anew with replacement, and the score is taken
of each draw. Every score here depends on its cases only through sums over them, so a draw is one weighted sum; for the
pooled mIoU these are sums of pixels. Draw i is a function of (seed, i), and the cases are put into an order of their
own first: neither their order, nor batches, nor processes change a number.

A class of the pooled mIoU that no case of a draw shows is left out of that draw's mean; one found in no case at all
scores 1 there as it does in the score itself. Of few cases (below about 20) percentile intervals are somewhat narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan import seeding
from semgan.metrics import overlap

LEVEL = 0.95
RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedDifference:
    """First method minus second, of the same cases.

    interval: 95 % bootstrap interval of the difference
    p_value:  two-sided: how often a draw strays from the difference by at least its size, so (1 + times) / (1 + draws)
    n:        cases compared; left_out: cases where one of the two has no score
    """

    difference: float
    interval: Interval
    p_value: float
    n: int
    left_out: int = 0


@dataclass(frozen=True)
class _Sums:
    """A score of sums. rows: addends ``[cases, columns]``; score: sums ``[..., columns]`` -> scores ``[...]``."""

    rows: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]

    def by_case(self, cases: Sequence[str]) -> _Sums:
        """With the rows of a case, named for every row, added up."""
        number = {case: place for place, case in enumerate(dict.fromkeys(cases))}
        rows = np.zeros((len(number), self.rows.shape[1]), self.rows.dtype)
        np.add.at(rows, [number[case] for case in cases], self.rows)
        return _Sums(rows, self.score)

    def whole(self) -> float:
        """The score of all cases."""
        return float(self.score(self.rows.sum(axis=0)))

    def draws(self, seed: int, resamples: int) -> NDArray[np.float64]:
        """The scores of the draws; those without any score are left out."""
        rows = self.rows[np.lexsort(self.rows.T[::-1])]
        sums = np.empty((resamples, rows.shape[1]), dtype=rows.dtype)
        for draw in range(resamples):
            chosen = seeding.generator(seed, "bootstrap", draw).integers(0, len(rows), len(rows))
            times = np.bincount(chosen, minlength=len(rows))
            sums[draw] = (times[:, None] * rows).sum(axis=0)
        scores = self.score(sums)
        return scores[~np.isnan(scores)]

    def error(self) -> float:
        """Standard error of the score by the jackknife: how it varies as one case after the other is left out."""
        scores = _defined(self.score(self.rows.sum(axis=0) - self.rows))
        return float(np.sqrt((len(scores) - 1) * scores.var()))


def mean_interval(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval | None:
    """95 % interval of the mean of ``[cases]`` values, nan left out; None for fewer than two cases."""
    values = _defined(np.asarray(values, dtype=np.float64))
    return _interval(_of_mean(values).draws(seed, resamples)) if len(values) > 1 else None


def overlap_interval(
    counts: overlap.Counts,
    metric: str,
    over: Sequence[int] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """95 % interval of ``overlap.overall(counts, metric, over)``; None for fewer than two cases."""
    if metric != "miou":
        return mean_interval(overlap.case_means(counts, metric, over), seed=seed, resamples=resamples)
    return _interval(_of_miou(counts, over).draws(seed, resamples)) if counts.cases > 1 else None


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference:
    """Mean difference of two methods with one score per case each, ``[cases]`` in the same order.

    Cases with nan in either are left out and counted. Raises ValueError for unequal numbers or fewer than two pairs.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"Two methods need scores of the same cases; got shapes {one.shape} and {other.shape}.")
    differences = _defined(one - other)
    return _difference(_of_mean(differences), len(one) - len(differences), seed, resamples)


def paired_overlap_difference(
    first: overlap.Counts,
    second: overlap.Counts,
    metric: str,
    over: Sequence[int] | None = None,
    *,
    cases: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """Difference of two methods from their counts of the same cases in the same order; mIoU of the pooled counts.

    cases: the case of every row of the counts, where a case has several; their scores count alike
    Raises ValueError where the true pixels differ: then these are not the same cases; and for fewer than two.
    """
    sums, left_out = _paired_sums(first, second, metric, over, cases)
    return _difference(sums, left_out, seed, resamples)


def paired_overlap_error(
    first: overlap.Counts, second: overlap.Counts, metric: str, *, cases: Sequence[str] | None = None
) -> tuple[float, float]:
    """The difference that `paired_overlap_difference` tells, and its standard error.

    By the jackknife over cases [Efron and Tibshirani 1993, ch. 11]; of a mean of cases that is the usual standard
    error. No draws, so fast and always the same. Raises as `paired_overlap_difference` does.
    """
    sums, _ = _paired_sums(first, second, metric, None, cases)
    _check_two(sums)
    return sums.whole(), sums.error()


def _paired_sums(
    first: overlap.Counts,
    second: overlap.Counts,
    metric: str,
    over: Sequence[int] | None,
    cases: Sequence[str] | None,
) -> tuple[_Sums, int]:
    """First minus second as a score of sums over cases, and how many rows it leaves out."""
    if not np.array_equal(first.truth, second.truth):
        raise ValueError(
            f"Two methods need counts of the same cases in the same order; got {first.cases} and {second.cases} cases "
            "whose true pixels differ."
        )
    if metric != "miou":
        one, other = (overlap.case_means(counts, metric, over) for counts in (first, second))
        counted = ~np.isnan(one - other)
        sums, left_out = _of_mean((one - other)[counted]), int((~counted).sum())
        return (sums if cases is None else sums.by_case(np.array(cases)[counted].tolist())), left_out
    ours, theirs = _of_miou(first, over), _of_miou(second, over)
    columns = ours.rows.shape[1]
    both = _Sums(
        np.concatenate([ours.rows, theirs.rows], axis=1),
        lambda sums: ours.score(sums[..., :columns]) - theirs.score(sums[..., columns:]),
    )
    return (both if cases is None else both.by_case(cases)), 0


def _defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _of_mean(values: NDArray[np.float64]) -> _Sums:
    return _Sums(np.stack([values, np.ones(len(values))], axis=1), lambda sums: sums[..., 0] / sums[..., 1])


def _of_miou(counts: overlap.Counts, over: Sequence[int] | None) -> _Sums:
    chosen = overlap.averaged(counts.classes, over)
    union = counts.union[:, chosen]
    absent_score = np.where(union.sum(axis=0) > 0, np.nan, 1.0)

    def score(sums: np.ndarray) -> np.ndarray:
        both, either = np.split(sums, 2, axis=-1)
        fallback = np.broadcast_to(absent_score, either.shape).copy()
        return overlap.defined_mean(np.divide(both, either, out=fallback, where=either > 0), axis=-1)

    return _Sums(np.concatenate([counts.intersection[:, chosen], union], axis=1), score)


def _interval(draws: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _check_two(sums: _Sums) -> None:
    if len(sums.rows) < 2:
        raise ValueError(f"Two methods are compared on two cases at least; got {len(sums.rows)} with both scores.")


def _difference(sums: _Sums, left_out: int, seed: int, resamples: int) -> PairedDifference:
    _check_two(sums)
    difference = sums.whole()
    draws = sums.draws(seed, resamples)
    # A hair of room, so that sums in another order do not decide about equality.
    strays = int((np.abs(draws - difference) >= abs(difference) * (1 - 1e-9)).sum())
    p_value = (1 + strays) / (1 + len(draws))
    return PairedDifference(difference, _interval(draws), p_value, len(sums.rows), left_out)
