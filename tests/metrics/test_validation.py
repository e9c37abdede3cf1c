"""The one number that models are selected by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semgan.metrics import overlap
from semgan.metrics.validation import score_cases


def bright_is_foreground(image: torch.Tensor) -> torch.Tensor:
    """A model of one line: probability of class 1 rises with brightness."""
    foreground = (image[:, 0] + 1) / 2
    return torch.stack([1 - foreground, foreground], 1)


def images_and_truths(number: int = 7, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (number, 1, size, size), dtype=np.uint8)
    noisy = images[:, 0].astype(int) + random.integers(-80, 80, (number, size, size))
    return images, (noisy >= 128).astype(np.uint8)


@pytest.mark.parametrize("metric", overlap.METRICS)
def test_score_equals_that_of_the_label_maps_for_every_batch_size(metric):
    images, truths = images_and_truths()
    pairs = zip(images[:, 0] >= 128, truths, strict=True)
    counts = overlap.concatenate(overlap.count(*pair, 2) for pair in pairs)
    expected = overlap.class_scores(counts, metric)[1]
    for batch in (1, 3, 64):
        assert score_cases(bright_is_foreground, images, truths, metric, classes=2, batch=batch) == pytest.approx(
            expected, rel=1e-12
        )


def test_slices_of_a_patient_are_one_case():
    images, truths = images_and_truths()
    truths[0] = 0  # an empty slice is no case of its own
    patients = ["a", "b", "a", "c", "b", "b", "a"]
    found = score_cases(bright_is_foreground, images, truths, "dice", classes=2, batch=2, groups=patients)
    rows = [[row for row, own in enumerate(patients) if own == patient] for patient in "abc"]
    volumes = [overlap.count(images[own, 0] >= 128, truths[own], 2) for own in rows]
    assert found == pytest.approx(np.mean([overlap.dice(volume)[0, 1] for volume in volumes]), rel=1e-12)
    assert found != score_cases(bright_is_foreground, images, truths, "dice", classes=2)


def test_truths_at_their_own_size_are_met_by_resized_probabilities():
    images, truths = images_and_truths()
    own_size = [np.kron(truth, np.ones((3, 3), np.uint8)) for truth in truths]
    own_size[0] = truths[0]
    perfect = (truths[:, None] * np.uint8(255)).astype(np.uint8)
    score = score_cases(bright_is_foreground, perfect, own_size, "dice", classes=2)
    assert 0.8 < score < 1
    assert score_cases(bright_is_foreground, perfect, truths, "dice", classes=2) == 1


def test_images_reach_the_model_in_the_range_and_without_gradients():
    seen = []

    def model(image: torch.Tensor) -> torch.Tensor:
        seen.append((image.min().item(), image.max().item(), torch.is_grad_enabled()))
        return bright_is_foreground(image)

    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    score_cases(model, images, np.array([[[0]], [[1]]]), "dice", classes=2)
    assert seen == [(-1.0, 1.0, False)]


def test_images_and_truths_must_match():
    with pytest.raises(ValueError, match="2 images, 1 maps"):
        score_cases(bright_is_foreground, np.zeros((2, 1, 4, 4), np.uint8), np.zeros((1, 4, 4)), "dice", classes=2)
