"""The low-rank Laplace approximation against Gaussians that are known."""

from __future__ import annotations

import pytest
import torch

from semgan.posterior.laplace import LowRankGaussian, fit_at_mode, fit_laplace
from semgan.posterior.latent import Energy, LatentPosterior

SHAPE, DIMS = (20, 15), 300


def orthonormal(count, seed=0):
    """``[count, DIMS]``, dense."""
    chance = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(DIMS, count, generator=chance))[0].T


def quadratic(directions, curvatures, modes):
    """1/2 (u - mode)'(I + sum of c a a')(u - mode), every row around its own mode."""

    def potential(u):
        flat = (u - modes).flatten(1)
        return 0.5 * (flat.square().sum(1) + ((flat @ directions.T).square() * curvatures).sum(1))

    return potential


def drawn(directions, curvatures, *, rank=16, draws=3000):
    """Deviations from the mode of the second of two rows, ``[draws, DIMS]``."""
    chance = torch.Generator().manual_seed(1)
    modes = torch.randn(2, *SHAPE, generator=chance)
    found = fit_laplace(quadratic(directions, torch.tensor(curvatures), modes), modes, rank=rank)
    return (found.draw(1, torch.randn(draws, *SHAPE, generator=chance)) - modes[1]).flatten(1)


def test_one_dense_stiff_direction_is_found_and_the_others_keep_the_priors_width():
    """H = I + 1e4 a a'. Its diagonal is about 34 everywhere: a diagonal approximation would be wrong in all."""
    directions = orthonormal(6)
    found = drawn(directions[:1], [1e4])
    assert float((found @ directions[0]).std()) == pytest.approx(1e-2, rel=0.1)
    assert (found @ directions[1:].T).std(0).tolist() == pytest.approx([1.0] * 5, rel=0.1)
    across = found - torch.outer(found @ directions[0], directions[0])
    assert float(across.square().sum(1).mean()) == pytest.approx(DIMS - 1, rel=0.02)


def test_directions_of_all_stiffnesses_get_their_own_width():
    directions, curvatures = orthonormal(6), [1e4, 2e3, 300.0, 80.0, 15.0, 3.0]
    expected = [(1 + each) ** -0.5 for each in curvatures]
    assert (drawn(directions, curvatures) @ directions.T).std(0).tolist() == pytest.approx(expected, rel=0.1)


def test_the_stiffest_are_found_where_there_are_more_than_the_rank():
    directions, curvatures = orthonormal(60), torch.logspace(4, 0, 60)
    widths = (drawn(directions, curvatures.tolist()) @ directions.T).std(0)
    assert widths[:4].tolist() == pytest.approx((1 + curvatures[:4]).rsqrt().tolist(), rel=0.15)
    assert float(widths[-10:].min()) > 0.5  # and none is invented


def test_negative_curvatures_never_widen_the_prior():
    directions = orthonormal(3)
    found = drawn(directions, [100.0, -0.9, -50.0])
    assert (found @ directions.T).std(0).tolist() == pytest.approx([101**-0.5, 1, 1], rel=0.1)


def test_in_its_own_coordinates_each_row_is_a_standard_normal_and_back_again():
    directions, curvatures = orthonormal(4), torch.tensor([1e4, 300.0, 20.0, 2.0])
    modes = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    potential = quadratic(directions, curvatures, modes)
    found = fit_laplace(potential, modes, rank=16)
    z = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(potential(found.to_u(z)), 0.5 * z.square().sum((1, 2)), rtol=1e-2, atol=0)
    torch.testing.assert_close(found.to_z(found.to_u(z)), z, rtol=0, atol=1e-2)
    torch.testing.assert_close(found.draw(1, z[1:]), found.to_u(z)[1:], rtol=0, atol=1e-4)


