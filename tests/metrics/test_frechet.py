"""The Frechet distance against closed forms and the unsymmetric product's eigenvalues, gathered in any batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.metrics.frechet import (
    FeatureStatistics,
    feature_statistics,
    frechet_distance,
    pooled_features,
)


def features(seed: int, number: int = 60, size: int = 8) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(number, size)) @ random.normal(size=(size, size)) + random.normal(size=size)


def statistics(rows: np.ndarray, cuts: tuple[int, ...] = ()) -> FeatureStatistics:
    gathered = FeatureStatistics(rows.shape[1])
    for part in np.split(rows, sorted(cuts)):
        gathered.update(part)
    return gathered


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 60), max_size=5))
def test_statistics_are_independent_of_the_batches(cuts):
    rows = features(0) + 1000.0  # a large mean, where naive sums of squares lose digits
    gathered = statistics(rows, tuple(cuts))
    np.testing.assert_allclose(gathered.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(gathered.covariance, np.cov(rows, rowvar=False), rtol=1e-8)


def test_merged_statistics_equal_those_of_everything():
    rows = features(1)
    first, second = statistics(rows[:13]), statistics(rows[13:])
    first.merge(second)
    first.merge(FeatureStatistics(8))
    assert first.count == 60
    np.testing.assert_allclose(first.covariance, np.cov(rows, rowvar=False), rtol=1e-10)


def test_distance_equals_the_formula_by_eigenvalues_of_the_plain_product():
    a, b = features(2), features(3)
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(0) - b.mean(0)
    cross = np.sqrt(np.linalg.eigvals(c1 @ c2).astype(complex)).sum().real  # trace of the product's square root
    expected = shift @ shift + np.trace(c1) + np.trace(c2) - 2 * cross
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-8)


def test_distance_is_symmetric_zero_to_itself_and_the_squared_shift_of_a_moved_copy():
    a, b = features(4), features(5)
    assert frechet_distance(statistics(a), statistics(a)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(statistics(a), statistics(a + 3)) == pytest.approx(8 * 9, rel=1e-8)
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(
        frechet_distance(statistics(b), statistics(a)), rel=1e-8
    )


def test_fewer_images_than_features_still_give_a_finite_distance():
    value = frechet_distance(statistics(features(6, number=4)), statistics(features(7, number=5)))
    assert np.isfinite(value) and value > 0


def test_pooled_features_are_means_over_pixels_side_by_side():
    maps = [torch.arange(8.0).reshape(1, 2, 2, 2), torch.ones(1, 3, 1, 1)]
    assert pooled_features(maps).tolist() == [[1.5, 5.5, 1, 1, 1]]


def test_features_that_are_no_numbers_are_at_no_distance():
    broken = features(9, number=20)
    broken[3, 2] = np.nan
    assert np.isnan(frechet_distance(statistics(features(8, number=20)), statistics(broken)))


def test_too_little_to_go_on_is_refused():
    with pytest.raises(ValueError, match="at least 2 images; got 1"):
        frechet_distance(statistics(features(8, number=1)), statistics(features(9)))
    with pytest.raises(ValueError, match="got no batch"):
        feature_statistics([], lambda image: image)
    with pytest.raises(ValueError, match=r"\[batch, 8\]"):
        FeatureStatistics(8).update(np.zeros((2, 3)))
