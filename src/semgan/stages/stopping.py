"""When to stop an image's optimisation: a rule that needs no label, learned on the validation list.

Optimisation explains the image better and better, and its mask may get worse: it helps most images a little and ruins a
few, whose masks leave the encoder's. So an image goes on while its mask agrees with the encoder's, the mask of step 0:

    after 5, 10, 25, ... steps: agreement >= ``at_least``  ->  this is the answer so far, go on
                                otherwise                  ->  stop, the answer is the one before (perhaps step 0)

Agreement is the mean intersection over union of the foreground classes that either mask shows. Two numbers are learned,
``at_least`` and the last step; 0 and 0 among them: fixed steps for all images, and no optimisation at all.

Learning picks the pair with the highest gain over step 0 less its standard error (paired bootstrap over cases), and
step 0 for all where none is above 0. It is step 0 for all, too, where no fixed number of steps gains: then optimisation
itself does not lead to better masks, and a guard that makes it pay on these images need not do so on those of another
clinic (measured: docs/inversion.md). Learning and judging on the same cases flatters, so the gain that is told is that
of cross-validation: every case is answered by a rule learned without it. Where the lower bound of its 95 % interval is
below ``-MOST_LOSS``, step 0 is the answer for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semgan import seeding
from semgan.metrics import overlap
from semgan.metrics.intervals import Interval, paired_overlap_difference

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # 0: fixed steps
FEWEST_CASES = 16  # fewer tell nothing about a few images ruined
MOST_LOSS = 0.002  # of the mean score against step 0
FOLDS = 8
ERRORS_PER_SIDE = 1.96  # standard errors from the middle to the end of a 95 % interval
RESAMPLES = 200  # for comparing candidates; the interval that is told takes more


@dataclass(frozen=True)
class StoppingRule:
    """at_least: agreement in [0, 1]; checkpoints: steps at which images are looked at, rising from 0."""

    at_least: float
    checkpoints: tuple[int, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.checkpoints, self.checkpoints[1:], strict=False))
        if not self.checkpoints or self.checkpoints[0] != 0 or not rising or not 0 <= self.at_least <= 1:
            raise ValueError(
                "A stopping rule has checkpoints that rise from 0 and an agreement within 0 to 1; got "
                f"{self.checkpoints} and {self.at_least}."
            )

    @property
    def steps(self) -> int:
        """The most steps an image may take."""
        return self.checkpoints[-1]

    def accepts(self, mask: np.ndarray, first: np.ndarray, classes: int) -> bool:
        """Whether a mask ``[height, width]`` may be the answer, given the mask of step 0."""
        return agreement(mask, first, classes) >= self.at_least

    def describe(self) -> str:
        if self.steps == 0:
            return "no image is optimised: on validation nothing was surely gained by it"
        if self.at_least == 0:
            return f"every image is optimised for {self.steps} steps"
        looks = ", ".join(map(str, self.checkpoints[1:]))
        return (
            f"images are looked at after {looks} steps; one stops, with the answer before, once its mask agrees with "
            f"the encoder's by less than {self.at_least:g} (mean intersection over union of the classes)"
        )

    def to_json(self) -> dict[str, Any]:
        return {"at_least": self.at_least, "checkpoints": list(self.checkpoints), "in_words": self.describe()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> StoppingRule:
        return cls(float(found["at_least"]), tuple(int(step) for step in found["checkpoints"]))


@dataclass(frozen=True)
class LearnedRule:
    """A rule and its cross-validated worth on the validation list.

    score: of the answers; gain: over step 0, with its 95 % bootstrap interval
    """

    rule: StoppingRule
    score: float
    gain: float
    interval: Interval


def agreement(mask: np.ndarray, first: np.ndarray, classes: int) -> float:
    """Mean intersection over union of two masks' foreground classes that either shows; 1 where none does."""
    return float(np.nan_to_num(overlap.case_means(overlap.count(mask, first, classes), "miou-per-case")[0], nan=1.0))


