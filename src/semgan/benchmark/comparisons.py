"""Is one method better than another on the same cases: paired bootstrap over cases, seeds taken together.

A case's score is averaged over the seeds that both methods have (for the pooled mIoU its counts are added up): seeds
are repetitions, and the cases are what is drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semgan.benchmark.cells import Cases
from semgan.benchmark.grid import Task
from semgan.metrics import overlap
from semgan.metrics.intervals import PairedDifference, paired_difference, paired_overlap_difference

SIGNIFICANT = 0.05
COLUMNS = tuple("task labels test_set method reference seeds n difference low high p_value".split())


@dataclass(frozen=True)
class Counted:
    """The cases of one model on one test set; method with "(NO)" where they are of step 0."""

    task: str
    labels: int
    seed: int
    method: str
    test_set: str
    cases: Cases


@dataclass(frozen=True)
class Comparison:
    """A method minus the reference of its column."""

    task: str
    labels: int
    test_set: str
    method: str
    reference: str
    seeds: int
    found: PairedDifference

    @property
    def mark(self) -> str:
        if self.found.p_value >= SIGNIFICANT:
            return "="
        return "+" if self.found.difference > 0 else "-"

    def line(self) -> list[object]:
        found = self.found
        numbers = [f"{value:.6f}" for value in (found.difference, *found.interval, found.p_value)]
        return [self.task, self.labels, self.test_set, self.method, self.reference, self.seeds, found.n, *numbers]


def compare(
    task: Task,
    metric: str,
    counted: Sequence[Counted],
    reference: str | None,
    budgets: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Every method against the reference (None: the best of the column), by label count and test set.

    A column that lacks the reference has no comparison. budgets: of the rows that had another than the grid's; those
    are compared with the best row of their own budget
    """
    found, budgets = [], budgets or {}
    for labels in sorted(task.labels):
        for test_set in (each.name for each in task.test_sets):
            by_method: dict[str, dict[int, Cases]] = {}
            for each in counted:
                if (each.task, each.labels, each.test_set) == (task.name, labels, test_set):
                    by_method.setdefault(each.method, {})[each.seed] = each.cases
            for budget in dict.fromkeys(budgets.get(method) for method in by_method):
                equal = {method: cases for method, cases in by_method.items() if budgets.get(method) == budget}
                chosen = (reference if budget is None else None) or _best(equal, metric)
                for method, difference, seeds in _against(chosen, equal, metric):
                    found.append(Comparison(task.name, labels, test_set, method, chosen, seeds, difference))
    return found


def _against(
    chosen: str, by_method: dict[str, dict[int, Cases]], metric: str
) -> Iterator[tuple[str, PairedDifference, int]]:
    """Method, difference to the chosen one and seeds, of all others that share cases with it."""
    for method, cases in by_method.items():
        if method != chosen and chosen in by_method:
            difference, seeds = _difference(cases, by_method[chosen], metric)
            if difference is not None:
                yield method, difference, seeds


def _best(by_method: dict[str, dict[int, Cases]], metric: str) -> str:
    means = {
        method: np.mean([overlap.overall(cases.counts, metric, cases.over) for cases in seeds.values()])
        for method, seeds in by_method.items()
    }
    return max(means, key=lambda method: float(means[method]))


def _difference(first: dict[int, Cases], second: dict[int, Cases], metric: str) -> tuple[PairedDifference | None, int]:
    """Over the seeds that both have; None where they share no seed, or not the same two cases at least."""
    seeds = sorted(set(first) & set(second))
    same = [seed for seed in seeds if first[seed].same_as(second[seed]) and len(first[seed].stems) > 1]
    same = [seed for seed in same if first[seed].same_as(first[same[0]])]  # what is taken together must fit, too
    if not same:
        return None, 0
    over = first[same[0]].over
    if metric == "miou":
        one, other = (_added([part[seed].counts for seed in same]) for part in (first, second))
        return paired_overlap_difference(one, other, metric, over), len(same)
    one, other = (
        np.mean([overlap.case_means(part[seed].counts, metric, over) for seed in same], axis=0)
        for part in (first, second)
    )
    return paired_difference(one, other), len(same)


def _added(counts: Sequence[overlap.Counts]) -> overlap.Counts:
    """Counts of the same cases added up case by case."""
    return overlap.Counts(
        sum(part.intersection for part in counts),  # type: ignore[arg-type]
        sum(part.prediction for part in counts),  # type: ignore[arg-type]
        sum(part.truth for part in counts),  # type: ignore[arg-type]
    )
