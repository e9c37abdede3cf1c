"""Calibration scores against hand-made cases and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.metrics.calibration import calibration_scores


def some(seed, classes, shape=(3, 8, 9)):
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(shape[0], classes, *shape[1:])) * 2
    found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return found, chance.integers(0, classes, shape)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_ece_equals_torchmetrics(seed, classes):
    from torchmetrics.functional.classification import multiclass_calibration_error

    found, truth = some(seed, classes)
    expected = multiclass_calibration_error(torch.from_numpy(found), torch.from_numpy(truth), classes, n_bins=15)
    assert calibration_scores(found, truth).ece == pytest.approx(float(expected), abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_nll_and_brier_equal_their_definitions_pixel_by_pixel(seed, classes):
    found, truth = some(seed, classes, (1, 4, 3))
    nll, brier = [], []
    for row, column in np.ndindex(4, 3):
        own, label = found[0, :, row, column], truth[0, row, column]
        nll.append(-np.log(max(own[label], 1e-4)))
        brier.append(sum((own[index] - (index == label)) ** 2 for index in range(classes)))
    scores = calibration_scores(found, truth)
    assert scores.nll == pytest.approx(np.mean(nll)) and scores.brier == pytest.approx(np.mean(brier))
    assert scores.pixels == 12


def test_certain_and_right_is_perfect_certain_and_wrong_is_the_worst():
    truth = np.array([[[0, 1], [1, 0]]])
    right = np.stack([truth == 0, truth == 1], 1).astype(float)
    scores, wrong = calibration_scores(right, truth), calibration_scores(1 - right, truth)
    assert (scores.nll, scores.brier, scores.ece) == (0, 0, 0)
    assert wrong.brier == 2 and wrong.ece == 1 and wrong.nll == pytest.approx(-np.log(1e-4))


def test_ignored_pixels_do_not_count_and_batches_do_not_matter():
    found, truth = some(0, 3)
    spoilt, marked = found.copy(), truth.copy()
    marked[:, 2:4] = 255
    spoilt[:, :, 2:4] = 0
    scores = calibration_scores(spoilt, marked)
    rest = [0, 1, *range(4, 8)]
    assert scores == calibration_scores(found[:, :, rest], truth[:, rest])
    parts = [calibration_scores(found[i], truth[i]).nll for i in range(3)]
    assert calibration_scores(found, truth).nll == pytest.approx(np.mean(parts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found, truth: (found, truth[:2]), "Labels of shape"),
        (lambda found, truth: (found, truth + 3), "Labels must be 0 to 2"),
        (lambda found, truth: (found, np.full_like(truth, 255)), "No pixel counts"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        calibration_scores(*change(*some(0, 3)))
