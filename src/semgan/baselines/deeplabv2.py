"""DeepLabV2 (Chen et al. 2017, arXiv:1606.00915): a trunk without its last strides, and classifiers of several rates.

Trunks are MONAI's residual networks. Where a stride is taken out, the convolutions behind it are dilated as much
instead (the paper's sec. 3.1): the dense features, read at every fourth pixel, are exactly those of the strided trunk,
so published ImageNet weights keep their meaning.

Departures: batch normalisation learns (the published models keep ImageNet's statistics). No multi-scale inputs and no
CRF: every method here answers by one pass of one network.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semgan.config import BaselineSettings

RATES = (6, 12, 18, 24)  # sec. 4.1, ASPP-L
MAP_PX = 41  # the side of the maps that these rates were chosen for: crops of 321 px at output stride 8
HEAD_LEARNING_RATE_FACTOR = 10.0  # sec. 4.1: the classifiers learn ten times as fast as the trunk
HEAD_START_DEVIATION = 0.01
NARROW_BLOCKS = (2, 2, 2, 2)  # basic residual blocks per stage, as in ResNet-18
NARROW_STRIDE = 4
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


class DeepLabV2(nn.Module):
    """Images ``[batch, channels, R, R]`` in [-1, 1] -> logits ``[batch, label_channels, R, R]``.

    trunk: a residual network of MONAI's; the strides of its last two stages become dilation
    rates: of the classifiers, 3x3 convolutions side by side whose answers are summed
    as_imagenet: the trunk gets RGB (grey is repeated) normalised as ImageNet networks expect it
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, trunk: Any, rates: tuple[int, ...], label_channels: int, *, as_imagenet: bool) -> None:
        super().__init__()
        _without_stride(trunk.layer3, 1, 2)
        _without_stride(trunk.layer4, 2, 4)
        _pick_before_shortcuts(trunk)
        self.trunk = trunk
        self.classifiers = nn.ModuleList(
            nn.Conv2d(trunk.in_planes, label_channels, 3, padding=rate, dilation=rate) for rate in rates
        )
        for classifier in self.classifiers:
            nn.init.normal_(classifier.weight, std=HEAD_START_DEVIATION)  # type: ignore[arg-type]
            nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]
        self.as_imagenet = as_imagenet
        for name, value in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_DEVIATION)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def features(self, image: Tensor) -> Tensor:
        """The trunk's last map, ``[batch, width, R / stride, R / stride]``."""
        if self.as_imagenet:
            image = ((image.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.deviation
        net = self.trunk
        x = net.act(net.bn1(net.conv1(image)))
        x = x if net.no_max_pool else net.maxpool(x)
        return net.layer4(net.layer3(net.layer2(net.layer1(x))))

    def forward(self, image: Tensor) -> Tensor:
        features = self.features(image)
        logits = torch.stack([classifier(features) for classifier in self.classifiers]).sum(0)
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The trunk's weights, and the classifiers' with their own learning rate, for an optimiser."""
        heads = {"params": list(self.classifiers.parameters()), "lr": learning_rate * HEAD_LEARNING_RATE_FACTOR}
        return [{"params": list(self.trunk.parameters()), "lr": learning_rate}, heads]


def _without_stride(stage: nn.Module, before: int, after: int) -> None:
    """Stride 1 in a residual stage. The strided convolution sees at the dilation before it, all behind it at after."""
    for convolution in [module for module in stage.modules() if isinstance(module, nn.Conv2d)]:
        dilation = before if convolution.stride == (2, 2) else after
        convolution.stride, convolution.dilation = (1, 1), (dilation, dilation)
        convolution.padding = (convolution.kernel_size[0] // 2 * dilation,) * 2


class _PickingConv2d(nn.Conv2d):
    """A strided 1x1 convolution as the same of every other pixel: oneDNN's own for AVX2 writes beyond its memory in
    backward where there are fewer than 8 input channels (torch 2.13; a tiny trunk's shortcut crashed there)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias)


def _pick_before_shortcuts(trunk: nn.Module) -> None:
    for module in trunk.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.stride != (1, 1):
            if module.in_channels < 8:
                module.__class__ = _PickingConv2d


def build_deeplabv2(settings: BaselineSettings, *, size_px: int, image_channels: int, label_channels: int) -> DeepLabV2:
    """DeepLabV2 with the trunk, its widths and its published weights as set.

    Raises ValueError for unfit widths, channels or weights, FileNotFoundError where the weights are missing.
    """
    if settings.trunk == "narrow":
        side_px = math.ceil(size_px / NARROW_STRIDE)
        rates = tuple(max(1, round(rate * side_px / MAP_PX)) for rate in RATES)
        return DeepLabV2(_narrow(settings.widths, image_channels), rates, label_channels, as_imagenet=False)
    as_imagenet = image_channels in (1, 3)
    trunk = _resnet101(3 if as_imagenet else image_channels)
    network = DeepLabV2(trunk, RATES, label_channels, as_imagenet=as_imagenet)
    if settings.trunk_weights is not None:
        if not as_imagenet:
            raise ValueError(
                f"baseline.trunk_weights fits images of 1 or 3 channels; these have {image_channels}. Leave it out."
            )
        load_trunk(network, settings.trunk_weights)
    return network


def _resnet101(image_channels: int) -> nn.Module:
    from monai.networks.nets.resnet import resnet101

    return resnet101(
        spatial_dims=2, n_input_channels=image_channels, conv1_t_stride=2, bias_downsample=False, feed_forward=False
    )


def _narrow(widths: tuple[int, ...], image_channels: int) -> nn.Module:
    """A small residual trunk for 16 to 128 px: with strides 2, 1, 2 and then dilation, its maps lie at a quarter."""
    if len(widths) != 4:
        raise ValueError(f"baseline.widths needs four numbers, for the narrow trunk's stages; got {tuple(widths)}.")
    from monai.networks.nets.resnet import ResNet

    return ResNet(
        "basic",
        list(NARROW_BLOCKS),
        list(widths),
        spatial_dims=2,
        n_input_channels=image_channels,
        conv1_t_size=3,
        conv1_t_stride=2,
        no_max_pool=True,
        bias_downsample=False,
        feed_forward=False,
    )


def load_trunk(network: DeepLabV2, path: Path) -> None:
    """ImageNet weights of ResNet-101 under their published names (``layer1.0.conv1.weight`` ...) into the trunk.

    The published classifier (``fc``) is left out; files from before batch counters existed fit too. Raises
    FileNotFoundError for a missing file, ValueError for one that cannot be read or does not fit.
    """
    from semgan.models.lpips_weights import read_weights

    given = {name: value for name, value in read_weights(path).items() if not name.startswith("fc.")}
    own = network.trunk.state_dict()
    needed = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    missing, strange = sorted(needed.keys() - given.keys()), sorted(given.keys() - own.keys())
    wrong = [name for name in sorted(needed.keys() & given.keys()) if given[name].shape != needed[name].shape]
    if missing or strange or wrong:
        found = "; ".join(
            f"{what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("not known", strange), ("of another shape", wrong))
            if names
        )
        raise ValueError(
            f"{path} does not fit the trunk ({found}); expected a published ResNet-101 with the usual ImageNet names."
        )
    network.trunk.load_state_dict(own | given)
