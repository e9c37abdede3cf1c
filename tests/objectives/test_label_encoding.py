"""Labels as the pair critic sees them: signed one-hot for masks, signed probabilities for logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from semgan.objectives.labels import class_share_loss, signed_labels, signed_probabilities
from semgan.types import IGNORE


def test_binary_labels_are_plus_and_minus_one_and_ignored_pixels_zero():
    label_map = torch.tensor([[[0, 1, IGNORE]]])
    assert signed_labels(label_map, 1).tolist() == [[[[-1.0, 1.0, 0.0]]]]


def test_labels_of_many_classes_are_signed_one_hot_and_ignored_pixels_zero_everywhere():
    label_map = torch.tensor([[[0, 2, IGNORE]]])
    assert signed_labels(label_map, 3)[0, :, 0].t().tolist() == [[1, -1, -1], [-1, -1, 1], [0, 0, 0]]


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.integers(0, 1000))
def test_signed_labels_are_undone_by_argmax(classes, seed):
    label_map = torch.randint(classes, (2, 5, 4), generator=torch.Generator().manual_seed(seed))
    channels = 1 if classes == 2 else classes
    signed = signed_labels(label_map.to(torch.uint8), channels)
    assert signed.shape == (2, channels, 5, 4) and signed.dtype == torch.float32
    found = (signed[:, 0] > 0).long() if channels == 1 else signed.argmax(1)
    assert torch.equal(found, label_map)


def test_sure_logits_look_like_masks_to_the_pair_critic():
    label_map = torch.tensor([[[0, 1], [2, 1]]])
    certain = signed_labels(label_map, 3)
    assert_close(signed_probabilities(certain * 50), certain)
    binary = signed_labels(label_map.clamp_max(1), 1)
    assert_close(signed_probabilities(binary * 50), binary)


@pytest.mark.parametrize(("channels", "undecided"), [(1, 0.0), (4, -0.5)])
def test_undecided_logits_lie_between(channels, undecided):
    assert_close(signed_probabilities(torch.zeros(1, channels, 2, 2)), torch.full((1, channels, 2, 2), undecided))


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_shares_cost_nothing_wherever_the_pixels_are(channels):
    label_map = torch.arange(24).reshape(2, 3, 4) % max(channels, 2)
    elsewhere = label_map.flip(0, 1)
    assert_close(class_share_loss(50 * signed_labels(elsewhere, channels), label_map), torch.tensor(0.0))
    ignored = torch.cat([label_map, torch.full((1, 3, 4), IGNORE)])
    assert_close(class_share_loss(50 * signed_labels(elsewhere, channels), ignored), torch.tensor(0.0))


@pytest.mark.parametrize("sure", [-5.0, -15.0])
def test_a_class_that_has_vanished_gets_a_gradient_however_sure_the_logits_are(sure):
    """Of 100 pixels 5 are wanted; adding to all logits alike has a gradient of about minus that share."""
    label_map = torch.zeros(1, 10, 10, dtype=torch.long)
    label_map[0, 0, :5] = 1
    logits = torch.full((2, 1, 10, 10), sure, requires_grad=True)
    class_share_loss(logits, label_map).backward()
    assert logits.grad is not None
    assert float(logits.grad.sum()) == pytest.approx(-0.05, rel=0.15)
    assert bool(torch.isfinite(class_share_loss(torch.full((1, 1, 2, 2), -500.0), label_map)))
