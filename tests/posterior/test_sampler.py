"""Chains against densities that are known: Gaussians, a linear generator, and NUTS of another library."""

from __future__ import annotations

import math

import pytest
import torch

from semgan.posterior.sampler import Kernel, run_chains

KERNELS = {
    "mala": Kernel(leapfrog_steps=1, accept=0.57),
    "hmc": Kernel(leapfrog_steps=6, accept=0.75),
    "underdamped": Kernel(leapfrog_steps=2, persistence=0.6, accept=0.8),
}
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
ROOT = torch.tensor([[1.0, 0, 0], [0.7, 0.6, 0], [-0.3, 0.2, 0.4]], dtype=torch.float64)


def gaussian(x):
    return 0.5 * torch.linalg.solve_triangular(ROOT, (x - MEAN).T, upper=False).square().sum(0)


def draws_of(potential, start, kernel, **options):
    """[chains, draws, ...] and the report."""
    kept = []
    report = run_chains(potential, start, kernel, visit=lambda number, x, u: kept.append(x.clone()), **options)
    return torch.stack(kept, 1), report


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_draws_from_a_correlated_gaussian(name):
    start = torch.zeros(96, 3, dtype=torch.float64)
    draws, report = draws_of(gaussian, start, KERNELS[name], warmup=150, draws=200)
    flat = draws.reshape(-1, 3)
    torch.testing.assert_close(flat.mean(0), MEAN, atol=0.06, rtol=0)
    torch.testing.assert_close(flat.T.cov(), ROOT @ ROOT.T, atol=0.08, rtol=0.1)
    assert (report.acceptance.mean() - KERNELS[name].accept).abs() < 0.12


def test_a_wrong_acceptance_rule_would_be_seen():
    """A density that is not smooth in scale: without the accept step its variance is off."""
    potential = lambda x: x[:, 0].abs() * 3  # noqa: E731  # Laplace, variance 2 / 9
    draws, _ = draws_of(potential, torch.zeros(200, 1, dtype=torch.float64), Kernel(4), warmup=150, draws=150)
    assert float(draws.var()) == pytest.approx(2 / 9, rel=0.1)


def test_a_refused_proposal_turns_the_momentum_round():
    """exp(-x^4 / 4), with most proposals refused: without the turn, the variance comes out at 1.07."""
    kernel, start = Kernel(1, persistence=0.9, accept=0.45), torch.zeros(300, 1, dtype=torch.float64)
    draws, _ = draws_of(lambda x: 0.25 * x[:, 0] ** 4, start, kernel, warmup=100, draws=150)
    assert float(draws.var()) == pytest.approx(0.676, abs=0.15)


