"""A Gaussian around a code: the prior's, tightened along the few directions in which the image speaks.

It stands in for the posterior by itself, and gives chains the coordinates they move in (`LowRankGaussian.to_z`).

In the prior's own coordinates the Hessian of the potential is I + A, where A is that of the likelihood. A few
directions of A are stiff, so that with their orthonormal U and curvatures L

    N(mode, (I + U L U')^-1),       draws: mode + z + U ((1 + L)^(-1/2) - 1) U' z,    z standard normal

is the Laplace approximation (MacKay 1992) of low rank (Bui-Thanh et al. 2013, "A computational framework for
infinite-dimensional Bayesian inverse problems, part I"). U and L come from as many products with A as there are
directions, by Lanczos' iteration (1950) with full orthogonalisation and a Rayleigh-Ritz step. Negative curvatures count
as 0, so that it is never wider than the prior. What A has beyond these directions is left out: there it is as wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semgan import seeding
from semgan.posterior.sampler import Potential, as_column, value_and_gradient

REACH = 0.05  # length of the finite differences' steps, in standard deviations of the prior
ROUNDS, DESCENT = 2, 20  # towards the mode: new coordinates, and steps in them
LONGER, SHORTER = 1.5, 0.3  # the next step, after one that led down and after one that did not
SPENT = 1e-5  # a product with nothing new: such a share of it is outside the directions that are known


@dataclass(frozen=True)
class LowRankGaussian:
    """One Gaussian a row.

    mode: ``[rows, *shape]``; directions: orthonormal ``[rows, k, dims]``; curvatures: beyond the prior's ``[rows, k]``,
    0 or more
    """

    mode: Tensor
    directions: Tensor
    curvatures: Tensor

    def draw(self, row: int, chance: Tensor) -> Tensor:
        """Standard normal ``chance [draws, *shape]`` -> draws of a row, of the same shape."""
        flat, directions = chance.flatten(1), self.directions[row]
        shrunk = (1 + self.curvatures[row]).rsqrt() - 1
        flat = flat + ((flat @ directions.T) * shrunk) @ directions
        return self.mode[row] + flat.reshape(chance.shape)

    def to_u(self, z: Tensor) -> Tensor:
        """Coordinates in which each row's Gaussian is a standard normal, ``[rows, *shape]`` -> the prior's own."""
        return self.mode + self._stretched(z, (1 + self.curvatures).rsqrt())

    def to_z(self, u: Tensor) -> Tensor:
        """The inverse of `to_u`."""
        return self._stretched(u - self.mode, (1 + self.curvatures).sqrt())

    def _stretched(self, x: Tensor, factors: Tensor) -> Tensor:
        """x with each row's directions lengthened by ``factors [rows, k]``."""
        flat = x.flatten(1)
        along = (self.directions @ flat[..., None])[..., 0] * (factors - 1)
        return (flat + (along[:, None] @ self.directions)[:, 0]).reshape(x.shape)

    def repeated(self, times: int) -> LowRankGaussian:
        """Every row so many times, one after the other."""
        return LowRankGaussian(
            *(each.repeat_interleave(times, 0) for each in (self.mode, self.directions, self.curvatures))
        )

    def pooled(self, size: int) -> LowRankGaussian:
        """Every ``size`` rows in a row share the mean of their curvatures, each around its own mode."""
        rooted = self.directions * self.curvatures.sqrt()[..., None] / size**0.5
        rooted = rooted.unflatten(0, (-1, size)).flatten(1, 2)
        _, singular, directions = torch.linalg.svd(rooted, full_matrices=False)
        return LowRankGaussian(
            self.mode, directions.repeat_interleave(size, 0), singular.square().repeat_interleave(size, 0)
        )


