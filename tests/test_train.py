"""The verb train: settings by layers, dry runs, stages one by one, interruptions, warm starts."""

from __future__ import annotations

import logging
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from semgan import config
from semgan import train as module
from semgan.artifacts import RunFolder, load_checkpoint, load_tensors, locked_folder, read_json, read_metrics
from semgan.baselines.unimatch import UniMatchStage
from semgan.data.folder import Dataset
from semgan.rehearsal import DryRun, seconds_per_step, timed_batch
from semgan.train import resolve_settings, train


@pytest.fixture(scope="module", autouse=True)
def without_reports():
    """Drawing curves takes most of so short a training; tests/contracts/test_methods.py has the reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_report", lambda run: [])
        yield


@pytest.fixture
def start(tiny_dataset, quick, tmp_path):
    """``start("run", stage="gan", changes=[...])``: train with the quick settings into a folder of the test."""

    def start(name, *, changes=(), **more):
        return train(tiny_dataset, tmp_path / name, recipe="debug", changes=[*quick, *changes], device="cpu", **more)

    return start


@pytest.fixture(scope="module")
def whole(tiny_dataset, quick, tmp_path_factory):
    """A run without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(tiny_dataset, out, recipe="debug", changes=quick, device="cpu").finished
    return out


def stop_at(images, stage):
    """Ctrl-C as soon as that many images of a stage are seen."""

    def progress(done, total, what):
        if what == f"train {stage}" and done >= images:
            raise KeyboardInterrupt

    return progress


