"""The critics: what they see, how they judge a batch, and that their penalties can be differentiated."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from semgan.models.discriminators import ImageCritic, PairCritic, instance_norm


def image_critic(widths=(8, 6, 4), channels=1, **more):
    torch.manual_seed(0)
    return ImageCritic(widths, channels=channels, **more)


def pair_critic(image_channels=1, label_channels=1, scales=3, layers=2):
    torch.manual_seed(0)
    return PairCritic(
        image_channels=image_channels, label_channels=label_channels, base_width=4, scales=scales, layers=layers
    )


@pytest.mark.parametrize(("widths", "side"), [((8, 6, 4), 16), ((8, 6, 4, 4, 3), 64)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_image_critic_gives_one_number_per_image(widths, side, channels):
    critic = image_critic(widths, channels)
    for batch in (1, 3, 8):
        scores = critic(torch.randn(batch, channels, side, side))
        assert scores.shape == (batch,) and scores.dtype == torch.float32
    sides = [piece.shape[-1] for piece in critic.features(torch.randn(2, channels, side, side))]
    assert sides == [side // 2**level for level in range(len(widths))]


def test_minibatch_deviation_is_that_of_its_group():
    critic = image_critic()
    x = torch.randn(8, 5, 4, 4)
    found = critic.minibatch_deviation(x)
    assert found.shape == (8, 1, 4, 4)
    for first in (0, 1):  # images 0, 2, 4, 6 and 1, 3, 5, 7
        expected = x[first::2].std(0, correction=0).mean()
        assert_close(found[first::2], expected.expand(4, 1, 4, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "group"), [(6, 2), (5, 1), (2, 2), (12, 4)])
def test_minibatch_deviation_takes_the_largest_group_that_divides_the_batch(batch, group):
    x = torch.randn(batch, 2, 4, 4)
    found = image_critic().minibatch_deviation(x)[:, 0, 0, 0]
    expected = x.reshape(group, batch // group, -1).std(0, correction=0).mean(1).repeat(group)
    assert_close(found, expected, rtol=1e-3, atol=2e-4)


def test_image_critic_notices_that_all_images_are_alike():
    critic = image_critic()
    x = torch.randn(4, 1, 16, 16)
    alone = critic(x[:1]).item()
    alike, varied = critic(x[:1].repeat(4, 1, 1, 1))[0].item(), critic(x)[0].item()
    assert alike == pytest.approx(alone, abs=1e-3)
    assert abs(varied - alike) > 1e-2


def test_instance_norm_equals_torchs_and_keeps_channels_last():
    x = (torch.randn(3, 5, 7, 6) * 4 + 2).contiguous(memory_format=torch.channels_last)
    found = instance_norm(x)
    assert_close(found, F.instance_norm(x), rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("scales", "layers"), [(3, 2), (2, 3)])
def test_pair_critic_answers_once_per_scale_with_features_of_every_layer(scales, layers):
    answers = pair_critic(3, 4, scales, layers)(torch.randn(2, 3, 32, 32), torch.randn(2, 4, 32, 32))
    assert len(answers) == scales
    assert all(answer.score.shape[:2] == (2, 1) and len(answer.features) == layers + 1 for answer in answers)
    sides = [answer.features[0].shape[-1] for answer in answers]
    assert sides == [17, 9, 5][:scales]  # of 32, 16 and 8 px


def test_pair_critic_sees_image_and_label():
    critic = pair_critic(1, 2).eval()
    image = torch.randn(2, 1, 16, 16, requires_grad=True)
    label = torch.randn(2, 2, 16, 16, requires_grad=True)
    for answer in critic(image, label):
        gradients = torch.autograd.grad(answer.score.sum(), [image, label], retain_graph=True)
        assert all((gradient.abs().sum((2, 3)) > 0).all() for gradient in gradients)


def test_middle_layers_of_the_pair_critic_have_spectral_norm_one():
    critic = pair_critic()
    with torch.no_grad():
        for layer in critic.scales[0].middle:
            layer.parametrizations.weight.original.mul_(50)
        for _ in range(60):
            critic(torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16))
    critic.eval()
    for layer in critic.scales[0].middle:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, rel=0.02)


def test_gradient_penalties_reach_every_weight_before_the_score():
    critics = image_critic(), pair_critic()
    image, label = (torch.randn(4, 1, 16, 16, requires_grad=True) for _ in range(2))
    scores = critics[0](image).sum() + sum(answer.score.sum() for answer in critics[1](image, label))
    sum(g.square().sum() for g in torch.autograd.grad(scores, [image, label], create_graph=True)).backward()
    for critic in critics:
        for name, weight in critic.named_parameters():
            if name.endswith("weight") or name.endswith("original"):
                assert weight.grad is not None and weight.grad.abs().sum() > 0, name
