"""p(w+): a Gaussian over whitened codes in which the layers are coupled, fitted to the mapping network.

In training every image has one w in all layers, or with style mixing two, one before and one after a random layer. So
codes of neighbouring layers are nearly always equal. Of whitened codes v, of mean 0 and unit covariance in every layer,

    cov(v[l, i], v[m, j]) = coupling[l, m] if i = j else 0,    coupling[l, l] = 1

says that much and no more. A Gaussian exactly so coupled would leave an image no room to be anything but a sample:
``slack`` mixes in layers that are free of one another (Departure: the supplement proposes no form).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semgan import seeding
from semgan.models.generator import Generator
from semgan.models.whitening import Whitening


@dataclass(frozen=True)
class CodePrior:
    """N(mean, coupling (x) I) over whitened codes v ``[batch, layers, w_dim]``.

    mean: ``[layers, w_dim]``; root: lower Cholesky factor of the coupling ``[layers, layers]``
    """

    mean: Tensor
    root: Tensor

    def to_v(self, u: Tensor) -> Tensor:
        """Independent standard normal coordinates u ``[..., layers, w_dim]`` -> v."""
        return self.mean + torch.einsum("lm,...mi->...li", self.root, u)

    def to_u(self, v: Tensor) -> Tensor:
        """The inverse of `to_v`."""
        flat = (v - self.mean).movedim(-2, 0)
        solved = torch.linalg.solve_triangular(self.root, flat.reshape(len(self.root), -1), upper=False)
        return solved.reshape(flat.shape).movedim(0, -2)

    def energy(self, v: Tensor) -> Tensor:
        """-log density up to a constant, ``[batch]``."""
        return 0.5 * self.to_u(v).square().sum((-2, -1))


@dataclass(frozen=True)
class Coupling:
    """How the layers' codes go together. mean: ``[layers, w_dim]``; correlation: ``[layers, layers]``; float64."""

    mean: Tensor
    correlation: Tensor

    def prior(self, slack: float) -> CodePrior:
        """The prior with slack in (0, 1]: 1, no coupling. Raises ValueError for a slack that leaves no room."""
        if not 0 < slack <= 1:
            raise ValueError(f"slack must be in (0, 1]; got {slack:g}. 1 lets every layer vary alone.")
        alone = torch.eye(len(self.correlation)).to(self.correlation)
        coupling = (1 - slack) * self.correlation + slack * alone
        return CodePrior(self.mean.float(), torch.linalg.cholesky(coupling).float())


@torch.no_grad()
def fit_coupling(
    generator: Generator, whitening: Whitening, *, style_mixing: float, samples: int = 10_000, seed: int = 0
) -> Coupling:
    """The coupling of a generator that was trained with ``style_mixing`` (probability), from codes of its own."""
    device = generator.constant.device
    z = seeding.normal(seed, "prior/z", range(samples), (2, generator.w_dim)).to(device)
    draws = seeding.uniform(seed, "prior/mixing", range(samples), (2,)).to(device)
    v = torch.cat(
        [
            whitening.to_v(generator.mixed(some, their, style_mixing))
            for some, their in zip(z.split(1024), draws.split(1024), strict=True)
        ]
    ).double()
    mean = v.mean(0)
    centred = v - mean
    covariance = torch.einsum("nli,nmi->lm", centred, centred)
    deviation = covariance.diagonal().sqrt()
    return Coupling(mean, covariance / (deviation[:, None] * deviation[None, :]))