def same_tensors(first, second):
    a, b = load_tensors(first)[0], load_tensors(second)[0]
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def content(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---------------------------------------------------------------- settings


def test_a_file_that_the_method_overrules_is_told(tiny_dataset, tmp_path, caplog):
    (tmp_path / "mine.yaml").write_text(
        "recipe: debug\nmethod: unet-nnunet\nbaseline: {learning_rate: 0.003, optimiser: sgd, batch: 4}\nseed: 3\n"
    )
    settings = resolve_settings(Dataset.open(tiny_dataset), tmp_path / "mine.yaml")
    assert (settings.baseline.learning_rate, settings.baseline.batch) == (0.01, 4)
    assert "overruled by method 'unet-nnunet': baseline.learning_rate is 0.01, not 0.003. --set" in caplog.text
    caplog.clear()
    resolve_settings(Dataset.open(tiny_dataset), tmp_path / "mine.yaml", method="unet")
    resolve_settings(Dataset.open(tiny_dataset), "debug", method="semgan-paper")
    assert "overruled" not in caplog.text


def test_later_layers_of_settings_win(tiny_dataset):
    """Recipe, method, dataset, named options, --set."""
    dataset = Dataset.open(tiny_dataset)
    plain = resolve_settings(dataset, "debug")
    assert plain.gan.augment == "adaptive" and plain.method == "semgan"
    assert plain.classes == ("background", "lung") and plain.preprocessing.channels == 1
    paper = resolve_settings(dataset, "debug", method="semgan-paper", seed=3, labels=5, split_seed=2)
    assert paper.gan.augment == "none" and (paper.seed, paper.labels, paper.split_seed) == (3, 5, 2)
    changes = ["gan.augment=fixed", "seed=4", "metric=jaccard"]
    final = resolve_settings(dataset, "debug", method="semgan-paper", seed=3, changes=changes)
    assert (final.gan.augment, final.seed, final.metric) == ("fixed", 4, "jaccard")


def test_the_papers_weights_follow_the_batch_that_is_asked_for(tiny_dataset):
    """Theirs is R1 of a mean over the batch and ours a mean of the pairs' own, so the batch says what ours weighs."""
    dataset = Dataset.open(tiny_dataset)
    usual, smaller, named = (
        resolve_settings(dataset, "lungs-64", method="semgan-paper", changes=changes).gan
        for changes in ([], ["gan.batch=8"], ["gan.batch=8", "gan.pair_r1_gamma=3"])
    )
    assert smaller.pair_r1_gamma == pytest.approx(16 * usual.pair_r1_gamma) and named.pair_r1_gamma == 3
    assert usual.batch == 32 and smaller.batch == 8 and smaller.feature_matching == usual.feature_matching


@pytest.mark.parametrize("recipe", ["lungs-64", "chest-xray-64", "skin-64", "faces-64"])
def test_recipes_at_64_px_train_a_student_beside_the_generator(tiny_dataset, recipe):
    dataset = Dataset.open(tiny_dataset)
    usual, named = (resolve_settings(dataset, recipe, method=method) for method in (None, "semgan-student"))
    assert usual == named and usual.method == "semgan-student" and usual.student.unlabelled
    alone = resolve_settings(dataset, recipe, method="semgan")
    assert alone.method == "semgan" and not alone.student.unlabelled
    assert resolve_settings(dataset, "liver-ct-64").method == resolve_settings(dataset, "phantoms").method == "semgan"


def test_options_that_are_not_given_leave_the_recipe_alone(tiny_dataset, tmp_path):
    (tmp_path / "mine.yaml").write_text("recipe: debug\nseed: 7\nlabels: 3\nmethod: unet\n")
    settings = resolve_settings(Dataset.open(tiny_dataset), tmp_path / "mine.yaml")
    assert (settings.seed, settings.labels, settings.method) == (7, 3, "unet")


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_a_training_keeps_the_precision_that_was_faster_where_it_began(start, tmp_path, monkeypatch, faster):
    monkeypatch.setattr(module, "faster_precision", lambda kind: faster)
    changes = ["encoder.precision=float32"]
    assert start("run", method="unet", changes=changes).finished
    found = config.load(tmp_path / "run" / "config.yaml")
    kept = [found.gan.precision, found.baseline.precision, found.inversion.precision, found.encoder.precision]
    assert kept == [faster, faster, "auto", "float32"]  # what is asked for by name stays
    monkeypatch.setattr(module, "faster_precision", lambda kind: pytest.fail("goes on with what it began with"))
    assert start("run", method="unet", changes=changes, resume=True).finished
    with pytest.raises(ValueError, match="other settings \\(baseline.precision\\)"):
        start("run", method="unet", changes=[*changes, "baseline.precision=float16"])


def test_a_run_of_before_auto_goes_on(start, tmp_path):
    assert start("run", method="unet", stage="all").finished
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("precision: auto", "precision: bfloat16"))
    assert start("run", method="unet", resume=True).finished
    assert "auto" not in [line.split()[-1] for line in path.read_text().splitlines() if "precision:" in line]


def test_a_precision_that_does_not_exist_is_told(start):
    with pytest.raises(ValueError, match="Unknown precision 'half'; expected auto, float32, bfloat16, float16"):
        start("run", method="unet", precision="half")


def test_the_first_process_decides_upon_the_precision(tmp_path, monkeypatch):
    """Whatever a later one measures, or sees of the run's folder."""
    told = []
    monkeypatch.setattr(module, "faster_precision", lambda kind: "float32")
    monkeypatch.setattr(module.ranks, "of_first", lambda number: told.append(number) or number)
    first = module._settle_precision(config.Settings(), RunFolder(tmp_path / "run"), None)
    assert (first.gan.precision, first.inversion.precision, len(told)) == ("float32", "auto", 4)

    monkeypatch.setattr(module, "faster_precision", lambda kind: pytest.fail("the first has measured"))
    monkeypatch.setattr(module.ranks, "is_first", lambda: False)
    answers = iter(told)
    monkeypatch.setattr(module.ranks, "of_first", lambda number: next(answers))
    assert module._settle_precision(config.Settings(), RunFolder(tmp_path / "elsewhere"), None) == first


# ---------------------------------------------------------------- dry run


