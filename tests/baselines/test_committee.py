"""Several networks in one model: their mean answers, each learns as it would alone, and none is another's copy."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from toy_task import BINARY, FOUR
from toys import differing, semi_supervised, weights

import semgan
from semgan.artifacts import RunFolder, read_json
from semgan.baselines.committee import CommitteeStage, member_settings
from semgan.baselines.networks import Committee
from semgan.baselines.nnunet import train_nnunet
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.baselines.stage import BaselineStage
from semgan.baselines.unimatch import UniMatchStage
from semgan.config import Settings
from semgan.job import TrainingJob
from semgan.runtime.loop import run_stage
from semgan.train import train
from semgan.types import MOST_SEED

MEMBERS = 3


def committee(labels=BINARY, kind=UniMatchStage, validate=None, **baseline) -> CommitteeStage:
    def build(settings: Settings) -> BaselineStage:
        stage = semi_supervised(kind, labels, **baseline)
        return type(stage)(settings, stage.labels, stage._streams, stage.device)

    chosen = semi_supervised(kind, labels, members=MEMBERS, **baseline).settings
    return CommitteeStage(chosen, build, validate)


@pytest.mark.parametrize("labels", [BINARY, FOUR])
def test_the_answer_is_the_mean_of_all_members_probabilities(labels):
    stage = committee(labels)
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = stage.segmenter.segment_batch(image).probabilities
    alone = [member.segmenter.segment_batch(image).probabilities for member in stage.members]
    assert len(alone) == MEMBERS and (alone[0] - alone[1]).abs().max() > 1e-3
    assert_close(found, torch.stack(alone).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("other", "expected"), [(200.0, 0.0), (-200.0, 1.0)])
def test_members_tell_how_far_they_disagree(other, expected):
    """Two that are sure of one class, or of one each."""
    sure = [nn.Conv2d(1, 1, 1) for _ in range(2)]
    for network, bias in zip(sure, (200.0, other), strict=True):
        nn.init.zeros_(network.weight)
        nn.init.constant_(network.bias, bias)
    plain = committee().members[0].segmenter
    found = NetworkSegmenter(Committee(sure), BINARY, plain.rules, plain.device).segment_batch(torch.zeros(1, 1, 2, 2))
    assert_close(found.signals["disagreement"], torch.tensor([expected]))
    assert_close(found.probabilities[:, 1], torch.full((1, 2, 2), 1 - expected / 2))


def test_every_member_learns_as_it_would_alone_and_none_as_another():
    stage = committee()
    for step in range(3):
        losses = stage.step(step * stage.batch)
    assert {"loss", "strong_views"} <= losses.keys()
    for number, member in enumerate(stage.members):
        alone = semi_supervised(UniMatchStage)
        alone = UniMatchStage(member_settings(stage.settings, number), alone.labels, alone._streams, alone.device)
        for step in range(3):
            alone.step(step * alone.batch)
        assert not differing(weights(member.answering), weights(alone.answering))
    first, second, third = (weights(member.answering) for member in stage.members)
    assert differing(first, second) and differing(second, third) and differing(first, third)


def test_the_first_member_has_the_seed_of_the_settings_and_the_others_far_ones():
    seeds = [member_settings(Settings(seed=5), number).seed for number in range(4)]
    assert seeds[0] == 5 and len(set(seeds)) == 4 and min(seeds[1:]) > 1_000_000
    last = member_settings(Settings(seed=MOST_SEED), 2)
    assert 0 <= last.seed < MOST_SEED and last.baseline.members == 1


def test_a_stopped_training_ends_with_the_committee_of_one_that_was_not(tmp_path):
    whole = committee()
    for step in range(6):
        whole.step(step * whole.batch)

    def stop(done, total, what):
        if done >= 2 * whole.batch:
            raise KeyboardInterrupt

    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    every_step = whole.settings.run.model_copy(update={"checkpoint_every_images": whole.batch})
    with pytest.raises(KeyboardInterrupt):
        run_stage(committee(), run, every_step, progress=stop)
    last = committee()
    result = run_stage(last, run, every_step, progress=lambda done, total, what: None)
    assert result.finished
    for step in range(6, last.total_images // last.batch):
        whole.step(step * whole.batch)
    assert not differing(weights(last.answering), weights(whole.answering))


def test_the_committees_best_weights_are_kept_not_its_members():
    scores = iter([0.9, 0.1])
    stage = committee(validate=lambda segmenter: next(scores))
    stage.step(0)
    before = weights(stage.answering)
    stage.preview(stage.batch)
    stage.step(stage.batch)
    stage.preview(2 * stage.batch)
    assert not differing(stage.model_weights()["network"], before) and stage.best_images_seen == stage.batch


def test_a_trained_committee_is_one_model_folder(tiny_dataset, quick, tmp_path):
    changes = [*quick, "baseline.members=2"]
    assert train(tiny_dataset, tmp_path, recipe="debug", method="unimatch", changes=changes, device="cpu").finished
    model = semgan.load(tmp_path, device="cpu")
    assert isinstance(model, NetworkSegmenter) and len(model.members) == 2
    assert differing(*(weights(member) for member in model.members))
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert model.segment_batch(image).signals["disagreement"].min() > 0
    assert read_json(tmp_path / "model" / "config.json")["settings"]["baseline"]["members"] == 2


def test_nnunet_is_one_network():
    job = object.__new__(TrainingJob)
    object.__setattr__(job, "settings", Settings(baseline={"members": 2}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'nnunet' trains one network; got baseline.members=2. Train several runs"):
        train_nnunet(job)
