"""What stage 1 is watched by, and how the number of inversion steps is chosen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_stages import BINARY, CPU, FOUR, SETTINGS, stream, tiny_gan, with_changes

from semgan import config
from semgan.artifacts import RunFolder, read_metrics
from semgan.job import Pixels, TrainingJob
from semgan.stages.pipeline import GanMonitor, StepChoice, choose_steps
from semgan.stages.stopping import StoppingRule


def job(tmp_path, *, labels=BINARY, settings=SETTINGS, validation=4, draw=None):
    shown = stream("labelled", labels)
    pixels = Pixels(np.arange(10), shown.label_maps)
    held_out = Pixels(np.arange(validation), shown.label_maps[:validation])
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    return TrainingJob(settings, labels, run, CPU, shown.images, pixels, Pixels(np.arange(10)), held_out, draw=draw)


# ---------------------------------------------------------------- the monitor


def test_label_shares_are_told_for_samples_and_for_the_labelled_set(tmp_path):
    asked = job(tmp_path, labels=FOUR)
    logits = torch.full((2, 4, 16, 16), -5.0)
    logits[:, 0, :, :12], logits[:, 3, :, 12:] = 5.0, 5.0
    shares = GanMonitor(tiny_gan(labels=FOUR), asked).label_shares(logits)
    assert [shares[f"labels/{name}_share_samples"] for name in FOUR.names] == [0.75, 0, 0, 0.25]
    labelled = [shares[f"labels/{name}_share_labelled"] for name in FOUR.names]
    assert sum(labelled) == pytest.approx(1.0) and labelled[1] == np.mean(asked.labelled.label_maps == 1)


def test_frechet_distance_is_small_for_real_images_and_large_for_others(tmp_path):
    monitor = GanMonitor(tiny_gan(), job(tmp_path))
    real = torch.cat([stream("other", None).batch(first, 64).image for first in range(0, 512, 64)])
    near, far = monitor.distance(real), monitor.distance(torch.randn(512, 1, 16, 16) * 0.2)
    assert 0 <= near < 0.1 * far


def test_frechet_distance_does_not_change_with_the_trained_critic(tmp_path):
    gan = tiny_gan()
    image = torch.randn(128, 1, 16, 16)
    before = GanMonitor(gan, job(tmp_path)).distance(image)
    with torch.no_grad():
        for weight in gan.image_critic.parameters():
            weight.mul_(3)
    torch.manual_seed(77)
    (tmp_path / "again").mkdir()
    assert GanMonitor(gan, job(tmp_path / "again")).distance(image) == pytest.approx(before, rel=1e-6)


def test_a_preview_draws_pairs_and_leaves_training_as_it_was(tmp_path):
    drawn = []
    gan = tiny_gan()
    monitor = GanMonitor(gan, job(tmp_path, draw=lambda *grid: drawn.append(grid)))
    before = {name: value.clone() for name, value in gan.generator.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    numbers = monitor.preview(1234)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in gan.generator.state_dict().items())
    assert all(np.isfinite(value) for value in numbers.values())
    ((images, label_maps, classes, path),) = drawn
    assert images.shape == label_maps.shape == (32, 16, 16) and images.dtype == label_maps.dtype == np.uint8
    assert classes == 2 and path.name == "gan-000001234.png" and path.parent.name == "samples"


# ---------------------------------------------------------------- choosing the steps


class Answers:
    """A model whose masks are right for the first ``good[step]`` validation cases, and empty for the others."""

    def __init__(self, asked, good):
        self.asked, self.good, self.steps_taken, self.shown = asked, good, [], []
        self.settings = asked.settings
        self.good_of_call = []  # other ones, call after call

    def segment_batch(self, image, *, steps, snapshot_steps):
        if self.good_of_call:
            self.good = self.good_of_call.pop(0)
        self.steps_taken.append((steps, snapshot_steps))
        self.shown.append(len(image))
        maps = torch.from_numpy(self.asked.validation.label_maps[: len(image)]).long()
        right = torch.nn.functional.one_hot(maps, 2).permute(0, 3, 1, 2).float()
        empty = torch.zeros_like(right)
        empty[:, 0] = 1
        snapshots = {}
        for step in snapshot_steps:
            count = self.good.get(step, 0)
            snapshots[step] = torch.cat([right[:count], empty[count:]])
        return SimpleNamespace(snapshots=snapshots)


@pytest.mark.parametrize(
    ("good", "chosen"),
    [({0: 1, 10: 3, 25: 2}, 10), ({0: 2, 10: 2, 25: 2, 30: 2}, 0), ({30: 4}, 30)],
    ids=["the best score", "fewest steps of equal scores", "the recipe's own number is a candidate"],
)
def test_the_steps_with_the_best_validation_score_are_chosen(tmp_path, good, chosen):
    asked = job(tmp_path, settings=with_changes(inversion={"steps": 30}))
    model = Answers(asked, good)
    found = choose_steps(model, asked)
    assert found.steps == chosen
    assert model.steps_taken == [(30, (0, 5, 10, 25, 30))]  # one optimisation serves all candidates
    assert found.scores == {f"steps_{step}": pytest.approx(good.get(step, 0) / 4) for step in (0, 5, 10, 25, 30)}
    assert found.rule is None  # four images tell too little
    (row,) = read_metrics(asked.run.metrics)
    assert row["stage"] == "inversion" and row[f"validation/dice/steps_{chosen}"] == pytest.approx(good[chosen] / 4)


def test_choosing_again_replaces_the_earlier_line(tmp_path):
    asked = job(tmp_path, settings=with_changes(inversion={"steps": 0}))
    for _ in range(2):
        choose_steps(Answers(asked, {0: 1}), asked)
    assert len(read_metrics(asked.run.metrics)) == 1


def test_without_validation_images_nothing_is_chosen(tmp_path):
    asked = job(tmp_path, validation=0)
    assert choose_steps(Answers(asked, {}), asked) == StepChoice()


def validating(tmp_path, good, inversion):
    """A job with 20 validation images and a model that is right for ``good[step]`` of them."""
    asked = job(tmp_path, settings=with_changes(inversion=inversion))
    maps = np.tile(asked.validation.label_maps, (5, 1, 1))
    asked = replace(asked, validation=Pixels(np.arange(20) % 4, maps))
    return asked, Answers(asked, good)


def test_a_stopping_rule_is_learned_and_its_cross_validated_score_noted(tmp_path):
    asked, model = validating(tmp_path, {0: 10, 5: 20}, {"steps": 5})
    found = choose_steps(model, asked)
    # The ten that are right at once stay with step 0's mask; the other ten go on, with whatever agreement.
    assert found.rule is not None and found.rule.checkpoints == (0, 5)
    assert found.scores == {"steps_0": 0.5, "steps_5": 1.0, "steps_auto": 1.0}
    (row,) = read_metrics(asked.run.metrics)
    assert row["validation/dice/steps_auto"] == 1.0


def test_the_rule_is_learned_from_shifted_copies_too(tmp_path):
    """One image gains and none loses; of the copies, half are ruined: their masks are emptied."""
    asked, model = validating(tmp_path, {0: 19, 5: 20}, {"steps": 5})
    alone = choose_steps(model, asked).rule
    asked = replace(asked, read_shifted=asked.first_validation)
    model.good_of_call = [model.good, {0: 20, 5: 10}]
    model.steps_taken = []
    careful = choose_steps(model, asked).rule
    assert alone == StoppingRule(0.0, (0, 5)) and len(model.steps_taken) == 2
    assert careful is not None and careful.steps == 0  # all copies are ruined alike, so that no guard tells them apart


def test_the_choice_looks_at_its_own_number_of_cases_a_batch_at_a_time(tmp_path):
    """More than a preview scores, as 8 here; of 20 images the first 18, and copies of no others."""
    asked, model = validating(tmp_path, {0: 6, 5: 8}, {"steps": 5, "choice_cases": 18, "batch": 8})
    asked = replace(asked, settings=config.override(asked.settings, {"run": {"validation_cases": 8}}))
    read, told = [], []
    asked = replace(
        asked,
        read_shifted=lambda cases: read.append(cases) or asked.first_validation(cases),
        progress=lambda *line: told.append(line),
    )
    found = choose_steps(model, asked)
    assert told[:4] == [(done, 18, "choose steps") for done in (0, 8, 16, 18)]
    assert told[4:] == [(done, 18, "choose steps, shifted copies") for done in (0, 8, 16, 18)]
    assert model.shown == [8, 8, 2, 8, 8, 2] and read == [18]
    assert found.scores["steps_0"] == pytest.approx(14 / 18) and found.scores["steps_5"] == 1.0
    assert found.rule is not None  # eight cases would be too few
    (row,) = read_metrics(asked.run.metrics)
    assert row["images_seen"] == 18


def test_a_share_of_step_0_is_chosen_where_it_alone_gains(tmp_path):
    """The encoder is right and sure of the odd images; of the even ones it is unsure, and the optimised code knows."""
    asked, model = validating(tmp_path, {}, {"steps": 5})
    right = torch.nn.functional.one_hot(torch.from_numpy(asked.first_validation(20).label_maps).long(), 2)
    right = right.permute(0, 3, 1, 2).float()
    odd = (torch.arange(20) % 2 == 1)[:, None, None, None]
    unsure = torch.where(odd, 0.95 * right + 0.05 * (1 - right), 0.4 * right + 0.6 * (1 - right))
    known = torch.where(odd, 0.1 * right + 0.9 * (1 - right), right)

    def answered(image, *, steps, snapshot_steps):
        return SimpleNamespace(snapshots={0: unsure, 5: known})

    model.segment_batch = answered
    found = choose_steps(model, asked)
    assert found.rule == StoppingRule(0.0, (0, 5), 0.5)
    assert found.scores["steps_auto"] == 1.0 > max(found.scores["steps_0"], found.scores["steps_5"])


def test_copies_are_not_optimised_where_no_step_gains(tmp_path):
    asked, model = validating(tmp_path, {0: 20, 5: 8}, {"steps": 5})
    asked = replace(asked, read_shifted=lambda cases: pytest.fail("read"))
    assert choose_steps(model, asked).rule == StoppingRule(0.0, (0,))


def test_where_optimisation_only_harms_the_rule_is_step_0(tmp_path):
    asked, model = validating(tmp_path, {0: 20, 5: 8}, {"steps": 5})
    found = choose_steps(model, asked)
    assert found.rule == StoppingRule(0.0, (0,)) and found.scores["steps_auto"] == 1.0


def test_ramps_of_the_learning_rate_leave_the_choice_to_fixed_steps(tmp_path):
    asked, model = validating(tmp_path, {0: 10, 5: 20}, {"steps": 5, "ramp_down": 0.25})
    assert choose_steps(model, asked).rule is None


def test_with_ramps_only_none_and_all_of_the_steps_are_compared(tmp_path):
    """The first 5 of 30 steps of a rate that falls late are no run of 5 steps."""
    asked, model = validating(tmp_path, {0: 10, 5: 20, 30: 15}, {"steps": 30, "ramp_down": 0.25})
    found = choose_steps(model, asked)
    assert found.steps == 30 and set(found.scores) == {"steps_0", "steps_30"}
