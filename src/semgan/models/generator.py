"""The joint generator: StyleGAN2 synthesis with a label output beside every image output (paper sec. 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from semgan.config import GeneratorSettings
from semgan.models.layers import ACTIVATION_GAIN, EqualLinear, ModulatedConv2d, OutputHeads, activate, upsample
from semgan.types import JointImage


def default_width(size_px: int, width_multiplier: float) -> int:
    """StyleGAN2's table: 512 channels up to 32 px, then 256, 128, 64, 32 times the multiplier, at most 512."""
    if size_px <= 32:
        return 512
    return max(4, min(512, int(width_multiplier * 256 * 64 / size_px)))


def resolve_widths(widths: tuple[int, ...] | None, width_multiplier: float, size_px: int) -> tuple[int, ...]:
    """Channels at 4, 8, ... ``size_px``. Raises ValueError where a given list has the wrong length."""
    levels = int(math.log2(size_px)) - 1
    if 2 ** (levels + 1) != size_px or not 16 <= size_px <= 512:
        raise ValueError(f"The generator's side must be a power of two from 16 to 512; got {size_px}.")
    if widths is None:
        return tuple(default_width(4 * 2**level, width_multiplier) for level in range(levels))
    if len(widths) != levels:
        raise ValueError(
            f"At {size_px} px, widths needs {levels} numbers (4, 8, ... {size_px} px); got {list(widths)}."
        )
    return widths


class Mapping(nn.Module):
    """z ``[batch, w_dim]`` -> w ``[batch, w_dim]``: normalised input, leaky ReLU layers with a slower learning rate."""

    def __init__(self, w_dim: int, layers: int, lr_multiplier: float):
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(w_dim, w_dim, lr_multiplier=lr_multiplier) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        with torch.autocast(x.device.type, enabled=False):  # small, and its output's precision matters everywhere
            for layer in self.layers:
                x = activate(layer(x)) * ACTIVATION_GAIN
        return x


class Generator(nn.Module):
    """w+ -> image and label logits.

    ``synthesis`` takes w_plus ``[batch, layers, w_dim]`` and noise ``[batch or 1, noise_size]`` (all noise maps of an
    image in one row, coarse to fine; None uses the fixed maps saved with the weights).
    """

    fixed_noise: Tensor

    def __init__(self, settings: GeneratorSettings, *, size_px: int, image_channels: int, label_channels: int):
        super().__init__()
        widths = resolve_widths(settings.widths, settings.width_multiplier, size_px)
        self.size_px, self.image_channels, self.label_channels = size_px, image_channels, label_channels
        self.w_dim = settings.w_dim
        self.mapping = Mapping(settings.w_dim, settings.mapping_layers, settings.mapping_lr_multiplier)
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.convolutions = nn.ModuleList([ModulatedConv2d(widths[0], widths[0], self.w_dim)])
        self.heads = nn.ModuleList([OutputHeads(widths[0], image_channels, label_channels, self.w_dim)])
        self.noise_sides = [4]
        for level in range(1, len(widths)):
            self.convolutions.append(ModulatedConv2d(widths[level - 1], widths[level], self.w_dim, up=True))
            self.convolutions.append(ModulatedConv2d(widths[level], widths[level], self.w_dim))
            self.heads.append(OutputHeads(widths[level], image_channels, label_channels, self.w_dim))
            self.noise_sides += [4 * 2**level] * 2
        self.noise_size = sum(side**2 for side in self.noise_sides)
        self.register_buffer("fixed_noise", torch.randn(1, self.noise_size))

    @property
    def layers(self) -> int:
        """Number of w vectors in W+: 2 log2(size_px) - 2."""
        return 2 * len(self.heads)

    def noise_maps(self, noise: Tensor) -> list[Tensor]:
        """Rows of noise values -> one ``[batch or 1, 1, side, side]`` map per convolution."""
        pieces = noise.split([side**2 for side in self.noise_sides], dim=1)
        return [piece.reshape(-1, 1, side, side) for piece, side in zip(pieces, self.noise_sides, strict=True)]

    def synthesis(self, w_plus: Tensor, noise: Tensor | None = None) -> JointImage:
        """w_plus ``[batch, layers, w_dim]`` -> image ``[batch, image_channels, R, R]`` and logits, both float32."""
        maps = self.noise_maps(self.fixed_noise if noise is None else noise)
        x = self.constant.expand(w_plus.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.convolutions[0](x, w_plus[:, 0], maps[0])
        outputs = self.heads[0](x, w_plus[:, 1])
        for level in range(1, len(self.heads)):
            first = 2 * level - 1
            x = self.convolutions[first](x, w_plus[:, first], maps[first])
            x = self.convolutions[first + 1](x, w_plus[:, first + 1], maps[first + 1])
            outputs = upsample(outputs) + self.heads[level](x, w_plus[:, first + 2])
        image, logits = outputs.split([self.image_channels, self.label_channels], dim=1)
        return JointImage(image, logits)

    def broadcast(self, w: Tensor) -> Tensor:
        """w ``[batch, w_dim]`` -> the same w in every layer ``[batch, layers, w_dim]``."""
        return w[:, None, :].expand(-1, self.layers, -1)

    def mixed(self, z: Tensor, draws: Tensor, probability: float) -> Tensor:
        """Style mixing: from a random layer on, w+ ``[batch, layers, w_dim]`` holds the second latent's w.

        z ``[batch, 2, w_dim]``; draws ``[batch, 2]`` uniform: whether to mix, and from which layer on.
        """
        w = self.mapping(z.flatten(0, 1)).unflatten(0, (len(z), 2))
        return self.crossed(w[:, 0], w[:, 1], draws, probability)

    def crossed(self, first: Tensor, second: Tensor, draws: Tensor, probability: float) -> Tensor:
        """As `mixed`, of two w ``[batch, w_dim]``."""
        crossover = 1 + torch.floor(draws[:, 1] * (self.layers - 1))
        crossover = torch.where(draws[:, 0] < probability, crossover, float(self.layers))
        is_second = torch.arange(self.layers, device=first.device)[None] >= crossover[:, None]
        return torch.where(is_second[:, :, None], second[:, None], first[:, None])

    def forward(self, z: Tensor, noise: Tensor | None = None) -> JointImage:
        return self.synthesis(self.broadcast(self.mapping(z)), noise)
