"""Masks drawn for images of a tiny generator: the prior where the likelihood is silent, the image where it speaks."""

from __future__ import annotations

import pytest
import torch

from semgan.posterior.latent import Budget, Energy, LatentPosterior, MaskDraws
from semgan.posterior.sampler import Kernel, run_chains

SHORT = Budget(count=8, chains=2, warmup=15, thin=1)


@pytest.fixture(scope="module")
def posterior(model):
    return LatentPosterior(model, temperature=1e-3)


@pytest.mark.parametrize("method", ["hmc", "mala", "langevin", "laplace", "iterates"])
def test_every_method_draws_masks_that_are_probabilities(posterior, images, method):
    draws = posterior.draw(images, method, SHORT)
    assert len(draws) == len(images)
    for each in draws:
        assert each.probabilities.shape == (8, 2, 16, 16)
        torch.testing.assert_close(each.mean.sum(0), torch.ones(16, 16), atol=2e-3, rtol=0)
        assert each.label_maps.shape == (8, 16, 16) and each.shares().sum(1) == pytest.approx(1)
        assert (each.acceptance is not None) == (method in ("hmc", "mala", "langevin"))
    assert float(draws[0].probabilities.float().std(0).max()) > 0  # they differ


def test_an_image_has_the_same_draws_alone(posterior, images):
    few = Budget(count=2, chains=2, warmup=1, thin=1)  # chains amplify the rounding of other batch sizes
    together = posterior.draw(images, "mala", few)
    alone = posterior.draw(images[2:], "mala", few, first=2)
    torch.testing.assert_close(alone[0].probabilities, together[2].probabilities, atol=2e-3, rtol=0)
    other = posterior.draw(images[2:], "mala", few, first=2, seed=5)
    assert not torch.allclose(other[0].probabilities, alone[0].probabilities, atol=1e-3)


def test_a_cold_likelihood_pulls_the_reconstruction_to_the_image_and_a_hot_one_leaves_the_prior(model, images):
    def distance(temperature):
        posterior = LatentPosterior(model, temperature=temperature)
        energy, kept = Energy(posterior, images.repeat_interleave(2, 0), "default"), []
        start = torch.zeros(6, model.generator.layers, model.generator.w_dim)
        run_chains(
            energy, start, Kernel(4), warmup=30, draws=8, visit=lambda n, u, e: kept.append((u.clone(), e.clone()))
        )
        size = torch.stack([0.5 * u.square().sum((1, 2)) for u, _ in kept]).mean()
        loss = torch.stack([(e - 0.5 * u.square().sum((1, 2))) * temperature for u, e in kept]).mean()
        return float(loss), float(size)

    (cold, _), (hot, size) = distance(1e-4), distance(1e3)
    assert cold < 0.7 * hot
    assert size == pytest.approx(model.generator.layers * model.generator.w_dim / 2, rel=0.2)  # a standard normal's


def test_the_energy_is_prior_plus_eq_8_over_the_temperature(posterior, model, images):
    u = torch.randn(3, model.generator.layers, model.generator.w_dim, generator=torch.Generator().manual_seed(0))
    hotter = LatentPosterior(model, temperature=1e-2, prior=posterior.prior)
    own, other = (Energy(each, images, "default")(u) for each in (posterior, hotter))
    prior = 0.5 * u.square().sum((1, 2))
    torch.testing.assert_close((own - prior) * 1e-3, (other - prior) * 1e-2, rtol=1e-3, atol=1e-5)
    rebuilt = model.generator.synthesis(model.whitening.to_w(posterior.prior.to_v(u))).image
    loss = model.perceptual(rebuilt, images) + (rebuilt - images).square().mean((1, 2, 3))
    torch.testing.assert_close(own, prior + loss / 1e-3, rtol=1e-4, atol=1e-2)


class Quadratic(Energy):
    """1/2 u'Hu with a known H; the images do not matter."""

    def __init__(self, hessian):
        self.hessian = hessian

    def __call__(self, u):
        flat = u.flatten(1)
        return 0.5 * ((flat @ self.hessian) * flat).sum(1)


def test_curvature_is_the_hessians_diagonal(posterior, model, images):
    root = torch.randn(12, 12, generator=torch.Generator().manual_seed(0)) * 0.1
    hessian = torch.diag(torch.linspace(1, 30, 12)) + root + root.T
    u = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    found = Quadratic(hessian).curvature(u, 0, [0, 1])
    torch.testing.assert_close(found.flatten(1), hessian.diagonal().expand(2, -1), atol=1.0, rtol=0)
    silent = LatentPosterior(model, temperature=1e9, prior=posterior.prior)
    zero = torch.zeros(1, model.generator.layers, model.generator.w_dim)
    flat = Energy(silent, images[:1], "default").curvature(zero, 0, [0])
    torch.testing.assert_close(flat, torch.ones_like(flat), atol=1e-3, rtol=0)  # the prior's own


@pytest.mark.parametrize("wrong", [{"count": 7, "chains": 2}, {"count": 0}, {"thin": 0}, {"warmup": -1}])
def test_draws_that_cannot_be_shared_out_are_refused(wrong):
    with pytest.raises(ValueError, match="draws do not go into|warmup is 0 or more"):
        Budget(**wrong)


def test_a_temperature_is_positive(model):
    with pytest.raises(ValueError, match="positive; got 0"):
        LatentPosterior(model, temperature=0)


def test_few_draws_have_no_diagnosis_and_more_have_one_for_every_class(posterior, images):
    (few, *_) = posterior.draw(images[:1], "hmc", Budget(4, 2, 5, 1))
    (more, *_) = posterior.draw(images[:1], "hmc", SHORT)
    assert few.diagnoses == {} and set(more.diagnoses or ()) == {"energy", "area of lung"}


def test_shares_count_pixels():
    probabilities = torch.zeros(2, 3, 4, 4)
    probabilities[0, 0], probabilities[1, 2] = 1, 1
    probabilities[0, 1, 0, 0] = 2
    assert MaskDraws(probabilities).shares().tolist() == [[15 / 16, 1 / 16, 0], [0, 0, 1]]
