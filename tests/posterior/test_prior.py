"""The prior over codes: what the mapping network and style mixing say, and no more."""

from __future__ import annotations

import pytest
import torch

from semgan.config import GeneratorSettings
from semgan.models.generator import Generator
from semgan.models.whitening import fit_whitening
from semgan.posterior.prior import CodePrior, Coupling, fit_coupling


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    settings = GeneratorSettings(w_dim=12, mapping_layers=2, widths=(8, 8, 8))
    return Generator(settings, size_px=16, image_channels=1, label_channels=1).requires_grad_(False)


def test_layers_are_coupled_as_style_mixing_couples_them(generator):
    """A crossover after layer 1 ... L - 1, each as likely: two layers share a w but for it falling between them."""
    prior = fit_coupling(generator, fit_whitening(generator), style_mixing=0.9).prior(0.2)
    coupling = prior.root @ prior.root.T
    layer = torch.arange(generator.layers).float()
    apart = (layer[:, None] - layer[None, :]).abs()
    expected = 0.8 * (1 - 0.9 * apart / (generator.layers - 1)) + 0.2 * torch.eye(generator.layers)
    torch.testing.assert_close(coupling, expected, atol=0.03, rtol=0)
    assert float(prior.mean.abs().max()) < 0.1


def test_without_mixing_all_layers_are_one_but_for_the_slack(generator):
    prior = fit_coupling(generator, fit_whitening(generator), style_mixing=0.0).prior(0.1)
    coupling = prior.root @ prior.root.T
    off_diagonal = coupling[~torch.eye(generator.layers, dtype=torch.bool)]
    torch.testing.assert_close(off_diagonal, torch.full_like(off_diagonal, 0.9), atol=0.01, rtol=0)


def test_coordinates_and_codes_are_inverse_and_the_energy_is_that_of_the_coordinates():
    chance = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(0.7 * torch.ones(6, 6) + 0.3 * torch.eye(6))
    prior = CodePrior(torch.randn(6, 5, generator=chance), root)
    u = torch.randn(3, 4, 6, 5, generator=chance)
    v = prior.to_v(u)
    torch.testing.assert_close(prior.to_u(v), u, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prior.energy(v[:, 0]), 0.5 * u[:, 0].square().sum((1, 2)))
    many = prior.to_v(torch.randn(20_000, 6, 5, generator=chance))[:, :, 2]
    torch.testing.assert_close(many.T.cov(), root @ root.T, atol=0.03, rtol=0)


def test_samples_of_the_generator_are_likelier_than_codes_of_unrelated_layers(generator):
    whitening = fit_whitening(generator)
    prior = fit_coupling(generator, whitening, style_mixing=0.5).prior(0.6)
    z = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    own = whitening.to_v(generator.broadcast(generator.mapping(z)))
    shuffled = torch.stack([own[torch.randperm(64), layer] for layer in range(generator.layers)], 1)
    assert float(prior.energy(own).mean()) < 0.7 * float(prior.energy(shuffled).mean())


@pytest.mark.parametrize("slack", [0.0, -0.1, 1.5])
def test_a_slack_out_of_range_is_refused(slack):
    with pytest.raises(ValueError, match="slack must be in"):
        Coupling(torch.zeros(3, 2), torch.eye(3)).prior(slack)
