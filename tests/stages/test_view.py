"""Pose and tone: what they do to a picture, and that the inversion finds and undoes them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import exact, generated_images, tiny_networks
from torch.testing import assert_close

from semgan.stages.stage3_inversion import invert
from semgan.stages.view import ANGLE, LOG_SIZE, SHIFT, posed, seen, toned
from semgan.types import JointImage


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


def blob(side: int = 64, *, across: float = 0.0, down: float = 0.0) -> torch.Tensor:
    """A smooth spot at (across, down) of [-1, 1], elongated across."""
    place = (torch.arange(side) * 2 + 1) / side - 1
    x, y = place[None, :] - across, place[:, None] - down
    return torch.exp(-(x**2 / 0.1 + y**2 / 0.02))[None, None]


def centre(planes: torch.Tensor) -> tuple[float, float]:
    side = planes.shape[-1]
    place, weight = (torch.arange(side) * 2 + 1) / side - 1, planes[0, 0] / planes[0, 0].sum()
    return float((weight.sum(0) * place).sum()), float((weight.sum(1) * place).sum())


def spread(planes: torch.Tensor) -> tuple[float, float]:
    side = planes.shape[-1]
    place, weight = (torch.arange(side) * 2 + 1) / side - 1, planes[0, 0] / planes[0, 0].sum()
    across, down = centre(planes)
    variances = (weight.sum(0) * (place - across) ** 2).sum(), (weight.sum(1) * (place - down) ** 2).sum()
    return math.sqrt(variances[0]), math.sqrt(variances[1])


def test_no_pose_and_no_tone_change_nothing(networks):
    image = generated_images(networks, 3)
    assert_close(posed(image, torch.zeros(3, 5)), image, rtol=0, atol=1e-5)
    assert_close(toned(image, torch.zeros(3, 1, 3)), image)
    joint = JointImage(image, image)
    assert seen(joint, None, None).image is image


def test_a_pose_moves_turns_and_stretches_as_its_numbers_say():
    shifted = posed(blob(), torch.tensor([[1.0, -2.0, 0, 0, 0]]))
    assert_close(torch.tensor(centre(shifted)), torch.tensor([SHIFT, -2 * SHIFT]), rtol=0, atol=0.01)
    wide = posed(blob(), torch.tensor([[0, 0, 1.0, -1.0, 0]]))
    expected = torch.tensor(spread(blob())) * torch.tensor([math.exp(LOG_SIZE), math.exp(-LOG_SIZE)])
    assert_close(torch.tensor(spread(wide)), expected, rtol=0.03, atol=0)
    turned = posed(blob(across=0.5), torch.tensor([[0, 0, 0, 0, 3.0]]))
    expected = torch.tensor([0.5 * math.cos(3 * ANGLE), 0.5 * math.sin(3 * ANGLE)])
    assert_close(torch.tensor(centre(turned)), expected, rtol=0, atol=0.02)


@given(st.lists(st.floats(-4, 4, width=32, allow_subnormal=False), min_size=3, max_size=3))
def test_a_tone_keeps_the_order_of_grey_values(numbers):
    values = torch.linspace(-1, 1, 101).view(1, 1, 1, 101)
    assert (toned(values, torch.tensor(numbers).view(1, 1, 3)).diff(dim=-1) > -1e-6).all()


def test_image_and_mask_are_posed_together():
    joint = seen(JointImage(blob(), blob()), torch.tensor([[1.0, 1, 1, -1, 1]]), None)
    assert_close(joint.image, joint.logits)


def test_the_inversion_explains_a_moved_picture_by_its_pose(networks):
    """A picture of the generator, moved and brightened: with pose and tone the loss comes lower, and the mask moves."""
    codes = generated_images(networks, 4)
    pose = torch.tensor([1.5, 0.0, 0, 0, 0]).repeat(4, 1)
    moved = toned(posed(codes, pose), torch.tensor([0.0, 0.5, 0.5]).view(1, 1, 3).repeat(4, 1, 1))
    common = {"space": "whitened", "lambda_encoder": 0.0, "lambda_pixel": 1.0, "lambda_prior": 0.01}
    alone = invert(*networks, moved, exact(**common), steps=40)
    explained = invert(*networks, moved, exact(**common, lambda_pose=0.001, lambda_tone=0.001), steps=40)
    assert {"pose", "tone"} <= set(explained.trace) and not {"pose", "tone"} & set(alone.trace)
    assert (explained.trace["pixel"][-1] < 0.95 * alone.trace["pixel"][-1]).all()
    assert (explained.trace["pose"][-1] > 0.01).all()
    drawn = networks.generator.synthesis(explained.w_plus)
    assert (explained.reconstruction - drawn.image.detach()).abs().mean() > 0.01  # seen, not as generated


def test_a_heavy_prior_leaves_pose_and_tone_alone(networks):
    image = generated_images(networks, 2)
    found = invert(*networks, image, exact(lambda_pose=1e4, lambda_tone=1e4), steps=5)
    assert (found.trace["pose"][-1] < 0.01).all() and (found.trace["tone"][-1] < 0.01).all()


def test_pose_and_tone_do_not_depend_on_the_slots(networks):
    image = generated_images(networks, 5)
    settings = {"lambda_pose": 0.01, "lambda_tone": 0.01, "lambda_encoder": 0.0}
    whole = invert(*networks, image, exact(**settings), steps=4)
    parts = invert(*networks, image, exact(**settings, batch=2), steps=4)
    assert_close(whole.trace["pose"], parts.trace["pose"], rtol=1e-2, atol=1e-4)
    assert_close(whole.probabilities, parts.probabilities, rtol=0, atol=2e-3)
