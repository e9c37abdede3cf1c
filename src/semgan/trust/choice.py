"""Which answer an image gets: step 0, the model's own (optimised), or the mean of the posterior.

One answer is the *usual* one: the model's own, unless another is better on validation by more than the standard error
of the difference. For every other the gain over it is predicted from the signals, which are those of the model's own
answer: so the posterior, the dearest by far, is drawn for those images only that it is chosen for. An image leaves the
usual answer where the largest predicted gain is above a margin.

Weights and margin are learned on validation images and shifted copies; the margin is the one whose held-out gain is
highest after its standard error is taken off, and infinite (the usual answer for all) where none is above 0. What is
told is held out once more: each case is answered by a rule, usual answer and margin included, that was learned without
it. Everybody gets one answer where fewer than `FEWEST_CASES` cases are there, where the rule gains nothing over the
usual one held out, or where, against the best fixed answer, the lower bound of the difference (95 %, paired bootstrap
over cases) is below -`MOST_LOSS`, on the validation images as they are or with their copies (each with its own best
fixed answer). That one is the usual, if the same bound holds for it; else the answer whose bound is the best. Never
worse, then, as far as so many cases can show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan.metrics.intervals import paired_difference
from semgan.stages.stopping import MOST_LOSS
from semgan.trust.ridge import Ridge, cross_validated, fit_ridge, folds
from semgan.trust.samples import OWN

if TYPE_CHECKING:
    from semgan.trust.samples import Samples

MARGINS = (0.0, 0.005, 0.01, 0.02, 0.05)
# Caution: few cases miss an answer that ruins one image of twenty; results/trust-64/choices.csv simulates that.
FEWEST_CASES = 32


@dataclass(frozen=True)
class Choice:
    """usual: the answer of most images; gains: other answer -> its gain, predicted; margin: None: always the usual.

    method: how the posterior was drawn for it (`semgan.posterior.latent.METHODS`), where it is an answer
    posterior: fingerprint of the calibration (posterior.json) that it was learned with, where there was one
    """

    usual: str
    gains: dict[str, Ridge]
    margin: float | None
    method: str | None = None
    posterior: str | None = None

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
        return cls(saved["usual"], gains, saved["margin"], saved["method"], saved.get("posterior"))


@dataclass(frozen=True)
class Learned:
    """A choice and its held-out worth on validation."""

    choice: Choice
    report: dict[str, Any]


def learn_choice(samples: Samples, *, seed: int = 0) -> Learned:
    """The rule for the answers in ``samples.scores``, of which there are two or more."""
    table = _Table(samples.signals, samples.scores, np.array(samples.groups), samples.intact)
    everything = np.ones(len(samples.intact), bool)
    cases = len(set(samples.groups))
    means = {name: float(table.by_case(name, samples.intact).mean()) for name in samples.scores}
    if cases < FEWEST_CASES:
        reason = f"a choice is learned from {FEWEST_CASES} validation cases or more; there are {cases}"
        report = {"usual": OWN, "margin": None, "is safe": False, "why not": reason}
        return Learned(Choice(OWN, {}, None), report | {"mean score of each for all": means})
    usual = table.usual(everything)
    rule = table.learn(everything, usual, seed)
    held_out = np.array([usual] * len(everything), dtype=object)
    for inside in folds(samples.groups, seed):
        own = table.learn(~inside, table.usual(~inside), seed)
        held_out[inside] = own.chosen(table.signals_of(inside))
    parts = {"validation": samples.intact, "with shifted copies": everything}
    against = {where: table.best_fixed(rows) for where, rows in parts.items()}
    found = {
        where: paired_difference(table.by_case(held_out, rows), table.by_case(against[where], rows), seed=seed)
        for where, rows in parts.items()
    }
    gain = float((table.by_case(held_out, everything) - table.by_case(usual, everything)).mean())
    is_safe = gain > 0 and all(each.interval[0] >= -MOST_LOSS for each in found.values())
    choice = rule
    if not is_safe or rule.margin is None:
        answer = table.fallback(usual, parts, seed)
        choice = replace(rule if answer == usual else table.learn(everything, answer, seed), margin=None)
    report = {
        "usual": choice.usual,
        "margin": choice.margin,
        "mean score of each for all": means,
        "best fixed answer": against,
        "gain over the usual held out": gain,
        "gain held out": {where: asdict(each) for where, each in found.items()},
        "share of each held out": {name: float((held_out == name).mean()) for name in samples.scores},
        "is safe": is_safe,
    }
    return Learned(choice, report)


@dataclass(frozen=True)
class _Table:
    """Signals and scores ``[images]`` by name; cases: every image's; intact: those that were not shifted."""

    signals: Mapping[str, NDArray]
    scores: Mapping[str, NDArray]
    cases: NDArray
    intact: NDArray

    def usual(self, rows: NDArray) -> str:
        """The model's own answer, or one that is better on intact images among some by more than a standard error."""
        own = self.by_case(OWN, rows & self.intact)
        surely = {OWN: 0.0}
        for name in self.scores:
            gains = self.by_case(name, rows & self.intact) - own
            if name != OWN:
                surely[name] = float(gains.mean() - gains.std(ddof=1) / math.sqrt(len(gains)))
        return max(surely, key=lambda name: surely[name])

    def best_fixed(self, rows: NDArray) -> str:
        """The answer that is best for all of some images, by the means of their cases."""
        return max(self.scores, key=lambda name: float(self.by_case(name, rows).mean()))

    def fallback(self, usual: str, parts: Mapping[str, NDArray], seed: int) -> str:
        """The answer for all where no rule is safe: the usual one, unless it may lose more than the bound."""

        def bound(name: str) -> float:
            """Of the difference to the best fixed answer, the lowest over the parts."""
            pairs = [(self.by_case(name, rows), self.by_case(self.best_fixed(rows), rows)) for rows in parts.values()]
            return min(paired_difference(*pair, seed=seed).interval[0] for pair in pairs)

        bounds = {name: bound(name) for name in self.scores}
        return usual if bounds[usual] >= -MOST_LOSS else max(bounds, key=lambda name: bounds[name])

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

    def by_case(self, names: NDArray | str, rows: NDArray) -> NDArray[np.float64]:
        """Mean score of every case of some images: of the answer named for each image, or of one for all."""
        every = [names] * len(rows) if isinstance(names, str) else names
        chosen = np.array([self.scores[every[place]][place] for place in np.flatnonzero(rows)])
        return case_means(chosen, self.cases[rows].tolist())


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
