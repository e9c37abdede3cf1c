"""Mean Teacher: the teacher is the student's running average, agreement moves the student, and its weight rises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy_task import (
    BINARY,
    DEEPLAB,
    FOUR,
    SIZE,
    assert_golden,
    assert_resumed_equals_uninterrupted,
    assert_same,
    differ,
    exact,
    kept_weights,
    settings,
    stage,
    stream,
    train,
    unlabelled_stream,
    weights,
    write_golden,
)

from semgan.baselines.mean_teacher import NOISE_DEVIATION, MeanTeacherStage, average_decay, move_average
from semgan.baselines.networks import build_network
from semgan.baselines.stage import Streams
from semgan.objectives.consistency import ramp_up


def teacher_stage(validate: Any = None, **options: Any) -> MeanTeacherStage:
    made = stage(validate, kind=MeanTeacherStage, **({"unlabelled_batch": 6} | DEEPLAB | options))
    assert isinstance(made, MeanTeacherStage)
    return made


def cases() -> dict[str, MeanTeacherStage]:
    return {
        "deeplabv2": teacher_stage(consistency_weight=10.0),
        "unet": teacher_stage(network="unet", consistency_weight=10.0),
        "four_classes": teacher_stage(labels=FOUR, consistency_weight=10.0, intensity_augment=True),
    }


@pytest.mark.parametrize("case", ["deeplabv2", "unet", "four_classes"])
def test_losses_of_ten_steps_equal_the_golden_numbers(case):
    assert_golden("mean_teacher", case, train(exact(cases()[case]), range(10)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_uninterrupted_training_to_the_bit(tmp_path, precision):
    def made() -> MeanTeacherStage:
        return teacher_stage(lambda segmenter: 0.5, precision=precision, intensity_augment=True)

    assert_resumed_equals_uninterrupted(made, tmp_path / "c.safetensors")


# ---------------------------------------------------------------- the teacher


def test_decay_is_a_true_mean_first_and_then_constant():
    assert [average_decay(step, 0.9) for step in (0, 1, 3)] == [0, 0.5, 0.75]
    assert average_decay(9, 0.9) == average_decay(1000, 0.9) == 0.9


def test_an_average_moves_by_the_decay_and_keeps_its_own_statistics():
    mean, network = (torch.nn.BatchNorm1d(3) for _ in range(2))
    torch.nn.init.constant_(mean.weight, 1.0)
    torch.nn.init.constant_(network.weight, 3.0)
    network.running_mean = torch.full((3,), 7.0)
    move_average(mean, network, 0.75)
    assert mean.weight.tolist() == [1.5] * 3
    assert mean.running_mean is not None and mean.running_mean.tolist() == [0.0] * 3
    assert network.weight.tolist() == [3.0] * 3


def test_after_every_step_the_teacher_is_the_running_average_of_the_student():
    trained = teacher_stage(ema_decay=0.6)
    expected = {name: value.clone() for name, value in trained.network.named_parameters()}
    for step in range(5):
        train(trained, range(step, step + 1))
        decay = min(1 - 1 / (step + 1), 0.6)
        for name, value in trained.network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach()
    for name, value in trained.teacher.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name], rtol=1e-5, atol=1e-7)
        assert value.grad is None and not value.requires_grad
    assert differ(dict(trained.network.named_parameters()), dict(trained.teacher.named_parameters()))


def test_the_teacher_answers_and_is_kept():
    trained = teacher_stage()
    train(trained, range(3))
    teacher = {f"network.{name}": value for name, value in trained.teacher.state_dict().items()}
    assert_same(kept_weights(trained), teacher)
    assert trained.segmenter.network is trained.teacher


def test_the_teachers_statistics_come_from_its_own_passes():
    trained = teacher_stage()
    train(trained, range(2))
    counts = [int(value) for name, value in trained.teacher.state_dict().items() if name.endswith("batches_tracked")]
    assert counts and set(counts) == {2}
    student, teacher = (
        network.state_dict()["trunk.bn1.running_mean"] for network in (trained.network, trained.teacher)
    )
    assert not torch.equal(student, teacher)


# ---------------------------------------------------------------- agreement


def test_the_weight_of_agreement_ramps_up():
    trained = teacher_stage(consistency_weight=10.0, ramp_up_share=0.5)
    late, early, plain = (trained.loss_terms(seen)["consistency"] for seen in (36, 0, 0))
    assert early.item() == pytest.approx(plain.item(), rel=0.5)  # statistics moved, nothing else did
    assert late > 50 * early  # exp(5) = 148 from the first step to the end of the ramp


@pytest.mark.parametrize("labels", [BINARY, FOUR])
def test_agreement_is_the_weighted_squared_distance_on_all_images(labels, monkeypatch):
    trained = teacher_stage(labels=labels, consistency_weight=3.0)
    seen = []
    forward = trained.forward
    monkeypatch.setattr(trained, "forward", lambda network, image: seen.append(forward(network, image)) or seen[-1])
    found = trained.loss_terms(4)["consistency"].detach()
    student, teacher = seen[0].detach(), seen[1]
    assert student.shape == teacher.shape == (10, labels.channels, SIZE, SIZE)
    if labels.channels == 1:
        distance = (torch.sigmoid(student) - torch.sigmoid(teacher)).square().mean()
    else:
        distance = (student.softmax(1) - teacher.softmax(1)).square().mean()
    assert float(distance) > 0 and not teacher.requires_grad
    torch.testing.assert_close(found, 3.0 * ramp_up(0.1, 0.25) * distance)


def test_student_and_teacher_see_the_same_pictures_under_different_small_noise():
    trained = teacher_stage()
    labelled, unlabelled = trained.labelled_batch(8), trained.unlabelled_batch(8)
    clean = torch.cat([labelled.image, unlabelled.image])
    noise = {player: trained._noisy(labelled, unlabelled, player) - clean for player in ("student", "teacher")}
    for values in noise.values():
        assert float(values.std()) == pytest.approx(NOISE_DEVIATION, rel=0.1)
        assert abs(float(values.mean())) < 0.02
    both = torch.stack([noise["student"].flatten(), noise["teacher"].flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.1
    assert torch.equal(trained._noisy(labelled, unlabelled, "student") - clean, noise["student"])


@pytest.mark.parametrize("labels", [BINARY, FOUR])
def test_gradients_from_the_unlabelled_images_reach_the_student_alone(labels, monkeypatch):
    trained = teacher_stage(labels=labels, consistency_weight=100.0, ramp_up_share=0.0)
    inputs = []
    noisy = trained._noisy

    def watched(*args: Any) -> torch.Tensor:
        inputs.append(noisy(*args).requires_grad_())
        return inputs[-1]

    monkeypatch.setattr(trained, "_noisy", watched)
    trained.loss_terms(0)["consistency"].backward()
    student, teacher = inputs
    assert student.grad is not None and (student.grad[4:].abs().amax((1, 2, 3)) > 0).all()
    assert teacher.grad is None
    assert all(value.grad is not None for value in trained.network.parameters())
    assert all(value.grad is None for value in trained.teacher.parameters())


def test_training_with_agreement_and_with_other_unlabelled_images_differs():
    with_it, without = teacher_stage(consistency_weight=10.0), teacher_stage(consistency_weight=0.0)
    others = MeanTeacherStage(
        settings(unlabelled_batch=6, consistency_weight=10.0, **DEEPLAB),
        BINARY,
        Streams(stream(2, 40), unlabelled_stream(2, seed=77)),
        torch.device("cpu"),
    )
    for trained in (with_it, without, others):
        train(trained, range(2))
    assert differ(weights(with_it), weights(without)) and differ(weights(with_it), weights(others))


def test_agreement_alone_draws_the_student_to_another_teacher():
    options = {"network": "unet", "consistency_weight": 100.0, "ramp_up_share": 0.0}
    trained = teacher_stage(**options)
    trained.teacher.load_state_dict(build_network(settings(**options), 1, seed=9).state_dict())
    distances = []
    for _ in range(12):
        distance = trained.loss_terms(0)["consistency"]
        trained.update(distance, 0, "network")
        distances.append(float(distance.detach()))
    assert distances[-1] < distances[0] / 2


def test_without_unlabelled_images_it_says_what_to_do():
    with pytest.raises(ValueError, match="learns from unlabelled images too, and the dataset has none"):
        MeanTeacherStage(settings(), BINARY, Streams(stream(2, 8)), torch.device("cpu"))


if __name__ == "__main__":
    write_golden("mean_teacher", {name: train(exact(made), range(10)) for name, made in cases().items()})
