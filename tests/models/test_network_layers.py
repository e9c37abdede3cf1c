"""Layers: the fast forms equal the textbook ones, and differentiate twice."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from semgan.models.layers import EqualConv2d, EqualLinear, ModulatedConv2d, OutputHeads, activate, downsample, upsample

LINE = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)


def filtered(x, *, before, after, gain=1.0):
    """[1, 3, 3, 1] x [1, 3, 3, 1] / 64 on zero-padded planes, tap by tap."""
    x = F.pad(x, (before, after, before, after))
    height, width = x.shape[-2] - 3, x.shape[-1] - 3
    taps = LINE[:, None] * LINE[None, :] * gain / 64
    return sum(taps[i, j] * x[..., i : i + height, j : j + width] for i in range(4) for j in range(4))


def with_zeros_between(x):
    """``[..., h, w]`` -> ``[..., 2h - 1, 2w - 1]``."""
    wide = x.new_zeros(*x.shape[:-2], 2 * x.shape[-2] - 1, 2 * x.shape[-1] - 1)
    wide[..., ::2, ::2] = x
    return wide


def grouped_form(layer, x, w, noise):
    """Karras et al. 2020, eq. 1 and 3: every sample gets weights of its own, in one grouped convolution."""
    batch, channels, height, width = x.shape
    weight = layer.weight / math.sqrt(channels * 9)
    weight = weight[None] * layer.style(w)[:, None, :, None, None]
    weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    if layer.up:
        x = F.pad(with_zeros_between(x), (2, 2, 2, 2))
        weight = weight.flip(3, 4)
    else:
        x = F.pad(x, (1, 1, 1, 1))
    y = F.conv2d(x.reshape(1, batch * channels, *x.shape[-2:]), weight.flatten(0, 1), groups=batch)
    y = y.reshape(batch, -1, *y.shape[-2:])
    if layer.up:
        y = filtered(y, before=1, after=1, gain=4)
    y = y + noise * layer.noise_strength + layer.bias[None, :, None, None]
    return F.leaky_relu(y, 0.2) * math.sqrt(2)


@pytest.mark.parametrize("up", [False, True])
def test_scale_input_form_equals_the_grouped_form(up):
    torch.manual_seed(0)
    layer = ModulatedConv2d(6, 5, 7, up=up).double()
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
        layer.bias.normal_()
        layer.style.bias.normal_(1.0, 0.5)
    side = 8 * (2 if up else 1)
    x, w, noise = torch.randn(3, 6, 8, 8).double(), torch.randn(3, 7).double(), torch.randn(3, 1, side, side).double()
    expected = grouped_form(layer, x, w, noise)
    assert expected.shape == (3, 5, side, side)
    assert_close(layer(x, w, noise), expected, rtol=1e-5, atol=1e-6)  # demodulation itself is float32


@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
def test_demodulated_output_has_unit_variance_whatever_the_style(strength):
    torch.manual_seed(1)
    layer = ModulatedConv2d(48, 48, 8)
    with torch.no_grad():
        layer.style.bias.fill_(strength)
        layer.style.weight.mul_(strength)
    y = layer(torch.randn(4, 48, 24, 24), torch.randn(4, 8), torch.zeros(1, 1, 24, 24))[:, :, 1:-1, 1:-1]
    assert y.detach().square().mean().item() == pytest.approx(
        1.04, rel=0.05
    )  # (1 + 0.2^2) / 2 * sqrt(2)^2 of a unit normal


def test_outputs_of_a_sample_do_not_depend_on_the_others():
    torch.manual_seed(0)
    layer = ModulatedConv2d(4, 4, 6, up=True)
    x, w = torch.randn(3, 4, 4, 4), torch.randn(3, 6)
    noise = torch.zeros(1, 1, 8, 8)
    assert_close(layer(x, w, noise)[1:2], layer(x[1:2], w[1:2], noise))


def test_output_heads_equal_modulated_1x1_convolutions_without_demodulation():
    torch.manual_seed(2)
    heads = OutputHeads(6, 3, 2, 5)
    with torch.no_grad():
        heads.bias.normal_()
    x, w = torch.randn(2, 6, 4, 4), torch.randn(2, 5)
    found = heads(x, w)
    for sample in range(2):
        image = heads.image_weight * heads.image_style(w)[sample]
        weight = torch.cat([image, heads.label_weight * heads.label_style(w)[sample]])
        expected = F.conv2d(x[sample : sample + 1], weight[:, :, None, None] / math.sqrt(6), heads.bias)
        assert_close(found[sample : sample + 1], expected)


def test_upsampling_is_zero_insertion_and_filter_away_from_the_border():
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    expected = filtered(with_zeros_between(x), before=2, after=2, gain=4)
    assert_close(upsample(x)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])


def test_downsampling_is_filter_and_every_second_pixel():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert_close(downsample(x), filtered(x, before=1, after=1)[..., ::2, ::2])


def test_downsampling_differentiates_any_number_of_times():
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(downsample, [x])
    assert torch.autograd.gradgradcheck(lambda x: downsample(x).square(), [x])


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_equalised_layers_keep_the_variance_and_learn_at_the_asked_speed(lr_multiplier):
    torch.manual_seed(0)
    layer = EqualLinear(256, 64, bias_init=0.5, lr_multiplier=lr_multiplier)
    x = torch.randn(512, 256)
    before = layer(x)
    assert (before - 0.5).detach().std().item() == pytest.approx(1.0, rel=0.05)
    with torch.no_grad():
        layer.bias += 1.0  # what one step of Adam at learning rate 1 does
    assert_close(layer(x) - before, torch.full_like(before, lr_multiplier), rtol=1e-3, atol=1e-4)


def test_equalised_convolution_has_the_gain_it_was_asked_for():
    torch.manual_seed(0)
    y = EqualConv2d(32, 32, 3, gain=math.sqrt(2), padding=1)(torch.randn(2, 32, 20, 20))
    assert y.detach()[..., 1:-1, 1:-1].std().item() == pytest.approx(math.sqrt(2), rel=0.05)


def test_activations_are_clamped_in_float16_alone():
    large = torch.tensor([-1e4, 1e4])
    assert activate(large.half()).tolist() == [-256, 256]
    assert activate(large).tolist() == [-2000, 10000]
