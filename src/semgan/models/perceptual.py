"""Perceptual distances between images: LPIPS, and features of the trained image critic where LPIPS is not at hand.

Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018
(arXiv:1801.03924), version 0.1 of the published metric. Written from the paper; state-dict keys of the trunks are those
of the published ImageNet files (``features.N.weight``), keys of the heads those of the published linear heads
(``linN.model.1.weight``).

Both distances speak the same three words:

- ``features(image)``: ``[batch, channels, height, width]`` in [-1, 1] -> list of feature maps (LPIPS: unit-normalised,
  float32; the critic's: as they are); those of a fixed target may be computed once and kept
- ``distance(features_a, features_b)`` -> ``[batch]`` float32
- ``forward(image_a, image_b)`` -> ``[batch]``, the two in one
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Network = Literal["vgg16", "alexnet", "squeezenet"]

# Indices of ``features`` after which LPIPS reads, and the channels there.
TAPS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "vgg16": ((3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
    "alexnet": ((1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "squeezenet": ((1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)),
}
SMALLEST_PX = {"vgg16": 16, "alexnet": 32, "squeezenet": 16}


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 convolution, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def _vgg16() -> list[nn.Module]:
    modules: list[nn.Module] = []
    channels = 3
    for block, (width, repeats) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        if block:
            modules.append(nn.MaxPool2d(2, 2))
        for _ in range(repeats):
            modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return modules


def _alexnet() -> list[nn.Module]:
    return [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip


def _squeezenet() -> list[nn.Module]:
    return [
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    ]  # fmt: skip


class Trunk(nn.Module):
    """The convolutional part of an ImageNet network up to LPIPS's last tap; returns the maps at the taps."""

    def __init__(self, network: Network):
        super().__init__()
        self.features = nn.Sequential(*{"vgg16": _vgg16, "alexnet": _alexnet, "squeezenet": _squeezenet}[network]())
        self.taps = TAPS[network][0]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number, module in enumerate(self.features):
            x = module(x)
            if number in self.taps:
                maps.append(x)
        return maps


def unit_channels(x: Tensor) -> Tensor:
    """Feature vectors scaled to length 1 at every pixel, float32; a zero vector stays zero, with a finite gradient."""
    x = x.float()
    return x * x.square().sum(1, keepdim=True).clamp_min(1e-20).rsqrt()


class DirectionGap(torch.autograd.Function):
    """Squared distance of the unit-normalised features of two maps ``[batch, channels, h, w]``, mean of pixels.

    |a/|a| - b/|b||^2 = 2 - 2 cos(a, b): this needs no normalised copies, reads 16-bit maps with float32 sums, and costs
    a fifth of the formula written out. Gradients go to the first map alone. Returns ``[batch]`` float32 in [0, 4].
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        inverse_a, inverse_b = _inverse_length(a), _inverse_length(b)
        cosine = (a * b).sum(1, keepdim=True, dtype=torch.float32) * inverse_a * inverse_b
        ctx.save_for_backward(a, b, inverse_a, inverse_b, cosine)
        # A pixel without features has no direction: as in the formula written out, its unit vector is zero.
        lengths = (inverse_a > 0).float() + (inverse_b > 0).float()
        return (lengths - 2 * cosine).mean((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        a, b, inverse_a, inverse_b, cosine = ctx.saved_tensors
        share = gradient[:, None, None, None] * (-2 / (a.shape[2] * a.shape[3]))
        towards_b = b * (share * inverse_a * inverse_b).to(a.dtype)
        return torch.addcmul(towards_b, a, (-share * cosine * inverse_a.square()).to(a.dtype)), None


def _with_range(x: Tensor) -> Tensor:
    """float16 as float32, since products of features overflow there; bfloat16 has the range."""
    return x.float() if x.dtype == torch.float16 else x


def _inverse_length(x: Tensor) -> Tensor:
    """1/|x| of every pixel's features, float32; 0 where there are none."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    return torch.where(length > 1e-10, length.clamp_min(1e-10).reciprocal(), 0.0)


def _frozen_forever(module: nn.Module) -> None:
    module.eval().requires_grad_(False)


