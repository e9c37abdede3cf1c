"""Adversarial losses and regularisers against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from semgan.objectives import adversarial

LOGITS = st.lists(st.floats(-30, 30, allow_subnormal=False), min_size=1, max_size=5)


def test_logistic_losses_of_given_scores():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2 + (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2
    assert adversarial.logistic_critic_loss(real, fake).item() == pytest.approx(expected, rel=1e-6)
    expected = (math.log(1 + math.e) + math.log(1 + math.exp(-1))) / 2
    assert adversarial.logistic_generator_loss(fake).item() == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(LOGITS, LOGITS)
def test_logistic_losses_are_the_cross_entropies_of_the_paper(real, fake):
    real, fake = torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)
    critic = -torch.log(torch.sigmoid(real)).mean() - torch.log(torch.sigmoid(-fake)).mean()
    assert_close(adversarial.logistic_critic_loss(real, fake), critic)
    assert_close(adversarial.logistic_generator_loss(fake), -torch.log(torch.sigmoid(fake)).mean())


def test_hinge_losses_of_given_scores():
    real = [torch.tensor([[2.0, 0.5]]), torch.tensor([-1.0])]
    fake = [torch.tensor([[-2.0, 0.5]]), torch.tensor([0.0])]
    # scale 1: (0 + 0.5) / 2 + (0 + 1.5) / 2 = 1; scale 2: 2 + 1 = 3
    assert adversarial.hinge_critic_loss(real, fake).item() == pytest.approx(2.0)
    assert adversarial.hinge_generator_loss(fake).item() == pytest.approx((0.75 + 0.0) / 2)


def test_hinge_leaves_scores_beyond_the_margin_alone():
    real, fake = (torch.tensor([value], requires_grad=True) for value in (1.5, -1.5))
    adversarial.hinge_critic_loss([real], [fake]).backward()
    assert real.grad.item() == fake.grad.item() == 0
    assert adversarial.hinge_critic_loss([real], [fake]).item() == 0


def test_feature_matching_image_by_image():
    real = [[torch.tensor([[1.0], [3.0]])], [torch.tensor([[0.0], [0.0]])]]
    fake = [[torch.tensor([[3.0], [1.0]])], [torch.tensor([[1.0], [-2.0]])]]
    assert adversarial.feature_matching_pairs(real, fake).item() == pytest.approx((2.0 + 1.5) / 2)


def test_feature_matching_of_means_ignores_which_image_is_which():
    real = [[torch.tensor([[1.0], [3.0]])], [torch.tensor([[0.0], [0.0]])]]
    fake = [[torch.tensor([[3.0], [1.0]])], [torch.tensor([[1.0], [-2.0]])]]
    assert adversarial.feature_matching_means(real, fake).item() == pytest.approx((0.0 + 0.5) / 2)


@pytest.mark.parametrize("matching", [adversarial.feature_matching_pairs, adversarial.feature_matching_means])
def test_feature_matching_teaches_the_generated_side_alone(matching):
    real, fake = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    matching([[real]], [[fake]]).backward()
    assert real.grad is None and fake.grad.abs().sum() > 0


def test_r1_is_the_squared_gradient_norm_per_image():
    """Score a . x + (x_0)^2 has the gradient a + 2 x_0 e_0."""
    weight = torch.randn(1, 2, 3, 3)
    image = torch.randn(4, 2, 3, 3, requires_grad=True)
    score = (image * weight).sum((1, 2, 3)) + image[:, 0, 0, 0] ** 2
    gradient = weight.repeat(4, 1, 1, 1)
    gradient[:, 0, 0, 0] += 2 * image.detach()[:, 0, 0, 0]
    penalty = adversarial.r1_penalty(score, [image])
    assert_close(penalty, gradient.square().sum((1, 2, 3)).mean())
    (second,) = torch.autograd.grad(penalty, image)  # 4 (a_0 + 2 x_0) / batch at that pixel, 0 elsewhere
    assert_close(second[:, 0, 0, 0], 4 * gradient[:, 0, 0, 0] / 4)
    assert second.abs().sum() == pytest.approx(second[:, 0, 0, 0].abs().sum().item())


def test_r1_of_a_pair_is_the_sum_over_image_and_label():
    image, label = (torch.randn(3, 1, 2, 2, requires_grad=True) for _ in range(2))
    score = 2 * image.sum((1, 2, 3)) + 3 * label.sum((1, 2, 3))
    assert adversarial.r1_penalty(score, [image, label]).item() == pytest.approx(4 * (4 + 9))


def test_path_lengths_of_a_linear_generator_are_the_norms_of_its_jacobian_products():
    torch.manual_seed(0)
    batch, layers, w_dim, side = 3, 4, 5, 6
    jacobian = torch.randn(side * side, layers * w_dim)
    w_plus = torch.randn(batch, layers, w_dim, requires_grad=True)
    image = (w_plus.flatten(1) @ jacobian.t()).reshape(batch, 1, side, side)
    noise = torch.randn(batch, 1, side, side)
    products = (noise.flatten(1) / side @ jacobian).reshape(batch, layers, w_dim)
    expected = products.square().sum(2).mean(1).sqrt()  # norm over w, mean over the layers, as StyleGAN2 has it
    assert_close(adversarial.path_lengths(image, w_plus, noise), expected)


def test_path_lengths_can_be_trained():
    gain = torch.tensor(2.0, requires_grad=True)
    w_plus = torch.randn(2, 3, 4, requires_grad=True)
    image = (gain * w_plus.sum(1)).reshape(2, 1, 2, 2)
    lengths = adversarial.path_lengths(image, w_plus, torch.ones(2, 1, 2, 2))
    lengths.sum().backward()
    assert gain.grad.item() == pytest.approx(lengths.detach().sum().item() / 2, rel=1e-5)  # lengths grow with the gain