def test_a_linear_generator_has_the_posterior_of_the_textbook():
    """x = A u + noise, u standard normal: u | x is Gaussian with precision I + A'A / s^2."""
    chance = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 4, generator=chance, dtype=torch.float64)
    image, variance = torch.randn(6, generator=chance, dtype=torch.float64), 0.5
    precision = torch.eye(4, dtype=torch.float64) + matrix.T @ matrix / variance
    mean = torch.linalg.solve(precision, matrix.T @ image / variance)

    def potential(u):
        return 0.5 * u.square().sum(1) + 0.5 * (u @ matrix.T - image).square().sum(1) / variance

    draws, _ = draws_of(potential, torch.zeros(48, 4, dtype=torch.float64), Kernel(6), warmup=150, draws=250)
    flat = draws.reshape(-1, 4)
    torch.testing.assert_close(flat.mean(0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(flat.T.cov(), torch.linalg.inv(precision), atol=0.04, rtol=0)


def test_a_curved_density_agrees_with_nuts_of_pyro():
    mcmc = pytest.importorskip("pyro.infer.mcmc")
    import pyro

    def potential(x):  # a banana: x1 follows x0 squared
        return 0.5 * x[:, 0].square() + 0.5 * ((x[:, 1] - 0.7 * x[:, 0].square()) / 0.6).square()

    pyro.set_rng_seed(0)
    nuts = mcmc.NUTS(potential_fn=lambda z: potential(z["x"][None])[0], jit_compile=False)
    other = mcmc.MCMC(
        nuts, num_samples=400, warmup_steps=100, initial_params={"x": torch.zeros(2)}, disable_progbar=True
    )
    other.run()
    theirs = other.get_samples()["x"]
    draws, _ = draws_of(potential, torch.zeros(64, 2), Kernel(8), warmup=200, draws=150)
    ours = draws.reshape(-1, 2)
    for quantity in (lambda x: x[:, 1], lambda x: x[:, 1].square(), lambda x: x[:, 0].square()):
        spread = float(quantity(theirs).std()) / 130**0.5  # a third of their draws count, about
        assert abs(float(quantity(theirs).mean() - quantity(ours).mean())) < 4 * spread


def test_a_chain_does_not_know_the_others():
    start = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = {"warmup": 20, "draws": 10, "seed": 3}
    together, _ = draws_of(gaussian, start, Kernel(3), **options)
    alone, _ = draws_of(gaussian, start[3:4], Kernel(3), numbers=[3], **options)
    torch.testing.assert_close(alone[0], together[3], rtol=0, atol=1e-12)
    other, _ = draws_of(gaussian, start, Kernel(3), warmup=20, draws=10, seed=4)
    assert not torch.allclose(other, together)


def test_places_without_density_are_never_entered():
    def potential(x):
        return torch.where(x[:, 0] > 0, x[:, 0], torch.full_like(x[:, 0], torch.nan))

    draws, report = draws_of(potential, torch.ones(32, 1), Kernel(1, step_size=2.0), warmup=50, draws=100)
    assert bool((draws > 0).all()) and float(report.acceptance.mean()) > 0.2
    with pytest.raises(ValueError, match="not finite at the start"):
        draws_of(potential, -torch.ones(2, 1), Kernel(1), warmup=1, draws=1)


@pytest.mark.parametrize("wrong", [{"leapfrog_steps": 0}, {"persistence": 1.0}, {"accept": 1.0}, {"step_size": 0.0}])
def test_kernels_that_cannot_move_are_refused(wrong):
    with pytest.raises(ValueError, match="A kernel takes"):
        Kernel(**wrong)


def test_every_move_after_the_warm_up_is_visited():
    seen = []
    run_chains(
        gaussian, torch.zeros(2, 3, dtype=torch.float64), Kernel(1), warmup=3, draws=4,
        visit=lambda number, x, u: seen.append(number),
    )  # fmt: skip
    assert seen == [0, 1, 2, 3]


def test_a_trajectory_is_never_longer_than_the_kernels_reach():
    def found(reach):
        start = torch.zeros(3, 2, dtype=torch.float64)
        _, report = draws_of(lambda x: 5e-5 * x.square().sum(1), start, Kernel(4, reach=reach), warmup=40, draws=1)
        return report.step_size

    assert found(0.4).tolist() == pytest.approx([0.1] * 3)
    assert float(found(math.inf).min()) > 0.4


def test_parts_have_random_numbers_of_their_own_and_step_sizes_carry_over():
    start = torch.zeros(2, 3, dtype=torch.float64)
    first, report = draws_of(gaussian, start, Kernel(1), warmup=0, draws=3, part="a/")
    second, _ = draws_of(gaussian, start, Kernel(1), warmup=0, draws=3, part="b/")
    assert not torch.allclose(first, second) and torch.equal(report.position, first[:, -1])
    slow, carried = draws_of(gaussian, start, Kernel(1), warmup=0, draws=3, step_size=torch.tensor([1e-3, 0.05]))
    assert carried.step_size.tolist() == pytest.approx([1e-3, 0.05])
    assert float(slow[0].abs().max()) < 0.02 < float(slow[1].abs().max())
