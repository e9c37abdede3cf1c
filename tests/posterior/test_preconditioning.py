"""Chains in the coordinates of a Laplace approximation: the right distribution, and sooner than without."""

from __future__ import annotations

import pytest
import torch

from semgan.posterior.diagnostics import diagnose
from semgan.posterior.latent import KERNELS
from semgan.posterior.preconditioning import Chains, run_preconditioned
from semgan.posterior.sampler import Kernel, run_chains

KERNEL = KERNELS["hmc"]
DIMS, STIFF = 60, 8


def stiff(u):
    """A Gaussian whose first directions are far narrower than the prior, around 3 standard deviations of them."""
    flat = u.flatten(1)
    curvatures = torch.cat([torch.logspace(1, 4, STIFF, dtype=u.dtype), torch.zeros(DIMS - STIFF, dtype=u.dtype)])
    centre = 3 * (1 + curvatures).rsqrt() * (curvatures > 0)
    return 0.5 * ((1 + curvatures) * (flat - centre).square()).sum(1)


def moved(potential, start, chains, kernel=KERNEL):
    kept = []
    run_preconditioned(potential, potential, start, kernel, chains, lambda number, u, energy: kept.append((u, energy)))
    return torch.stack([u for u, _ in kept], 1), torch.stack([energy for _, energy in kept], 1)


def test_stiff_and_free_directions_have_their_own_mean_and_width():
    draws, _ = moved(stiff, torch.zeros(1, 6, 10, dtype=torch.float64), Chains(64, 20, 30))
    flat = draws.flatten(2).flatten(0, 1)
    curvatures = torch.cat([torch.logspace(1, 4, STIFF), torch.zeros(DIMS - STIFF)]).double()
    widths = (1 + curvatures).rsqrt()
    assert (flat.std(0) / widths).tolist() == pytest.approx([1] * DIMS, abs=0.12)
    assert (flat.mean(0) / widths)[:STIFF].tolist() == pytest.approx([3] * STIFF, abs=0.15)


def test_a_default_budget_converges_where_the_same_moves_without_it_do_not():
    start = torch.zeros(1, 6, 10, dtype=torch.float64)
    _, energies = moved(stiff, start, Chains(4, 30, 24))
    plain: list[torch.Tensor] = []
    run_chains(stiff, start.repeat(4, 1, 1), KERNEL, warmup=30, draws=24, visit=lambda n, u, e: plain.append(e))
    assert diagnose(energies.numpy()).r_hat < 1.1
    assert diagnose(torch.stack(plain, 1).numpy()).r_hat > 1.3


def test_a_posterior_that_bends_keeps_its_distribution():
    """u_1 given u_0 is narrow around u_0^2 / 4: what is stiff depends on where one is; u_0 is a standard normal."""

    def banana(u):
        flat = u.flatten(1)
        return 0.5 * flat[:, 0] ** 2 + 0.5 * ((flat[:, 1] - flat[:, 0] ** 2 / 4) / 0.2) ** 2

    draws, _ = moved(banana, torch.zeros(1, 1, 2, dtype=torch.float64), Chains(300, 40, 60))
    along, across = draws[..., 0, 0], draws[..., 0, 1]
    assert float(along.mean()) == pytest.approx(0, abs=0.1) and float(along.var()) == pytest.approx(1, abs=0.1)
    assert float((across - along**2 / 4).std()) == pytest.approx(0.2, rel=0.1)
    assert float((along**4).mean()) == pytest.approx(3, abs=0.7)


def test_chains_begin_as_far_apart_as_the_approximation_is_wide():
    draws, _ = moved(stiff, torch.zeros(1, 6, 10, dtype=torch.float64), Chains(400, 0, 1), Kernel(1, step_size=1e-6))
    curvatures = torch.cat([torch.logspace(1, 4, STIFF), torch.zeros(DIMS - STIFF)]).double()
    assert (draws[:, 0].flatten(1).std(0) * (1 + curvatures).sqrt()).tolist() == pytest.approx([1] * DIMS, abs=0.15)


def test_stiffness_that_only_the_warm_up_comes_to_is_measured_there():
    def stiff_outside(u):
        """At the mode nothing is stiff; the first axis is where the mass is, as far out as 38 dimensions have it."""
        flat = u.flatten(1)
        stiffness = 5000 * torch.sigmoid(4 * (flat[:, 2:].square().sum(1) - 10))
        return 0.5 * flat.square().sum(1) + 0.5 * stiffness * flat[:, 0].square()

    start = torch.zeros(1, 1, 40, dtype=torch.float64)
    report = run_preconditioned(stiff_outside, stiff_outside, start, KERNEL, Chains(4, 60, 1), lambda *_: None)
    assert float(report.step_size.min()) > 0.06


def test_an_image_moves_alone_as_among_others_and_chains_differ():
    start = torch.zeros(3, 6, 10, dtype=torch.float64)
    together, _ = moved(stiff, start, Chains(2, 6, 4))
    alone, _ = moved(stiff, start[2:], Chains(2, 6, 4, first=2))
    torch.testing.assert_close(alone, together[4:], rtol=0, atol=1e-6)
    assert float((together[0] - together[1]).abs().max()) > 0.1
    other, _ = moved(stiff, start[2:], Chains(2, 6, 4, first=2, seed=1))
    assert float((other - alone).abs().max()) > 0.1


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_progress_counts_all_moves_of_both_parts_and_short_warm_ups_work(warmup):
    seen = []
    run_preconditioned(
        stiff,
        stiff,
        torch.zeros(1, 6, 10, dtype=torch.float64),
        Kernel(1),
        Chains(2, warmup, 3),
        lambda *_: None,
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert seen == [(done + 1, warmup + 3) for done in range(warmup + 3)]
