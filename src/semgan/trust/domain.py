"""How strange an image is: its signals against those of in-domain validation images.

    score = sqrt(mean of max(0, (signal - median) / spread)^2) / limit,    spread = 95 % quantile - median

over the signals that are measured on the image (distances of the reconstruction, gap to the encoder, distance of the
code); feed-forward networks have none of these, and their doubts stand in. Only strangely *high* doubt counts, and
the spread is that of the upper side: these signals have long tails, and one that strays in domain should not decide.
``limit`` is the 99 % quantile of validation, so that 1 is where the domain ends (`semgan.trust.fit.domain_of` moves it
to the quantile of held-out images). What is no number in an in-domain image is left out there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan.trust.ridge import columns
from semgan.trust.signals import SIGNALS

QUANTILE = 0.99
STRANGEST = 1e6  # finite, for tables
FAR = 0.95  # quantile that says how far a signal strays in domain
LEAST_SPREAD = 1e-3  # share of the median, so that signals which never vary in domain do not decide everything


@dataclass(frozen=True)
class Domain:
    """signs: 1 where high is doubtful, -1 where low is; middle, spread: of the signed signals, in domain."""

    names: tuple[str, ...]
    signs: tuple[int, ...]
    middle: tuple[float, ...]
    spread: tuple[float, ...]
    limit: float

    def score(self, signals: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """``[images]`` in 0 to `STRANGEST`; beyond the domain above 1. What is no number is as strange as can be."""
        raw = _raw(columns(signals, self.names), self.signs, self.middle, self.spread)
        return np.minimum(raw / self.limit, STRANGEST)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Domain:
        lists = {name: tuple(saved[name]) for name in ("names", "signs", "middle", "spread")}
        return cls(**lists, limit=saved["limit"])


def fit_domain(signals: Mapping[str, ArrayLike]) -> Domain:
    """Middle, spread and limit of in-domain images' signals ``[images]``. Raises ValueError where none can be used."""
    known = {name: SIGNALS[name] for name in signals if name in SIGNALS and SIGNALS[name].surer}
    known = {name: kind for name, kind in known.items() if np.isfinite(np.asarray(signals[name])).any()}
    names = tuple(name for name in known if known[name].domain) or tuple(known)
    if not names:
        raise ValueError(f"None of the signals {', '.join(signals)} tells how strange an image is.")
    signs = tuple(-known[name].surer for name in names)
    table = columns(signals, names) * np.array(signs)
    table = np.where(np.isfinite(table), table, np.nan)
    middle = np.nanmedian(table, 0)
    spread = np.nanquantile(table, FAR, 0) - middle
    spread = np.maximum(spread, LEAST_SPREAD * np.maximum(np.abs(middle), 1e-6))
    raw = _raw(table * np.array(signs), signs, middle, spread)
    limit = float(np.quantile(raw[np.isfinite(raw)], QUANTILE)) if np.isfinite(raw).any() else 1.0
    return Domain(names, signs, tuple(middle.tolist()), tuple(spread.tolist()), max(limit, 1e-6))


def _raw(table: NDArray, signs: Any, middle: Any, spread: Any) -> NDArray[np.float64]:
    strange = np.maximum((table * np.array(signs) - np.array(middle)) / np.array(spread), 0)
    return np.sqrt((np.where(np.isnan(strange), np.inf, strange) ** 2).mean(1))
