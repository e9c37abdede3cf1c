"""What models of each kind say about images, whichever way they are called."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import semgan
from semgan.stages.inversion_objective import Guide
from semgan.stages.stopping import StoppingRule
from semgan.student_answer import SemganStudent, gan_of
from semgan.suggest.measures import entropy, measuring
from semgan.types import AUTO, Segmentation


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def network(unet):
    return semgan.load(unet, device="cpu")


def measured(model, images, steps=0):
    return measuring(model, steps=steps, posterior=None, seed=0)(images, 0)


def test_features_do_not_depend_on_how_images_are_batched(network, images):
    whole = measured(network, images)

    def one_by_one(batch):
        answers = [network.segment_batch(image[None]) for image in batch]
        shown = torch.cat([answer.probabilities for answer in answers])
        return Segmentation(shown, shown.amax(1).mean((1, 2)))

    alone = measured(SimpleNamespace(network=network.network, segment_batch=one_by_one), images)
    for name, values in whole.items():
        assert alone[name] == pytest.approx(values, abs=1e-5)
    assert len(whole["features"]) == 3 and abs(whole["features"][0] - whole["features"][1]).max() > 1e-3


def test_a_network_that_also_sees_the_mirror_image_gives_both_the_same_features(unet, images):
    network = semgan.load(unet, device="cpu")
    network.flips = True
    here, mirrored = measured(network, images), measured(network, images.flip(3))
    assert here["features"] == pytest.approx(mirrored["features"], abs=1e-5)


def test_a_student_beside_its_generator_has_the_measures_of_both(network, gan, images):
    generator = semgan.load(gan, device="cpu")
    both = SemganStudent(generator, network, 0.5, 0.0)
    assert gan_of(both) is generator and gan_of(network) is None
    found, own = measured(both, images), measured(generator, images)
    assert found["features"] == pytest.approx(own["features"], abs=1e-6)
    assert found["reconstruction"] == pytest.approx(own["reconstruction"], abs=1e-6)
    assert abs(found["entropy"] - own["entropy"]).max() > 1e-4


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_guided_generator_is_measured_before_its_student_has_a_share(network, gan, images, share):
    """With a share of 1 the whole answer never changes: its own snapshots would disagree nowhere."""
    generator = semgan.load(gan, device="cpu")
    both = SemganStudent(generator, network, share, 2.0)
    guide = Guide(network.segment_batch(images).probabilities, 2.0)
    own = generator.segment_batch(images, steps=25, snapshot_steps=(0,), guide=guide)
    changed = (own.snapshots[0].argmax(1) != own.label_map).float().mean((1, 2))
    found = measured(both, images, steps=25)
    assert found["disagreement"] == pytest.approx(changed.numpy()) and changed.max() > 0
    assert found["reconstruction"] == pytest.approx([own.losses_of(row)["loss"] for row in range(3)], abs=1e-5)
    assert abs(found["reconstruction"] - measured(generator, images, steps=25)["reconstruction"]).min() > 1e-3
    assert found["entropy"] == pytest.approx(entropy(both.segment_batch(images, steps=25).probabilities), abs=1e-6)


def test_images_that_a_rule_answers_with_the_encoder_disagree_most_not_least(gan, images):
    generator = semgan.load(gan, device="cpu")
    fixed = measured(generator, images, steps=25)["disagreement"]
    generator.rule, generator.steps = StoppingRule(1.0, (0, 25)), AUTO
    answers = generator.segment_batch(images)
    assert any(answers.steps_of(row) == 0 and fixed[row] > 0 for row in range(3))  # it does fall back
    assert measured(generator, images, steps=None)["disagreement"] == pytest.approx(fixed)
