"""Layers shared by generator and critics: equalised learning rate, filtered resampling, modulated convolution.

Written from Karras et al. 2018 (equalised learning rate), Karras et al. 2020 (StyleGAN2) and Zhang 2019 (blurred
down-sampling). Everything is made of plain torch operations: it differentiates twice and runs wherever torch runs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semgan.models.winograd import convolve_3x3

ACTIVATION_GAIN = math.sqrt(2.0)  # keeps the variance through a leaky ReLU of slope 0.2
FLOAT16_CLAMP = 256.0  # Karras et al. 2020a: activations beyond this only occur on the way to overflow


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2; callers put `ACTIVATION_GAIN` into the weights before it."""
    x = F.leaky_relu(x, 0.2)
    return x.clamp(-FLOAT16_CLAMP, FLOAT16_CLAMP) if x.dtype == torch.float16 else x


class EqualLinear(nn.Module):
    """Fully connected layer with the He constant applied at run time (equalised learning rate)."""

    def __init__(self, in_features: int, out_features: int, *, bias_init: float = 0.0, lr_multiplier: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate; ``gain`` is folded into weight and bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        gain: float = 1.0,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = gain / math.sqrt(in_channels * kernel**2)
        self.bias_gain = gain
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.bias_gain
        weight = self.weight * self.weight_gain
        if (weight.shape[-1], self.stride, self.padding) == (3, 1, 1):
            return convolve_3x3(x, weight, bias)
        return F.conv2d(x, weight, bias, stride=self.stride, padding=self.padding)


def blur(x: Tensor, *, gain: float = 1.0, stride: int = 1, padding: int = 0) -> Tensor:
    """Filter every channel with the outer product of [1, 3, 3, 1] / 8, times ``gain`` (zero padding)."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype)
    kernel = (line[:, None] * line[None, :] * (gain / 64.0)).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])


class _Halve(torch.autograd.Function):
    """Blur and keep every second pixel. The derivative is `_Spread`: a strided depthwise convolution's own derivative
    is up to ten times slower than this one on a CPU (benchmarks/)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return blur(x, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _Spread.apply(gradient)  # type: ignore[return-value]


class _Spread(torch.autograd.Function):
    """The transpose of `_Halve`: bilinear enlargement between zero borders, divided by 4."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
        return upsample(padded)[:, :, 2:-2, 2:-2] * 0.25

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _Halve.apply(gradient)  # type: ignore[return-value]


def downsample(x: Tensor) -> Tensor:
    """Halve the side of ``[batch, channels, h, w]`` with the [1, 3, 3, 1] filter; differentiable twice."""
    return _Halve.apply(x)  # type: ignore[return-value]


def upsample(x: Tensor) -> Tensor:
    """Double the side; away from the border this is zero insertion followed by the [1, 3, 3, 1] filter."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ModulatedConv2d(nn.Module):
    """StyleGAN2's weight-demodulated 3x3 convolution, noise, bias and activation, in the scale-input form.

    Scaling the weight's input channels by the style equals scaling the input; demodulation equals scaling the output.
    One convolution with shared weights therefore serves the whole batch (tested against the grouped form).

    forward: x ``[batch, in, h, w]``, w ``[batch, w_dim]``, noise ``[batch or 1, 1, H, W]`` -> ``[batch, out, H, W]``,
    with H = 2h where ``up``.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, up: bool = False):
        super().__init__()
        self.up = up
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.weight_gain = 1.0 / math.sqrt(in_channels * 9)
        self.style = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        style = self.style(w)
        weight = self.weight * self.weight_gain
        demodulation = self.demodulation(weight, style) * ACTIVATION_GAIN
        x = x * style.to(x.dtype)[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = blur(x, gain=4.0, padding=1)
        else:
            x = convolve_3x3(x, weight)
        x = x * demodulation.to(x.dtype)[:, :, None, None]
        offset = (noise * (self.noise_strength * ACTIVATION_GAIN)).to(x.dtype)
        x = x + offset + (self.bias * ACTIVATION_GAIN).to(x.dtype)[None, :, None, None]
        return activate(x)

    @staticmethod
    def demodulation(weight: Tensor, style: Tensor) -> Tensor:
        """Per sample and output channel, 1 / norm of the modulated weight ``[batch, out]`` (float32)."""
        with torch.autocast(style.device.type, enabled=False):
            energy = weight.float().square().sum((2, 3))
            return torch.rsqrt(style.float().square() @ energy.t() + 1e-8)


class OutputHeads(nn.Module):
    """Image and label outputs at one resolution: two modulated 1x1 convolutions without demodulation, in one product.

    forward: x ``[batch, in, h, w]``, w ``[batch, w_dim]`` -> ``[batch, image_channels + label_channels, h, w]`` float32
    """

    def __init__(self, in_channels: int, image_channels: int, label_channels: int, w_dim: int):
        super().__init__()
        self.image_channels = image_channels
        self.image_weight = nn.Parameter(torch.randn(image_channels, in_channels))
        self.label_weight = nn.Parameter(torch.randn(label_channels, in_channels))
        self.image_style = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.label_style = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.bias = nn.Parameter(torch.zeros(image_channels + label_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        image = self.image_weight[None] * self.image_style(w)[:, None, :]
        label = self.label_weight[None] * self.label_style(w)[:, None, :]
        weight = torch.cat([image, label], dim=1) * self.weight_gain
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        outputs = torch.bmm(rows, weight.transpose(1, 2).to(rows.dtype))
        outputs = outputs.float().reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        return outputs + self.bias[None, :, None, None]
