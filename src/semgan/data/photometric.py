"""Random changes of intensity, not of geometry: what another device, exposure or operator does to the same picture.

The list and its order follow nnU-Net (Isensee et al. 2021, Nature Methods 18, supplement note 4): noise, blur,
brightness, contrast, low resolution, gamma of the inverted image, gamma. Ranges are written for images in [-1, 1]. The
image that comes out is never inverted. `colour` changes what colour images have besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semgan import seeding

BLUR_RADIUS_PX = 3
# Luma and two axes of colour (YIQ, as the FCC defined them in 1953) of red, green and blue.
LUMA_AND_COLOUR = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class PhotometricRanges:
    """How strong a change may be; each applied change draws its own strength. About nnU-Net's ranges."""

    noise: float = 0.15  # standard deviation up to, of Gaussian noise
    blur_px: tuple[float, float] = (0.4, 1.0)  # standard deviation of the Gaussian kernel
    brightness: float = 0.4  # added constant up to +-, on [-1, 1]
    contrast: tuple[float, float] = (0.65, 1.5)  # factor about the image's mean, log-uniform
    gamma: tuple[float, float] = (0.5, 2.0)  # exponent on [0, 1], log-uniform
    low_resolution: tuple[float, float] = (1.0, 2.0)  # factor by which the side shrinks before it grows again


@dataclass(frozen=True)
class ColourRanges:
    """How strong and how often colours change: those of UniMatch (arXiv:2208.09910), which has them from SimCLR.

    saturation: factor 1 +- up to this; hue: share of the circle by which colours turn, both ways up to this;
    probability: of these two, which come together; grey: probability that all colour goes
    """

    saturation: float = 0.5
    hue: float = 0.25
    probability: float = 0.8
    grey: float = 0.2


@dataclass(frozen=True)
class PhotometricChances:
    """How often an image is changed in each way."""

    noise: float
    blur: float
    brightness: float
    contrast: float
    gamma: float
    low_resolution: float = 0.0
    inverted_gamma: float = 0.0


# nnU-Net's own (supplement note 4). Its images have standard deviation 1, ours in [-1, 1] about half of that: its noise
# of variance up to 0.1 is 0.15 here. Departures: brightness is added instead of multiplied, because our zero is
# mid-grey and not the image's mean; all channels change together (its blur and low resolution hit a fifth and a quarter
# of the images, and half of the channels of these); gamma changes mean and deviation; factors are drawn log-uniformly.
NNUNET_CHANCES = PhotometricChances(
    noise=0.15, blur=0.1, brightness=0.15, contrast=0.15, gamma=0.15, low_resolution=0.125, inverted_gamma=0.15
)
NNUNET_RANGES = PhotometricRanges(
    noise=0.15, blur_px=(0.5, 1.5), brightness=0.3, contrast=(0.65, 1.5), gamma=(0.7, 1.5), low_resolution=(1.0, 2.0)
)


def photometric(
    image: Tensor,
    *,
    seed: int,
    stream: str,
    index: Iterable[int],
    probability: float | PhotometricChances,
    ranges: PhotometricRanges = PhotometricRanges(),
) -> Tensor:
    """Each change hits each image independently with its chance; a number stands for the first five changes alone.

    image: ``[batch, channels, height, width]`` in [-1, 1]; so is the result. All channels of an image change alike,
    except for noise. What happens to image i depends on (seed, stream, index[i]) alone.
    """
    numbers = [int(i) for i in index]
    if len(numbers) != image.shape[0]:
        raise ValueError(
            f"Photometric augmentation needs one index per image; got {len(numbers)} for {image.shape[0]}."
        )
    chances = probability if isinstance(probability, PhotometricChances) else PhotometricChances(*(probability,) * 5)
    if not numbers or max(astuple(chances)) <= 0:
        return image
    draws = seeding.uniform(seed, stream + "/photometric", numbers, (10,)).to(image.device)
    hit, strength = draws[:, :5] < torch.tensor(astuple(chances)[:5], device=draws.device), draws[:, 5:]
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
    if chances.low_resolution > 0 or chances.inverted_gamma > 0:
        image = _nnunet_only(image, seeding.uniform(seed, stream + "/photometric-2", numbers, (4,)), chances, ranges)
    exponent = torch.where(hit[:, 4], _log_between(strength[:, 4], *ranges.gamma), 1.0).view(column)
    return ((image + 1) / 2).pow(exponent) * 2 - 1


def colour(
    image: Tensor, *, seed: int, stream: str, index: Iterable[int], ranges: ColourRanges = ColourRanges()
) -> Tensor:
    """Other saturation and hue, or none: white balance, stain, camera, skin. Luma stays, but for clipping.

    image: red, green, blue ``[batch, 3, height, width]`` in [-1, 1]; so is the result. What happens to image i depends
    on (seed, stream, index[i]) alone. Departure from UniMatch: hue turns in YIQ, a linear change, not in HSV. Raises
    ValueError for images of other channels.
    """
    if image.shape[1] != 3:
        raise ValueError(f"Colours change in images of 3 channels; got {image.shape[1]}.")
    hit, grey, saturation, hue = seeding.uniform(seed, stream + "/colour", index, (4,)).to(image.device).unbind(1)
    factor = torch.where(hit < ranges.probability, 1 + ranges.saturation * (2 * saturation - 1), 1.0)
    factor = torch.where(grey < ranges.grey, 0.0, factor)
    angle = torch.where(hit < ranges.probability, 2 * math.pi * ranges.hue * (2 * hue - 1), 0.0)
    axes = torch.tensor(LUMA_AND_COLOUR, device=image.device)
    cosine, sine = factor * angle.cos(), factor * angle.sin()
    turned = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
    turn = torch.eye(3, device=image.device).repeat(len(image), 1, 1)
    turn[:, 1:, 1:] = turned
    matrix = torch.linalg.inv(axes) @ turn @ axes
    mixed = torch.einsum("nij,njhw->nihw", matrix, (image.float() + 1) / 2)
    return (mixed.clamp(0, 1) * 2 - 1).to(image.dtype)


def _nnunet_only(image: Tensor, draws: Tensor, chances: PhotometricChances, ranges: PhotometricRanges) -> Tensor:
    """Low resolution, then gamma of the inverted image, of images in [-1, 1]; draws ``[batch, 4]`` uniform."""
    hit, strength = draws[:, :2] < torch.tensor([chances.low_resolution, chances.inverted_gamma]), draws[:, 2:]
    image = image.clone()
    for i in torch.where(hit[:, 0])[0].tolist():
        factor = float(_between(strength[i, 0], *ranges.low_resolution))
        image[i] = _low_resolution(image[i : i + 1], factor)[0]
    exponent = torch.where(hit[:, 1], _log_between(strength[:, 1], *ranges.gamma), 1.0).to(image.device)
    return 1 - ((1 - image) / 2).pow(exponent.view(-1, 1, 1, 1)) * 2


def _low_resolution(image: Tensor, factor: float) -> Tensor:
    """Shrunk by a factor with the nearest pixels and grown again with cubic ones, within [-1, 1]."""
    size = image.shape[-2:]
    small = [max(1, round(side / factor)) for side in size]
    return F.interpolate(F.interpolate(image, small, mode="nearest-exact"), size, mode="bicubic").clamp(-1, 1)


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
