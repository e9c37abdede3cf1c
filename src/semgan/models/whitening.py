"""A change of basis of W in which the mapping network's output has mean 0 and unit covariance.

Steps of one length then change the image by comparable amounts in every direction, and the squared norm of a code is a
Gaussian prior (Departure: the paper optimises raw w+).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semgan import seeding
from semgan.models.generator import Generator


class Whitening(nn.Module):
    """w = mean + v @ colour, v = (w - mean) @ whiten; fitted once, saved with the generator."""

    mean: Tensor
    colour: Tensor
    whiten: Tensor

    def __init__(self, w_dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(w_dim))
        self.register_buffer("colour", torch.eye(w_dim))
        self.register_buffer("whiten", torch.eye(w_dim))

    def to_w(self, v: Tensor) -> Tensor:
        """Whitened codes ``[..., w_dim]`` -> w."""
        with torch.autocast(v.device.type, enabled=False):
            return self.mean + v.float() @ self.colour

    def to_v(self, w: Tensor) -> Tensor:
        """w ``[..., w_dim]`` -> whitened codes; the inverse of `to_w`."""
        with torch.autocast(w.device.type, enabled=False):
            return (w.float() - self.mean) @ self.whiten

    def relative_error(self, v: Tensor, known: Tensor) -> Tensor:
        """Squared distance of two codes ``[..., w_dim]`` in W over the variance of W, a mean; 1 for the mean code.

        Measured in W, because most whitened directions hardly change the image and cannot be told from it.
        """
        with torch.autocast(v.device.type, enabled=False):
            difference = (v.float() - known.float()) @ self.colour
            return difference.square().sum(-1).mean() / self.colour.square().sum()


@torch.no_grad()
def fit_whitening(generator: Generator, *, samples: int = 20_000, seed: int = 0, floor: float = 1e-3) -> Whitening:
    """Whitening of the mapping network's output; axes weaker than ``floor`` times the strongest are raised to it."""
    device = generator.constant.device
    z = seeding.normal(seed, "whitening", range(samples), (generator.w_dim,)).to(device)
    w = torch.cat([generator.mapping(part) for part in z.split(4096)]).double()
    mean = w.mean(0)
    variance, axes = torch.linalg.eigh((w - mean).t() @ (w - mean) / (samples - 1))
    deviation = variance.clamp_min(0).sqrt()
    deviation = deviation.clamp_min(float(deviation.max()) * floor)
    whitening = Whitening(generator.w_dim).to(device)
    whitening.mean.copy_(mean)
    whitening.colour.copy_(deviation[:, None] * axes.t())
    whitening.whiten.copy_(axes / deviation[None, :])
    return whitening
