"""Guided collaborative training: the detector learns where answers are wrong, and the networks learn from it."""

from __future__ import annotations

import pytest
import torch
from toy_task import BINARY, FOUR, train, weights
from toys import differing, semi_supervised, unlabelled_stream

from semgan.baselines import gct
from semgan.baselines.gct import DETECTOR, GuidedCollaborativeStage, build_flaw_detector
from semgan.objectives.segmentation import probabilities


def unsupervised(stage: GuidedCollaborativeStage) -> dict[str, torch.Tensor]:
    image = stage.unlabelled_batch(0).image
    found = [probabilities(network(image)) for network in stage.both]
    return stage._unsupervised(found, image, progress=1.0)


@pytest.mark.parametrize(("size_px", "map_px"), [(16, 4), (32, 8), (64, 8), (128, 8), (256, 8), (321, 10)])
def test_the_flaw_map_is_coarse_but_not_too_coarse(size_px, map_px):
    with torch.no_grad():
        found = build_flaw_detector(3, 4, size_px, seed=0)(torch.zeros(2, 3, size_px, size_px))
    assert found.shape == (2, 1, map_px, map_px)


@pytest.mark.parametrize("labels", [BINARY, FOUR])
def test_the_detector_learns_where_an_answer_is_wrong(labels):
    stage = semi_supervised(GuidedCollaborativeStage, labels, labelled=8, discriminator_width=64)
    labelled, losses = stage.labelled_batch(0), []
    for step in range(31):
        answer = torch.nn.functional.one_hot(labelled.label_map, labels.classes).movedim(3, 1).float()
        if step % 2:
            answer[..., :8] = answer[..., :8].roll(1, 1)  # wrong in the left half
        else:
            answer[..., 8:] = answer[..., 8:].roll(1, 1)
        loss = stage._detector_loss([answer], labelled)
        stage.update(loss, 0, DETECTOR)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    guess = stage._guess(labelled.image, answer)
    assert guess[..., 10:].mean() > guess[..., :6].mean() + 0.1


def test_flaw_correction_teaches_both_networks_and_never_the_detector(monkeypatch):
    monkeypatch.setattr(gct, "FLAW_THRESHOLD", -1.0)  # every pixel is hopeless
    stage = semi_supervised(GuidedCollaborativeStage)
    unsupervised(stage)["flaw_correction"].backward()
    assert all(weight.grad is None for weight in stage.detector.parameters())
    for network in stage.both:
        assert sum(float(weight.grad.abs().sum()) for weight in network.parameters()) > 0


def test_on_unlabelled_images_each_network_learns_where_the_other_is_better():
    stage = semi_supervised(GuidedCollaborativeStage)
    left = torch.zeros(2, 1, 16, 16)
    left[..., :8] = 1.0
    flaws = iter([left, 1 - left])  # the first network is wrong on the left, the second on the right
    stage._guess = lambda image, found: next(flaws)  # type: ignore[method-assign]
    answers = [torch.rand(2, 2, 16, 16, requires_grad=True) for _ in range(2)]
    stage._unsupervised(answers, torch.zeros(2, 1, 16, 16), progress=1.0)["consistency"].backward()
    first, second = (answer.grad for answer in answers)
    assert first is not None and first[..., :8].all() and not first[..., 8:].any()
    assert second is not None and second[..., 8:].all() and not second[..., :8].any()


def test_correction_makes_the_detector_see_fewer_flaws(monkeypatch):
    monkeypatch.setattr(gct, "FLAW_THRESHOLD", -1.0)
    stage = semi_supervised(GuidedCollaborativeStage)
    before = float(unsupervised(stage)["flaw_correction"].detach())
    for _ in range(5):
        stage.update(unsupervised(stage)["flaw_correction"], 0, *stage.learners)
    assert float(unsupervised(stage)["flaw_correction"].detach()) < before


def test_where_no_answer_is_hopeless_nothing_is_corrected(monkeypatch):
    monkeypatch.setattr(gct, "FLAW_THRESHOLD", 1.0)
    assert float(unsupervised(semi_supervised(GuidedCollaborativeStage))["flaw_correction"].detach()) == 0


def test_networks_come_to_agree_on_unlabelled_images():
    def distance(weight: float) -> float:
        chosen = {"consistency_weight": weight, "ramp_up_share": 0.0}
        stage = semi_supervised(GuidedCollaborativeStage, FOUR, labelled=2, **chosen)
        train(stage, range(15))
        batch = unlabelled_stream(4, seed=12).batch(0, 20)
        with torch.no_grad():
            first, second = (probabilities(network(batch.image)) for network in stage.both)
        return float((first - second).square().mean())

    assert distance(100.0) < 0.7 * distance(0.0)


def test_the_detector_does_not_learn_with_the_networks():
    """Its weights move by its own loss alone, at its own rate."""
    stage = semi_supervised(GuidedCollaborativeStage)
    assert DETECTOR not in stage.learners
    (group,) = stage.optimisers[DETECTOR].param_groups
    assert group["lr"] == 0.0001 and group["betas"] == (0.9, 0.99)
    before = weights(stage)
    stage.update(unsupervised(stage)["consistency"], 0, *stage.learners)
    of_detector = {f"{DETECTOR}.{name}" for name, _ in stage.detector.named_parameters()}
    assert not differing(before, weights(stage)) & of_detector