@pytest.mark.parametrize(("method", "stages"), [("semgan", {"gan", "encoder"}), ("unet", {"baseline"})])
def test_a_dry_run_tells_settings_time_and_memory_and_writes_no_run(start, tmp_path, caplog, method, stages):
    caplog.set_level(logging.INFO, "semgan")
    found = start("run", method=method, dry_run=True)
    assert isinstance(found, DryRun)
    assert (found.labelled, found.unlabelled, found.validation) == (6, 6, 3)
    assert set(found.expected_minutes) == stages and all(0 < value < 60 for value in found.expected_minutes.values())
    assert found.memory_mb > 50
    assert found.settings["gan"]["images"] == 16 and found.settings["method"] == method
    assert not (tmp_path / "run").exists()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(told) == 1 and told[0].startswith("Timing 7 steps")  # nothing of a trial that nobody asked for


def test_ctrl_c_while_a_dry_run_times_steps_ends_it(start, monkeypatch):
    stopped = SimpleNamespace(train=lambda job: SimpleNamespace(interrupted=True))
    monkeypatch.setattr("semgan.rehearsal.methods", SimpleNamespace(get=lambda name: stopped))
    with pytest.raises(KeyboardInterrupt):
        start("run", method="unet", dry_run=True)


def test_a_run_is_trained_by_one_process_at_a_time(start, tmp_path):
    """A second start would take the first one's files in the making for what a kill left."""
    (tmp_path / "run").mkdir()
    with locked_folder(tmp_path / "run"), pytest.raises(ValueError, match="Another process trains .*run; wait until"):
        start("run", method="unet")
    assert start("run", method="unet").finished


@pytest.mark.parametrize(("size_px", "timed"), [(16, 32), (64, 32), (128, 8), (256, 2), (512, 2)])
def test_without_a_gpu_large_pictures_are_timed_in_small_batches(size_px, timed):
    settings = config.override(config.Settings(), {"device": "cpu", "preprocessing": {"size_px": size_px}})
    assert timed_batch(settings, "gan") == timed
    assert timed_batch(settings, "pool") == settings.student.pool_batch


def test_unlabelled_images_are_timed_in_the_proportion_of_the_training(start, monkeypatch):
    seen = []
    own = UniMatchStage.unlabelled_batch
    monkeypatch.setattr("semgan.rehearsal.timed_batch", lambda settings, stage: 2)
    monkeypatch.setattr(UniMatchStage, "unlabelled_batch", lambda stage, at: seen.append(own(stage, at)) or seen[-1])
    changes = ["baseline.batch=4", "baseline.unlabelled_batch=6"]
    start("run", method="unimatch", dry_run=True, changes=changes)
    assert {len(batch.image) for batch in seen} == {3}


def test_the_expected_time_grows_with_the_length(start, monkeypatch):
    clock = (3.0, 4.0, 6.0)  # of the processor: 1 and 2 seconds for a batch
    speeds = [
        {"stage": "baseline", "images_per_second": rate, "cpu_seconds": now}
        for rate, now in zip((1.0, 50.0, 100.0), clock, strict=True)
    ]
    monkeypatch.setattr("semgan.rehearsal.read_metrics", lambda path: speeds)
    found = start("run", method="unet", dry_run=True, changes=["baseline.images=60000"])
    assert found.expected_minutes == {"baseline": pytest.approx(15.0)}  # the mean price, without the first step
    assert found.cpu_minutes == {"baseline": pytest.approx(60000 * 1.5 / found.settings["baseline"]["batch"] / 60)}


def test_lazy_regularisers_are_charged_by_how_often_they_come():
    def step(seconds, *keys):
        return {"images_per_second": 8 / seconds, **dict.fromkeys(keys, 0.0)}

    rows = [step(9.0, "r", "p"), step(1.0), step(3.0, "r"), step(2.0, "p"), step(3.0, "r"), step(1.0)]
    assert seconds_per_step(rows, 8, {"r": 16, "p": 4}) == pytest.approx(1 + 2 / 16 + 1 / 4)
    assert seconds_per_step(rows[:2], 8, {"r": 16}) == pytest.approx(1.0)


