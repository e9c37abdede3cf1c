"""`semgan ablate`: the grid, what is measured, and what is suggested."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_gan import saved_gan, tiny_gan

from semgan.ablate import ablate, grid
from semgan.data.folder import Dataset
from semgan.metrics import overlap
from semgan.posterior.run import calibrate_model
from semgan.robustness import robustness
from semgan.trust.run import fit_trust


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved_gan(tiny_gan(), tmp_path_factory.mktemp("ablate") / "model")


VARY = ["inversion.lambda_pixel=0.001,0.5", "inversion.learning_rate=0.05,1e37"]


@pytest.fixture(scope="module")
def ablated(model, tiny_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablated") / "out"
    return ablate(model, tiny_dataset, out, vary=VARY, steps=(0, 4), formats=("png", "pdf"), device="cpu")


def table(path):
    with open(path, newline="") as lines:
        return list(csv.DictReader(lines))


# ---------------------------------------------------------------- the grid


def test_the_grid_holds_all_combinations_and_the_model_as_saved_once():
    settings = tiny_gan().settings
    found = grid(settings, ["inversion.lambda_pixel=0.001,0.5", "inversion.reduction=sum,mean"])
    assert list(found) == [
        "as saved",  # lambda_pixel=0.001, reduction=sum
        "lambda_pixel=0.001, reduction=mean",
        "lambda_pixel=0.5, reduction=sum",
        "lambda_pixel=0.5, reduction=mean",
    ]
    assert found["lambda_pixel=0.5, reduction=mean"] == {"inversion.lambda_pixel": 0.5, "inversion.reduction": "mean"}


def test_one_by_one_changes_one_setting_at_a_time():
    vary = ["inversion.lambda_encoder=0,0.1,1", "inversion.optimise_noise=true,false", "perceptual.distance=lpips"]
    found = grid(tiny_gan().settings, vary, one_by_one=True)
    assert list(found) == [
        "as saved", "lambda_encoder=0.0", "lambda_encoder=1.0", "optimise_noise=True", "distance=lpips",
    ]  # fmt: skip
    assert found["optimise_noise=True"] == {"inversion.optimise_noise": True}


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ([], "Nothing is varied"),
        (["inversion.lambda_pixel"], "KEY=A,B,C"),
        (["inversion.lambda_pixel="], "KEY=A,B,C"),
        (["inversion.lamda_pixel=1"], "Did you mean 'inversion.lambda_pixel'"),
        (["inversion.lambda_pixel=many"], "inversion.lambda_pixel.*many"),
        (["inversion.reduction=sum,median"], "reduction.*median"),
        (["gan.batch=2"], "inversion.*; got 'gan.batch'"),
        (["inversion.steps=1,2"], "--steps"),
        (["inversion=0.1"], "a section and a name"),
        (["perceptual.=1"], "a section and a name"),
        (["inversion.lambda_pixel.x=1"], "a section and a name"),
        (["inversion.lambda_pixel=1", "inversion.lambda_pixel=2"], "given twice"),
    ],
)
def test_wrong_grids_are_said(vary, message):
    with pytest.raises(ValueError, match=message):
        grid(tiny_gan().settings, vary)


@pytest.mark.parametrize("verb", ["ablate", "calibrate", "trust", "robustness"])
def test_a_dataset_of_other_channels_is_refused_before_any_work(verb, model, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Dataset, "channels", 3)
    calls = {
        "ablate": lambda: ablate(model, tiny_dataset, tmp_path / "out", vary=VARY, device="cpu"),
        "calibrate": lambda: calibrate_model(model, tiny_dataset, device="cpu"),
        "trust": lambda: fit_trust(model, tiny_dataset, device="cpu"),
        "robustness": lambda: robustness([model], tiny_dataset, tmp_path / "out", device="cpu"),
    }
    with pytest.raises(ValueError, match="images of 3 channels and .* takes 1"):
        calls[verb]()
    assert not list(tmp_path.iterdir()) and not (model / "trust.json").exists()


# ---------------------------------------------------------------- what is measured


def test_scores_are_those_of_the_model_on_the_validation_list(ablated, model, tiny_dataset):
    import semgan

    rows = {(row["variant"], row["steps"]): row for row in table(ablated.out / "ablation.csv")}
    cases = Dataset.open(tiny_dataset).validation()
    answers = semgan.load(model, device="cpu").segment([case.image for case in cases], steps=4)
    counts = overlap.concatenate(
        overlap.count(answer.label_map, np.array(Image.open(case.label)), 2)
        for answer, case in zip(answers, cases, strict=True)
    )
    assert float(rows["as saved", "4"]["score"]) == pytest.approx(overlap.overall(counts, "dice"), abs=2e-3)
    assert rows["as saved", "4"]["n"] == "3"
    assert {row["as_saved"] for key, row in rows.items() if key == ("as saved", "2")} == {"1"}  # chosen_steps is added
    stems = {row["case"] for row in table(ablated.out / "cases.csv")}
    assert stems == {case.stem for case in cases}


def test_step_0_is_the_same_whatever_is_varied_and_distances_fall(ablated):
    rows = {(row["variant"], row["steps"]): row for row in table(ablated.out / "ablation.csv")}
    other = "lambda_pixel=0.5, learning_rate=0.05"
    assert rows["as saved", "0"]["score"] == rows[other, "0"]["score"]
    assert float(rows["as saved", "4"]["distance"]) < float(rows["as saved", "0"]["distance"])
    assert rows["as saved", "4"]["distance"] != rows[other, "4"]["distance"]


def test_a_setting_that_diverges_is_a_row_with_the_reason_and_stops_nothing(ablated):
    assert list(ablated.problems) == [f"lambda_pixel={value}, learning_rate=1e+37" for value in (0.001, 0.5)]
    rows = [row for row in table(ablated.out / "ablation.csv") if row["problem"]]
    assert len(rows) == 6 and all("diverged" in row["problem"] and row["score"] == "" for row in rows)
    assert len(ablated.best) == 2
    assert Image.open(ablated.out / "ablation.png").size[0] > 300
    assert (ablated.out / "ablation.pdf").read_bytes().startswith(b"%PDF")


def test_the_suggestion_is_in_the_file_too(ablated):
    stored = json.loads((ablated.out / "suggestion.json").read_text())
    assert stored["details"]["words"] == ablated.suggestion and "validation cases" in ablated.suggestion
    assert stored["details"]["tried"] == 5 and stored["details"]["cases"] == 3


def test_a_stopped_ablation_goes_on_with_the_variants_left(ablated, model, tiny_dataset, tmp_path, monkeypatch):
    from semgan.stages.semantic_gan import SemanticGan

    options = {"vary": VARY[:1], "steps": (0, 4), "formats": ("pdf",), "device": "cpu"}

    told = []

    def stop(done, total, what):
        assert total == 2 * 3
        told.append(done)
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(model, tiny_dataset, tmp_path / "out", progress=stop, **options)
    assert not (tmp_path / "out").exists()
    assert told == [0, 3, 3, 6]  # heard of before the first batch, which can take minutes
    seen = []
    original = SemanticGan.segment_batch

    def noted(self, image, **more):
        seen.append(self.settings.inversion.lambda_pixel)
        return original(self, image, **more)

    monkeypatch.setattr(SemanticGan, "segment_batch", noted)
    found = ablate(model, tiny_dataset, tmp_path / "out", **options)
    assert seen == [0.5]
    assert found.best["as saved"] == ablated.best["as saved"]
    assert not (tmp_path / "out.partial").exists()
    again = ablate(model, tiny_dataset, tmp_path / "out", **options)
    assert again.best == found.best and seen == [0.5]


def test_values_in_another_order_are_another_request(ablated, model, tiny_dataset, tmp_path):
    """What a stopped start left of one setting must never be taken for another's."""
    out, options = tmp_path / "out", {"steps": (0, 4), "formats": ("pdf",), "device": "cpu"}

    def stop(done, total, what):
        if done > 6:  # "as saved" and the first value are on disk
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(model, tiny_dataset, out, vary=["inversion.lambda_pixel=0.5,0.01"], progress=stop, **options)
    with pytest.raises(FileExistsError, match="unfinished work"):
        ablate(model, tiny_dataset, out, vary=["inversion.lambda_pixel=0.01,0.5"], **options)
    ablate(model, tiny_dataset, out, vary=["inversion.lambda_pixel=0.01,0.5"], overwrite=True, **options)
    found = {(row["variant"], row["steps"]): row["distance"] for row in table(tmp_path / "out" / "ablation.csv")}
    known = {(row["variant"], row["steps"]): row["distance"] for row in table(ablated.out / "ablation.csv")}
    assert found["lambda_pixel=0.5", "4"] == known["lambda_pixel=0.5, learning_rate=0.05", "4"]
    assert found["lambda_pixel=0.01", "4"] != found["lambda_pixel=0.5", "4"]


