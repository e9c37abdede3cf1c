"""Flaw maps of guided collaborative training: what the detector is to say, and who learns from whom."""

from __future__ import annotations

import pytest
import torch

from semgan.objectives.flaws import cleaned_flaws, flaw_target, learn_from_the_better
from semgan.objectives.pseudo_labels import pseudo_label_loss, pseudo_labels
from semgan.types import IGNORE

LABELS = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(0))


def right(label_map: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(label_map, 3).movedim(3, 1).float()


def test_a_right_prediction_has_no_flaw():
    assert torch.equal(flaw_target(right(LABELS), LABELS), torch.zeros(2, 1, 32, 32))


@pytest.mark.parametrize("size_px", [16, 32, 33, 128])
def test_a_flaw_lies_where_the_prediction_is_wrong_and_spreads_smoothly(size_px):
    label_map = torch.zeros(1, size_px, size_px, dtype=torch.long)
    found, quarter = right(label_map), size_px // 4
    found[:, :, :quarter, :quarter] = found[:, :, :quarter, :quarter].roll(1, 1)
    flaws = flaw_target(found.requires_grad_(), label_map)
    assert not flaws.requires_grad and flaws.shape == (1, 1, size_px, size_px)
    assert flaws.max() == 1 and flaws.min() == 0
    assert flaws[0, 0, 0, 0] > 0.9 and flaws[0, 0, -1, -1] == 0
    assert 0 < flaws[0, 0, quarter + 1, 0] < 1


def test_ignored_pixels_are_no_flaws():
    label_map = LABELS.clone()
    wrong = right(LABELS).roll(1, 1)
    wrong[:, :, 16:] = right(LABELS)[:, :, 16:]
    label_map[:, :16] = IGNORE
    assert torch.equal(flaw_target(wrong, label_map), torch.zeros(2, 1, 32, 32))


def test_guessed_flaws_are_stretched_unless_there_are_none():
    guess = torch.full((2, 1, 64, 64), -1.0)
    guess[0, :, 20:30, 20:30] = 0.4
    guess[1, :, 20:30, 20:30] = 0.09
    flaws = cleaned_flaws(guess.requires_grad_())
    assert flaws[0].max() == 1 and flaws[0].min() == 0 and not flaws.requires_grad
    assert torch.equal(flaws[1], torch.zeros(1, 64, 64))


@pytest.mark.parametrize(
    ("flaws", "expected"),
    [
        ((0.1, 0.5), (1.0, 1.0)),  # the first is better: it keeps its answer, the second takes it
        ((0.5, 0.1), (2.0, 2.0)),
        ((0.3, 0.3), (1.0, 2.0)),
        ((0.7, 0.5), (2.0, 2.0)),  # over the threshold is as bad as can be
        ((0.7, 0.9), (1.0, 2.0)),  # both hopeless: nobody learns from the other
    ],
)
def test_a_pixel_learns_from_the_better_answer(flaws, expected):
    first, second = (torch.full((1, 2, 1, 1), value, requires_grad=True) for value in (1.0, 2.0))
    maps = tuple(torch.full((1, 1, 1, 1), value) for value in flaws)
    targets, hopeless = learn_from_the_better((first, second), (maps[0], maps[1]), 0.6)
    assert tuple(float(target.mean()) for target in targets) == expected
    assert not any(target.requires_grad for target in targets)
    assert bool(hopeless) == (min(flaws) > 0.6)


def test_only_sure_pixels_are_pseudo_labels_and_unsure_ones_thin_the_loss():
    found = torch.tensor([[[[0.96, 0.6]], [[0.04, 0.4]]]])
    label_map = pseudo_labels(found, 0.95)
    assert label_map.tolist() == [[[0, IGNORE]]] and pseudo_labels(found).tolist() == [[[0, 0]]]
    logits = torch.zeros(1, 1, 1, 2)
    assert float(pseudo_label_loss(logits, label_map)) == pytest.approx(0.6931 / 2, abs=1e-4)
    assert float(pseudo_label_loss(logits, label_map.fill_(IGNORE))) == 0
