"""Which answer an image gets: step 0, the model's own (optimised), or the mean of the posterior.

The best answer for all on validation is the *usual* one. For every other the gain over it is predicted from the
signals, which are those of the model's own answer: so the posterior, the dearest by far, is drawn for those images only
that it is chosen for. An image leaves the usual answer where the largest predicted gain is above a margin.

Weights and margin are learned on validation images and shifted copies; the margin is the one whose held-out gain is
highest after its standard error is taken off, and infinite (the usual answer for all) where none is above 0. What is
told is held out once more: each case is answered by a rule, margin included, that was learned without it. Where the
lower bound of that gain over the usual answer (95 %, paired bootstrap over cases) is below -`MOST_LOSS`, on the
validation images as they are or on all, everybody gets the usual answer. Never worse, then, as far as validation shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan.metrics.intervals import paired_difference
from semgan.stages.stopping import MOST_LOSS
from semgan.trust.ridge import Ridge, cross_validated, fit_ridge, folds

if TYPE_CHECKING:
    from semgan.trust.samples import Samples

MARGINS = (0.0, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Choice:
    """usual: the answer of most images; gains: other answer -> its gain, predicted; margin: None: always the usual.

    method: how the posterior was drawn for it (`semgan.posterior.latent.METHODS`), where it is an answer
    """

    usual: str
    gains: dict[str, Ridge]
    margin: float | None
    method: str | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """Those that an image may get."""
        return (self.usual,) if self.margin is None else (self.usual, *self.gains)

    def chosen(self, signals: Mapping[str, ArrayLike]) -> list[str]:
        """The name of every image's answer, from signals ``[images]``."""
        count = len(np.asarray(next(iter(signals.values()))))
        if self.margin is None:
            return [self.usual] * count
        predicted = np.stack([ridge.predict(signals) for ridge in self.gains.values()], 1)
        names = list(self.gains)
        return [names[row.argmax()] if row.max() > self.margin else self.usual for row in predicted]

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Choice:
        gains = {name: Ridge.from_json(each) for name, each in saved["gains"].items()}
        return cls(saved["usual"], gains, saved["margin"], saved["method"])


@dataclass(frozen=True)
class Learned:
    """A choice and its held-out worth on validation."""

    choice: Choice
    report: dict[str, Any]


def learn_choice(samples: Samples, *, seed: int = 0) -> Learned:
    """The rule for the answers in ``samples.scores``, of which there are two or more."""
    table = _Table(samples.signals, samples.scores, np.array(samples.groups))
    intact = samples.intact
    means = {name: float(values[intact].mean()) for name, values in samples.scores.items()}
    usual = max(means, key=lambda name: means[name])
    everything = np.ones(len(intact), bool)
    rule = table.learn(everything, usual, seed)
    held_out = np.array([usual] * len(intact), dtype=object)
    for inside in folds(samples.groups, seed):
        held_out[inside] = table.learn(~inside, usual, seed).chosen(table.signals_of(inside))
    found = {
        where: paired_difference(*table.by_case(held_out, usual, rows), seed=seed)
        for where, rows in (("validation", intact), ("with shifted copies", everything))
    }
    is_safe = all(each.interval[0] >= -MOST_LOSS for each in found.values())
    choice = rule if is_safe and rule.margin is not None else Choice(usual, rule.gains, None)
    taken = {name: float((held_out == name).mean()) for name in samples.scores}
    report = {
        "usual": usual,
        "margin": choice.margin,
        "mean score of each for all": means,
        "gain held out": {where: asdict(each) for where, each in found.items()},
        "share of each held out": taken,
        "is safe": is_safe,
    }
    return Learned(choice, report)


@dataclass(frozen=True)
class _Table:
    """Signals and scores ``[images]`` by name; cases: every image's."""

    signals: Mapping[str, NDArray]
    scores: Mapping[str, NDArray]
    cases: NDArray

    def signals_of(self, rows: NDArray) -> dict[str, NDArray]:
        return {name: values[rows] for name, values in self.signals.items()}

    def learn(self, rows: NDArray, usual: str, seed: int) -> Choice:
        """Weights and margin from some images, ``[images]`` bool."""
        own, cases = self.signals_of(rows), self.cases[rows].tolist()
        gains: dict[str, Ridge] = {}
        predicted, true = {}, {}
        for name in self.scores:
            if name != usual:
                true[name] = (self.scores[name] - self.scores[usual])[rows]
                strength, predicted[name] = cross_validated(own, true[name], cases, seed)
                gains[name] = fit_ridge(own, true[name], strength)
        margin = best_margin(np.stack(list(predicted.values()), 1), np.stack(list(true.values()), 1), cases)
        return Choice(usual, gains, margin)

    def by_case(self, names: NDArray, usual: str, rows: NDArray) -> tuple[NDArray, NDArray]:
        """Mean scores of every case: of the named answers, and of the usual one; of some images."""
        places = np.flatnonzero(rows)
        chosen = np.array([self.scores[names[place]][place] for place in places])
        return tuple(case_means(each, self.cases[rows].tolist()) for each in (chosen, self.scores[usual][rows]))  # type: ignore[return-value]


def best_margin(predicted: NDArray, true: NDArray, cases: Sequence[str]) -> float | None:
    """The margin whose gain less its standard error over cases is the highest above 0; None where none is.

    predicted, true: gains over the usual answer, ``[images, other answers]``
    """
    best, highest = None, 0.0
    own = true[np.arange(len(true)), predicted.argmax(1)]
    for margin in MARGINS:
        gains = case_means(np.where(predicted.max(1) > margin, own, 0.0), cases)
        surely = gains.mean() - gains.std(ddof=1) / math.sqrt(len(gains))
        if surely > highest:
            best, highest = margin, surely
    return best


def case_means(values: NDArray, cases: Sequence[str]) -> NDArray[np.float64]:
    """Means of the images of each case, in order of the cases' first images."""
    place = {case: number for number, case in enumerate(dict.fromkeys(cases))}
    rows = [place[case] for case in cases]
    return np.bincount(rows, values) / np.bincount(rows)
