"""When to stop an image's optimisation: a rule that needs no label, learned on the validation list.

Optimisation explains the image better and better, and its mask may get worse: it helps most images a little and ruins a
few, whose masks leave the encoder's. So an image goes on while its mask agrees with the encoder's, the mask of step 0:

    after 5, 10, 25, ... steps: agreement >= ``at_least``  ->  this is the answer so far, go on
                                otherwise                  ->  stop, the answer is the one before (perhaps step 0)

Agreement is the mean intersection over union of the foreground classes that either mask shows. The answer's
probabilities are those of the last step accepted and, to a share ``first_share``, those of step 0: the encoder saw the
image, the optimised code explains it, and where either alone is unsure the mean of both is better than both (measured:
results/rules-64). Three numbers are learned, ``at_least``, the last step and the share; 0, 0 and 0 among them: fixed
steps for all images, no optimisation at all, and the optimised answer alone.

Learning picks the three with the highest gain over step 0 less its standard error (jackknife over cases), and step 0
for all where none is above 0. It is step 0 for all, too, where no fixed number of steps gains: then optimisation itself
does not lead to better masks, and a guard that makes it pay on these images need not do so on those of another clinic
(measured: docs/inversion.md). Learning and judging on the same cases flatters, so the gain that is told is that of
cross-validation: every case is answered by a rule learned without it, several times with other folds. Where the lower
bound of its 95 % interval is below ``-MOST_LOSS``, step 0 is the answer for all.

Images of the training source alone do not tell what optimisation does to others: it may help nearly all of them, so
that the rule lets every image go on, and ruin those of another source. So shifted copies of the validation images may
be learned from, too. An image and its copies are one case whose scores count alike, and the bound holds twice: for the
images as they are, and for them with their copies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semgan import seeding
from semgan.metrics import overlap
from semgan.metrics.intervals import Interval, paired_overlap_difference, paired_overlap_error

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # 0: fixed steps
FIRST_SHARES = (0.0, 0.5, 0.6, 0.75)  # at .5, two that are sure and differ are told apart by which is surer
FEWEST_CASES = 16  # fewer tell nothing about a few images ruined
MOST_LOSS = 0.002  # of the mean score against step 0
FOLDS = 8
DRAWS = 4  # of the folds: with few cases it depends on the folds which rules are learned, and what they seem worth


@dataclass(frozen=True)
class StoppingRule:
    """at_least: agreement in [0, 1]; checkpoints: steps at which images are looked at, rising from 0.

    first_share: of step 0's probabilities in the answer, in [0, 1)
    """

    at_least: float
    checkpoints: tuple[int, ...]
    first_share: float = 0.0

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.checkpoints, self.checkpoints[1:], strict=False))
        if not self.checkpoints or self.checkpoints[0] != 0 or not rising or not 0 <= self.at_least <= 1:
            raise ValueError(
                "A stopping rule has checkpoints that rise from 0 and an agreement within 0 to 1; got "
                f"{self.checkpoints} and {self.at_least}."
            )
        if not 0 <= self.first_share < 1:
            raise ValueError(f"A stopping rule's share of step 0 is at least 0 and below 1; got {self.first_share}.")

    @property
    def steps(self) -> int:
        """The most steps an image may take."""
        return self.checkpoints[-1]

    def accepts(self, mask: np.ndarray, first: np.ndarray, classes: int) -> bool:
        """Whether a mask ``[height, width]`` may be the answer, given the mask of step 0."""
        return agreement(mask, first, classes) >= self.at_least

    def answers(self, agreements: np.ndarray) -> np.ndarray:
        """The number of the checkpoint that answers each image, from its agreements ``[checkpoints, images]``."""
        return np.cumprod(agreements[1 : len(self.checkpoints)] >= self.at_least, axis=0).sum(axis=0)

    def describe(self) -> str:
        if self.steps == 0:
            return "no image is optimised: on validation nothing was surely gained by it"
        mixed = f"; the encoder's answer has a share of {self.first_share:g} in the answer" if self.first_share else ""
        if self.at_least == 0:
            return f"every image is optimised for {self.steps} steps{mixed}"
        looks = ", ".join(map(str, self.checkpoints[1:]))
        return (
            f"images are looked at after {looks} steps; one stops, with the answer before, once its mask agrees with "
            f"the encoder's by less than {self.at_least:g} (mean intersection over union of the classes){mixed}"
        )

    def to_json(self) -> dict[str, Any]:
        numbers = {"at_least": self.at_least, "checkpoints": list(self.checkpoints), "first_share": self.first_share}
        return numbers | {"in_words": self.describe()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> StoppingRule:
        steps = tuple(int(step) for step in found["checkpoints"])
        return cls(float(found["at_least"]), steps, float(found.get("first_share", 0.0)))  # once there was none


@dataclass(frozen=True)
class LearnedRule:
    """A rule and its cross-validated worth on the validation images as they are.

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
    masks: Mapping[float, Mapping[int, np.ndarray]],
    truths: np.ndarray,
    metric: str,
    *,
    classes: int,
    groups: Sequence[str] | None = None,
    copies: np.ndarray | None = None,
    seed: int = 0,
) -> LearnedRule | None:
    """The rule learned from masks ``[images, height, width]`` at rising steps, 0 among them; truths alike.

    masks:  by share of step 0 in the answer, 0 among them, and step
    groups: the case of every image (a patient, or an image with its copies); None: each is its own
    copies: ``[images]`` the number of each copy of a case, 0 for the images as they are; None: there are no copies
    None for fewer than `FEWEST_CASES` cases.
    """
    names = np.array(range(len(truths)) if groups is None else groups)
    cases = list(dict.fromkeys(names.tolist()))
    if len(cases) < FEWEST_CASES:
        return None
    every = np.arange(len(truths))
    copy = every * 0 if copies is None else copies
    plain = np.flatnonzero(copy == 0)
    table = _Table.of(masks, truths, metric, classes, names, copy)
    rule = table.best_rule(every)
    held_out = [_held_out(table, cases, seed, draw) for draw in range(DRAWS)]
    gain, interval = _mean_difference(table, held_out, plain)
    _, with_copies = (gain, interval) if copies is None else _mean_difference(table, held_out, every)
    start = overlap.overall(table.counts(table.none_optimised(), plain), metric)
    if min(interval[0], with_copies[0]) < -MOST_LOSS:
        return LearnedRule(StoppingRule(0.0, (0,)), start, 0.0, (0.0, 0.0))
    return LearnedRule(rule, start + gain, gain, interval)