def test_corrected_masks_are_another_request(model, tiny_dataset, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(tiny_dataset, data)
    options = {"vary": ["inversion.lambda_pixel=0.01"], "steps": (0,), "formats": ("png",), "device": "cpu"}
    first = ablate(model, data, out, **options)
    for case in Dataset.open(data).validation():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(case.label)))).save(case.label)
    with pytest.raises(FileExistsError, match="results of another model, other images"):
        ablate(model, data, out, **options)
    again = ablate(model, data, out, overwrite=True, **options)
    assert again.best != first.best


def test_values_that_are_none_and_paths_can_be_varied(tmp_path, tiny_dataset, monkeypatch):
    gan = tiny_gan()
    gan.settings = gan.settings.model_copy(
        update={"inversion": gan.settings.inversion.model_copy(update={"lambda_tone": 0.1})}
    )
    monkeypatch.setattr("semgan.models.lpips_weights.build_perceptual", lambda *args: (gan.perceptual, "the critic"))
    vary = ["inversion.lambda_tone=null", "perceptual.trunk_weights=a file.pth"]
    found = ablate(gan, tiny_dataset, tmp_path / "out", vary=vary, one_by_one=True, steps=(0,), cases=1)
    rows = {row["variant"]: row for row in table(tmp_path / "out" / "ablation.csv")}
    assert set(found.best) == {"as saved", "lambda_tone=None", "trunk_weights=a file.pth"}
    assert rows["lambda_tone=None"]["inversion.lambda_tone"] == "none"
    assert rows["as saved"]["inversion.lambda_tone"] == ""  # empty: as saved
    assert rows["trunk_weights=a file.pth"]["perceptual.trunk_weights"] == "a file.pth"


