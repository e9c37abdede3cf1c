"""The weight of agreement rises as the papers say, and agreement is measured in class probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semgan.objectives.consistency import ramp_up, squared_distance

SHARE = st.floats(0.01, 1, allow_subnormal=False)


def test_the_ramp_goes_from_exp_minus_5_to_1():
    assert ramp_up(0.0, 0.4) == pytest.approx(math.exp(-5))
    assert ramp_up(0.2, 0.4) == pytest.approx(math.exp(-1.25))
    assert ramp_up(0.4, 0.4) == ramp_up(0.9, 0.4) == ramp_up(0.0, 0.0) == 1


@given(SHARE, SHARE, SHARE)
def test_the_ramp_never_falls(share, first, second):
    assert ramp_up(min(first, second), share) <= ramp_up(max(first, second), share) <= 1


def test_distance_is_between_probabilities_and_the_same_for_one_channel_and_for_two():
    one, other = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    expected = (torch.sigmoid(one) - torch.sigmoid(other)).square().mean()
    torch.testing.assert_close(squared_distance(one, other), expected)
    as_two = [torch.cat([torch.zeros_like(logits), logits], 1) for logits in (one, other)]
    torch.testing.assert_close(squared_distance(*as_two), expected)
    assert squared_distance(one, one) == 0
    assert squared_distance(torch.full((1, 1, 2, 2), 50.0), torch.full((1, 1, 2, 2), -50.0)) == 1


def test_the_target_gets_no_gradient():
    logits, target = (torch.randn(1, 3, 4, 4, requires_grad=True) for _ in range(2))
    squared_distance(logits, target).backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) > 0
    assert target.grad is None
