"""The encoder: image -> one code per style layer, through a feature pyramid (paper sec. 3.3, supplement sec. 2).

A trunk gives maps C2..C5, a feature pyramid (Lin et al. 2017, arXiv:1612.03144) makes P2, P3, P4 of one width from them
(fine to coarse), and one small fully convolutional net per style layer reads a map into a vector: layers 0-2 from P4,
3-6 from P3, the rest from P2.

Departure: the vectors are whitened codes v, not w. `Whitening.to_w` is a fixed linear change of basis, so the network
``to_w(E(x))`` has the paper's form exactly, with its last linear layer written as (trained matrix) @ (fixed matrix);
v near 0, where training starts, is the mean latent. The caller maps to w+.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semgan.config import EncoderSettings

HEAD_WIDTH_SHARE = 8  # a head is lateral_width / 8 wide: 64 at the paper's 512
HEAD_MIN_WIDTH = 16
HEAD_END_PX = 4  # heads shrink their map to at most this side before the linear layer
START_SCALE = 0.01  # v starts with about this standard deviation
NARROW_WIDTHS = (48, 96, 160, 192)  # C2..C5 of the narrow trunk


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut (He et al. 2016, basic block)."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut = (
            nn.Identity() if stride == 1 and channels == width else nn.Conv2d(channels, width, 1, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class NarrowTrunk(nn.Module):
    """A small residual trunk for 16 to 64 px: about 0.35 GFLOP per image at 64 px.

    Its maps lie at 1/4, 1/8, 1/16, 1/32 of the side like ResNet-50's, but at 1/2, 1/4, ... below 64 px.
    """

    widths = NARROW_WIDTHS

    def __init__(self, image_channels: int, size_px: int):
        super().__init__()
        channels = 32
        self.stem = nn.Conv2d(image_channels, channels, 5, stride=2 if size_px >= 64 else 1, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.stages = nn.ModuleList()
        for width in self.widths:
            self.stages.append(nn.Sequential(ResidualBlock(channels, width, 2), ResidualBlock(width, width, 1)))
            channels = width

    def forward(self, image: Tensor) -> list[Tensor]:
        x = torch.relu(self.stem_norm(self.stem(image)))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ResNet50Trunk(nn.Module):
    """MONAI's ResNet-50 in 2D without its classifier; usual ImageNet weights fit ``self.network``."""

    widths = (256, 512, 1024, 2048)

    def __init__(self, image_channels: int):
        super().__init__()
        from monai.networks.nets.resnet import resnet50  # seconds to import; the narrow trunk does without

        self.network = resnet50(
            spatial_dims=2, n_input_channels=image_channels, conv1_t_stride=2, bias_downsample=False, feed_forward=False
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        net = self.network
        x = net.maxpool(net.act(net.bn1(net.conv1(image))))
        maps = []
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """C2..C5 -> P2, P3, P4 of one width. (MONAI's block would also compute P5, which nothing reads.)"""

    def __init__(self, widths: tuple[int, ...], lateral_width: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, lateral_width, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(lateral_width, lateral_width, 3, padding=1) for _ in widths[:-1])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = self.lateral[-1](maps[-1])
        pyramid = []
        for level in range(len(maps) - 2, -1, -1):
            x = self.lateral[level](maps[level]) + F.interpolate(x, size=maps[level].shape[2:], mode="nearest")
            pyramid.insert(0, self.smooth[level](x))
        return pyramid


class MapToCodes(nn.Module):
    """The heads that read one map, side by side: ``[batch, channels, side, side]`` -> ``[batch, heads, w_dim]``.

    Each head is a net of its own (strided 3x3 convolutions down to 4 px, then a linear layer); grouped convolutions run
    all heads of a map at once.
    """

    def __init__(self, heads: int, channels: int, side_px: int, w_dim: int):
        super().__init__()
        width = max(HEAD_MIN_WIDTH, channels // HEAD_WIDTH_SHARE)
        end_px = min(side_px, HEAD_END_PX)
        shrinks = int(math.log2(side_px // end_px))
        self.heads, self.inputs = heads, width * end_px**2
        first_stride = 2 if shrinks else 1
        self.convolutions = nn.ModuleList([nn.Conv2d(channels, heads * width, 3, stride=first_stride, padding=1)])
        for _ in range(shrinks - 1):
            self.convolutions.append(nn.Conv2d(heads * width, heads * width, 3, stride=2, padding=1, groups=heads))
        self.weight = nn.Parameter(torch.randn(heads, self.inputs, w_dim) * START_SCALE / math.sqrt(self.inputs))
        self.bias = nn.Parameter(torch.zeros(heads, 1, w_dim))

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), 0.2)
        rows = x.reshape(x.shape[0], self.heads, self.inputs).transpose(0, 1)
        return (torch.bmm(rows, self.weight.to(rows.dtype)).float() + self.bias).transpose(0, 1)


class Encoder(nn.Module):
    """Image ``[batch, channels, R, R]`` in [-1, 1] -> whitened code v ``[batch, layers, w_dim]``, float32.

    Batch norm makes the modes differ: train in train mode, predict in eval mode (`semgan.runtime.modes.evaluating`).
    """

    def __init__(self, settings: EncoderSettings, *, size_px: int, image_channels: int, layers: int, w_dim: int):
        super().__init__()
        if size_px < 16 or 2 ** int(math.log2(size_px)) != size_px:
            raise ValueError(f"The encoder's side must be a power of two of at least 16; got {size_px}.")
        if layers != 2 * int(math.log2(size_px)) - 2:
            raise ValueError(f"W+ at {size_px} px has {2 * int(math.log2(size_px)) - 2} layers; got {layers}.")
        self.layers, self.w_dim = layers, w_dim
        narrow = settings.trunk == "narrow"
        self.trunk = NarrowTrunk(image_channels, size_px) if narrow else ResNet50Trunk(image_channels)
        self.pyramid = Pyramid(self.trunk.widths, settings.lateral_width)
        finest_px = size_px // (2 if narrow and size_px < 64 else 4)
        counts = (max(0, layers - 7), min(4, layers - 3), 3)  # heads on P2, P3, P4
        self.heads = nn.ModuleList(
            MapToCodes(count, settings.lateral_width, finest_px // 2**level, w_dim) if count else nn.Identity()
            for level, count in enumerate(counts)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        maps = self.pyramid(self.trunk(image.contiguous(memory_format=torch.channels_last)))
        codes = [heads(x) for heads, x in zip(self.heads, maps, strict=True) if isinstance(heads, MapToCodes)]
        return torch.cat(codes[::-1], 1)
