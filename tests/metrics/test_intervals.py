"""Bootstrap intervals and paired differences: coverage, exactness, and independence of order and processes."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.metrics import overlap
from semgan.metrics.intervals import (
    mean_interval,
    overlap_interval,
    paired_difference,
    paired_overlap_difference,
    paired_overlap_error,
)

CLASSES = 3


def maps(cases: int, right: float, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (prediction, truth) of differing sizes, of which about the share ``right`` agrees; the same truths."""
    random = np.random.default_rng(5)
    noise = np.random.default_rng(seed)
    found = []
    for _ in range(cases):
        truth = random.integers(0, CLASSES, (6, int(random.integers(4, 30))))
        wrong = noise.integers(0, CLASSES, truth.shape)
        found.append((np.where(noise.random(truth.shape) < right, truth, wrong), truth))
    return found


def counts_of(pairs) -> overlap.Counts:
    return overlap.concatenate(overlap.count(*pair, CLASSES) for pair in pairs)


def taken(counts: overlap.Counts, rows) -> overlap.Counts:
    return overlap.Counts(counts.intersection[rows], counts.prediction[rows], counts.truth[rows])


# ---------------------------------------------------------------- intervals


def test_interval_of_a_mean_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).beta(8, 2, 40)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=2).confidence_interval
    assert mean_interval(values, resamples=5000) == pytest.approx(tuple(expected), abs=3e-3)


@pytest.mark.parametrize("metric", overlap.METRICS)
def test_interval_of_every_metric_is_that_of_drawing_cases_anew(metric):
    """The metric itself on cases drawn with numpy, not sums: only the random numbers differ."""
    counts = counts_of(maps(25, 0.6))
    random = np.random.default_rng(3)
    draws = [overlap.overall(taken(counts, random.integers(0, 25, 25)), metric) for _ in range(2000)]
    interval = overlap_interval(counts, metric)
    assert interval == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=4e-3)
    assert interval[0] < overlap.overall(counts, metric) < interval[1]


def test_the_interval_holds_the_true_mean_about_19_times_in_20():
    random = np.random.default_rng(0)
    samples = random.beta(6, 2, (150, 60))
    held = [low < 0.75 < high for low, high in (mean_interval(sample, resamples=300) for sample in samples)]
    assert 0.88 < np.mean(held) < 0.99


def test_more_cases_give_a_narrower_interval():
    values = np.random.default_rng(2).random(400)
    few, many = mean_interval(values[:25]), mean_interval(values)
    assert 2.5 < (few[1] - few[0]) / (many[1] - many[0]) < 6  # 4 by the root of the number


def test_undefined_values_are_left_out():
    values = np.random.default_rng(4).random(30)
    assert mean_interval(np.concatenate([values, [np.nan, np.nan]])) == mean_interval(values)


def test_one_case_has_no_interval_and_equal_cases_have_an_empty_one():
    assert mean_interval([0.5]) is None and mean_interval([0.5, np.nan]) is None
    assert overlap_interval(counts_of(maps(1, 0.5)), "miou") is None
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_a_rare_class_scores_no_1_in_draws_that_miss_it():
    # Right in class 1 everywhere, wrong in class 2, which one case of ten shows.
    pairs = [(np.array([[0, 1, 1]]), np.array([[0, 1, 1]]))] * 9 + [(np.array([[0, 1, 1]]), np.array([[2, 1, 1]]))]
    low, high = overlap_interval(counts_of(pairs), "miou", (2,))
    assert (low, high) == (0, 0)
    # A class in no case at all is 1 in the score, and so in its interval.
    assert overlap_interval(counts_of(pairs[:9]), "miou", (2,)) == (1, 1)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(12)), st.sampled_from(overlap.METRICS))
def test_order_of_the_cases_changes_no_digit(order, metric):
    counts = counts_of(maps(12, 0.6))
    assert overlap_interval(taken(counts, order), metric, resamples=50) == overlap_interval(
        counts, metric, resamples=50
    )


def test_seeds_repeat_and_differ():
    values = np.random.default_rng(4).random(30)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_number_of_processes_and_size_of_chunks_change_no_digit():
    pairs = maps(12, 0.6)
    alone = counts_of(pairs)
    predictions, truths = zip(*pairs, strict=True)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for chunk in (1, 5):
            parts = pool.map(overlap.count, predictions, truths, repeat(CLASSES), chunksize=chunk)
            shared = overlap.concatenate(parts)
            for metric in overlap.METRICS:
                assert overlap.overall(shared, metric) == overlap.overall(alone, metric)
        there = pool.submit(overlap_interval, alone, "miou", resamples=100).result()
    assert there == overlap_interval(alone, "miou", resamples=100)


# ---------------------------------------------------------------- paired differences


