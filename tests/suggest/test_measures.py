"""What models of each kind say about images, whichever way they are called."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import semgan
from semgan.student import SemganStudent
from semgan.suggest.measures import generative_part, measuring
from semgan.types import Segmentation


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def network(unet):
    return semgan.load(unet, device="cpu")


def measured(model, images):
    return measuring(model, steps=0, posterior=None, seed=0)(images, 0)


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
    both = SemganStudent(generator, network, 0.5)
    assert generative_part(both) is generator and generative_part(network) is None
    found, own = measured(both, images), measured(generator, images)
    assert found["features"] == pytest.approx(own["features"], abs=1e-6)
    assert found["reconstruction"] == pytest.approx(own["reconstruction"], abs=1e-6)
    assert abs(found["entropy"] - own["entropy"]).max() > 1e-4
