"""Signals mean what they say: on answers made by hand, and on a tiny generator's own images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from semgan.objectives.segmentation import entropy_share
from semgan.trust.signals import SIGNALS, answering_steps, expected_overlap, measure
from semgan.types import LabelSpace, Segmentation


def certain(mask: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(mask, 2).movedim(-1, 1).float()


class Looking:
    """Foreground where the image is bright; ``biased`` networks see it on the left half only."""

    labels = LabelSpace(("background", "bright"))
    rules: dict = {}

    def __init__(self, biased=False):
        self.biased = biased

    def segment_batch(self, image, *, steps=None, snapshot_steps=(), modality="default"):
        mask = (image[:, 0] > 0).long()
        if self.biased:
            mask[:, :, mask.shape[2] // 2 :] = 0
        found = certain(mask)
        return Segmentation(found, torch.ones(len(image)), snapshots=dict.fromkeys(snapshot_steps, found))


def test_entropy_and_expected_overlap_of_known_probabilities():
    half = torch.full((1, 4, 2, 2), 0.25)
    assert entropy_share(half) == pytest.approx(torch.ones(1, 2, 2))
    mask = torch.zeros(3, 8, 8, dtype=torch.long)
    mask[1, :4] = 1
    sure = certain(mask)
    assert entropy_share(sure).abs().max() == 0
    assert expected_overlap(sure).tolist() == [1, 1, 1]  # a class that is nowhere and expected nowhere counts 1
    doubtful = torch.stack([1 - 0.6 * mask.float(), 0.6 * mask.float()], 1)
    assert expected_overlap(doubtful)[1] == pytest.approx((2 * 0.6 * 32 + 1) / (0.6 * 32 + 32 + 1))
    missed = torch.stack([torch.full((1, 8, 8), 0.6), torch.full((1, 8, 8), 0.4)], 1)
    assert expected_overlap(missed)[0] < 0.05  # no foreground is shown where much is expected


def test_a_network_that_wavers_under_mirroring_says_so():
    image = -torch.ones(2, 1, 8, 8)
    image[:, :, 2:6, 1:7] = 1
    for biased, expected in ((False, 1.0), (True, 0.0)):
        network = Looking(biased)
        answer = network.segment_batch(image, snapshot_steps=(0,))
        found = measure(network, image, answer)
        assert found["mirror_agreement"].tolist() == [expected] * 2
        assert set(found) == {"entropy", "expected_overlap", "foreground", "mirror_agreement"}
    own = {"disagreement": torch.tensor([0.1, 0.2])}
    assert measure(network, image, replace(answer, signals=own))["disagreement"].tolist() == pytest.approx([0.1, 0.2])
    assert answering_steps(network, None) == 0


def test_mirror_images_are_answered_without_losses_and_as_with_them(gan, monkeypatch):
    image = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    answer = gan.segment_batch(image, snapshot_steps=(0,))
    quick = measure(gan, image, answer)["mirror_agreement"]
    asked = []
    monkeypatch.setattr(gan, "masks_only", lambda x: asked.append(len(x)) or gan.segment_batch(x, steps=0))
    assert torch.equal(measure(gan, image, answer)["mirror_agreement"], quick) and asked == [4]
    assert 0 < quick.min() < 1


def test_an_answer_by_inversion_has_every_signal_and_they_know_the_generators_own_images(gan):
    image = gan.generate(range(4), truncation=1.0).image
    answer = gan.segment_batch(image, steps=2, snapshot_steps=(0,))
    found = measure(gan, image, answer)
    assert set(found) == set(SIGNALS) - {"disagreement"}
    assert all(values.shape == (4,) and values.dtype == torch.float64 for values in found.values())
    rows = torch.arange(4)
    assert torch.allclose(found["reconstruction"].float(), answer.trace["perceptual"][2, rows])
    assert torch.allclose(found["first_reconstruction"].float(), answer.trace["perceptual"][0, rows])
    shown = answer.reconstruction
    assert torch.allclose(found["pixel_distance"].float(), (shown - image).square().mean((1, 2, 3)))
    assert answering_steps(gan, None) == gan.steps and answering_steps(gan, 7) == 7


def test_codes_of_the_mapping_network_are_near_the_prior_and_others_are_not(gan):
    seeds = list(range(64))
    w = gan.random_w(seeds, truncation=1.0, seed=0, stream="sample")
    image = gan.generate(seeds).image
    answer = gan.segment_batch(image, steps=0, snapshot_steps=(0,))
    layers = gan.generator.layers
    natural = replace(answer, w_plus=w[:, None].expand(-1, layers, -1).contiguous())
    found = measure(gan, image, natural)
    assert found["code_distance"].mean() == pytest.approx(1, abs=0.3)
    assert found["code_spread"].max() < 1e-6
    chance = torch.randn(64, layers, gan.generator.w_dim, generator=torch.Generator().manual_seed(0))
    far = replace(answer, w_plus=gan.whitening.to_w(3 * chance))
    strange = measure(gan, image, far)
    assert strange["code_distance"].mean() == pytest.approx(9, abs=1.5)
    assert strange["code_spread"].min() > found["code_spread"].max()
    assert strange["encoder_gap"].mean() > measure(gan, image, answer)["encoder_gap"].mean()


def test_the_gap_is_none_where_the_encoder_sees_the_code_itself(gan):
    image = gan.generate([3]).image
    answer = gan.segment_batch(image, steps=0, snapshot_steps=(0,))
    with torch.no_grad():
        seen = gan.whitening.to_w(gan.encoder(answer.reconstruction))
    gap = measure(gan, image, replace(answer, w_plus=seen))["encoder_gap"]
    assert np.abs(gap.numpy()).max() < 1e-6
