"""A number in [0, 1], or a difference of two, predicted from signals: ridge regression that never extrapolates.

Signals are standardised, and held within the bounds that the central 98 % of the images had in fitting: a signal gone
wild, or infinite, counts as the wildest that was seen; what is no number counts as the middle one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan import seeding

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the penalty, in images; the best is found by cross-validation
FOLDS = 8
MUTE = 1e30  # scale of a signal that says nothing
LEAST_SCALE = 1e-6  # of its mean: a signal that varies by less is constant but for rounding
KEPT = 0.98  # share of the images within the bounds

Table = Mapping[str, ArrayLike]  # signal -> [images]


@dataclass(frozen=True)
class Ridge:
    """prediction = intercept + sum of weight * (signal within low and high - middle) / scale."""

    names: tuple[str, ...]
    middle: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def predict(self, signals: Table) -> NDArray[np.float64]:
        """``[images]``, not bounded. Raises ValueError naming the signals that are missing."""
        return self.intercept + self._standardised(columns(signals, self.names)) @ np.array(self.weights)

    def _standardised(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        return _standardised(table, *(np.array(part) for part in (self.middle, self.scale, self.low, self.high)))

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Ridge:
        lists = {name: tuple(saved[name]) for name in ("names", "middle", "scale", "low", "high", "weights")}
        return cls(**lists, intercept=saved["intercept"])


def fit_ridge(signals: Table, target: ArrayLike, strength: float) -> Ridge:
    """The weights that predict ``target [images]`` best, less ``strength`` times their squares."""
    names = tuple(signals)
    table, wanted = columns(signals, names), np.asarray(target, np.float64)
    for column in table.T:  # views
        known = np.isfinite(column)
        column[np.isnan(column)] = np.median(column[known]) if known.any() else 0.0
        if known.any():
            np.clip(column, column[known].min(), column[known].max(), out=column)
        else:
            column[:] = 0.0
    low, high = np.quantile(table, [(1 - KEPT) / 2, (1 + KEPT) / 2], axis=0)
    kept = np.clip(table, low, high)
    middle, scale = kept.mean(0), kept.std(0)
    scale = np.where(scale > LEAST_SCALE * np.maximum(np.abs(middle), 1e-9), scale, MUTE)
    z = _standardised(table, middle, scale, low, high)
    centred = wanted - wanted.mean()
    weights = np.linalg.solve(z.T @ z + strength * np.eye(len(names)), z.T @ centred)
    intercept = float(wanted.mean() - z.mean(0) @ weights)
    middle, scale, low, high, weights = (tuple(part.tolist()) for part in (middle, scale, low, high, weights))
    return Ridge(names, middle, scale, low, high, weights, intercept)


def cross_validated(
    signals: Table, target: ArrayLike, groups: Sequence[str], seed: int = 0
) -> tuple[float, NDArray[np.float64]]:
    """The best strength, and each image's prediction by weights that were fitted without its group ``[images]``.

    groups: the case of every image; copies of one image, and images of one patient, are one case. The strength is that
    of the smallest error over all images. Raises ValueError for fewer than two groups.
    """
    wanted, inside = np.asarray(target, np.float64), folds(groups, seed)
    names = tuple(signals)
    table = columns(signals, names)

    def held_out(strength: float) -> NDArray[np.float64]:
        found = np.empty(len(wanted))
        for rows in inside:
            others = {name: table[~rows, place] for place, name in enumerate(names)}
            ridge = fit_ridge(others, wanted[~rows], strength)
            found[rows] = ridge.predict({name: table[rows, place] for place, name in enumerate(names)})
        return found

    predictions = {strength: held_out(strength) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: float(((predictions[strength] - wanted) ** 2).mean()))
    return best, predictions[best]


def folds(groups: Sequence[str], seed: int = 0) -> list[NDArray[np.bool_]]:
    """Which images each fold holds out; the images of a group together. Raises ValueError for fewer than two groups."""
    cases = list(dict.fromkeys(groups))
    if len(cases) < 2:
        raise ValueError(f"Cross-validation needs two or more cases; got {len(cases)}.")
    order = seeding.generator(seed, "trust/folds", 0).permutation(len(cases))
    place = {cases[case]: number % FOLDS for number, case in enumerate(order)}
    own = np.array([place[group] for group in groups])
    return [own == fold for fold in range(min(FOLDS, len(cases)))]


def columns(signals: Table, names: Sequence[str]) -> NDArray[np.float64]:
    """``[images, signals]``. Raises ValueError naming the signals that are missing."""
    missing = [name for name in names if name not in signals]
    if missing:
        raise ValueError(f"The signals {', '.join(missing)} were not measured; there are {', '.join(signals)}.")
    return np.stack([np.asarray(signals[name], np.float64) for name in names], 1)


def _standardised(table: Any, middle: Any, scale: Any, low: Any, high: Any) -> NDArray[np.float64]:
    # Before clipping: infinity is an extreme number, nan no number.
    known = np.where(np.isnan(table), middle, table)
    return (np.clip(known, low, high) - middle) / scale