def _held_out(table: _Table, cases: Sequence[str], seed: int, draw: int) -> np.ndarray:
    """What answers each image (see `_Table.answers`), by a rule that was learned without its case."""
    answers = table.none_optimised()
    order = seeding.generator(seed, "stopping/folds", draw).permutation(len(cases))
    for fold in range(FOLDS):
        inside = np.isin(table.names, [cases[case] for case in order[fold::FOLDS]])
        answers[:, inside] = table.answers(table.best_rule(np.flatnonzero(~inside)))[:, inside]
    return answers


def _mean_difference(table: _Table, held_out: Sequence[np.ndarray], rows: np.ndarray) -> tuple[float, Interval]:
    """Gain over step 0 and its interval on the cases of some images, means over the draws of the folds."""
    start, cases = table.counts(table.none_optimised(), rows), table.cases(rows)
    found = [
        paired_overlap_difference(table.counts(answers, rows), start, table.metric, cases=cases) for answers in held_out
    ]
    low, high = np.mean([each.interval for each in found], axis=0)
    return float(np.mean([each.difference for each in found])), (float(low), float(high))


@dataclass(frozen=True)
class _Table:
    """Validation images at every checkpoint, by share of step 0 in the answer.

    at: intersection, prediction and truth, ``[shares, checkpoints, images, classes]`` each
    agreements: ``[checkpoints, images]`` of the masks without a share with those of step 0
    names: every image's case; copy: the number of the copy that it belongs to
    """

    steps: tuple[int, ...]
    shares: tuple[float, ...]
    at: tuple[np.ndarray, ...]
    agreements: np.ndarray
    names: np.ndarray
    copy: np.ndarray
    metric: str

    @classmethod
    def of(
        cls,
        masks: Mapping[float, Mapping[int, np.ndarray]],
        truths: np.ndarray,
        metric: str,
        classes: int,
        names: np.ndarray,
        copy: np.ndarray,
    ) -> _Table:
        shares, own = tuple(sorted(masks)), masks[0.0]
        steps = tuple(sorted(own))
        counted = [
            [
                overlap.concatenate(overlap.count(*pair, classes) for pair in zip(found[step], truths, strict=True))
                for step in steps
            ]
            for found in (masks[share] for share in shares)
        ]
        parts = ("intersection", "prediction", "truth")
        at = tuple(np.stack([[getattr(counts, part) for counts in row] for row in counted]) for part in parts)
        agreements = [
            [agreement(*pair, classes) for pair in zip(own[step], own[steps[0]], strict=True)] for step in steps
        ]
        return cls(steps, shares, at, np.array(agreements), names, copy, metric)

    def none_optimised(self) -> np.ndarray:
        """`answers` of step 0 for all."""
        return np.zeros((2, len(self.names)), np.int64)

    def answers(self, rule: StoppingRule) -> np.ndarray:
        """What answers each image: the numbers of the share and of the checkpoint, ``[2, images]``."""
        places = rule.answers(self.agreements)
        return np.stack([np.where(places > 0, self.shares.index(rule.first_share), 0), places])

    def counts(self, answers: np.ndarray, rows: np.ndarray) -> overlap.Counts:
        """Counts of some images (``rows``), each answered as `answers` says, added up by case and copy."""
        shares, places = answers[:, rows]
        chosen = overlap.Counts(*(each[shares, places, rows] for each in self.at))
        return chosen.pooled_by(self._keys(rows))[1]

    def cases(self, rows: np.ndarray) -> list[str]:
        """The case of every row of `counts`."""
        return [str(case) for _, case in dict.fromkeys(self._keys(rows))]

    def _keys(self, rows: np.ndarray) -> list[tuple[int, str]]:
        return list(zip(self.copy[rows].tolist(), self.names[rows].tolist(), strict=True))

    def fixed_steps_gain(self, rows: np.ndarray) -> bool:
        """Whether any number of steps and share, the same for all images, scores better than step 0."""
        rules = (StoppingRule(0.0, self.steps[: last + 1], share) for last, share in self._lengths())
        scores = [overlap.overall(self.counts(self.answers(rule), rows), self.metric) for rule in rules]
        return max(scores, default=0.0) > overlap.overall(self.counts(self.none_optimised(), rows), self.metric)

    def _lengths(self) -> Iterator[tuple[int, float]]:
        """The numbers of the last checkpoint, and the shares: fewer steps and smaller shares first."""
        return itertools.product(range(1, len(self.steps)), self.shares)

    def best_rule(self, rows: np.ndarray) -> StoppingRule:
        """Learned from some images. Fewer steps, smaller shares and lower thresholds win ties."""
        best, highest = StoppingRule(0.0, self.steps[:1]), 0.0
        seen: set[bytes] = set()
        start, cases = self.counts(self.none_optimised(), rows), self.cases(rows)
        if not self.fixed_steps_gain(rows):
            return best
        for (last, share), at_least in itertools.product(self._lengths(), THRESHOLDS):
            rule = StoppingRule(at_least, self.steps[: last + 1], share)
            answers = self.answers(rule)
            if answers[:, rows].tobytes() in seen:
                continue
            seen.add(answers[:, rows].tobytes())
            gain, error = paired_overlap_error(self.counts(answers, rows), start, self.metric, cases=cases)
            if gain - error > highest:
                best, highest = rule, gain - error
        return best
