"""Random changes of intensity, not of geometry: what another device, exposure or operator does to the same picture.

The list and its order follow nnU-Net (Isensee et al. 2021, Nature Methods 18, supplement note 4): noise, blur,
brightness, contrast, gamma. Ranges are written for images in [-1, 1]. There is no inversion of grey values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semgan import seeding

BLUR_RADIUS_PX = 3


@dataclass(frozen=True)
class PhotometricRanges:
    """How strong a change may be; each applied change draws its own strength. About nnU-Net's ranges."""

    noise: float = 0.15  # standard deviation up to, of Gaussian noise
    blur_px: tuple[float, float] = (0.4, 1.0)  # standard deviation of the Gaussian kernel
    brightness: float = 0.4  # added constant up to +-, on [-1, 1]
    contrast: tuple[float, float] = (0.65, 1.5)  # factor about the image's mean, log-uniform
    gamma: tuple[float, float] = (0.5, 2.0)  # exponent on [0, 1], log-uniform


def photometric(
    image: Tensor,
    *,
    seed: int,
    stream: str,
    index: Iterable[int],
    probability: float,
    ranges: PhotometricRanges = PhotometricRanges(),
) -> Tensor:
    """Each of the five changes hits each image independently with ``probability``.

    image: ``[batch, channels, height, width]`` in [-1, 1]; so is the result. All channels of an image change alike,
    except for noise. What happens to image i depends on (seed, stream, index[i]) alone.
    """
    numbers = [int(i) for i in index]
    if len(numbers) != image.shape[0]:
        raise ValueError(
            f"Photometric augmentation needs one index per image; got {len(numbers)} for {image.shape[0]}."
        )
    if probability <= 0 or not numbers:
        return image
    draws = seeding.uniform(seed, stream + "/photometric", numbers, (10,)).to(image.device)
    hit, strength = draws[:, :5] < probability, draws[:, 5:]
    column = (-1, 1, 1, 1)
    deviation = (hit[:, 0] * ranges.noise * strength[:, 0]).view(column)
    if bool(hit[:, 0].any()):
        noise = seeding.normal(seed, stream + "/photometric-noise", numbers, tuple(image.shape[1:]))
        image = image + deviation * noise.to(image.device)
    if bool(hit[:, 1].any()):
        image = _blur(image, hit[:, 1], _between(strength[:, 1], *ranges.blur_px))
    image = image + (hit[:, 2] * ranges.brightness * (2 * strength[:, 2] - 1)).view(column)
    mean = image.mean((1, 2, 3), keepdim=True)
    factor = torch.where(hit[:, 3], _log_between(strength[:, 3], *ranges.contrast), 1.0).view(column)
    image = (mean + (image - mean) * factor).clamp(-1, 1)
    exponent = torch.where(hit[:, 4], _log_between(strength[:, 4], *ranges.gamma), 1.0).view(column)
    return ((image + 1) / 2).pow(exponent) * 2 - 1


def _between(share: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * share


def _log_between(share: Tensor, low: float, high: float) -> Tensor:
    return torch.exp(_between(share, math.log(low), math.log(high)))


def _blur(image: Tensor, hit: Tensor, deviation_px: Tensor) -> Tensor:
    """Separable Gaussian blur with a kernel per image; images not hit pass unchanged."""
    batch, channels, height, width = image.shape
    offsets = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / deviation_px[:, None]).square())
    kernel = torch.where(hit[:, None], kernel / kernel.sum(1, keepdim=True), (offsets == 0).to(image.dtype))
    kernel = kernel.repeat_interleave(channels, 0)[:, None]
    rows = F.pad(image.reshape(1, batch * channels, height, width), (BLUR_RADIUS_PX,) * 4, mode="replicate")
    rows = F.conv2d(rows, kernel[:, :, None, :], groups=batch * channels)
    return F.conv2d(rows, kernel[:, :, :, None], groups=batch * channels).reshape(image.shape)