def fit_laplace(
    potential: Potential, mode: Tensor, *, rank: int, seed: int = 0, numbers: Sequence[int] | None = None
) -> LowRankGaussian:
    """The approximation of every row around ``mode [rows, *shape]``; it takes ``rank`` + 1 gradients.

    numbers: of the rows, which with the seed name their random numbers; default 0, 1, ...
    Raises ValueError for a mode that is not finite. Directions in which the potential is not finite count as wide.
    """
    if not bool(mode.isfinite().all()):
        raise ValueError("The code of an image is not finite, so that no posterior lies around it; is the model sound?")
    numbers = range(len(mode)) if numbers is None else numbers
    dims = mode[0].numel()
    rank = min(rank, dims)
    known = mode.new_zeros(len(mode), 0, dims)
    products = known
    candidate = mode.new_zeros(len(mode), dims)
    _, here = value_and_gradient(potential, mode)
    for step in range(rank):
        fresh = seeding.normal(seed, f"posterior/lanczos/{step}", numbers, (dims,)).to(mode)
        direction = _new_direction(candidate, fresh, known)
        candidate = likelihood_product(potential, mode, here, direction.reshape(mode.shape)).flatten(1)
        candidate = torch.where(candidate.isfinite().all(1, keepdim=True), candidate, 0.0)
        known = torch.cat([known, direction[:, None]], 1)
        products = torch.cat([products, candidate[:, None]], 1)
    inner = (known @ products.mT).double()
    curvatures, rotation = torch.linalg.eigh((inner + inner.mT) / 2)
    return LowRankGaussian(mode, rotation.to(mode).mT @ known, curvatures.clamp_min(0).to(mode))


def fit_at_mode(
    potential: Potential, start: Tensor, *, rank: int, seed: int = 0, numbers: Sequence[int] | None = None
) -> LowRankGaussian:
    """The approximation of every row around the mode that is downhill from ``start [rows, *shape]``.

    An optimised code is no mode: the optimisation hardly knows the prior. Steps of gradient descent in the coordinates
    of the approximation at ``start`` are Newton's where it is right; where one does not lead down, the row stays and
    tries a shorter one. It takes about three times ``rank`` gradients, and twice `DESCENT`.
    """
    place = start
    for _ in range(ROUNDS):
        place = _descended(potential, fit_laplace(potential, place, rank=rank, seed=seed, numbers=numbers))
    return fit_laplace(potential, place, rank=rank, seed=seed, numbers=numbers)


def _descended(potential: Potential, frame: LowRankGaussian) -> Tensor:
    """Where each row comes to by `DESCENT` steps from its mode."""

    def seen(z: Tensor) -> Tensor:
        return potential(frame.to_u(z))

    z = torch.zeros_like(frame.mode)
    lowest, gradient = value_and_gradient(seen, z)
    length = torch.ones_like(lowest)
    for _ in range(DESCENT):
        tried = z - as_column(length, z) * gradient
        value, slope = value_and_gradient(seen, tried)
        lower = value < lowest
        z = torch.where(as_column(lower, z), tried, z)
        gradient = torch.where(as_column(lower, z), slope, gradient)
        lowest = torch.where(lower, value, lowest)
        length = torch.where(lower, (LONGER * length).clamp(max=1), SHORTER * length)
    return frame.to_u(z)


def likelihood_product(potential: Potential, u: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
    """A z of unit vectors z, of u's shape: a difference of gradients, less the prior's own I z.

    gradient: of the potential at u. The perceptual distance is differentiable once, so that nothing is differentiated
    twice; a difference to both sides would cost two gradients for modes and masks that are no better.
    """
    ahead = value_and_gradient(potential, u + REACH * direction)[1]
    return (ahead - gradient) / REACH - direction


def _new_direction(candidate: Tensor, fresh: Tensor, known: Tensor) -> Tensor:
    """Unit vectors ``[rows, dims]`` orthogonal to ``known [rows, k, dims]``: the candidates' rest, or where there is
    none that of the fresh ones."""
    rest = _orthogonal(candidate, known)
    spent = rest.norm(dim=1) <= SPENT * candidate.norm(dim=1)
    rest = torch.where(spent[:, None], _orthogonal(fresh, known), rest)
    unit = rest / rest.norm(dim=1, keepdim=True)
    unit = _orthogonal(unit, known)  # a short rest is full of rounding
    return unit / unit.norm(dim=1, keepdim=True)


def _orthogonal(x: Tensor, known: Tensor) -> Tensor:
    for _ in range(2):  # twice is enough (Giraud et al. 2005)
        x = x - ((x[:, None] @ known.mT) @ known)[:, 0]
    return x
