"""The plain formulation that ours is timed against computes the same thing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from semgan import config, recipes
from semgan.models import layers, winograd
from semgan.stages.stage1_gan import GanStage
from semgan.types import Batch, LabelSpace


def load(name):
    """A program of benchmarks/ as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


plain = load("plain_gan")


def test_resampling_equals_ours():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain.upsample(x), layers.upsample(x))
    torch.testing.assert_close(plain.upfirdn(x, down=2, pad=(1, 1)), layers.downsample(x))
    torch.testing.assert_close(plain.upfirdn(x, pad=(2, 2)), layers.blur(x, padding=2))


class Stream:
    def __init__(self, size_px, classes):
        self.size_px, self.classes = size_px, classes

    def batch(self, first_index, count):
        chance = torch.Generator().manual_seed(first_index)
        image = torch.randn(count, 3, self.size_px, self.size_px, generator=chance).clamp(-1, 1)
        coarse = torch.rand(count, 1, 4, 4, generator=chance) * self.classes
        label_map = F.interpolate(coarse, size=self.size_px)[:, 0].long()
        return Batch(torch.arange(first_index, first_index + count), image, label_map)


@pytest.fixture(scope="module")
def settings():
    changes = {
        "preprocessing": {"size_px": 16},
        "generator": {"w_dim": 16, "mapping_layers": 2, "widths": [12, 8, 8]},
        "critics": {"widths": None, "pair_base_width": 4, "pair_scales": 2, "pair_layers": 2},
        "gan": {"batch": 4, "precision": "float32", "path_length_weight": 2.0, "path_length_every": 2, "r1_every": 2},
    }
    return config.override(recipes.load("faces-64"), changes, "the test")


def test_three_iterations_give_the_losses_and_weights_of_ours(settings):
    labels = LabelSpace(settings.classes)
    stream = Stream(16, len(settings.classes))
    options = {"labelled": stream, "real_images": stream, "device": torch.device("cpu")}
    ours, other = GanStage(settings, labels, **options), plain.PlainGanStage(settings, labels, **options)
    for step in range(3):  # the first and the third with R1 and path length
        expected, found = ours.step(4 * step), other.step(4 * step)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in ours.generator.state_dict().items():
        torch.testing.assert_close(other.generator.state_dict()[name], value, rtol=2e-2, atol=2e-3)


def test_the_long_way_is_really_taken(settings):
    stream = Stream(16, len(settings.classes))
    options = {"labelled": stream, "real_images": stream, "device": torch.device("cpu")}
    stage = plain.PlainGanStage(settings, LabelSpace(settings.classes), **options)
    kinds = {type(module).__name__ for part in (stage.generator, stage.image_critic) for module in part.modules()}
    assert {"PlainModulatedConv2d", "PlainOutputHeads", "PlainResidualDown"} <= kinds
    assert not kinds & {"ModulatedConv2d", "OutputHeads", "ResidualDown"}


def test_the_long_way_takes_direct_convolutions_alone(settings, monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 0)
    calls = []
    own = winograd._convolved
    monkeypatch.setattr(winograd, "_convolved", lambda *given: calls.append(1) or own(*given))
    stream = Stream(16, len(settings.classes))
    options = {"labelled": stream, "real_images": stream, "device": torch.device("cpu")}
    plain.PlainGanStage(settings, LabelSpace(settings.classes), **options).step(0)
    assert not calls
    GanStage(settings, LabelSpace(settings.classes), **options).step(0)
    assert calls
