"""Modes are loans: what a block takes from a module it gives back."""

import pytest
import torch
from torch import nn

from semgan.runtime.modes import evaluating, freeze, frozen, without_weight_gradients


@pytest.fixture
def network():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    network[1].eval()
    network[0].bias.requires_grad_(False)
    return network


def modes(network):
    return [part.training for part in network.modules()], [weight.requires_grad for weight in network.parameters()]


@pytest.mark.parametrize("loan", [evaluating, without_weight_gradients, frozen])
def test_every_part_gets_its_own_mode_back_even_after_an_error(network, loan):
    before = modes(network)
    with loan(network):
        pass
    assert modes(network) == before
    with pytest.raises(ZeroDivisionError), loan(network):
        raise ZeroDivisionError
    assert modes(network) == before


def test_frozen_modules_learn_nothing_and_pass_gradients_on(network):
    image = torch.randn(4, 1, 3, 3, requires_grad=True)
    statistics = network[1].running_mean.clone()
    with frozen(network):
        network(image).square().sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in network.parameters())
    assert torch.equal(network[1].running_mean, statistics)


def test_freezing_for_good_survives_train(network):
    assert freeze(network) is network
    network.train()
    nn.Sequential(network).train()
    assert not any(modes(network)[0]) and not any(modes(network)[1])
