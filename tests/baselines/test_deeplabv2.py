"""DeepLabV2: dense maps that say what the strided trunk says, scaled rates, and published weights that fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from toy_task import (
    BINARY,
    DEEPLAB,
    FOUR,
    SIZE,
    assert_golden,
    assert_resumed_equals_uninterrupted,
    exact,
    pictures,
    settings,
    stage,
    train,
    write_golden,
)

from semgan import artifacts, config
from semgan.baselines.deeplabv2 import MAP_PX, RATES, DeepLabV2, load_trunk
from semgan.baselines.networks import build_network
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.recipes import load as recipe


def deeplab(size_px: int = 64, channels: int = 1, label_channels: int = 1, **baseline: Any) -> DeepLabV2:
    changes = {"baseline": DEEPLAB | {"widths": (4, 6, 8, 10)} | baseline}
    rule = {"preprocessing": {"size_px": size_px, "channels": channels}}
    network = build_network(config.override(config.Settings(), changes | rule), label_channels)
    assert isinstance(network, DeepLabV2)
    return network


@pytest.fixture(scope="module")
def resnet101() -> DeepLabV2:
    return deeplab(channels=3, label_channels=4, trunk="resnet101").eval()


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize(("size_px", "stride"), [(16, 4), (64, 4), (128, 4)])
@pytest.mark.parametrize("label_channels", [1, 5])
def test_logits_have_the_images_size_and_narrow_maps_a_quarter_of_it(size_px, stride, label_channels):
    network = deeplab(size_px, 3, label_channels)
    image = torch.randn(2, 3, size_px, size_px)
    assert network(image).shape == (2, label_channels, size_px, size_px)
    assert network.features(image).shape == (2, 10, size_px // stride, size_px // stride)


def test_resnet101_has_the_papers_stride_width_and_rates(resnet101):
    with torch.no_grad():
        assert resnet101.features(torch.randn(1, 3, 64, 64)).shape == (1, 2048, 8, 8)
        assert resnet101(torch.randn(1, 3, 48, 64)).shape == (1, 4, 48, 64)
    assert [classifier.dilation for classifier in resnet101.classifiers] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    blocks = [len(layer) for layer in (resnet101.trunk.layer1, resnet101.trunk.layer2, resnet101.trunk.layer3)]
    assert blocks == [3, 4, 23]


def coarse_features(dense: DeepLabV2) -> Any:
    """The trunk's features with the strides put back and dilation taken out."""
    strided = copy.deepcopy(dense)
    for layer in (strided.trunk.layer3, strided.trunk.layer4):
        for name, part in layer.named_modules():
            if isinstance(part, torch.nn.Conv2d):
                side = part.kernel_size[0]
                entry = name == "0.downsample.0" or (name.startswith("0.") and name == f"0.{entry_convolution(layer)}")
                part.stride, part.dilation, part.padding = (2, 2) if entry else (1, 1), (1, 1), (side // 2, side // 2)
    return strided.features


def entry_convolution(layer: Any) -> str:
    return "conv2" if hasattr(layer[0], "conv3") else "conv1"  # bottlenecks stride in their 3x3 convolution


@pytest.mark.parametrize("trunk", ["narrow", "resnet101"])
def test_dense_features_at_every_fourth_pixel_are_those_of_the_strided_trunk(trunk, resnet101):
    dense = resnet101 if trunk == "resnet101" else deeplab(channels=3).eval()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        fine, coarse = dense.features(image), coarse_features(dense)(image)
    assert fine.shape[-1] == 4 * coarse.shape[-1]
    torch.testing.assert_close(fine[..., ::4, ::4], coarse, rtol=1e-3, atol=1e-3 * float(coarse.abs().max()))


def test_the_answer_is_the_sum_of_the_classifiers():
    network = deeplab().eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        whole = network(image)
        parts = []
        for kept in range(4):
            alone = copy.deepcopy(network)
            alone.classifiers = torch.nn.ModuleList([network.classifiers[kept]])
            parts.append(alone(image))
    assert all(float(part.abs().max()) > 0 for part in parts)
    torch.testing.assert_close(whole, torch.stack(parts).sum(0))


@pytest.mark.parametrize(("size_px", "expected"), [(16, (1, 1, 2, 2)), (64, (2, 5, 7, 9)), (128, (5, 9, 14, 19))])
def test_the_narrow_trunks_rates_cover_the_share_of_the_map_that_the_papers_cover(size_px, expected):
    assert tuple(classifier.dilation[0] for classifier in deeplab(size_px).classifiers) == expected
    assert expected == tuple(max(1, round(rate * size_px / 4 / MAP_PX)) for rate in RATES)


@pytest.mark.parametrize("name", ["lungs-64", "skin-64", "faces-64", "phantoms", "debug"])
def test_small_recipes_take_the_narrow_trunk(name):
    assert recipe(name).baseline.trunk == "narrow"


@pytest.mark.parametrize("name", ["chest-xray", "skin", "faces", "liver-ct"])
def test_recipes_at_256_px_take_resnet101(name):
    assert recipe(name).baseline.trunk == "resnet101"


# ---------------------------------------------------------------- published weights


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published ResNet-101, from its paper's table and torchvision's naming."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048), "fc.bias": (1000,)}
    norms = {"bn1": 64}
    channels = 64
    for layer, (blocks, width) in enumerate(((3, 64), (4, 128), (23, 256), (3, 512)), 1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, channels, 1, 1)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * width, width, 1, 1)
            norms |= {f"{name}.bn1": width, f"{name}.bn2": width, f"{name}.bn3": 4 * width}
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norms[f"{name}.downsample.1"] = 4 * width
            channels = 4 * width
    for name, width in norms.items():
        shapes |= {f"{name}.{kind}": (width,) for kind in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def published() -> dict[str, Tensor]:
    """A file's content without batch counters, as the older published files are: one number per tensor."""
    return {
        name: torch.tensor(0.001 * number).expand(shape)
        for number, (name, shape) in enumerate(published_shapes().items())
    }


@pytest.mark.parametrize("counters", [False, True])
def test_published_weights_fit_by_name(tmp_path, counters, monkeypatch):
    content = published()
    if counters:  # as newer files have them
        norms = [name.removesuffix(".running_mean") for name in content if name.endswith(".running_mean")]
        content |= {f"{norm}.num_batches_tracked": torch.tensor(7) for norm in norms}
    torch.save(content, tmp_path / "resnet101.pth")
    network = deeplab(channels=3, label_channels=4, trunk="resnet101", trunk_weights=tmp_path / "resnet101.pth")
    state = network.trunk.state_dict()
    for name in published_shapes():
        if not name.startswith("fc."):
            assert torch.equal(state[name], content[name]), name
    assert all(int(value) == 7 * counters for name, value in state.items() if name.endswith("num_batches_tracked"))


def small_file(path: Path, change: dict[str, Tensor | None]) -> Path:
    content = {name: value for name, value in (published() | change).items() if value is not None}
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer3.22.conv2.weight": None}, r"missing: layer3\.22\.conv2\.weight"),
        ({"layer5.0.conv1.weight": torch.zeros(1)}, r"not known: layer5"),
        ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, r"of another shape: conv1\.weight"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(tmp_path, resnet101, change, message):
    before = resnet101.trunk.layer4[0].conv1.weight.clone()
    with pytest.raises(ValueError, match=message):
        load_trunk(resnet101, small_file(tmp_path / "weights.pth", change))
    assert torch.equal(before, resnet101.trunk.layer4[0].conv1.weight)


def test_wrong_settings_of_published_weights_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        deeplab(channels=1, trunk="resnet101", trunk_weights=tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="1 or 3 channels; these have 2"):
        deeplab(channels=2, trunk="resnet101", trunk_weights=tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="belongs to baseline.network=deeplabv2 with baseline.trunk=resnet101"):
        deeplab(trunk_weights=tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="belongs to baseline.network=deeplabv2"):
        build_network(settings(network="unet", trunk_weights=tmp_path / "nowhere.pth"), 1)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit the trunk .*missing: bn1.bias"):
        deeplab(channels=3, trunk="resnet101", trunk_weights=tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="four numbers, for the narrow trunk"):
        deeplab(widths=(4, 8))


def test_the_trunk_sees_images_as_imagenet_networks_expect_them(resnet101):
    """Grey is repeated to RGB; black and white become (0 - mean) / deviation and (1 - mean) / deviation."""
    seen = []
    handle = resnet101.trunk.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        resnet101.features(torch.stack([torch.full((1, 32, 32), value) for value in (-1.0, 1.0)]))
    handle.remove()
    for row, value in enumerate((0.0, 1.0)):
        expected = (value - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        np.testing.assert_allclose(seen[0][row, :, 5, 5].numpy(), expected, rtol=1e-4)


def test_images_of_many_channels_get_a_trunk_of_their_own():
    with torch.device("meta"):
        network = deeplab(channels=5, trunk="resnet101")
    assert not network.as_imagenet and network.trunk.conv1.in_channels == 5


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("labels", [BINARY, FOUR])
def test_losses_of_ten_steps_equal_the_golden_numbers(labels):
    assert_golden("deeplabv2", str(labels.classes), train(exact(stage(labels=labels, **DEEPLAB)), range(10)))


def test_deeplabv2_learns_to_segment():
    trained = stage(batch=8, images=800, widths=(8, 8, 16, 16), **DEEPLAB)
    train(trained, range(60))
    images, truth = pictures(12)
    found = trained.segmenter.segment_batch(torch.from_numpy(images).float() / 127.5 - 1)
    assert (found.label_map.numpy() == truth).mean() > 0.93


def test_resumed_training_equals_uninterrupted_training_to_the_bit(tmp_path):
    assert_resumed_equals_uninterrupted(lambda: stage(**DEEPLAB), tmp_path / "c.safetensors")


def test_classifiers_learn_ten_times_as_fast_and_both_rates_fall_to_nothing_by_the_poly_rule():
    trained = stage(**DEEPLAB)
    seen = []
    for step in range(10):
        train(trained, range(step, step + 1))
        seen.append([group["lr"] for group in trained.optimisers["network"].param_groups])
    expected = [0.005 * (1 - step / 10) ** 0.9 for step in range(10)]
    np.testing.assert_allclose(np.array(seen), np.stack([expected, np.multiply(expected, 10)], 1), rtol=1e-6)
    given = [value for group in trained.optimisers["network"].param_groups for value in group["params"]]
    assert {id(value) for value in given} == {id(value) for value in trained.network.parameters()}
    assert len(given) == len(list(trained.network.parameters()))


def test_a_saved_model_needs_no_published_file(tmp_path):
    trained = stage(labels=FOUR, **DEEPLAB)
    train(trained, range(2))
    chosen = settings(**DEEPLAB).model_dump(mode="json")
    chosen["baseline"]["trunk_weights"] = str(tmp_path / "gone.pth")
    description = {
        "method": "deeplabv2",
        "settings": chosen,
        "classes": list(FOUR.names),
        "preprocessing": {"default": chosen["preprocessing"]},
    }
    artifacts.save_model(tmp_path / "model", description, trained.model_weights(), "card")
    image = torch.rand(2, 1, SIZE, SIZE) * 2 - 1
    found = NetworkSegmenter.load(tmp_path / "model", "cpu").segment_batch(image).probabilities
    torch.testing.assert_close(found, trained.segmenter.segment_batch(image).probabilities, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    write_golden(
        "deeplabv2",
        {str(labels.classes): train(exact(stage(labels=labels, **DEEPLAB)), range(10)) for labels in (BINARY, FOUR)},
    )