# ---------------------------------------------------------------- errors come first, and leave nothing


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"resume": True}, FileNotFoundError, "--resume: .* is not a run; leave --resume out"),
        ({"stage": "gann"}, ValueError, "Unknown stage 'gann'; expected gan, encoder, pool, student, all"),
        ({"labels": 4}, ValueError, "no list 'labelled_4_seed0'.*semgan data split"),
        ({"method": "gan"}, ValueError, "Unknown method 'gan'"),
        ({"changes": ["gan.bach=3"]}, ValueError, "gan.bach"),
        ({"method": "unet", "stage": "gan"}, ValueError, "method 'unet' has none"),
    ],
)
def test_bad_requests_leave_no_run_behind(start, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        start("run", **options)
    assert not (tmp_path / "run").exists()


def test_fewer_than_two_labelled_images_are_refused_and_leave_no_run_behind(start, tmp_path, monkeypatch):
    labelled = Dataset.labelled
    monkeypatch.setattr(Dataset, "labelled", lambda *request: labelled(*request)[:1])
    with pytest.raises(ValueError, match="has 1 labelled training images; at least 2 are needed"):
        start("run")
    assert not (tmp_path / "run").exists()


def test_the_encoder_needs_a_generator(start):
    with pytest.raises(FileNotFoundError, match="gan.safetensors is missing.*run --stage gan first"):
        start("run", stage="encoder")


# ---------------------------------------------------------------- stages and interruptions


def test_stages_one_by_one_give_the_same_model_as_both_at_once(start, tmp_path, whole):
    first = start("run", stage="gan")
    assert first.finished and first.images_seen == 16
    assert not (tmp_path / "run" / "model" / "encoder.safetensors").exists()
    assert start("run", stage="encoder").finished
    for name in ("generator", "encoder", "image_critic"):
        assert same_tensors(tmp_path / f"run/model/{name}.safetensors", whole / f"model/{name}.safetensors"), name
    described = [read_json(folder / "model" / "config.json") for folder in (tmp_path / "run", whole)]
    assert described[0]["inversion"] == described[1]["inversion"]


def test_an_interrupted_run_ends_with_the_model_of_an_uninterrupted_one(start, tmp_path, whole):
    """Ctrl-C in both stages, then no time at all, then the same command again."""
    with pytest.raises(KeyboardInterrupt):
        start("run", progress=stop_at(12, "gan"))
    stopped = start("run", max_minutes=0)
    assert (stopped.finished, stopped.interrupted, stopped.images_seen) == (False, False, 8)  # the last checkpoint
    with pytest.raises(KeyboardInterrupt):
        start("run", progress=stop_at(12, "encoder"))
    assert start("run", resume=True).finished
    for name in ("generator", "encoder", "image_critic"):
        assert same_tensors(tmp_path / f"run/model/{name}.safetensors", whole / f"model/{name}.safetensors"), name
    seen = [(row["stage"], row["images_seen"]) for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert [images for stage, images in seen if stage == "encoder"] == [4, 8, 12, 16, 16]  # the last: validation


def test_an_encoder_starts_anew_when_its_generator_was_trained_further(start, tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        start("run", stage="gan", progress=stop_at(8, "gan"))
    start("run", stage="gan", max_minutes=0)
    start("run", stage="encoder")
    early = load_checkpoint(tmp_path / "run" / "checkpoints" / "encoder.safetensors")
    assert "anew" not in (tmp_path / "run" / "log.txt").read_text()
    assert start("run").finished
    assert "the encoder starts anew" in (tmp_path / "run" / "log.txt").read_text()
    late = load_checkpoint(tmp_path / "run" / "checkpoints" / "encoder.safetensors")
    assert early["images_seen"] == late["images_seen"] == 16
    assert same_tensors(tmp_path / "run/model/encoder.safetensors", whole / "model/encoder.safetensors")


def test_a_finished_run_keeps_its_whole_model_when_a_stage_is_asked_for_again(start, tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    assert start("run", stage="gan").finished
    assert same_tensors(tmp_path / "run/model/encoder.safetensors", whole / "model/encoder.safetensors")
    assert read_json(tmp_path / "run/model/config.json")["inversion"]["chosen_steps"] is not None
    assert start("run").finished  # chooses the steps once more, and writes that down once
    rows = [(row["stage"], row["images_seen"]) for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert rows == [(row["stage"], row["images_seen"]) for row in read_metrics(whole / "metrics.jsonl")]


# ---------------------------------------------------------------- warm starts


def test_a_warm_start_begins_with_the_networks_of_the_other_run(start, tmp_path, whole):
    start("run", stage="gan", init_from=whole, max_minutes=0)
    assert "Started from the networks of" in (tmp_path / "run" / "log.txt").read_text()
    assert same_tensors(tmp_path / "run/model/image_critic.safetensors", whole / "model/image_critic.safetensors")


def test_a_warm_start_happens_once(start, tmp_path, whole):
    """The same command goes on from the run's own checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        start("run", stage="gan", init_from=whole, progress=stop_at(12, "gan"))
    start("run", stage="gan", init_from=whole)
    start("other", stage="gan", init_from=whole)
    assert same_tensors(tmp_path / "run/model/generator.safetensors", tmp_path / "other/model/generator.safetensors")
    assert not same_tensors(tmp_path / "run/model/generator.safetensors", whole / "model/generator.safetensors")


def test_a_warm_start_of_a_run_that_began_otherwise_is_told(start, tmp_path, whole):
    start("plain", stage="gan")
    with pytest.raises(ValueError, match="plain began from the start; leave it out to go on, or give another folder"):
        start("plain", stage="gan", init_from=whole)
    start("warm", stage="gan", init_from=whole, max_minutes=0)
    with pytest.raises(ValueError, match="began from .* and has no generator of its own yet; add --init-from"):
        start("warm", stage="gan")  # stopped before its first checkpoint
    start("warm", stage="gan", init_from=whole)
    with pytest.raises(ValueError, match="warm began from .*whole.*; leave it out"):
        start("warm", stage="gan", init_from=tmp_path / "plain")


@pytest.mark.parametrize("change", ["generator.widths=[8, 8, 4]", "generator.w_dim=12"])
def test_a_warm_start_from_other_networks_is_refused(start, whole, change):
    with pytest.raises(ValueError, match=r"--init-from: .*gan.safetensors has other networks than these settings"):
        start("run", init_from=whole, changes=[change])


def test_a_warm_start_from_something_that_is_no_run_is_refused(start, tmp_path):
    with pytest.raises(FileNotFoundError, match="--init-from: .*name a run whose stage 'gan' has a checkpoint"):
        start("run", init_from=tmp_path)


# ---------------------------------------------------------------- the log


def test_the_runs_log_tells_what_was_trained_on_and_every_error(start, tmp_path, whole, monkeypatch, caplog):
    text = (whole / "log.txt").read_text()
    assert re.search("Training semgan.* recipe debug", text) and "Finished after 16 images" in text

    def fail(job):
        raise ValueError("the cat sat on the keyboard")

    broken = module.methods.METHODS["unet"].__class__("", fail, fail, True)
    monkeypatch.setitem(module.methods.METHODS, "unet", broken)
    with pytest.raises(ValueError):
        start("run", method="unet")
    assert "ERROR the cat sat on the keyboard" in (tmp_path / "run" / "log.txt").read_text()
    assert not [record for record in caplog.records if "the cat" in record.getMessage()]  # the command tells it


def test_another_run_may_not_write_into_the_folder(start, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    before = content(tmp_path / "run")
    with pytest.raises(ValueError, match=r"other settings \(gan.images\)"):
        start("run", changes=["gan.images=32"])
    assert content(tmp_path / "run") == before and RunFolder(tmp_path / "run").model.is_dir()


def test_every_metric_of_evaluate_can_choose_the_best_weights(start, tmp_path):
    start("run", method="unet", changes=["metric=miou-per-case"])
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert any("validation/miou-per-case" in row for row in rows)
