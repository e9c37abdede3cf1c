"""Validation images made strange, as other devices, clinics and mishaps might: failures to learn from.

Three severities, each with intensity changes (noise, blur, brightness, contrast, gamma) and affine maps wider than any
augmentation here; masks move with their images. They stand for no particular other domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semgan import seeding
from semgan.data.loading import affine_grid, warp
from semgan.data.photometric import PhotometricRanges, photometric

PROBABILITY = 0.6  # of each change, per image


@dataclass(frozen=True)
class Severity:
    """scale: range of the zoom; translate: share of the side; rotate_deg: degrees, both ways."""

    ranges: PhotometricRanges
    scale: tuple[float, float]
    translate: float
    rotate_deg: float


def _ranges(noise: float, blur: float, brightness: float, contrast: float, gamma: float) -> PhotometricRanges:
    """Strongest change of each kind; contrast and gamma as factors up, and their inverses down."""
    return PhotometricRanges(noise, (0.4, blur), brightness, (1 / contrast, contrast), (1 / gamma, gamma))


SEVERITIES = (
    Severity(_ranges(0.15, 1.0, 0.3, 1.5, 1.6), (0.85, 1.15), 0.08, 12.0),
    Severity(_ranges(0.35, 2.0, 0.6, 2.5, 2.5), (0.7, 1.4), 0.15, 30.0),
    Severity(_ranges(0.7, 3.0, 0.9, 4.0, 4.0), (0.5, 1.8), 0.25, 60.0),
)


def shifted(
    image: Tensor, label_map: Tensor, severity: Severity, *, seed: int, name: str, numbers: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Images ``[batch, channels, side, side]`` in [-1, 1] and their label maps ``[batch, side, side]``, both changed.

    What happens to an image depends on seed, name and its number alone.
    """
    stream = f"trust/shift/{name}"
    draw = seeding.uniform(seed, f"{stream}/affine", numbers, (7,))
    grid = affine_grid(
        2 * draw[:, :4] - 1,
        (severity.scale, severity.translate, severity.rotate_deg),
        image.shape[-1],
        draw[:, 4:] < PROBABILITY,
    )
    moved = warp(image, grid, "bilinear").clamp(-1, 1)
    masks = warp(label_map[:, None].float(), grid, "nearest")[:, 0].to(label_map.dtype)
    changed = photometric(
        moved, seed=seed, stream=stream, index=numbers, probability=PROBABILITY, ranges=severity.ranges
    )
    return torch.nan_to_num(changed).clamp(-1, 1), masks