def test_pooled_rows_share_the_mean_of_their_curvatures_and_no_other_rows():
    axes = torch.eye(DIMS)[:3]
    own = torch.tensor([[8.0, 2.0], [4.0, 6.0], [1.0, 1.0], [3.0, 5.0]])
    places = [[0, 1], [0, 2], [1, 2], [1, 2]]
    fitted = LowRankGaussian(torch.zeros(4, *SHAPE), torch.stack([axes[each] for each in places]), own)
    together = fitted.pooled(2)
    dense = (together.directions.mT * together.curvatures[:, None]) @ together.directions
    expected = [[6.0, 1.0, 3.0], [6.0, 1.0, 3.0], [0.0, 2.0, 3.0], [0.0, 2.0, 3.0]]
    torch.testing.assert_close(dense.diagonal(dim1=1, dim2=2)[:, :3], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert fitted.repeated(2).curvatures.tolist() == own.repeat_interleave(2, 0).tolist()


def test_a_mode_that_is_not_finite_is_refused_and_an_unknown_direction_is_as_wide_as_the_prior():
    directions, modes = orthonormal(2), torch.zeros(2, *SHAPE)
    with pytest.raises(ValueError, match="not finite"):
        fit_laplace(quadratic(directions, torch.tensor([5.0, 1.0]), modes), modes + torch.nan, rank=4)

    def cut(u):
        """Of the first row, infinite but at its mode."""
        is_cut = (torch.arange(2) == 0) & (u.detach().flatten(1).norm(dim=1) > 0)
        return quadratic(directions, torch.tensor([99.0, 24.0]), modes)(u) * torch.where(is_cut, torch.inf, 1.0)

    found = fit_laplace(cut, modes, rank=8)
    assert found.curvatures[0].tolist() == [0.0] * 8
    assert found.curvatures[1].max().item() == pytest.approx(99, rel=0.05)


def test_the_mode_is_found_from_afar_and_fitted_there():
    directions, curvatures = orthonormal(20), torch.logspace(4, 0, 20)
    modes = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    start = modes + 3 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = fit_at_mode(quadratic(directions, curvatures, modes), start, rank=16)
    torch.testing.assert_close(found.mode, modes, rtol=0, atol=0.05)
    assert found.curvatures[:, -1].tolist() == pytest.approx([1e4, 1e4], rel=0.1)


def test_the_way_to_the_mode_never_leads_up_and_a_bad_step_costs_its_row_alone():
    """A double well beside a quadratic: where curvature is negative, the first step is far too long."""

    def potential(u):
        flat = u.flatten(1)
        return 0.5 * flat[:, 1:].square().sum(1) + 50 * (flat[:, 0].square() - 4).square()

    start = torch.zeros(2, 2, 3)
    start[0, 0, 0], start[1, 0, 0], start[:, 1] = 0.1, 2.0, 1.0
    found = fit_at_mode(potential, start, rank=4)
    assert found.mode[:, 0, 0].tolist() == pytest.approx([2, 2], abs=0.05)
    assert bool((potential(found.mode) <= potential(start)).all())
    assert float(found.mode.flatten(1)[:, 1:].abs().max()) < 0.05


def test_a_row_is_fitted_alone_as_among_others():
    directions = orthonormal(3)
    modes = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    curvatures = torch.tensor([500.0, 60.0, 7.0])
    together = fit_laplace(quadratic(directions, curvatures, modes), modes, rank=8, seed=4)
    alone = fit_laplace(quadratic(directions, curvatures, modes[2:]), modes[2:], rank=8, seed=4, numbers=[2])
    chance = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(alone.draw(0, chance), together.draw(2, chance), atol=1e-3, rtol=0)


def test_fewer_dimensions_than_the_rank_are_fitted_exactly():
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    hessian = torch.eye(6) + root @ root.T

    def potential(u):
        return 0.5 * ((u.flatten(1) @ hessian) * u.flatten(1)).sum(1)

    found = fit_laplace(potential, torch.zeros(1, 2, 3), rank=16)
    precision = torch.eye(6) + (found.directions[0].T * found.curvatures[0]) @ found.directions[0]
    torch.testing.assert_close(precision, hessian, atol=1e-2, rtol=1e-3)
    covariance = found.draw(0, torch.eye(6).reshape(6, 2, 3)).flatten(1)
    torch.testing.assert_close(covariance @ covariance.T, torch.linalg.inv(hessian), atol=1e-3, rtol=0)


def test_an_images_stiff_directions_are_those_in_which_its_energy_rises(model, images):
    posterior = LatentPosterior(model, temperature=1e-4)
    energy = Energy(posterior, images[:2], "default")
    mode = torch.zeros(2, model.generator.layers, model.generator.w_dim)
    found = fit_laplace(energy, mode, rank=12)
    stiffest, step = found.directions[:, -1].reshape(mode.shape), 0.05
    with torch.no_grad():
        rise = (energy(step * stiffest) + energy(-step * stiffest) - 2 * energy(mode)) / step**2
    torch.testing.assert_close(1 + found.curvatures[:, -1], rise, rtol=0.2, atol=2.0)
    assert bool((found.curvatures[:, -1] > 10).all())


def test_a_silent_likelihood_leaves_the_prior(model, images):
    silent = LatentPosterior(model, temperature=1e9)
    mode = torch.zeros(1, model.generator.layers, model.generator.w_dim)
    found = fit_laplace(Energy(silent, images[:1], "default"), mode, rank=8)
    assert isinstance(found, LowRankGaussian) and float(found.curvatures.max()) < 1e-2
    chance = torch.randn(4, *mode.shape[1:], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.draw(0, chance), chance, atol=1e-2, rtol=0)
