"""Cross pseudo supervision: two networks, different at first, that come to agree on unlabelled images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from toy_task import FOUR, pictures, train, weights
from toys import differing, semi_supervised, unlabelled_stream

from semgan.baselines.cps import CrossPseudoStage
from semgan.objectives.pseudo_labels import pseudo_labels
from semgan.types import IGNORE


class Pointwise(nn.Module):
    """Sure of every pixel, by its brightness alone."""

    def forward(self, image: Tensor) -> Tensor:
        return 1000 * image


def test_mixed_images_are_taught_the_labels_of_what_is_mixed_into_them():
    """A network that sees single pixels answers the same before and after mixing, so nothing is left to learn."""
    stage = semi_supervised(CrossPseudoStage, ramp_up_share=0.0)
    stage.both = (Pointwise(), Pointwise())
    assert float(stage.loss_terms(0)["cross_pseudo"]) < 0.01  # pixels on the edge between classes
    stage.both = (Pointwise(), lambda image: -1000 * image)
    assert float(stage.loss_terms(0)["cross_pseudo"]) > 100


def test_the_two_networks_start_differently():
    stage = semi_supervised(CrossPseudoStage)
    first, second = (network.state_dict() for network in stage.both)
    assert differing(dict(first), dict(second))


def test_each_network_is_taught_by_the_labels_of_the_other_and_not_through_them():
    stage = semi_supervised(CrossPseudoStage, ramp_up_share=0.0)
    opposite = Pointwise()
    weight = nn.Parameter(torch.ones(()))
    stage.both = (stage.network, lambda image: weight * opposite(image))
    stage.loss_terms(0)["cross_pseudo"].backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in stage.network.parameters())
    probabilities = torch.rand(2, 2, 4, 4, requires_grad=True)
    assert not pseudo_labels(probabilities).requires_grad


def test_ignored_pixels_of_labelled_images_teach_nothing():
    stage = semi_supervised(CrossPseudoStage, ramp_up_share=0.0)
    label_maps = stage._streams.labelled.label_maps
    assert label_maps is not None
    label_maps[:] = IGNORE
    stage.both = (Pointwise(), lambda image: -1000 * image)
    assert float(stage.loss_terms(0)["cross_entropy"]) == 0
    known, label_map = torch.randn(1, 1, 2, 2), torch.tensor([[[0, IGNORE], [IGNORE, 1]]])
    assert ((stage._known_labels(known, label_map) == IGNORE) == (label_map == IGNORE)).all()


def agreement(stage: CrossPseudoStage) -> float:
    """Share of pixels of unlabelled images to which both networks give the same class."""
    batch = unlabelled_stream(4, seed=12).batch(0, 20)
    with torch.no_grad():
        first, second = (network(batch.image).argmax(1) for network in stage.both)
    return float((first == second).float().mean())


def test_networks_come_to_agree_on_unlabelled_images():
    found = {}
    for weight in (0.0, 1.5):
        stage = semi_supervised(CrossPseudoStage, FOUR, labelled=2, consistency_weight=weight, ramp_up_share=0.0)
        train(stage, range(25))
        found[weight] = agreement(stage)
    assert found[1.5] > found[0.0] + 0.02


def test_other_unlabelled_images_teach_something_else():
    first, other = (semi_supervised(CrossPseudoStage, unlabelled_seed=seed, ramp_up_share=0.0) for seed in (12, 13))
    assert train(first, range(2)) != train(other, range(2))
    assert differing(weights(first), weights(other))


def test_answers_are_the_first_networks():
    stage = semi_supervised(CrossPseudoStage)
    train(stage, range(2))
    image = torch.from_numpy(pictures(2)[0]).float() / 127.5 - 1
    with torch.no_grad():
        expected = torch.sigmoid(stage.network.eval()(image))[:, 0]
    torch.testing.assert_close(stage.segmenter.segment_batch(image).probabilities[:, 1], expected)
