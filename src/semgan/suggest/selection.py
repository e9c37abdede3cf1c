"""Who is picked, one by one: the candidate of the largest gain, never two of one group while others are left.

Diversity is the greedy answer to the k-centre problem (Gonzalez 1985; as core-set for active learning: Sener & Savarese
2018, arXiv:1708.00489): the candidate farthest from everything labelled or picked before. Each pick depends on the
earlier ones alone, so the first k of n picks are those of k.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

TWINS = 1e-3  # images nearer than this, in standardised features, count as the same picture
CONSTANT = 1e-4  # features that vary by less than this share of their size hold rounding alone


@dataclass(frozen=True)
class Pick:
    """index: of the candidate; nearest: its distance to whatever was labelled or picked before it;
    repeats: how many of its group, and twins, those held already."""

    index: int
    gain: float
    nearest: float
    repeats: int


def standardised(features: np.ndarray) -> np.ndarray:
    """``[n, features]`` -> float32, every feature with mean 0 and variance 1, without those that do not vary.

    Divided by the root of their number, so that distances do not grow with it: two random images are about 1.4 apart.
    """
    values = np.asarray(features, np.float64)
    deviation, size = values.std(0), np.sqrt((values**2).mean(0))
    varies = deviation > CONSTANT * size
    if not varies.any():
        return np.zeros((len(values), 1), np.float32)
    kept = (values[:, varies] - values[:, varies].mean(0)) / deviation[varies]
    return (kept / np.sqrt(varies.sum())).astype(np.float32)


def nearest_distances(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Euclidean distance of every row of ``[n, d]`` to the nearest row of ``[m, d]``; infinite without centres."""
    nearest = np.full(len(features), np.inf)
    for centre in centres:
        nearest = np.minimum(nearest, _distance(features, centre))
    return nearest


def _distance(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.sqrt(((features - centre) ** 2).sum(1, dtype=np.float64))


def rank_share(values: np.ndarray) -> np.ndarray:
    """The share of all values that a value is not below, in (0, 1]; ties share their mean."""
    return rankdata(values, method="average") / len(values)


def pick(
    names: Sequence[str],
    features: np.ndarray,
    centres: np.ndarray,
    count: int,
    value: np.ndarray,
    *,
    spread: bool,
    groups: Sequence[str],
    labelled_groups: Sequence[str] = (),
    centres_are_images: bool = True,
) -> list[Pick]:
    """The ``count`` picks in order, out of candidates of different names; ties go to the first name.

    features ``[n, d]`` and centres ``[m, d]`` (the labelled images) share a scale; value: ``[n]``, the gain of
    a candidate, or with ``spread`` what its distance to the nearest centre or pick is multiplied by (above 0); groups:
    of every candidate, those of labelled images tell which are taken already; centres_are_images: whether what lies at
    a centre repeats a labelled image (a mean is none). The order of the candidates is of no effect.
    """
    assert len(set(names)) == len(names) == len(features) == len(value) >= count
    order = np.array(sorted(range(len(names)), key=lambda index: names[index]))
    features, value, own = features[order], value[order], [groups[int(index)] for index in order]
    nearest = nearest_distances(features, centres)
    nearest_image = nearest if centres_are_images else np.full(len(order), np.inf)
    taken: Counter[str] = Counter(labelled_groups)
    left = np.ones(len(order), bool)
    picks = []
    for _ in range(count):
        repeats = np.array([taken[group] for group in own]) + (nearest_image <= TWINS)
        fewest = repeats[left].min()
        gains = np.where(left & (repeats == fewest), value * nearest if spread else value, -np.inf)
        best = int(gains.argmax())
        picks.append(Pick(int(order[best]), float(gains[best]), float(nearest[best]), int(fewest)))
        left[best] = False
        taken[own[best]] += 1
        apart = _distance(features, features[best])
        nearest, nearest_image = np.minimum(nearest, apart), np.minimum(nearest_image, apart)
    return picks
