"""Augmentation of what the critics see (Karras et al. 2020, ADA): differentiable, and one geometry for image and mask.

Applied to real and generated inputs alike, so that the generator learns the unaugmented distribution as long as the
augmentation is not certain. Randomness comes in as uniform draws ``[batch, DRAWS]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from semgan import ranks

DRAWS = 14  # uniform numbers needed per image
ADAPTIVE_LIMIT = 0.8  # beyond this probability augmentations leak into the generated images [ADA]


@dataclass(frozen=True)
class AugmentationRange:
    """How far each kind of change may go; all are drawn uniformly in +- the value."""

    scale: float = 0.15
    translate: float = 0.125  # share of the side
    rotate_deg: float = 10.0
    brightness: float = 0.2  # of the range [-1, 1], added
    contrast: float = 0.3  # log of the factor
    saturation: float = 0.5  # log of the factor; colour images only


def _signed(draws: Tensor, gate: Tensor, probability: Tensor | float) -> Tensor:
    """Uniform in [-1, 1] where the gate is open, else 0."""
    return torch.where(gate < probability, 2 * draws - 1, torch.zeros_like(draws))


def affine_matrices(
    draws: Tensor, probability: Tensor | float, limits: AugmentationRange, *, mirror: bool = False
) -> Tensor:
    """``[batch, 2, 3]`` matrices from output to input coordinates, for `affine_grid`, from draws ``[batch, >= 8]``."""
    scale = torch.exp(_signed(draws[:, 0], draws[:, 1], probability) * math.log1p(limits.scale))
    angle = _signed(draws[:, 2], draws[:, 3], probability) * math.radians(limits.rotate_deg)
    shift_x = _signed(draws[:, 4], draws[:, 5], probability) * limits.translate * 2
    shift_y = _signed(draws[:, 6], draws[:, 5], probability) * limits.translate * 2
    flip = torch.where(draws[:, 7] < 0.5, -1.0, 1.0) if mirror else torch.ones_like(scale)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack([flip * cosine, -sine, shift_x], 1), torch.stack([flip * sine, cosine, shift_y], 1)]
    return torch.stack(rows, 1)


def warp(x: Tensor, matrices: Tensor) -> Tensor:
    """Resample ``[batch, channels, R, R]`` bilinearly; outside the image its mirror image is seen."""
    with torch.autocast(x.device.type, enabled=False):  # positions in bfloat16 are off by up to a pixel at 256 px
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        grid = F.affine_grid(matrices.to(full.dtype), list(x.shape), align_corners=False)
        return F.grid_sample(full, grid, mode="bilinear", padding_mode="reflection", align_corners=False).to(x.dtype)


def change_intensity(image: Tensor, draws: Tensor, probability: Tensor | float, limits: AugmentationRange) -> Tensor:
    """Brightness and contrast, and saturation for three channels, from draws ``[batch, DRAWS]``."""
    shift = _signed(draws[:, 8], draws[:, 9], probability) * limits.brightness
    factor = torch.exp(_signed(draws[:, 10], draws[:, 11], probability) * limits.contrast)
    image = (image + shift[:, None, None, None]) * factor[:, None, None, None]
    if image.shape[1] == 3:
        colourful = torch.exp(_signed(draws[:, 12], draws[:, 13], probability) * limits.saturation)
        grey = image.mean(1, keepdim=True)
        image = grey + (image - grey) * colourful[:, None, None, None]
    return image


def augment_image(image: Tensor, draws: Tensor, probability: Tensor | float, limits: AugmentationRange) -> Tensor:
    """What the image critic sees of images ``[batch, C, R, R]``."""
    image = warp(image, affine_matrices(draws, probability, limits))
    return change_intensity(image, draws, probability, limits)


def augment_pair(
    image: Tensor,
    label: Tensor,
    draws: Tensor,
    probability: Tensor | float,
    limits: AugmentationRange,
    *,
    mirror: bool = False,
) -> tuple[Tensor, Tensor]:
    """What the pair critic sees: one geometry for image and signed labels, intensity for the image alone."""
    matrices = affine_matrices(draws, probability, limits, mirror=mirror)
    both = warp(torch.cat([image, label.to(image.dtype)], dim=1), matrices)
    image, label = both.split([image.shape[1], label.shape[1]], dim=1)
    return change_intensity(image, draws, probability, limits), label


def adapted_probability(
    probability: Tensor, real_scores: Tensor, *, target: float, images: int, speed_images: float
) -> Tensor:
    """ADA's controller: up where the critic is too sure of real images (mean sign above target), else down."""
    direction = torch.sign(ranks.mean(torch.sign(real_scores.detach().float()).mean()) - target)
    return (probability + direction * images / speed_images).clamp(0.0, ADAPTIVE_LIMIT)