class LPIPS(nn.Module):
    """The published metric on its own networks; random weights until `load_trunk` and `load_heads`.

    Grey images are repeated to three channels. Images of any other channel count are compared channel by channel as
    grey images and averaged, so that no channel goes unseen (at N times the price).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: Network = "vgg16"):
        super().__init__()
        if network not in TAPS:
            raise ValueError(f"LPIPS knows the networks {', '.join(TAPS)}; got '{network}'.")
        self.network = network
        self.trunk = Trunk(network)
        self.heads = nn.ParameterList([torch.rand(channels) / channels for channels in TAPS[network][1]])
        # ImageNet's mean and deviation, for inputs in [-1, 1], rounded as published
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        _frozen_forever(self)

    def train(self, mode: bool = True) -> LPIPS:
        return super().train(False)  # a ruler has no training mode

    def load_trunk(self, state: dict[str, Tensor]) -> None:
        """Load published ImageNet weights; the classifier's are left out. Raises ValueError where they do not fit."""
        wanted = self.trunk.state_dict()
        for name, value in wanted.items():
            if name not in state or state[name].shape != value.shape:
                found = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
                raise ValueError(
                    f"These are no {self.network} weights: '{name}' {found}, expected {tuple(value.shape)}. "
                    f"Give the published ImageNet file of {self.network} or choose another perceptual.network."
                )
        self.trunk.load_state_dict({name: state[name] for name in wanted})

    def load_heads(self, state: dict[str, Tensor]) -> None:
        """Load the published linear heads (version 0.1). Raises ValueError where they do not fit."""
        for number, head in enumerate(self.heads):
            name = f"lin{number}.model.1.weight"
            if name not in state or state[name].numel() != head.numel():
                found = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
                raise ValueError(
                    f"These are no LPIPS heads for {self.network}: '{name}' {found}, expected "
                    f"(1, {head.numel()}, 1, 1). Give the heads published for {self.network}."
                )
            head.data.copy_(state[name].flatten())

    def features(self, image: Tensor) -> list[Tensor]:
        """List of ``[batch, channels, h, w]`` unit-normalised maps; N channels: the channels' maps side by side."""
        batch, channels, height, width = image.shape
        if min(height, width) < SMALLEST_PX[self.network]:
            raise ValueError(
                f"LPIPS with {self.network} needs at least {SMALLEST_PX[self.network]} px; got {height} x {width}. "
                "Set perceptual.network=vgg16 or perceptual.distance=discriminator."
            )
        pictures = image if channels in (1, 3) else image.reshape(batch * channels, 1, height, width)
        maps = self.trunk((pictures.expand(-1, 3, -1, -1) - self.mean) / self.scale)
        maps = [unit_channels(x) for x in maps]
        return maps if channels in (1, 3) else [x.reshape(batch, -1, *x.shape[2:]) for x in maps]

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        """``[batch]`` float32: sum over taps of the spatial mean of the weighted squared differences."""
        total = torch.zeros((), device=features_a[0].device)
        for a, b, head in zip(features_a, features_b, self.heads, strict=True):
            copies = a.shape[1] // head.numel()  # more than 1 for N-channel images
            per_channel = (a - b).square().mean((2, 3))
            total = total + (per_channel * head.repeat(copies)).sum(1) / copies
        return total

    def forward(self, image_a: Tensor, image_b: Tensor) -> Tensor:
        return self.distance(self.features(image_a), self.features(image_b))


class DiscriminatorDistance(nn.Module):
    """LPIPS's formula on the trained image critic's features, where no published weights are at hand.

    Departure: the paper uses LPIPS. Every resolution of the critic counts the same (their mean), every channel within
    it too, since there are no human judgements to weigh them by. Values lie in [0, 4] but compare with no LPIPS.
    The critic is copied: training it further does not move the ruler.
    """

    def __init__(self, image_critic: nn.Module):
        super().__init__()
        self.critic = copy.deepcopy(image_critic)
        _frozen_forever(self)

    def train(self, mode: bool = True) -> DiscriminatorDistance:
        return super().train(False)

    def features(self, image: Tensor) -> list[Tensor]:
        return list(self.critic.features(image))  # type: ignore[operator]

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        """``[batch]`` float32; gradients go to ``features_a`` alone."""
        pairs = zip(features_a, features_b, strict=True)
        per_scale = [DirectionGap.apply(_with_range(a), _with_range(b)) for a, b in pairs]
        return torch.stack(per_scale).mean(0)

    def forward(self, image_a: Tensor, image_b: Tensor) -> Tensor:
        return self.distance(self.features(image_a), self.features(image_b))
