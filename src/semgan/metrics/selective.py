"""Does a number that needs no label tell good answers from bad ones: risk-coverage curves, AUROC of failures, ranks.

An image's *trust* is any number that should be high where its answer is good; its *risk* is 1 - score. Answer only the
most trusted share of the images (the coverage) and the mean risk of these should fall (El-Yaniv and Wiener 2010; area
under the curve, AURC: Geifman et al. 2019). Images of equal trust cannot be told apart, so they count with the mean of
their group: no number here depends on the order of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan import seeding

LEVEL = 0.95
RESAMPLES = 500


@dataclass(frozen=True)
class RiskCoverage:
    """coverage: 1/n, 2/n, ... 1; risk: mean risk of that share of the most trusted images, alike ``[images]``."""

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def area(self) -> float:
        """AURC: mean of the risk over all coverages; lower is better."""
        return float(self.risk.mean())

    def at(self, coverage: float) -> float:
        """Mean risk of the most trusted share of at least ``coverage`` in (0, 1]."""
        return float(self.risk[int(np.searchsorted(self.coverage, coverage - 1e-9))])


def risk_coverage(trust: ArrayLike, risk: ArrayLike) -> RiskCoverage:
    """The curve of images with ``trust [images]`` (higher: surer) and ``risk [images]``.

    Raises ValueError for no images, unequal numbers and values that are not finite.
    """
    sure, lost = _pair(trust, risk, "risk")
    order = np.argsort(-sure, kind="stable")
    _, group = np.unique(-sure[order], return_inverse=True)
    of_group = np.bincount(group, lost[order]) / np.bincount(group)
    count = np.arange(1, len(sure) + 1)
    return RiskCoverage(count / len(sure), np.cumsum(of_group[group]) / count)


def auroc(doubt: ArrayLike, failed: ArrayLike) -> float:
    """Chance that a failed image has more doubt than another, ties half; nan where all failed or none did.

    Raises ValueError for no images, unequal numbers and values that are not finite.
    """
    doubts, bad = _pair(doubt, failed, "failure")
    bad = bad.astype(bool)
    positives, negatives = int(bad.sum()), int((~bad).sum())
    if not positives or not negatives:
        return float("nan")
    above = mid_ranks(doubts)[bad].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def auroc_interval(
    doubt: ArrayLike, failed: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `auroc` over images; draws without a failure are left out (nan, nan)."""
    doubts, bad = _pair(doubt, failed, "failure")
    order = np.lexsort((bad, doubts))  # so that the order of the images changes nothing
    doubts, bad = doubts[order], bad[order]
    found = []
    for draw in range(resamples):
        chosen = seeding.generator(seed, "auroc", draw).integers(0, len(bad), len(bad))
        found.append(auroc(doubts[chosen], bad[chosen]))
    kept = np.array(found)[~np.isnan(found)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's: correlation of the ranks, in [-1, 1]; nan where either is the same for all images."""
    one, other = (mid_ranks(values) for values in _pair(first, second, "value"))
    one, other = one - one.mean(), other - other.mean()
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else float("nan")


def mid_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, equal values the mean of theirs (as scipy's rankdata, whose import takes a second)."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[group]


def _pair(first: ArrayLike, second: ArrayLike, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise ValueError(f"Every image needs one number and one {what}; got shapes {one.shape} and {other.shape}.")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError(f"Images are ranked by finite numbers; leave out those whose number or {what} is not.")
    return one, other
