"""A GAN iteration as one would first write it from the papers; what benchmarks/gan_iteration.py compares ours with.

The same networks, weights, random numbers and losses as `semgan.stages.stage1_gan`, computed the long way:

- modulated convolutions as grouped convolutions with a weight per sample (Karras et al. 2020, app. B),
- resampling by zero insertion, filter and every second pixel (upfirdn),
- a generator pass of its own for each of the three updates,
- torch's own, direct convolutions everywhere,
- float32.

Layers are exchanged by their class, so that both sides have the same parameters. tests/benchmarks checks that an
iteration of both gives the same losses and weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semgan.config import override
from semgan.models import generator as generator_module
from semgan.models import winograd
from semgan.models.discriminators import ResidualDown
from semgan.models.layers import ACTIVATION_GAIN, ModulatedConv2d, OutputHeads, activate
from semgan.stages.stage1_gan import GanStage
from semgan.types import JointImage


def upfirdn(x: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1.0) -> Tensor:
    """Zeros between the pixels, zeros around, the [1, 3, 3, 1] filter, every ``down``-th pixel; plane by plane.

    pad: rows (and columns) before and after; negative ones are cut off
    """
    batch, channels, height, width = x.shape
    planes = x.reshape(batch * channels, 1, height, 1, width, 1)
    planes = F.pad(planes, (0, up - 1, 0, 0, 0, up - 1)).reshape(batch * channels, 1, height * up, width * up)
    planes = F.pad(planes, (*pad, *pad))
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype)
    planes = F.conv2d(planes, (line[:, None] * line[None, :] * (gain / 64.0))[None, None])[:, :, ::down, ::down]
    return planes.reshape(batch, channels, *planes.shape[2:])


def upsample(x: Tensor) -> Tensor:
    """Twice the side; the border repeats, as in bilinear interpolation."""
    return upfirdn(F.pad(x, (1, 1, 1, 1), mode="replicate"), up=2, pad=(0, -1), gain=4.0)


class PlainModulatedConv2d(ModulatedConv2d):
    """One weight per sample, all of them in one grouped convolution."""

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        batch, inputs, height, width = x.shape
        weight = (self.weight * self.weight_gain)[None] * self.style(w)[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = x.reshape(1, batch * inputs, height, width)
        if self.up:
            kernel = weight.transpose(1, 2).reshape(batch * inputs, -1, 3, 3)
            x = F.conv_transpose2d(x, kernel, stride=2, groups=batch)
            x = x.reshape(batch, -1, *x.shape[2:])
            x = upfirdn(x, pad=(1, 1), gain=4.0)
        else:
            x = F.conv2d(x, weight.reshape(-1, inputs, 3, 3), padding=1, groups=batch)
            x = x.reshape(batch, -1, height, width)
        x = x + noise * self.noise_strength + self.bias[None, :, None, None]
        return activate(x) * ACTIVATION_GAIN


class PlainOutputHeads(OutputHeads):
    """Two modulated 1x1 convolutions without demodulation, image and label apart."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch, inputs, height, width = x.shape
        outputs = []
        for own, style in ((self.image_weight, self.image_style), (self.label_weight, self.label_style)):
            weight = (own * self.weight_gain)[None] * style(w)[:, None, :]
            flat = x.reshape(1, batch * inputs, height, width)
            out = F.conv2d(flat, weight.reshape(-1, inputs, 1, 1), groups=batch)
            outputs.append(out.reshape(batch, -1, height, width))
        return torch.cat(outputs, dim=1) + self.bias[None, :, None, None]


class PlainResidualDown(ResidualDown):
    """The same block with the filters of `upfirdn`."""

    def forward(self, x: Tensor) -> Tensor:
        main = activate(self.first(x))
        main = activate(self.second(upfirdn(main, pad=(2, 2))))
        return main + self.skip(upfirdn(x, down=2, pad=(1, 1)))


PLAIN = {ModulatedConv2d: PlainModulatedConv2d, OutputHeads: PlainOutputHeads, ResidualDown: PlainResidualDown}


def make_plain(network: nn.Module) -> None:
    """Exchange the layers of a network by their plain forms; parameters stay where they are."""
    for module in network.modules():
        if type(module) in PLAIN:
            module.__class__ = PLAIN[type(module)]


@contextmanager
def _plain_layers() -> Iterator[None]:
    with mock.patch.object(generator_module, "upsample", upsample), mock.patch.object(winograd, "LEAST_CHANNELS", inf):
        yield


class PlainGanStage(GanStage):
    """`GanStage` by the long way, in float32; the latents of the three passes are the same, so that losses compare."""

    def __init__(self, settings, labels, **options) -> None:  # noqa: ANN001, ANN003
        super().__init__(override(settings, {"gan": {"precision": "float32"}}, "plain"), labels, **options)
        for network in (self.generator, self.image_critic, self.pair_critic):
            make_plain(network)

    def step(self, images_seen: int) -> dict[str, Tensor]:
        index = range(images_seen, images_seen + self.batch)
        real = self._to_device(self.real_images.batch(images_seen, self.batch))
        pair = self._to_device(self.labelled.batch(images_seen, self.batch))
        with _plain_layers():
            losses = self.update_image_critic(real.image, self._generate_for_critics(index).image, index)
            losses |= self.update_pair_critic(pair, self._generate_for_critics(index), index)
            losses |= self.update_generator(pair, self.generate(index), index)
            losses |= self.regularise(real, pair, images_seen // self.batch, index)
        self.update_average(images_seen)
        return losses

    @torch.no_grad()
    def _generate_for_critics(self, index: range) -> JointImage:
        return self.generate(index)
