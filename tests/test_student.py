"""The student and its answer beside the inversion: made once, resumed to the bit, chosen on validation, fair."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import semgan
from semgan import student as student_module
from semgan import train as train_module
from semgan.artifacts import RunFolder, load_tensors, read_json, read_metrics, save_tensors, write_json
from semgan.baselines import pipeline
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.config import Settings
from semgan.data.folder import Dataset
from semgan.data.transforms import enlarged
from semgan.generative import load_generative
from semgan.objectives.segmentation import disagreement
from semgan.scoring import HeldOut, TrainedModel
from semgan.stages.inversion_objective import Guide
from semgan.stages.semantic_gan import SemanticGan
from semgan.student_answer import STUDENT_SHARES, AnswerChoice, answers_of, choose_answer, load_student, mix
from semgan.train import train

MORE = ["baseline={images: 16, batch: 4, precision: float32}", "gan.precision=float32", "encoder.precision=float32"]


@pytest.fixture(scope="module", autouse=True)
def without_reports():
    """tests/contracts/test_methods.py has the reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "_report", lambda run: [])
        yield


@pytest.fixture(scope="module")
def start(tiny_dataset, quick):
    def start(out, method="semgan-student", *, changes=(), **more):
        changes = [*quick, *MORE, *changes]
        return train(tiny_dataset, out, recipe="debug", method=method, changes=changes, device="cpu", **more)

    return start


@pytest.fixture(scope="module")
def teacher(start, tmp_path_factory):
    """A finished run of method semgan."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    assert start(out, "semgan").finished
    return out


@pytest.fixture(scope="module")
def both(start, teacher, tmp_path_factory):
    """A finished run of method semgan-student on that model."""
    out = tmp_path_factory.mktemp("both") / "run"
    assert start(out, init_from=teacher).finished
    return out


@pytest.fixture(scope="module")
def alone(start, teacher, tmp_path_factory):
    """A finished run of method student on that model."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert start(out, "student", init_from=teacher).finished
    return out


def weights(run, name="student"):
    return load_tensors(run / "model" / f"{name}.safetensors")[0]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def stop_at(images, stage):
    def progress(done, total, what):
        if what == f"train {stage}" and done >= images:
            raise KeyboardInterrupt

    return progress


# ---------------------------------------------------------------- training


def test_a_given_model_is_used_as_it_is(both, teacher):
    assert {row["stage"] for row in read_metrics(both / "metrics.jsonl")} == {"pool", "student"}
    for name in ("generator", "encoder", "image_critic"):
        assert same(weights(both, name), weights(teacher, name)), name
    ours, given = (read_json(run / "model" / "config.json") for run in (both, teacher))
    assert ours["student"] and ours["method"] == "semgan-student" and "student" not in given
    assert ours["training"]["images_seen_gan"] == given["training"]["images_seen_gan"]


def test_the_same_command_after_the_end_does_nothing(both, start, teacher):
    before = {path: path.stat().st_mtime_ns for path in both.rglob("*") if path.is_file() and path.name != "log.txt"}
    assert start(both, init_from=teacher).finished
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_an_interrupted_run_ends_with_the_student_of_an_uninterrupted_one(both, start, teacher, tmp_path):
    for images, stage in ((4, "pool"), (12, "student")):
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", init_from=teacher, progress=stop_at(images, stage))
    assert not start(tmp_path / "run", init_from=teacher, max_minutes=0).finished
    assert start(tmp_path / "run", init_from=teacher).finished
    assert same(weights(tmp_path / "run"), weights(both))
    assert same(weights(tmp_path / "run", "generator"), weights(both, "generator"))


