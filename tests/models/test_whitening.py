"""Whitened codes: an exact change of basis, in which the mapping network's output is a unit Gaussian."""

import pytest
import torch
from torch.testing import assert_close

from semgan.config import GeneratorSettings
from semgan.models.generator import Generator
from semgan.models.whitening import fit_whitening


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    settings = GeneratorSettings(w_dim=8, mapping_layers=2, widths=(4, 4, 4))
    generator = Generator(settings, size_px=16, image_channels=1, label_channels=1)
    with torch.no_grad():
        generator.mapping.layers[-1].bias.normal_(0, 100)  # a mean that is not 0
    return generator


def test_whitening_there_and_back_is_the_identity(generator):
    whitening = fit_whitening(generator, samples=2000)
    v = torch.randn(3, generator.layers, 8)
    assert_close(whitening.to_v(whitening.to_w(v)), v, rtol=1e-4, atol=1e-5)
    w = generator.mapping(torch.randn(5, 8))
    assert_close(whitening.to_w(whitening.to_v(w)), w, rtol=1e-4, atol=1e-5)


def test_whitened_codes_of_new_latents_have_mean_0_and_unit_covariance(generator):
    whitening = fit_whitening(generator)
    with torch.no_grad():
        v = whitening.to_v(generator.mapping(torch.randn(20_000, 8, generator=torch.Generator().manual_seed(7))))
    assert_close(v.mean(0), torch.zeros(8), rtol=0, atol=0.05)
    assert_close(v.t().cov(), torch.eye(8), rtol=0, atol=0.06)
    assert_close(whitening.to_w(torch.zeros(8)), whitening.mean)


def test_the_fit_depends_on_the_generator_and_the_seed_alone(generator):
    torch.manual_seed(1)
    first = fit_whitening(generator, samples=500).state_dict()
    torch.manual_seed(2)
    second = fit_whitening(generator, samples=500).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(fit_whitening(generator, samples=500, seed=1).mean, first["mean"])


def test_directions_without_variance_stay_finite():
    settings = GeneratorSettings(w_dim=8, mapping_layers=1, widths=(4, 4, 4))
    flat = Generator(settings, size_px=16, image_channels=1, label_channels=1)
    with torch.no_grad():
        flat.mapping.layers[0].weight[4:] = 0  # w has 4 dimensions that never move
    whitening = fit_whitening(flat, samples=500)
    assert float(whitening.whiten.abs().max()) <= 1.01e3 / float(whitening.colour.norm(dim=1).max())
    assert torch.isfinite(whitening.to_v(torch.randn(2, 8))).all()
