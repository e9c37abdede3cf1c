"""The two critics: StyleGAN2's residual image critic and pix2pixHD's multi-scale patch critic of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from semgan import ranks
from semgan.models.layers import ACTIVATION_GAIN, EqualConv2d, EqualLinear, activate, blur, downsample


class ResidualDown(nn.Module):
    """Residual block that halves the side (Karras et al. 2020, fig. 7)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = EqualConv2d(in_channels, in_channels, 3, padding=1, gain=ACTIVATION_GAIN)
        # The halves of the residual sum carry 1 / sqrt(2): it keeps the variance of the sum at that of its parts.
        self.second = EqualConv2d(in_channels, out_channels, 3, stride=2, gain=ACTIVATION_GAIN * math.sqrt(0.5))
        self.skip = EqualConv2d(in_channels, out_channels, 1, bias=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        main = activate(self.first(x))
        main = activate(self.second(blur(main, padding=2)))
        return main + self.skip(downsample(x))


class ImageCritic(nn.Module):
    """Is this a real image? ``[batch, channels, R, R]`` -> logits ``[batch]``. Sees images only."""

    def __init__(self, widths: tuple[int, ...], *, channels: int, group: int = 4):
        super().__init__()
        self.group = group
        self.entry = EqualConv2d(channels, widths[-1], 1, gain=ACTIVATION_GAIN)
        self.blocks = nn.ModuleList(
            ResidualDown(widths[level], widths[level - 1]) for level in range(len(widths) - 1, 0, -1)
        )
        self.last = EqualConv2d(widths[0] + 1, widths[0], 3, padding=1, gain=ACTIVATION_GAIN)
        self.hidden = EqualLinear(widths[0] * 16, widths[0])
        self.score = EqualLinear(widths[0], 1)

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps after the entry and after every block, fine to coarse."""
        x = activate(self.entry(image.contiguous(memory_format=torch.channels_last)))
        maps = [x]
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def minibatch_deviation(self, x: Tensor) -> Tensor:
        """Standard deviation over groups of the batch, averaged to one value per group (Karras et al. 2018).

        The batch is that of all processes, the answer that of this one's rows.
        """
        own, _, height, width = x.shape
        batch = own * ranks.count()
        group = math.gcd(batch, self.group)
        parts = ranks.gathered(x.float()).reshape(group, batch // group, -1)
        deviation = (parts.var(0, unbiased=False) + 1e-8).sqrt().mean(1).repeat(group)
        deviation = deviation[ranks.rank() * own : (ranks.rank() + 1) * own]
        return deviation[:, None, None, None].expand(-1, 1, height, width).to(x.dtype)

    def score_features(self, x: Tensor, deviation: float | None = None) -> Tensor:
        """Logits ``[batch]`` from the coarsest feature map.

        deviation: taken instead of the batch's own, so that a score is a function of its image alone
        """
        spread = self.minibatch_deviation(x) if deviation is None else torch.full_like(x[:, :1], deviation)
        x = torch.cat([x, spread], dim=1)
        x = activate(self.last(x)).flatten(1)
        return self.score(activate(self.hidden(x)) * ACTIVATION_GAIN).float().squeeze(1)

    def forward(self, image: Tensor) -> Tensor:
        return self.score_features(self.features(image)[-1])


@dataclass(frozen=True)
class PatchScores:
    """One scale's answer: score ``[batch, 1, h, w]`` and the features below it, for feature matching."""

    score: Tensor
    features: tuple[Tensor, ...]


def instance_norm(x: Tensor) -> Tensor:
    """Zero mean and unit variance per image and channel; keeps channels_last, which torch's own does not."""
    variance, mean = torch.var_mean(x.float(), dim=(2, 3), unbiased=False, keepdim=True)
    scale = torch.rsqrt(variance + 1e-5)
    return x * scale.to(x.dtype) - (mean * scale).to(x.dtype)


class PatchCritic(nn.Module):
    """One scale of the pair critic: strided 4x4 convolutions; spectral and instance norm on the middle layers [C]."""

    def __init__(self, channels: int, base_width: int, layers: int):
        super().__init__()
        width = base_width
        self.entry = nn.Conv2d(channels, width, 4, stride=2, padding=2)
        self.middle = nn.ModuleList()
        for layer in range(layers):
            wider = min(width * 2, 8 * base_width)
            stride = 2 if layer < layers - 1 else 1
            self.middle.append(spectral_norm(nn.Conv2d(width, wider, 4, stride=stride, padding=2)))
            width = wider
        self.score = nn.Conv2d(width, 1, 4, padding=2)

    def forward(self, pair: Tensor) -> PatchScores:
        x = F.leaky_relu(self.entry(pair), 0.2)
        features = [x]
        for layer in self.middle:
            x = F.leaky_relu(instance_norm(layer(x)), 0.2)
            features.append(x)
        return PatchScores(self.score(x).float(), tuple(features))


class PairCritic(nn.Module):
    """Does this label map belong to this image? Patch critics at full, half, quarter ... resolution [S sec. 2].

    forward: image ``[batch, C, R, R]`` and labels ``[batch, L, R, R]`` in [-1, 1] -> one `PatchScores` per scale.
    """

    def __init__(self, *, image_channels: int, label_channels: int, base_width: int, scales: int, layers: int):
        super().__init__()
        channels = image_channels + label_channels
        self.scales = nn.ModuleList(PatchCritic(channels, base_width, layers) for _ in range(scales))

    def forward(self, image: Tensor, label: Tensor) -> list[PatchScores]:
        pair = torch.cat([image, label], dim=1).contiguous(memory_format=torch.channels_last)
        answers = []
        for scale, critic in enumerate(self.scales):
            if scale:
                pair = F.avg_pool2d(pair, 3, stride=2, padding=1, count_include_pad=False)
            answers.append(critic(pair))
        return answers