def test_a_better_method_differs_clearly_from_a_worse_one():
    better, worse = counts_of(maps(20, 0.9, 1)), counts_of(maps(20, 0.5, 2))
    for metric in overlap.METRICS:
        found = paired_overlap_difference(better, worse, metric)
        expected = overlap.overall(better, metric) - overlap.overall(worse, metric)
        assert found.difference == pytest.approx(expected)
        assert found.interval[0] > 0 and found.p_value < 0.005 and found.n == 20
        back = paired_overlap_difference(worse, better, metric)
        assert back.difference == pytest.approx(-found.difference)
        assert back.p_value < 0.005


def test_pairing_finds_a_small_difference_between_cases_of_very_different_difficulty():
    random = np.random.default_rng(0)
    hard = random.random(40)
    found = paired_difference(hard + 0.02 + 0.01 * random.standard_normal(40), hard)
    assert found.p_value < 0.01 and found.difference == pytest.approx(0.02, abs=0.005)


def test_equal_methods_are_called_different_about_1_time_in_20():
    random = np.random.default_rng(6)
    p_values = [paired_difference(*random.random((2, 40)), resamples=300).p_value for _ in range(150)]
    assert 0.005 < np.mean(np.array(p_values) < 0.05) < 0.11
    assert 0.35 < np.mean(p_values) < 0.65


def test_a_method_does_not_differ_from_itself():
    counts = counts_of(maps(10, 0.7))
    for metric in overlap.METRICS:
        found = paired_overlap_difference(counts, counts, metric)
        assert (found.difference, found.interval, found.p_value) == (0, (0, 0), 1)


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(10)), st.sampled_from(overlap.METRICS))
def test_order_of_the_pairs_changes_no_digit_of_interval_and_p_value(order, metric):
    first, second = counts_of(maps(10, 0.7, 1)), counts_of(maps(10, 0.6, 2))
    found = paired_overlap_difference(first, second, metric, resamples=50)
    again = paired_overlap_difference(taken(first, order), taken(second, order), metric, resamples=50)
    assert (again.interval, again.p_value) == (found.interval, found.p_value)


@pytest.mark.parametrize("metric", overlap.METRICS)
def test_the_standard_error_needs_no_draws_and_agrees_with_them(metric):
    first, second = counts_of(maps(30, 0.8, 1)), counts_of(maps(30, 0.6, 2))
    difference, error = paired_overlap_error(first, second, metric)
    drawn = paired_overlap_difference(first, second, metric)
    assert difference == drawn.difference
    assert error == pytest.approx((drawn.interval[1] - drawn.interval[0]) / (2 * 1.96), rel=0.12)
    if metric != "miou":
        each = overlap.case_means(first, metric) - overlap.case_means(second, metric)
        assert error == pytest.approx(each.std(ddof=1) / np.sqrt(30))


@pytest.mark.parametrize("metric", overlap.METRICS)
def test_the_same_cases_seen_twice_are_no_further_cases(metric):
    pair = counts_of(maps(12, 0.8, 1)), counts_of(maps(12, 0.6, 2))
    twice = [overlap.concatenate([counts, counts]) for counts in pair]
    once = paired_overlap_difference(*pair, metric)
    found = paired_overlap_difference(*twice, metric, cases=[str(case) for case in range(12)] * 2)
    assert (found.difference, found.interval) == (pytest.approx(once.difference), pytest.approx(once.interval))
    assert found.n == 12 and paired_overlap_difference(*twice, metric).n == 24
    names = [str(case) for case in range(12)] * 2
    assert paired_overlap_error(*twice, metric, cases=names) == pytest.approx(paired_overlap_error(*pair, metric))
    assert paired_overlap_error(*twice, metric)[1] < 0.8 * paired_overlap_error(*pair, metric)[1]


def test_undefined_scores_leave_a_case_its_other_ones():
    """Of case a the second row, where neither mask shows a foreground; miou-per-case has no score there."""
    shown, absent = np.ones((2, 3), int), np.zeros((2, 3), int)
    first = overlap.concatenate(overlap.count(*pair, 2) for pair in ((shown, shown), (absent, absent), (shown, shown)))
    second = overlap.concatenate(
        overlap.count(*pair, 2) for pair in ((absent, shown), (absent, absent), (shown, shown))
    )
    found = paired_overlap_difference(first, second, "miou-per-case", cases=["a", "a", "b"])
    assert (found.n, found.left_out, found.difference) == (2, 1, 0.5)


def test_pairs_with_an_undefined_score_are_left_out_and_counted():
    found = paired_difference([0.5, np.nan, 0.7, 0.9], [0.4, 0.2, np.nan, 0.6])
    assert (found.n, found.left_out) == (2, 2)
    assert found.difference == pytest.approx(0.2)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"same cases; got shapes \(3,\) and \(2,\)"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="two cases at least; got 1"):
        paired_difference([1.0, np.nan], [1.0, 2.0])
    first = counts_of(maps(5, 0.7))
    for other in (taken(first, [1, 0, 2, 3, 4]), taken(first, [0, 1, 2, 3])):
        with pytest.raises(ValueError, match="true pixels differ"):
            paired_overlap_difference(first, other, "miou")
