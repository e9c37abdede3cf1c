"""The U-Net baselines: they learn, resume to the bit, keep the best weights, and answer like every method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_task import (
    BINARY,
    FOUR,
    SIZE,
    assert_resumed_equals_uninterrupted,
    assert_same,
    exact,
    kept_weights,
    pictures,
    settings,
    stage,
    train,
    weights,
)

from semgan import artifacts
from semgan.baselines.networks import build_network
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.baselines.stage import BaselineStage, Streams
from semgan.data.loading import ImageStream
from semgan.types import Segmentation

GOLDEN = Path(__file__).parents[1] / "golden" / "unet.json"


@pytest.mark.parametrize("name", ["unet", "unet-strong", "four_classes"])
def test_losses_of_ten_steps_equal_the_golden_numbers(name):
    """After a change that is meant: run this file as a program to write them anew, and say why in the commit."""
    np.testing.assert_allclose(golden_losses(name), json.loads(GOLDEN.read_text())[name], rtol=2e-3)


def golden_losses(name: str) -> list[float]:
    labels = FOUR if name == "four_classes" else BINARY
    trained = exact(stage(labels=labels, intensity_augment=name == "unet-strong"))
    return [losses["loss"] for losses in train(trained, range(10))]


@pytest.mark.parametrize(("labels", "steps"), [(BINARY, 80), (FOUR, 200)])
def test_a_unet_learns_to_segment(labels, steps):
    trained = stage(labels=labels, batch=8, learning_rate=0.01)
    before = train(trained, range(1))[0]["loss"]
    train(trained, range(1, steps))
    images, truth = pictures(12, labels.classes)
    found = trained.segmenter.segment_batch(torch.from_numpy(images).float() / 127.5 - 1)
    assert (found.label_map.numpy() == truth).mean() > 0.95
    assert train(trained, range(steps, steps + 1))[0]["loss"] < before / 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_uninterrupted_training_to_the_bit(tmp_path, precision):
    def unet() -> BaselineStage:
        return stage(lambda segmenter: 0.5, precision=precision, intensity_augment=True)

    assert_resumed_equals_uninterrupted(unet, tmp_path / "c.safetensors")


def test_the_weights_with_the_best_validation_score_are_kept():
    scores = iter([0.2, 0.9, 0.4])
    trained = stage(lambda segmenter: next(scores))
    kept = []
    for part in range(3):
        train(trained, range(part, part + 1))
        kept.append(weights(trained))
        shown = trained.preview((part + 1) * 4)
    assert shown == {"validation/dice": 0.4, "validation/best": 0.9}
    assert trained.best_images_seen == 8
    assert_same(kept_weights(trained), kept[1])


def test_without_a_validation_list_the_last_weights_are_kept():
    trained = stage()
    train(trained, range(2))
    assert trained.preview(8) == {}
    assert_same(kept_weights(trained), weights(trained))


def test_validating_changes_nothing_in_training():
    def validate(segmenter) -> float:
        return float(segmenter.segment_batch(torch.rand(3, 1, SIZE, SIZE)).confidence.mean())

    plain, watched = stage(), stage(validate)
    for part in range(3):
        train(plain, range(part, part + 1))
        train(watched, range(part, part + 1))
        watched.preview(part)
        assert watched.network.training
    assert_same(weights(plain), weights(watched))


def test_intensity_augmentation_changes_what_is_learnt_and_nothing_else_does():
    plain, strong = stage(), stage(intensity_augment=True)
    assert_same(weights(plain), weights(strong))  # same start
    assert train(plain, range(1)) != train(strong, range(1))


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = build_network(settings(), 1, seed=3).state_dict()
    state = torch.random.get_rng_state()
    second = build_network(settings(), 1, seed=3).state_dict()
    assert_same(first, second)
    assert torch.equal(state, torch.random.get_rng_state())
    other = build_network(settings(), 1, seed=4).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


# ---------------------------------------------------------------- the trained model


@pytest.fixture
def model_folder(tmp_path: Path) -> tuple[Path, BaselineStage]:
    trained = stage(labels=FOUR)
    train(trained, range(3))
    chosen = settings()
    description = {
        "method": "unet",
        "settings": chosen.model_dump(mode="json"),
        "classes": list(FOUR.names),
        "preprocessing": {"default": chosen.preprocessing.model_dump(mode="json")},
    }
    artifacts.save_model(tmp_path / "model", description, trained.model_weights(), "card")
    return tmp_path / "model", trained


def test_a_saved_model_segments_as_the_trained_one(model_folder):
    folder, trained = model_folder
    loaded = NetworkSegmenter.load(folder, "cpu")
    image = torch.from_numpy(pictures(3)[0]).float() / 127.5 - 1
    expected = trained.segmenter.segment_batch(image)
    found = loaded.segment_batch(image)
    assert loaded.labels == FOUR
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-5, atol=1e-6)


def test_preprocessing_is_that_of_training(model_folder):
    loaded = NetworkSegmenter.load(model_folder[0], "cpu")
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    found = loaded.preprocess(image)
    assert found.shape == (1, SIZE, SIZE) and found.dtype == torch.float32
    assert -1 <= found.min() < found.max() <= 1
    with pytest.raises(ValueError, match="modality 'mri'"):
        loaded.preprocess(image, "mri")


@pytest.mark.parametrize("labels", [BINARY, FOUR])
def test_a_segmentation_holds_probabilities_for_every_class(labels):
    found = stage(labels=labels).segmenter.segment_batch(torch.rand(3, 1, SIZE, SIZE) * 2 - 1, steps=0)
    assert isinstance(found, Segmentation) and found.steps == 0
    assert found.probabilities.shape == (3, labels.classes, SIZE, SIZE)
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(3, SIZE, SIZE))
    torch.testing.assert_close(found.confidence, found.probabilities.amax(1).mean((1, 2)))
    assert found.reconstruction is None and found.trace == {}


def test_segmentation_of_an_image_is_independent_of_its_batch():
    segmenter = stage().segmenter
    image = torch.rand(5, 1, SIZE, SIZE) * 2 - 1
    whole = segmenter.segment_batch(image).probabilities
    single = torch.cat([segmenter.segment_batch(image[row : row + 1]).probabilities for row in range(5)])
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-5)


def test_what_a_unet_cannot_do_is_said(model_folder, tmp_path):
    segmenter = stage().segmenter
    with pytest.raises(ValueError, match="not optimised at test time"):
        segmenter.segment_batch(torch.zeros(1, 1, SIZE, SIZE), steps=5)
    with pytest.raises(ValueError, match="needs four numbers"):
        build_network(settings(widths=(8, 8)), 1)
    unlabelled = ImageStream(pictures(4)[0], seed=0, stream_name="unlabelled")
    with pytest.raises(ValueError, match="no label maps"):
        BaselineStage(settings(), BINARY, Streams(unlabelled), torch.device("cpu")).step(0)
    description = artifacts.read_json(model_folder[0] / "config.json") | {"method": "semgan"}
    artifacts.save_model(tmp_path / "other", description, {"generator": {"a": torch.zeros(1)}}, "card")
    with pytest.raises(ValueError, match="method 'semgan', which is no baseline"):
        NetworkSegmenter.load(tmp_path / "other")


if __name__ == "__main__":
    names = ("unet", "unet-strong", "four_classes")
    artifacts.write_json(GOLDEN, {name: [round(loss, 6) for loss in golden_losses(name)] for name in names})
