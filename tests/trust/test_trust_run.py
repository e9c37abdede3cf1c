"""``semgan trust fit`` and ``semgan segment`` with what it left: columns, flags, choices, refusals."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from semgan import artifacts
from semgan.cli import main
from semgan.data.folder import Dataset
from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder
from semgan.metrics.calibration import CalibrationScores
from semgan.posterior import latent
from semgan.posterior.calibration import Calibration
from semgan.posterior.latent import Budget, LatentPosterior
from semgan.segment import segment
from semgan.trust import answering, samples
from semgan.trust.answering import posterior_fingerprint
from semgan.trust.choice import Choice
from semgan.trust.fit import FILE, Trust, fit
from semgan.trust.ridge import fit_ridge
from semgan.trust.run import fit_trust
from semgan.trust.samples import FIRST, OWN, POSTERIOR, answered
from semgan.trust.signals import SIGNALS

GAN_SIGNALS = set(SIGNALS) - {"disagreement"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    plain = write_phantom_dataset(
        folder / "plain", "chests", size_px=16, labelled=2, unlabelled=0, validation=8, test=3, seed=1
    )
    files = {"manifest": plain / "manifest.csv", "classes": plain / "classes.json"}
    prepare_folder(plain / "images", plain / "labels", folder / "dataset", workers=1, **files)
    return folder / "dataset"


@pytest.fixture(scope="module")
def pictures(dataset):
    return dataset.parent / "plain/test/standard/images"


def run(*words):
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--device", "cpu"])
    return int(left.value.code or 0)


def table(out):
    return list(csv.DictReader((out / "segmentation.csv").open()))


def test_a_fitted_model_predicts_scores_and_says_what_to_look_at(gan_folder, dataset, pictures, tmp_path, capsys):
    assert run("segment", "-m", gan_folder, "-i", pictures, "-o", tmp_path / "before") == 0
    plain = set(table(tmp_path / "before")[0])
    assert not plain & (GAN_SIGNALS | {"predicted_score", "look_at"})
    capsys.readouterr()
    assert run("trust", "fit", "-m", gan_folder, dataset, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 8 and told["copies"] == 3 and told["metric"] == "dice" and told["steps"] == 2
    assert {"before", "after", "temperature"} == set(told["calibration"])
    capsys.readouterr()
    assert run("segment", "-m", gan_folder, "-i", pictures, "-o", tmp_path / "out", "--json") == 0
    out, err = capsys.readouterr()
    rows = table(tmp_path / "out")
    assert set(rows[0]) - plain == {"predicted_score", "out_of_domain", "calibrated_confidence", "look_at"}
    found = json.loads(out)["rows"]
    flagged = [row["stem"] for row in found if row["look_at"] == 1]
    assert all(0 <= row["predicted_score"] <= 1 and row["out_of_domain"] >= 0 for row in found)
    assert all(0.5 <= row["calibrated_confidence"] <= 1 for row in found)
    assert (f"{len(flagged)} of 3 images should be looked at" in err) == bool(flagged)
    for row in rows:  # masks are as they were
        one, other = ((tmp_path / folder / f"{row['stem']}.png").read_bytes() for folder in ("before", "out"))
        assert one == other


def test_rows_are_what_the_fit_says_of_the_measured_signals(gan_folder, dataset, pictures, tmp_path):
    assert run("trust", "fit", "-m", gan_folder, dataset, "--cases", 8) == 0
    trust = Trust.read(gan_folder)
    rows = segment(gan_folder, pictures, tmp_path / "out", signals=True, device="cpu")
    assert GAN_SIGNALS <= set(rows[0])
    again = trust.columns({name: np.array([row[name] for row in rows]) for name in GAN_SIGNALS})
    assert [row["predicted_score"] for row in rows] == pytest.approx(again["predicted_score"], abs=1e-3)
    assert [row["out_of_domain"] for row in rows] == pytest.approx(again["out_of_domain"], rel=1e-2)
    assert artifacts.read_json(tmp_path / "out/segmentation.json")["options"]["temperature"] == trust.temperature
    one_by_one = segment(gan_folder, pictures, tmp_path / "one", signals=True, batch=1, device="cpu")
    for row, alone in zip(rows, one_by_one, strict=True):
        assert row["predicted_score"] == pytest.approx(alone["predicted_score"], abs=1e-3)
    with pytest.raises(FileExistsError, match="results of another model"):  # a new fit is another request
        trust.write(gan_folder)
        (gan_folder / FILE).write_text((gan_folder / FILE).read_text() + " ")
        segment(gan_folder, pictures, tmp_path / "out", signals=True, device="cpu")


def test_answers_of_other_steps_are_not_predicted(gan_folder, dataset, pictures, tmp_path, capsys):
    assert run("trust", "fit", "-m", gan_folder, dataset, "--steps", 0) == 0
    capsys.readouterr()
    assert run("segment", "-m", gan_folder, "-i", pictures, "-o", tmp_path / "two") == 0
    assert "fitted for answers of steps 0, and these are of steps 2" in capsys.readouterr().err
    assert "look_at" not in table(tmp_path / "two")[0]
    assert run("segment", "-m", gan_folder, "-i", pictures, "-o", tmp_path / "zero", "--steps", 0) == 0
    assert "look_at" in table(tmp_path / "zero")[0]


def test_signals_come_without_a_fit_and_disagreement_with_an_ensemble(gan_folder, pictures, tmp_path):
    rows = segment(gan_folder, pictures, tmp_path / "one", signals=True, device="cpu")
    assert GAN_SIGNALS <= set(rows[0]) and "predicted_score" not in rows[0]
    assert run("segment", "-m", gan_folder, "-m", gan_folder, "-i", pictures, "-o", tmp_path / "two", "--steps", 0) == 0
    both = table(tmp_path / "two")
    assert all(float(row["disagreement"]) < 1e-4 for row in both)
    alone = segment(gan_folder, pictures, tmp_path / "alone", steps=0, device="cpu")
    assert [float(row["confidence"]) for row in both] == pytest.approx([row["confidence"] for row in alone])
    rows = segment([gan_folder, gan_folder], pictures, tmp_path / "three", signals=True, device="cpu")
    assert {"entropy", "mirror_agreement", "disagreement"} <= set(rows[0]) and "code_distance" not in rows[0]


# ---------------------------------------------------------------- choice


@pytest.fixture
def calibrated(gan_folder, monkeypatch):
    """The model with a posterior of two cheap draws."""
    Calibration(0.6, 1e-2, 2, {"optimised": CalibrationScores(0.5, 0.2, 0.1, 512)}).write(gan_folder)
    monkeypatch.setattr(answering, "BUDGET", Budget(count=2, chains=1, warmup=0, thin=1))
    monkeypatch.setattr(latent, "LAPLACE_RANK", 1)
    return gan_folder


def test_a_choice_is_learned_among_all_answers_where_the_posterior_is_calibrated(
    calibrated, dataset, monkeypatch, capsys
):
    monkeypatch.setattr(samples, "SEVERITIES", samples.SEVERITIES[:1])
    monkeypatch.setattr("semgan.trust.choice.FEWEST_CASES", 8)
    assert run("trust", "fit", "-m", calibrated, dataset, "--choose", "--json") == 0
    told = json.loads(capsys.readouterr().out)["choice"]
    assert set(told["mean score of each for all"]) == {OWN, FIRST, POSTERIOR}
    choice = Trust.read(calibrated).choice
    assert choice.method == "laplace" and {choice.usual, *choice.gains} == {OWN, FIRST, POSTERIOR}
    (calibrated / "posterior.json").unlink()
    capsys.readouterr()
    assert run("trust", "fit", "-m", calibrated, dataset, "--choose", "--json") == 0
    out, err = capsys.readouterr()
    assert "run `semgan calibrate`" in err
    assert set(json.loads(out)["choice"]["mean score of each for all"]) == {OWN, FIRST}


def chosen_by_foreground(gan, folder, threshold_low, threshold_high):
    """Trust that sends images of much foreground to the posterior, of little to step 0."""
    chance = np.random.default_rng(0)
    images = torch.tensor(chance.uniform(-1, 1, (8, 1, 16, 16)), dtype=torch.float32)
    maps = chance.integers(0, 2, (8, 16, 16)).astype(np.uint8)
    found = answered(gan, images, maps, [str(number) for number in range(8)], "dice")
    trust = fit(found)
    share = {"foreground": np.linspace(0, 1, 101)}
    up = fit_ridge(share, share["foreground"] - threshold_high, 1e-6)
    down = fit_ridge(share, threshold_low - share["foreground"], 1e-6)
    choice = Choice(OWN, {FIRST: down, POSTERIOR: up}, 0.0, "laplace", posterior_fingerprint(folder))
    return Trust(**{**trust.__dict__, "choice": choice})


def test_every_image_gets_the_answer_that_is_chosen_for_it(calibrated, gan, pictures, tmp_path, monkeypatch):
    plain = segment(calibrated, pictures, tmp_path / "own", signals=True, save_probabilities=True, device="cpu")
    shares = sorted(row["foreground"] for row in plain)
    low, high = ((shares[place] + shares[place + 1]) / 2 for place in (0, 1))
    chosen_by_foreground(gan, calibrated, low, high).write(calibrated)
    zero = {row["stem"]: row for row in segment(calibrated, pictures, tmp_path / "zero", steps=0, device="cpu")}
    rows = segment(calibrated, pictures, tmp_path / "out", choose=True, save_probabilities=True, device="cpu")
    ordered = sorted(plain, key=lambda row: row["foreground"])
    assert {row["stem"]: row["answer"] for row in rows} == {
        row["stem"]: name for row, name in zip(ordered, (FIRST, OWN, POSTERIOR), strict=True)
    }
    for row in rows:
        own = {each["stem"]: each for each in plain}[row["stem"]]
        files = [tmp_path / out / f"probabilities/{row['stem']}.npz" for out in ("own", "out")]
        saved = [np.load(file)["probabilities"] for file in files]
        if row["answer"] == FIRST:
            assert row["steps"] == 0 and row["confidence"] == pytest.approx(zero[row["stem"]]["confidence"], abs=1e-5)
        elif row["answer"] == OWN:
            assert row["steps"] == 2 and np.array_equal(*saved)
        else:
            assert not np.array_equal(*saved)
        assert row["predicted_score"] >= 0 and own["steps"] == 2
    asked, draw = [], LatentPosterior.draw

    def noted(self, *arguments, **options):
        asked.append(options.get("modality"))
        return draw(self, *arguments, **options)

    monkeypatch.setattr(LatentPosterior, "draw", noted)
    with pytest.raises(ValueError, match="learned for steps 2, not 1; leave the steps out"):
        segment(calibrated, pictures, tmp_path / "other", choose=True, steps=1, device="cpu")
    segment(calibrated, pictures, tmp_path / "again", choose=True, device="cpu")
    assert asked == ["default"]  # once, with the modality of the images
    monkeypatch.setattr(LatentPosterior, "draw", draw)
    known = (calibrated / "posterior.json").read_bytes()
    (calibrated / "posterior.json").write_bytes(known + b" ")
    with pytest.raises(ValueError, match="was calibrated anew since it learned to choose; run `semgan trust fit`"):
        segment(calibrated, pictures, tmp_path / "anew", choose=True, device="cpu")
    (calibrated / "posterior.json").write_bytes(known)
    alone = segment(calibrated, pictures, tmp_path / "one", choose=True, batch=1, device="cpu")
    assert [row["answer"] for row in alone] == [row["answer"] for row in rows]
    for row, same in zip(alone, rows, strict=True):
        assert row["confidence"] == pytest.approx(same["confidence"], abs=1e-4)


def test_too_few_cases_are_told_before_any_is_answered(gan_folder, tiny_dataset, monkeypatch):
    monkeypatch.setattr("semgan.trust.run.answered", lambda *words, **options: pytest.fail("answered"))
    with pytest.raises(ValueError, match="8 validation cases or more; got 3"):
        fit_trust(gan_folder, tiny_dataset, device="cpu")


def test_what_cannot_be_fitted_or_chosen_is_one_message(gan_folder, dataset, tiny_dataset, pictures, tmp_path, capsys):
    out = ("-i", pictures, "-o", tmp_path / "out")
    fitted = tmp_path / "fitted"
    artifacts.save_model(fitted, *network_files())
    for words, named in (
        (("segment", "-m", gan_folder, *out, "--choose"), "not learned to choose its answers; run `semgan trust fit"),
        (("segment", "-m", gan_folder, "-m", gan_folder, *out, "--choose"), "Only one model folder"),
        (("segment", "-m", gan_folder, *out, "--dropout-passes", 4), "trained with dropout"),
        (("segment", "-m", fitted, *out, "--dropout-passes", 4), "has no dropout"),
        (("segment", "-m", gan_folder, "-m", fitted, "-o", tmp_path / "out", "--manifest", "list.csv"), "An archive"),
        (("trust", "fit", "-m", gan_folder, tiny_dataset), "8 validation cases or more; got 3"),
        (("trust", "fit", "-m", fitted, dataset, "--choose"), "Only a model of method semgan"),
        (("segment", "-m", fitted, *out, "--choose"), "has one answer only; leave --choose out"),
        (("trust", "fit", "-m", tmp_path / "nowhere", dataset), "nowhere does not exist"),
    ):
        capsys.readouterr()
        assert run(*words) == 2, words
        message = capsys.readouterr().err
        assert named in message and "Traceback" not in message and message.count("Error") == 1
    assert not (tmp_path / "out").exists() and not (gan_folder / FILE).exists()


def network_files(**baseline):
    """Description, weights and card of an untrained U-Net for the same task."""
    from semgan.baselines.networks import build_network
    from semgan.config import Settings, override

    settings = override(
        Settings(),
        {
            "method": "unet",
            "classes": ("background", "lung"),
            "preprocessing": {"size_px": 16, "channels": 1},
            "baseline": {"widths": (4, 4, 8, 8), **baseline},
        },
    )
    description = {
        "method": "unet",
        "settings": settings.model_dump(mode="json"),
        "classes": list(settings.classes),
        "preprocessing": {"default": settings.preprocessing.model_dump(mode="json")},
    }
    return description, {"network": build_network(settings, 1).state_dict()}, "card"


def test_a_feed_forward_network_is_fitted_by_its_own_doubts_and_thinned_ones_disagree(dataset, pictures, tmp_path):
    folder = tmp_path / "unet"
    artifacts.save_model(folder, *network_files(dropout=0.5))
    assert run("trust", "fit", "-m", folder, dataset) == 0
    trust = Trust.read(folder)
    assert set(trust.score.names) == {"entropy", "expected_overlap", "foreground", "mirror_agreement"}
    assert trust.steps == 0 and "foreground" not in trust.domain.names
    assert run("segment", "-m", folder, "-i", pictures, "-o", tmp_path / "out") == 0
    assert {"predicted_score", "out_of_domain", "look_at"} <= set(table(tmp_path / "out")[0])
    rows = segment(folder, pictures, tmp_path / "passes", dropout_passes=3, device="cpu")
    assert all(row["disagreement"] > 0 for row in rows) and "look_at" not in rows[0]
    picture = Image.open(next((tmp_path / "passes").glob("*.png")))
    assert set(np.unique(np.array(picture))) <= {0, 1}


def test_a_dataset_without_validation_list_is_told_and_nothing_is_written(gan_folder, dataset, monkeypatch, capsys):
    before = sorted(path.name for path in gan_folder.iterdir())
    monkeypatch.setattr(Dataset, "validation", lambda self: [])
    assert run("trust", "fit", "-m", gan_folder, dataset) == 2
    assert "has no validation list" in capsys.readouterr().err
    assert sorted(path.name for path in gan_folder.iterdir()) == before
