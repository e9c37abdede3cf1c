"""Adversarial losses and regularisers of stage 1 (method sec. 3). Networks come as arguments; results are scalars."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from semgan import ranks


def logistic_critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))) on logits ``[batch]`` (Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def logistic_generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating -log D(G(z))."""
    return F.softplus(-fake).mean()


def hinge_critic_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Hinge loss averaged over scales; scores of any shape (Lim and Ye 2017)."""
    losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def hinge_generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """-D(G(z)) averaged over scales; scores of any shape (Lim and Ye 2017)."""
    return torch.stack([-f.mean() for f in fake]).mean()


def feature_matching_pairs(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """L1 distance of features, image by image (Wang et al. 2018, eq. 4), averaged over scales and layers.

    real, fake: by scale, then by layer, feature maps of any shape. The authors' code adds the layers up: with its four
    layers this is a quarter of theirs.
    """
    return torch.stack(
        [
            (r.detach().float() - f.float()).abs().mean()
            for scale_real, scale_fake in zip(real, fake, strict=True)
            for r, f in zip(scale_real, scale_fake, strict=True)
        ]
    ).mean()


def feature_matching_means(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """L1 distance of the batch means of features (Salimans et al. 2016, sec. 3.1), averaged over scales and layers.

    Departure: real and generated pairs show different objects, so matching them one by one pulls every generated
    label towards the average label; matching means does not.
    """
    return torch.stack(
        [
            ranks.mean(r.detach().float().mean(0) - f.float().mean(0)).abs().mean()
            for scale_real, scale_fake in zip(real, fake, strict=True)
            for r, f in zip(scale_real, scale_fake, strict=True)
        ]
    ).mean()


def r1_penalty(score: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Squared norm of the gradient of the summed score by the inputs, mean over the batch (Mescheder et al. 2018)."""
    gradients = torch.autograd.grad(score.sum(), list(inputs), create_graph=True)
    return torch.stack([g.float().square().sum((1, 2, 3)) for g in gradients]).sum(0).mean()


def path_lengths(image: Tensor, w_plus: Tensor, noise: Tensor) -> Tensor:
    """Norm of the Jacobian-vector product J_w^T y for images y of noise, per image (Karras et al. 2020, eq. 4).

    image ``[batch, C, R, R]`` made from w_plus ``[batch, layers, w_dim]``; noise is standard normal, of image's shape.
    """
    side = image.shape[-1]
    projection = (image * noise).sum() / side
    (gradient,) = torch.autograd.grad(projection, w_plus, create_graph=True)
    return gradient.float().square().sum(2).mean(1).sqrt()