@pytest.mark.parametrize(("stage", "stopped", "steps"), [("gan", None, 1), ("all", (4, "pool"), 0)])
def test_until_there_is_a_student_the_generative_model_answers_alone(start, tmp_path, caplog, stage, stopped, steps):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) if stopped else nullcontext():
        start(run, stage=stage, progress=stop_at(*stopped) if stopped else None)
    caplog.clear()
    model = semgan.load(run, device="cpu")
    assert "has no student yet; let `semgan train`" in caplog.text and "answers alone" in caplog.text
    image = torch.zeros(1, 1, 16, 16)
    found = model.segment_batch(image, steps=steps)
    alone = SemanticGan.load(run, device="cpu").segment_batch(image, steps=steps)
    assert torch.equal(found.probabilities, alone.probabilities)
    with pytest.raises(FileNotFoundError, match="has no student yet"):  # not filed under the name of both
        TrainedModel(run, device="cpu")


def test_one_run_folder_for_all_stages_gives_the_same_student(both, start, tmp_path):
    """Without --init-from: GAN alone first, interrupted in the student, then the same command."""
    assert start(tmp_path / "run", stage="gan").finished
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", progress=stop_at(12, "student"))
    assert start(tmp_path / "run").finished
    stages = [row["stage"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert set(stages) == {"gan", "encoder", "pool", "student"}
    for name in ("student", "generator", "encoder"):
        assert same(weights(tmp_path / "run", name), weights(both, name)), name


def test_the_inversions_own_steps_are_not_chosen_and_a_pause_keeps_the_student(both, start, tmp_path, monkeypatch):
    """They would be chosen, by a walk as long as the guided one's, at every resume, and thrown away."""
    monkeypatch.setattr("semgan.stages.pipeline.choose_steps", lambda model, job: pytest.fail("chosen"))
    out = tmp_path / "run"
    for stage in ("gan", "encoder", "pool"):
        start(out, stage=stage)
    for _ in range(2):
        assert not start(out, max_minutes=0).finished
        assert (out / "model" / "student.safetensors").is_file()
        assert read_json(out / "model" / "config.json")["student"] == {"share": None, "guide_weight": 1.0}
    assert start(out).finished and same(weights(out), weights(both))
    described, card = (out / "model" / name for name in ("config.json", "README.md"))
    assert "rule" not in read_json(described)["inversion"] and "guided steps" in card.read_text()


def test_scores_of_the_teachers_own_answers_are_left_out(teacher, both):
    assert any(name.startswith("steps_") for name in read_json(teacher / "model" / "config.json")["scores"])
    assert not any(name.startswith("steps_") for name in read_json(both / "model" / "config.json")["scores"])


def test_stage_by_stage_gives_the_same_student(both, start, tmp_path):
    with pytest.raises(FileNotFoundError, match="stage 'student' needs drawn pairs; run --stage pool first"):
        start(tmp_path / "other", stage="student", init_from=both)
    for stage in ("gan", "encoder", "pool", "student"):
        assert start(tmp_path / "run", stage=stage).finished
    assert same(weights(tmp_path / "run"), weights(both))


def test_a_clock_that_ends_the_pool_leaves_no_blank_pairs_to_learn_from(start, teacher, tmp_path, monkeypatch):
    """The student sees what was drawn until then."""
    seen = []
    monkeypatch.setattr(student_module, "MixedStream", lambda pairs, real, *shares: seen.append(pairs) or pairs)
    changes = ["student.pool_images=160", "student.pool_batch=16"]
    options = {"init_from": teacher, "changes": changes, "clock_ends": True}
    stop = stop_at(48, "pool")
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", "student", stage="pool", progress=stop, **options)
    assert start(tmp_path / "run", "student", stage="student", **options).finished
    (stream,) = seen
    reserved = np.load(tmp_path / "run" / "pool" / "images.npy", mmap_mode="r")
    assert len(stream) == len(reserved) * 48 // 160 and min(image.max() for image in stream.images) > 0


def test_another_generator_starts_pool_and_student_anew(both, start, teacher, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(both, out)
    other = shutil.copytree(teacher / "model", tmp_path / "other" / "model")
    moved = {name: value + 0.3 for name, value in weights(teacher, "generator").items()}
    save_tensors(other / "generator.safetensors", moved)
    assert start(out, init_from=other).finished
    assert "pool and student start anew" in (out / "log.txt").read_text()
    assert not same(weights(out), weights(both)) and same(weights(out, "generator"), moved)


def test_a_student_learns_from_generated_and_from_real_pairs(start, teacher, alone, tmp_path):
    for share in (0.0, 1.0):
        start(tmp_path / str(share), "student", init_from=teacher, changes=[f"student.real_share={share}"])
    found = [weights(tmp_path / "0.0"), weights(tmp_path / "1.0"), weights(alone)]
    assert not any(same(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert sorted(path.stem for path in (tmp_path / "0.0" / "model").glob("*.safetensors")) == [
        "encoder", "generator", "image_critic", "student",
    ]  # fmt: skip


def test_the_share_of_real_pairs_rises_where_asked(start, teacher, alone, tmp_path):
    for last in (0.25, 1.0):
        start(tmp_path / str(last), "student", init_from=teacher, changes=[f"student.last_real_share={last}"])
    assert same(weights(tmp_path / "0.25"), weights(alone)) and not same(weights(tmp_path / "1.0"), weights(alone))


def test_students_learn_under_the_augmentation_of_unet_strong(both):
    assert read_json(both / "model" / "config.json")["settings"]["baseline"]["intensity_augment"] is True


def terms(run):
    """Names of everything noted while the student learnt."""
    return {name for row in read_metrics(run / "metrics.jsonl") if row["stage"] == "student" for name in row}


def test_unlabelled_images_take_part_beside_the_inversion(both, alone):
    assert {"strong_views", "perturbed_features"} <= terms(both)
    assert not {"strong_views", "perturbed_features"} & terms(alone)


def test_unlabelled_images_take_part_where_asked_and_resume_to_the_bit(start, teacher, alone, tmp_path):
    asked = ["student.unlabelled=true", "baseline.confidence_threshold=0.5"]
    start(tmp_path / "a", "student", init_from=teacher, changes=asked)
    assert not same(weights(tmp_path / "a"), weights(alone))
    assert {"strong_views", "perturbed_features"} <= terms(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", "student", init_from=teacher, changes=asked, progress=stop_at(12, "student"))
    start(tmp_path / "b", "student", init_from=teacher, changes=asked)
    assert same(weights(tmp_path / "b"), weights(tmp_path / "a"))
    image = torch.rand(2, 1, 16, 16) * 2 - 1
    answers = [semgan.load(tmp_path / run, device="cpu").segment_batch(image).probabilities for run in "ab"]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_strong_views_move_with_their_labels_where_asked(start, teacher, both, tmp_path):
    start(tmp_path / "run", init_from=teacher, changes=["student.strong_affine=true"])
    assert not same(weights(tmp_path / "run"), weights(both))
    stage = object.__new__(student_module.ConsistentStudentStage)
    settings = Settings(seed=3, student={"strong_affine": True})
    object.__setattr__(stage, "settings", settings)
    label_map = torch.zeros(16, 32, 32, dtype=torch.long)
    label_map[:, 8:20, 12:26] = 1
    image = 2 * label_map[:, None].float() - 1
    moved, labels = stage.moved(image, label_map, "here", list(range(16)))
    assert labels.dtype == label_map.dtype and set(labels.unique().tolist()) == {0, 1}
    assert ((moved[:, 0] > 0) == labels.bool()).float().mean() > 0.97
    sizes = labels.sum((1, 2))
    assert (
        sizes.min() < 0.85 * 168 and sizes.max() > 1.3 * 168 and (labels != label_map).any((1, 2)).float().mean() > 0.7
    )
    other = stage.moved(image, label_map, "there", list(range(16)))[1]
    again = stage.moved(image[4:6], label_map[4:6], "here", [4, 5])[1]
    assert not torch.equal(other, labels) and torch.equal(again, labels[4:6])
    fine = stage.moved(image, enlarged(label_map, 2), "here", list(range(16)))[1]  # data.fine_labels
    assert fine.shape == (16, 64, 64) and (fine == enlarged(labels, 2)).float().mean() > 0.97


def test_a_student_learns_from_masks_finer_than_its_network(start, teacher, alone, tmp_path):
    """Real pairs have them; those of generated pairs are enlarged."""
    result = start(tmp_path / "run", "student", init_from=teacher, changes=["data.fine_labels=2"])
    assert result.finished and not same(weights(tmp_path / "run"), weights(alone))


def test_where_the_clock_is_the_end_the_answer_is_chosen_and_after_a_pause_not(start, teacher, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(student_module, "choose_answer", lambda *given: asked.append(given) or AnswerChoice())
    start(tmp_path / "run", stage="pool", init_from=teacher)
    for clock_ends in (False, True):
        start(tmp_path / "run", stage="student", init_from=teacher, max_minutes=0, clock_ends=clock_ends)
        assert len(asked) == int(clock_ends)


def test_the_answer_is_chosen_with_the_network_that_is_saved(start, teacher, tmp_path, monkeypatch):
    """Of unlabelled images' students the average answers, not the network that it follows."""
    seen = []

    def choose(model, learnt, job):
        seen.append(learnt.network.state_dict())
        return AnswerChoice()

    monkeypatch.setattr(student_module, "choose_answer", choose)
    falling = iter(range(0, -100, -1))  # the first preview's weights are the best, not the last ones
    monkeypatch.setattr(pipeline, "validation_of", lambda job: lambda segmenter: next(falling))
    changes = ["student.unlabelled=true", "baseline.ema_decay=0.9", "run.preview_every_images=4"]
    start(tmp_path / "run", init_from=teacher, changes=changes)
    (network,) = seen
    assert same({name: value.cpu() for name, value in network.items()}, weights(tmp_path / "run"))


def test_a_student_is_scored_without_steps_though_its_generator_has_some(start, teacher, both, tiny_dataset, tmp_path):
    """The folder keeps the inversion of its generator's run; a table must not take it for the student's."""
    start(tmp_path / "run", "student", init_from=teacher)
    alone, beside = (TrainedModel(run, device="cpu") for run in (tmp_path / "run", both))
    assert alone.steps((25,)) == (0,) and 1 in beside.steps((1,))
    data = Dataset.open(tiny_dataset)
    stems = tuple(case.stem for case in data.validation())
    held_out = HeldOut("own", tiny_dataset / "imagesTr", tiny_dataset / "labelsTr", only=stems)
    rows = alone.rows(alone.score(held_out, [25]), "lungs", "dice")
    assert {(row.method, row.steps, row.chosen, row.n) for row in rows} == {("student", 0, 1, 3)}
    told_by_training = alone.description["scores"]["validation dice, student"]
    (told,) = alone.validation_rows("lungs")
    assert told.chosen == 1 and told.value == pytest.approx(told_by_training, abs=1e-5)
    assert beside.validation_rows("lungs") == []


def test_several_students_answer_with_their_mean_beside_the_inversion(start, teacher, both, tmp_path):
    asked = ["baseline.members=2", "student.answer_share=1"]
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", init_from=teacher, changes=asked, progress=stop_at(12, "student"))
    start(tmp_path / "run", init_from=teacher, changes=asked)
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    answer = semgan.load(tmp_path / "run", device="cpu").segment_batch(image)
    found = answer.probabilities
    learnt = load_student(tmp_path / "run", "cpu")
    members = [NetworkSegmenter(member, learnt.labels, learnt.rules, learnt.device) for member in learnt.members]
    alone = [member.segment_batch(image).probabilities for member in members]
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2, rtol=1e-4, atol=1e-5)
    assert not torch.equal(*alone)
    torch.testing.assert_close(answer.signals["disagreement"], disagreement(alone), rtol=1e-4, atol=1e-6)
    first = {name.removeprefix("0."): value for name, value in weights(tmp_path / "run").items()}
    assert same({name: first[name] for name in weights(both)}, weights(both))


# ---------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("student", {"stage": "encoder"}, "Method 'student' has no stage 'encoder'; it trains gan, pool, student"),
        ("student", {"stage": "gan", "init_from": "here"}, "with --init-from has no stage 'gan'; it trains pool, stu"),
    ],
)
def test_stages_that_a_student_does_not_have_are_refused_before_any_run(start, tmp_path, method, options, words):
    with pytest.raises(ValueError, match=words):
        start(tmp_path / "run", method, **options)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_labelled_list_or_size_is_refused(start, teacher, tmp_path):
    lied = shutil.copytree(teacher / "model", tmp_path / "lied")
    described = read_json(lied / "config.json")
    described["settings"]["labels"] = 5
    write_json(lied / "config.json", described)
    with pytest.raises(ValueError, match="was trained with labels 5, and this run asks for None"):
        start(tmp_path / "run", init_from=lied)
    with pytest.raises(ValueError, match="was trained with preprocessing"):
        start(tmp_path / "run2", init_from=teacher, changes=["preprocessing.gamma=0.5"])


def test_what_a_teacher_lacks_is_said(start, teacher, tmp_path):
    half = shutil.copytree(teacher / "model", tmp_path / "half")
    (half / "encoder.safetensors").unlink()
    description = read_json(half / "config.json")
    description["training"].pop("images_seen_encoder")  # as stage "gan" alone leaves it
    write_json(half / "config.json", description)
    with pytest.raises(ValueError, match="has no encoder yet; train that first .--stage encoder., or use --method"):
        start(tmp_path / "run", init_from=half)
    assert start(tmp_path / "run2", "student", init_from=half).finished
    (half / "generator.safetensors").unlink()
    with pytest.raises(ValueError, match="is of method 'semgan'; name a run of a method with a generator"):
        start(tmp_path / "run", init_from=half)


def test_a_run_that_lost_its_teacher_asks_for_it_again(start, teacher, both):
    with pytest.raises(ValueError, match=f"no generator of its own; go on with --init-from {teacher}/model"):
        start(both)


def test_a_dry_run_with_a_given_model_charges_for_pool_and_student_alone(start, teacher, tmp_path):
    found = start(tmp_path / "run", init_from=teacher, dry_run=True)
    assert set(found.expected_minutes) == {"pool", "student"} and min(found.expected_minutes.values()) > 0
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- answering


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("guide_weight", [0.0, 2.0])
def test_the_answer_is_the_weighted_mean_at_every_step(both, teacher, share, guide_weight):
    model = semgan.load(both, device="cpu")
    model.share, model.guide_weight = share, guide_weight
    image = torch.rand(3, 1, 16, 16) * 2 - 1
    found = model.segment_batch(image, steps=2, snapshot_steps=(0, 2))
    learnt = model.student.segment_batch(image).probabilities
    guide = Guide(learnt, guide_weight) if guide_weight else None
    inverted = semgan.load(teacher, device="cpu").segment_batch(image, steps=2, snapshot_steps=(0, 2), guide=guide)
    for step in (0, 2):
        expected = (1 - share) * inverted.snapshots[step] + share * learnt
        torch.testing.assert_close(found.snapshots[step], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities, found.snapshots[2])
    torch.testing.assert_close(found.confidence, found.probabilities.amax(1).mean((1, 2)))
    assert found.steps == (0 if share == 1 else 2) and found.reconstruction is not None
    assert ("guide" in found.trace) == (guide_weight > 0)


def test_the_guide_draws_the_mask_to_the_students(both):
    model = semgan.load(both, device="cpu")
    model.share = 0.0
    image = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    last = []
    for model.guide_weight in (1e-6, 30.0):
        found = model.segment_batch(image, steps=10)
        learnt, shown = model.student.segment_batch(image).probabilities, found.probabilities.clamp_min(1e-6)
        last.append(found.trace["guide"][-1])
        torch.testing.assert_close(last[-1], -(learnt * shown.log()).sum(1).mean((1, 2)), rtol=1e-3, atol=1e-4)
    assert (last[1] < last[0]).all()


def test_a_folder_without_a_guide_is_answered_without(both, tmp_path):
    """As those from before there were guides."""
    shutil.copytree(both / "model", tmp_path / "model")
    described = read_json(tmp_path / "model" / "config.json")
    assert described["student"].pop("guide_weight") == 1.0
    write_json(tmp_path / "model" / "config.json", described)
    assert (semgan.load(both, device="cpu").guide_weight, semgan.load(tmp_path, device="cpu").guide_weight) == (1, 0)


def test_a_student_alone_takes_no_steps(alone):
    """It answers with its network, and with nothing of the generator in its folder."""
    model, image = semgan.load(alone, device="cpu"), torch.rand(2, 1, 16, 16) * 2 - 1
    learnt = load_student(alone, "cpu").segment_batch(image).probabilities
    torch.testing.assert_close(model.segment_batch(image).probabilities, learnt)
    inverted = SemanticGan.load(alone, device="cpu").segment_batch(image, steps=0).probabilities
    assert not torch.allclose(inverted, learnt, atol=1e-3)
    with pytest.raises(ValueError, match="not optimised at test time"):
        model.segment_batch(image, steps=3)


class Constant:
    """A model that answers the same for every image; with ``first``, that at step 0 and the other after more."""

    def __init__(self, probabilities, first=None):
        self.probabilities, self.first = probabilities, probabilities if first is None else first

    def segment_batch(self, image, *, steps=0, snapshot_steps=(), guide=None):
        self.guide = guide
        self.snapshots = {step: self.probabilities if step else self.first for step in snapshot_steps}
        return self


def as_probabilities(label_maps):
    return torch.nn.functional.one_hot(torch.from_numpy(label_maps).long(), 2).movedim(-1, 1).float()


@pytest.mark.parametrize(
    ("first", "later", "learnt", "chosen"),
    [
        ("right", "right", "wrong", (0, 0.25)),
        ("wrong", "wrong", "right", (0, 0.75)),
        ("right", "right", "right", (0, 0.5)),
        ("wrong", "right", "wrong", (10, 0.25)),
    ],
)
def test_steps_and_share_with_the_best_validation_score_are_chosen(tiny_job, first, later, learnt, chosen):
    right = as_probabilities(tiny_job.validation.label_maps)
    answers = {"right": right * 0.6 + 0.2, "wrong": 0.8 - right * 0.6}
    settings = tiny_job.settings.model_copy(
        update={"inversion": tiny_job.settings.inversion.model_copy(update={"steps": 30})}
    )
    job = replace(tiny_job, settings=settings, read_shifted=lambda cases: None)
    model = Constant(answers[later], answers[first])
    choice = choose_answer(model, Constant(answers[learnt]), job)
    assert (choice.steps, choice.share) == chosen and choice.scores[chosen] == 1.0
    assert set(choice.scores) == {(step, share) for step in (0, 10, 25) for share in STUDENT_SHARES}
    ramps = settings.model_copy(update={"inversion": settings.inversion.model_copy(update={"ramp_up": 0.1})})
    compared = choose_answer(model, Constant(answers[learnt]), replace(job, settings=ramps)).scores
    assert set(compared) == {(step, share) for step in (0, 25) for share in STUDENT_SHARES}  # no part of a longer run
    assert model.guide.weight == 1.0 and torch.equal(model.guide.probabilities, answers[learnt])


class Echo:
    """Answers every image with itself."""

    def segment_batch(self, image, *, snapshot_steps=(), **options):
        found = torch.cat([image, -image], 1)
        return SimpleNamespace(probabilities=found, snapshots={step: found + step for step in snapshot_steps})


def test_answers_are_made_a_batch_at_a_time_in_order_and_told(tiny_job):
    told = []
    inversion = tiny_job.settings.inversion.model_copy(update={"batch": 2})
    settings = tiny_job.settings.model_copy(update={"inversion": inversion})
    job = replace(tiny_job, settings=settings, progress=lambda *line: told.append(line))
    image = torch.from_numpy(job.scored.images).float() / 127.5 - 1
    learnt, inverted = answers_of(Echo(), Echo(), job.scored, (0, 5), job)
    torch.testing.assert_close(learnt, torch.cat([image, -image], 1))
    assert torch.equal(inverted[5], learnt + 5) and list(inverted) == [0, 5]
    assert told == [(done, 3, "choose answer") for done in (0, 2, 3)]


class ByCase:
    """Knows the validation images as they are; of others it says what it is told."""

    def __init__(self, job, others):
        self.known, self.others = job.scored, others

    def segment_batch(self, image, **options):
        is_known = torch.equal(((image + 1) * 127.5).round().byte(), torch.from_numpy(self.known.images))
        answer = Constant(as_probabilities(self.known.label_maps if is_known else self.others))
        return answer.segment_batch(image, **options)


@pytest.mark.parametrize(("stronger", "chosen"), [("model", 0.25), ("student", 0.75)])
def test_images_as_from_another_source_decide_where_the_others_do_not(tiny_job, stronger, chosen):
    truth = tiny_job.read_shifted(75).label_maps
    good, bad = ByCase(tiny_job, truth), ByCase(tiny_job, 1 - truth)
    choice = choose_answer(*((good, bad) if stronger == "model" else (bad, good)), tiny_job)
    assert choice.share == chosen and choice.scores[choice.steps, chosen] == 1.0
    assert choice.scores[choice.steps, 1.0 if stronger == "model" else 0.0] < 0.8


def test_a_named_share_is_kept_and_only_steps_are_chosen(start, teacher, tmp_path):
    start(tmp_path / "run", init_from=teacher, changes=["student.answer_share=0.1"])
    assert semgan.load(tmp_path / "run", device="cpu").share == 0.1
    described = read_json(tmp_path / "run" / "model" / "config.json")
    assert described["student"]["share"] is None and described["inversion"]["chosen_steps"] is not None
    assert any(", 10 % student" in name for name in described["scores"])


@pytest.fixture(scope="module")
def tiny_job(tiny_dataset, quick, tmp_path_factory):
    opened = Dataset.open(tiny_dataset)
    settings = train_module.resolve_settings(opened, "debug", changes=quick)
    run = RunFolder(tmp_path_factory.mktemp("job") / "run")
    return train_module._job(opened, settings, run, "all", None, None, None)


def test_mixing_keeps_probabilities():
    first, second = torch.rand(2, 3, 4, 4).softmax(1), torch.rand(2, 3, 4, 4).softmax(1)
    torch.testing.assert_close(mix(first, second, 0.3).sum(1), torch.ones(2, 4, 4))


def test_the_verbs_about_codes_open_the_generative_part_and_say_so(both, teacher, caplog):
    found, identity = load_generative(both, "cpu")
    assert identity is not None and "generative model alone; its answers are mixed with a student's" in caplog.text
    own = load_generative(teacher, "cpu")[0]
    assert all(torch.equal(a, b) for a, b in zip(found.generator.parameters(), own.generator.parameters(), strict=True))


def test_the_verbs_about_codes_refuse_a_student_alone(alone):
    with pytest.raises(ValueError, match="feed-forward"):
        load_generative(alone, "cpu")
