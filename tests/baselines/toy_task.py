"""What the tests of all baselines share: noisy stripes to segment, small settings, and a stage that trains on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from semgan import artifacts, config
from semgan.baselines.stage import BaselineStage, Streams
from semgan.data.loading import ImageStream
from semgan.types import LabelSpace

SIZE = 16
GOLDEN = Path(__file__).parents[1] / "golden"
BINARY = LabelSpace(("background", "blob"))
FOUR = LabelSpace(("background", "a", "b", "c"))
DEEPLAB = {"network": "deeplabv2", "trunk": "narrow", "schedule": "poly"}


def settings(**baseline: Any) -> config.Settings:
    small = {"widths": (4, 4, 8, 8), "batch": 4, "images": 40, "learning_rate": 0.005, "precision": "float32"}
    rule = {"size_px": SIZE, "channels": 1}
    return config.override(config.Settings(), {"seed": 5, "baseline": small | baseline, "preprocessing": rule})


def pictures(number: int, classes: int = 2, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Noisy stripes, one of each class, whose brightness tells the class."""
    random = np.random.default_rng(seed)
    label_maps = np.zeros((number, SIZE, SIZE), np.uint8)
    width = 10 // (classes - 1)
    for label_map in label_maps:
        top, left = random.integers(2, 5, 2)
        for place, value in enumerate(random.permutation(range(1, classes))):
            label_map[top : top + 9, left + place * width : left + (place + 1) * width] = value
    grey = 40 + label_maps.astype(int) * (180 // (classes - 1)) + random.integers(-25, 25, label_maps.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)[:, None], label_maps


def stream(classes: int, number: int) -> ImageStream:
    images, label_maps = pictures(number, classes)
    return ImageStream(images, label_maps, seed=5, stream_name="labelled", mirror=True, affine=(0.1, 0.15, 15.0))


def unlabelled_stream(classes: int, number: int = 40, seed: int = 12) -> ImageStream:
    return ImageStream(pictures(number, classes, seed)[0], seed=5, stream_name="unlabelled", mirror=True)


def stage(
    validate=None, labels: LabelSpace = BINARY, kind: type[BaselineStage] = BaselineStage, **baseline: Any
) -> BaselineStage:
    """A stage on 40 labelled images and, where its kind needs them, 40 others without labels."""
    unlabelled = unlabelled_stream(labels.classes) if kind.needs_unlabelled else None
    streams = Streams(stream(labels.classes, 40), unlabelled)
    return kind(settings(**baseline), labels, streams, torch.device("cpu"), validate)


def train(trained: BaselineStage, steps: range) -> list[dict[str, float]]:
    found = [trained.step(step * trained.batch) for step in steps]
    return [{name: float(value) for name, value in losses.items()} for losses in found]


def exact(trained: BaselineStage) -> BaselineStage:
    """The stage with networks in double precision: processors round differently, and ten steps of small batches with
    batch norm and Adam blow that up to a percent."""
    for network in trained.networks.values():
        network.double()
        for module in network.modules():
            module.register_forward_pre_hook(_with_doubles)
    return trained


def _with_doubles(module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    is_real = [isinstance(each, torch.Tensor) and each.is_floating_point() for each in arguments]
    return tuple(each.double() if real else each for each, real in zip(arguments, is_real, strict=True))


def weights(trained: BaselineStage) -> dict[str, torch.Tensor]:
    """Of all its networks, copied."""
    return {
        f"{network}.{name}": value.clone()
        for network, module in trained.networks.items()
        for name, value in module.state_dict().items()
    }


def kept_weights(trained: BaselineStage) -> dict[str, torch.Tensor]:
    """What goes into the model folder, under the names that `weights` gives a network."""
    return {f"network.{name}": value for name, value in trained.model_weights()["network"].items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def differ(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value, second[name]) for name, value in first.items())


def assert_resumed_equals_uninterrupted(make: Any, checkpoint: Path, *, stop: int = 3, end: int = 6) -> None:
    """make: () -> a new stage of the same settings; it is stopped after ``stop`` of ``end`` steps."""
    whole = make()
    train(whole, range(stop))
    whole.preview(stop * whole.batch)
    artifacts.save_checkpoint(checkpoint, whole.state())
    after = train(whole, range(stop, end))

    resumed = make()
    resumed.load_state(artifacts.load_checkpoint(checkpoint))
    assert train(resumed, range(stop, end)) == after
    assert_same(weights(whole), weights(resumed))
    assert_same(kept_weights(whole), kept_weights(resumed))
    assert (resumed.best_score, resumed.best_images_seen) == (whole.best_score, whole.best_images_seen)


def assert_golden(name: str, case: str, found: list[dict[str, float]]) -> None:
    """Ten steps' losses against tests/golden/NAME.json. After a meant change, run the test file as a program."""
    expected = artifacts.read_json(GOLDEN / f"{name}.json")[case]
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    for line, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(list(line.values()), list(wanted.values()), rtol=2e-3, atol=1e-6)


def write_golden(name: str, cases: dict[str, list[dict[str, float]]]) -> None:
    rounded = {
        case: [{key: float(f"{value:.7g}") for key, value in line.items()} for line in lines]
        for case, lines in cases.items()
    }
    artifacts.write_json(GOLDEN / f"{name}.json", rounded)