def learn_rule(
    masks: Mapping[int, np.ndarray],
    truths: np.ndarray,
    metric: str,
    *,
    classes: int,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> LearnedRule | None:
    """The rule learned from masks ``[images, height, width]`` at rising steps, 0 among them; truths alike.

    groups: the patient of every image, where a patient is a case. None for fewer than `FEWEST_CASES` cases.
    """
    names = np.array(range(len(truths)) if groups is None else groups)
    cases = list(dict.fromkeys(names.tolist()))
    if len(cases) < FEWEST_CASES:
        return None
    table = _Table.of(masks, truths, metric, classes, names)
    rule = table.best_rule(np.arange(len(truths)), seed)
    held_out = np.zeros(len(truths), np.int64)
    order = seeding.generator(seed, "stopping/folds", 0).permutation(len(cases))
    for fold in range(FOLDS):
        inside = np.isin(names, [cases[case] for case in order[fold::FOLDS]])
        other = table.best_rule(np.flatnonzero(~inside), seed)
        held_out[inside] = table.answered(other)[inside]
    every = np.arange(len(truths))
    found = paired_overlap_difference(table.counts(held_out, every), table.counts(held_out * 0, every), metric)
    if found.interval[0] < -MOST_LOSS:
        rule, held_out = StoppingRule(0.0, (0,)), held_out * 0
        start = overlap.overall(table.counts(held_out, every), metric)
        return LearnedRule(rule, start, 0.0, (0.0, 0.0))
    return LearnedRule(rule, overlap.overall(table.counts(held_out, every), metric), found.difference, found.interval)


@dataclass(frozen=True)
class _Table:
    """Validation images at every checkpoint.

    at: counts by checkpoint; agreements: ``[checkpoints, images]`` with the mask of step 0; names: every image's case
    """

    steps: tuple[int, ...]
    at: tuple[overlap.Counts, ...]
    agreements: np.ndarray
    names: np.ndarray
    metric: str

    @classmethod
    def of(
        cls, masks: Mapping[int, np.ndarray], truths: np.ndarray, metric: str, classes: int, names: np.ndarray
    ) -> _Table:
        steps = tuple(sorted(masks))
        at, agreements = [], []
        for step in steps:
            counted = (overlap.count(mask, truth, classes) for mask, truth in zip(masks[step], truths, strict=True))
            at.append(overlap.concatenate(counted))
            pairs = zip(masks[step], masks[steps[0]], strict=True)
            agreements.append([agreement(mask, first, classes) for mask, first in pairs])
        return cls(steps, tuple(at), np.array(agreements), names, metric)

    def answered(self, rule: StoppingRule) -> np.ndarray:
        """The number of the checkpoint that answers each image."""
        places = np.zeros(len(self.names), np.int64)
        goes_on = np.ones(len(self.names), bool)
        for place in range(1, len(rule.checkpoints)):
            goes_on &= self.agreements[place] >= rule.at_least
            places[goes_on] = place
        return places

    def counts(self, places: np.ndarray, rows: np.ndarray) -> overlap.Counts:
        """Counts of the cases of some images (``rows``), each answered with its checkpoint."""
        parts = ("intersection", "prediction", "truth")
        stacked = (np.stack([getattr(counts, part) for counts in self.at]) for part in parts)
        chosen = overlap.Counts(*(each[places[rows], rows] for each in stacked))
        return chosen.pooled_by(self.names[rows].tolist())[1]

    def fixed_steps_gain(self, rows: np.ndarray) -> bool:
        """Whether any number of steps, the same for all images, scores better than none."""
        every = np.zeros(len(self.names), np.int64)
        scores = [overlap.overall(self.counts(every + place, rows), self.metric) for place in range(len(self.steps))]
        return max(scores) > scores[0]

    def best_rule(self, rows: np.ndarray, seed: int) -> StoppingRule:
        """Fewer steps and lower thresholds win ties."""
        best, highest = StoppingRule(0.0, self.steps[:1]), 0.0
        seen: set[bytes] = set()
        start = self.counts(np.zeros(len(self.names), np.int64), rows)
        if not self.fixed_steps_gain(rows):
            return best
        for last in range(1, len(self.steps)):
            for at_least in THRESHOLDS:
                rule = StoppingRule(at_least, self.steps[: last + 1])
                places = self.answered(rule)
                if places[rows].tobytes() in seen:
                    continue
                seen.add(places[rows].tobytes())
                found = paired_overlap_difference(
                    self.counts(places, rows), start, self.metric, seed=seed, resamples=RESAMPLES
                )
                surely = found.difference - (found.interval[1] - found.interval[0]) / (2 * ERRORS_PER_SIDE)
                if surely > highest:
                    best, highest = rule, surely
        return best
