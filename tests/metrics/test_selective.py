"""Curves and ranks of trust against their definitions, by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.metrics.selective import auroc, auroc_interval, mid_ranks, rank_correlation, risk_coverage

LEVELS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])  # few, so that ties are common
IMAGES = st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=30)


def columns(images):
    return (np.array(values) for values in zip(*images, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(LEVELS, st.booleans()), min_size=1, max_size=25))
def test_auroc_is_the_share_of_pairs_in_the_right_order(images):
    doubt, failed = columns(images)
    pairs = [
        (a > b) + (a == b) / 2 for (a, bad), (b, worse) in itertools.product(images, images) if bad and not worse
    ]
    if pairs:
        assert auroc(doubt, failed) == pytest.approx(np.mean(pairs))
        assert auroc(-doubt, failed) == pytest.approx(1 - np.mean(pairs))
    else:
        assert np.isnan(auroc(doubt, failed))


@settings(deadline=None)
@given(IMAGES)
def test_full_coverage_has_the_mean_risk_and_no_order_is_better_than_the_oracles(images):
    trust, risk = columns(images)
    curve, oracle, worst = risk_coverage(trust, risk), risk_coverage(-risk, risk), risk_coverage(risk, risk)
    assert curve.risk[-1] == pytest.approx(risk.mean()) and curve.at(1.0) == curve.risk[-1]
    assert (oracle.risk <= curve.risk + 1e-12).all() and (curve.risk <= worst.risk + 1e-12).all()
    assert (np.diff(oracle.risk) >= -1e-12).all() and (np.diff(worst.risk) <= 1e-12).all()
    assert oracle.area - 1e-12 <= curve.area <= worst.area + 1e-12


@settings(deadline=None)
@given(IMAGES, st.randoms(use_true_random=False))
def test_no_number_depends_on_the_order_or_the_scale_of_trust(images, chance):
    shuffled = list(images)
    chance.shuffle(shuffled)
    (trust, risk), (other, same) = columns(images), columns(shuffled)
    assert risk_coverage(trust, risk).risk == pytest.approx(risk_coverage(np.exp(other) - 7, same).risk)
    failed = risk > 0.4
    assert auroc(-trust, failed) == pytest.approx(auroc(-np.exp(other), same > 0.4), nan_ok=True)


def test_images_of_equal_trust_count_with_the_mean_of_their_group():
    curve = risk_coverage([1, 1, 0], [0.0, 1.0, 0.5])
    assert curve.risk == pytest.approx([0.5, 0.5, 0.5]) and curve.coverage == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk_coverage([2, 1, 0], [0.0, 0.2, 1.0]).at(0.5) == pytest.approx(0.1)


def test_rank_correlation_knows_order_only_and_ties():
    assert rank_correlation([1, 2, 3], [10, 11, 500]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(np.sqrt(3) / 2)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))


@settings(deadline=None)
@given(st.lists(LEVELS, min_size=1, max_size=20))
def test_ranks_are_those_of_scipy(values):
    from scipy.stats import rankdata

    assert mid_ranks(values) == pytest.approx(rankdata(values))


def test_the_interval_of_auroc_holds_it_and_narrows_with_images():
    chance = np.random.default_rng(0)
    wide, narrow = [], []
    for count, widths in ((30, wide), (300, narrow)):
        failed = chance.random(count) < 0.3
        doubt = chance.normal(size=count) + failed
        low, high = auroc_interval(doubt, failed, resamples=100)
        assert low < auroc(doubt, failed) < high
        widths.append(high - low)
        order = chance.permutation(count)
        assert auroc_interval(doubt[order], failed[order], resamples=100) == (low, high)
    assert narrow[0] < wide[0]
    assert np.isnan(auroc_interval([1, 2], [True, True], resamples=5)).all()


@pytest.mark.parametrize("function", [risk_coverage, auroc, rank_correlation, auroc_interval])
def test_what_cannot_be_ranked_is_told(function):
    for first, second in (([], []), ([1, 2], [1]), ([1, np.nan], [0, 1])):
        with pytest.raises(ValueError, match="one number and one|finite"):
            function(first, second)