def test_test_images_are_never_opened(model, tiny_dataset, tmp_path, monkeypatch):
    def forbidden(self):
        raise AssertionError("the test list was asked for")

    monkeypatch.setattr(Dataset, "test", forbidden)
    found = ablate(model, tiny_dataset, tmp_path / "out", vary=VARY[:1], steps=(0,), cases=2, device="cpu")
    assert found.details.cases == 2


# ---------------------------------------------------------------- bad input


def test_animations_are_refused_as_there_are_none(model, tiny_dataset, tmp_path):
    with pytest.raises(ValueError, match="--format takes png, pdf; got 'gif'"):
        ablate(model, tiny_dataset, tmp_path / "out", vary=VARY, formats=("gif",), device="cpu")
    assert not list(tmp_path.iterdir())


def test_other_classes_are_refused(tiny_dataset, tmp_path):
    gan = tiny_gan(classes=("background", "liver"))
    with pytest.raises(ValueError, match="background, lung, the model background, liver"):
        ablate(gan, tiny_dataset, tmp_path / "out", vary=VARY)
    assert not list(tmp_path.iterdir())


def test_a_data_set_without_validation_list_is_refused(model, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Dataset, "validation", lambda self: [])
    with pytest.raises(ValueError, match="no validation list.*never chosen on test"):
        ablate(model, tiny_dataset, tmp_path / "out", vary=VARY, device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_perceptual_distance_that_is_not_at_hand_is_said_before_any_work(model, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    vary = ["perceptual.trunk_weights=nowhere.pth"]
    with pytest.raises((ValueError, FileNotFoundError), match="nowhere.pth|distance"):
        ablate(model, tiny_dataset, tmp_path / "out", vary=[*vary, "perceptual.distance=lpips"], device="cpu")
    assert not (tmp_path / "out.partial").exists()
