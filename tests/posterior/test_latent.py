"""Masks drawn for images of a tiny generator: the prior where the likelihood is silent, the image where it speaks."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from semgan.posterior import latent, preconditioning
from semgan.posterior.calibration import calibrate
from semgan.posterior.diagnostics import Diagnosis
from semgan.posterior.latent import Budget, Energy, LatentPosterior, MaskDraws
from semgan.posterior.sampler import Kernel, run_chains
from semgan.stages.semantic_gan import SemanticGan

CHAINS = ("hmc", "mala", "langevin")
SHORT = Budget(count=8, chains=2, warmup=15, thin=1)
MOVING = Budget(count=16, chains=2, warmup=20, thin=3)  # a chain that stays where it is for 24 moves is none


@pytest.fixture(scope="module")
def posterior(model):
    return LatentPosterior(model, temperature=1e-3)


@pytest.fixture(scope="module")
def warm(posterior):
    """Hot enough for chains to move after a short warm-up."""
    return LatentPosterior(posterior.model, temperature=3e-2, prior=posterior.prior)


@pytest.fixture(scope="module")
def moved(warm, images):
    """``moved(method)``: draws of every image, once for all tests that look at them."""
    return functools.cache(lambda method: warm.draw(images, method, MOVING))


@pytest.mark.parametrize("method", ["hmc", "mala", "langevin", "laplace", "iterates"])
def test_every_method_draws_masks_that_are_probabilities(moved, images, method):
    draws = moved(method)
    assert len(draws) == len(images)
    for each in draws:
        assert each.probabilities.shape == (16, 2, 16, 16)
        torch.testing.assert_close(each.mean.sum(0), torch.ones(16, 16), atol=2e-3, rtol=0)
        assert each.label_maps.shape == (16, 16, 16) and each.shares().sum(1) == pytest.approx(1)
        assert (each.acceptance is not None) == (method in CHAINS)
        own = each.probabilities.float().unflatten(0, (MOVING.chains, MOVING.per_chain))
        assert float(own.std(1).amax((1, 2, 3)).min()) > 1e-3  # they differ, within every chain


def test_laplace_lies_around_the_optimised_code(posterior, images, monkeypatch):
    """Its draws' mean code is that of the steps asked for; antithetic chance makes the mean exact."""
    seen, normal = [], latent.seeding.normal

    def antithetic(seed, name, numbers, shape):
        half = normal(seed, name, list(numbers)[::2], shape)
        return torch.cat([half, -half]) if name == "posterior/laplace" else normal(seed, name, numbers, shape)

    monkeypatch.setattr(posterior, "masks", lambda u: seen.append(u) or torch.zeros(len(u), 2, 16, 16))
    monkeypatch.setattr(latent.seeding, "normal", antithetic)
    monkeypatch.setattr(latent, "LAPLACE_RANK", 4)
    for steps in (0, 3):
        posterior.draw(images[:1], "laplace", Budget(count=8, chains=1), steps=steps)
        code = posterior.model.segment_batch(images[:1], steps=steps).w_plus
        expected = posterior.prior.to_u(posterior.model.whitening.to_v(code))[0]
        torch.testing.assert_close(seen.pop().mean(0), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", CHAINS)
def test_chains_move_and_a_chain_that_cannot_is_told(warm, moved, images, method, monkeypatch):
    draws, *_ = moved(method)
    assert draws.acceptance > 0.2 and draws.energies.shape == (16,)
    assert (np.ptp(draws.energies.reshape(2, 8), axis=1) > 0).all()
    assert math.isfinite(draws.diagnoses["energy"].r_hat)
    monkeypatch.setitem(latent.KERNELS, method, Kernel(step_size=1e6))
    (stuck,) = warm.draw(images[:1], method, Budget(count=8, chains=2, warmup=0, thin=1))
    assert stuck.acceptance < 0.01 and stuck.diagnoses["energy"] == Diagnosis(math.inf, 2.0)


def test_diagnoses_see_every_move_and_draws_are_every_nth(posterior, images, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        latent, "diagnose", lambda values, **options: seen.update({len(seen): (values, options)}) or Diagnosis(1.0, 1.0)
    )
    (draws,) = posterior.draw(images[:1], "mala", Budget(count=4, chains=2, warmup=10, thin=3))
    (energies, first), (areas, second) = seen.values()
    assert energies.shape == areas.shape == (2, 6)
    assert first == {"draws": 4, "must_move": True} and second == {"draws": 4}
    assert draws.energies.tolist() == energies[:, 2::3].reshape(-1).tolist()
    assert draws.shares()[:, 1] == pytest.approx(areas[:, 2::3].reshape(-1))


@pytest.mark.parametrize("method", ["laplace", "mala"])
def test_an_image_has_the_same_draws_among_others(posterior, images, method, monkeypatch):
    """Its number tells them, not its place nor its neighbours; but for rounding, which chains and Lanczos' iteration
    amplify (in a batch of another size some processors round so differently that a move is taken, or not)."""
    monkeypatch.setattr(preconditioning, "RANK", 4)
    monkeypatch.setattr(latent, "LAPLACE_RANK", 4)
    few = Budget(count=4, chains=2, warmup=1, thin=1)

    def drawn(order, place, seed=0, **options):
        return posterior.draw(images[order], method, few, seed=seed, **options)[place].probabilities.float()

    last, first, other = drawn([0, 1, 2], 2), drawn([2, 1, 0], 0, first=2), drawn([2, 1, 0], 0, 5, first=2)
    assert float((first - last).abs().mean()) < 0.1 * float((first - other).abs().mean())


@pytest.mark.parametrize("steps", [None, 3, 30])
def test_iterates_are_the_last_of_at_least_twice_as_many_steps(posterior, images, steps, monkeypatch):
    asked, segment = [], posterior.model.segment_batch

    def noted(image, **given):
        asked.append(given)
        return segment(image, **given)

    monkeypatch.setattr(posterior.model, "segment_batch", noted)
    posterior.draw(images[:1], "iterates", SHORT, steps=steps)
    last = 30 if steps == 30 else 16
    assert asked[0]["steps"] == last and asked[0]["snapshot_steps"] == tuple(range(last - 7, last + 1))


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


@pytest.mark.parametrize("wrong", [{"count": 7, "chains": 2}, {"count": 0}, {"thin": 0}, {"warmup": -1}])
def test_draws_that_cannot_be_shared_out_are_refused(wrong):
    with pytest.raises(ValueError, match="draws do not go into|warmup is 0 or more"):
        Budget(**wrong)


def test_a_temperature_is_positive(model):
    with pytest.raises(ValueError, match="positive; got 0"):
        LatentPosterior(model, temperature=0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"lambda_pose": 0.01}, "inversion.lambda_pose=null,"),
        ({"lambda_tone": 0.0}, "inversion.lambda_tone=null,"),
        ({"optimise_noise": True}, "inversion.optimise_noise=false,"),
    ],
)
def test_a_model_that_explains_by_more_than_codes_is_refused(model, images, more, told):
    inversion = model.settings.inversion.model_copy(update=more)
    settings = model.settings.model_copy(update={"inversion": inversion})
    other = SemanticGan(settings, model.generator, model.whitening, model.encoder, model.perceptual)
    with pytest.raises(ValueError, match=f"Train a model with --set {told} or set the same"):
        LatentPosterior(other, temperature=1e-3)
    with pytest.raises(ValueError, match=f"Train a model with --set {told} or set the same"):
        calibrate(other, images, np.zeros((3, 16, 16)))


def test_few_draws_have_no_diagnosis_and_more_have_one_for_every_class(posterior, images):
    (few, *_) = posterior.draw(images[:1], "mala", Budget(4, 2, 5, 1))
    (more, *_) = posterior.draw(images[:1], "mala", SHORT)
    assert few.diagnoses == {} and set(more.diagnoses or ()) == {"energy", "area of lung"}


def test_shares_count_pixels():
    probabilities = torch.zeros(2, 3, 4, 4)
    probabilities[0, 0], probabilities[1, 2] = 1, 1
    probabilities[0, 1, 0, 0] = 2
    assert MaskDraws(probabilities).shares().tolist() == [[15 / 16, 1 / 16, 0], [0, 0, 1]]
