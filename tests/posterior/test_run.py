"""``semgan posterior`` and ``semgan calibrate`` on a tiny model: files, resumption, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from semgan.artifacts import read_json
from semgan.cli import main
from semgan.data.folder import Dataset
from semgan.metrics.calibration import CalibrationScores
from semgan.posterior import latent, preconditioning
from semgan.posterior import run as module
from semgan.posterior.calibration import FORMAT, Calibration
from semgan.posterior.diagnostics import Diagnosis
from semgan.posterior.latent import Budget, MaskDraws
from semgan.posterior.run import draw_posterior, entropy_share, interval
from semgan.types import LabelSpace

SHORT = Budget(count=4, chains=2, warmup=3, thin=1)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Few directions of the likelihood: what is written is looked at here, not how well it is drawn."""
    monkeypatch.setattr(preconditioning, "RANK", 4)
    monkeypatch.setattr(latent, "LAPLACE_RANK", 4)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number, size in enumerate(((20, 24), (16, 16), (40, 18))):
        Image.fromarray(chance.integers(0, 255, size, dtype=np.uint8)).save(folder / f"case_{number}.png")
    return folder


def drawn(folder, pictures, out, **options):
    return draw_posterior(folder, pictures, out, budget=SHORT, device="cpu", temperature=1e-3, **options)


def contents(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.suffix == ".png"}


def test_files_have_the_images_own_size_and_rows_their_intervals(folder, pictures, tmp_path):
    rows = drawn(folder, pictures, tmp_path / "out", batch=2)
    assert [row["stem"] for row in rows] == ["case_0", "case_1", "case_2"]
    for row, size in zip(rows, ((20, 24), (16, 16), (40, 18)), strict=True):
        stem = row["stem"]
        maps = [np.array(Image.open(path)) for path in sorted((tmp_path / "out/draws" / stem).iterdir())]
        mean = np.load(tmp_path / "out/probabilities" / f"{stem}.npz")["probabilities"]
        entropy = np.array(Image.open(tmp_path / "out/entropy" / f"{stem}.png"))
        assert len(maps) == row["draws"] == 4 and {each.shape for each in maps} == {size}
        assert mean.shape == (2, *size) and entropy.shape == size
        clear = np.abs(mean[0].astype(float) - 0.5) > 1e-3  # float16 rounds
        mask = np.array(Image.open(tmp_path / "out" / f"{stem}.png"))
        assert mask.shape == size and np.array_equal(mask[clear], mean.argmax(0)[clear])
        sizes = [int((each == 1).sum()) for each in maps]
        assert min(sizes) <= row["lung_px_low"] <= row["lung_px"] <= row["lung_px_high"] <= max(sizes)
    assert read_json(tmp_path / "out/posterior.json")["draws"]["count"] == 4


@pytest.mark.parametrize("method", ["hmc", "laplace"])
def test_progress_is_told_within_a_batch_and_counts_images(method, folder, pictures, tmp_path):
    told = []
    drawn(folder, pictures, tmp_path / "out", batch=3, method=method, progress=lambda *now: told.append(now))
    done = [now for now, total, what in told if what == "posterior" and total == 3]
    assert done == sorted(done) and done[-1] == 3 and (method == "laplace" or {0, 1, 2} <= set(done))


def test_scores_of_the_masks_before_do_not_lie_beside_others_and_files_of_people_do(folder, pictures, tmp_path):
    out = tmp_path / "out"
    drawn(folder, pictures, out, method="laplace")
    for name in ("scores.json", "cases.csv", "notes.txt"):  # two of `semgan evaluate`
        (out / name).write_text("of seed 0")
    drawn(folder, pictures, out, method="laplace", seed=1, overwrite=True)
    assert not (out / "scores.json").exists() and not (out / "cases.csv").exists() and (out / "notes.txt").exists()


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_run_ends_like_one_that_was_not(folder, pictures, tmp_path, monkeypatch):
    """With two threads the gradient of a convolution of a single pixel (of tiny models alone) differs by call."""
    drawn(folder, pictures, tmp_path / "whole", batch=1, method="mala")
    write = module._Writer.write

    def failing(self, stem, *rest):
        if stem == "case_1":
            raise KeyboardInterrupt
        return write(self, stem, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module._Writer, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            drawn(folder, pictures, tmp_path / "out", batch=1, method="mala")
    assert not (tmp_path / "out").exists()
    drawn(folder, pictures, tmp_path / "out", batch=1, method="mala")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert drawn(folder, pictures, tmp_path / "out", method="mala")[0]["draws"] == 4  # done: nothing is drawn again


def test_what_is_stopped_before_its_first_image_leaves_nothing_in_the_way(folder, pictures, tmp_path, monkeypatch):
    def stopped(*given, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Writer, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            draw_posterior(folder, pictures, tmp_path / "out", budget=SHORT, device="cpu", method="laplace")
    assert not (tmp_path / "out.partial").exists()  # another request may have the place


def test_chains_that_do_not_agree_are_told(folder, pictures, tmp_path, monkeypatch, caplog):
    drawn(folder, pictures, tmp_path / "out", method="laplace")
    assert "do not agree" not in caplog.text
    monkeypatch.setattr(module, "R_HAT_LIMIT", -2)  # below what draws without a diagnosis have
    drawn(folder, pictures, tmp_path / "again", method="laplace")
    assert "The chains of 3 of 3 images do not agree (R-hat above -2)" in caplog.text


def test_calibration_is_kept_beside_the_weights_and_used(folder, tiny_dataset, pictures, tmp_path, monkeypatch):
    asked, found = [], Calibration(0.4, 2e-3, 2, {"optimised": CalibrationScores(0.5, 0.2, 0.1, 512)})
    monkeypatch.setattr(module, "calibrate", lambda *given, **options: asked.append(given) or found)
    main_exits_with_0(["calibrate", "-m", str(folder), str(tiny_dataset), "--device", "cpu", "--cases", "2"])
    ((_, images, maps),) = asked
    assert images.shape == (2, 1, 16, 16) and maps.shape == (2, 16, 16) and set(np.unique(maps)) <= {0, 1, 255}
    assert Calibration.read(folder) == found
    rows = draw_posterior(folder, pictures, tmp_path / "out", budget=SHORT, device="cpu", method="laplace")
    assert read_json(tmp_path / "out/posterior.json")["temperature"] == 2e-3 and rows[0]["r_hat"] == -1
    kept = read_json(folder / "posterior.json")
    for content, told in (
        ({"slack": 1, "format": FORMAT}, "posterior.json is damaged"),
        ({key: value for key, value in kept.items() if key != "format"}, "another version's sampler.*calibrate` again"),
    ):
        (folder / "posterior.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=told):
            Calibration.read(folder)
    main_exits_with_0(["calibrate", "-m", str(folder), str(tiny_dataset), "--device", "cpu", "--cases", "2"])
    assert Calibration.read(folder) == found


def test_chains_at_a_temperature_for_laplace_are_warned_of(folder, pictures, tmp_path, caplog):
    Calibration(0.4, 2e-3, 2, {}, "laplace").write(folder)
    options = {"budget": SHORT, "device": "cpu"}
    draw_posterior(folder, pictures, tmp_path / "cheap", method="laplace", **options)
    draw_posterior(folder, pictures, tmp_path / "named", method="mala", temperature=2e-3, **options)
    assert "may be wrong for chains" not in caplog.text
    draw_posterior(folder, pictures, tmp_path / "chains", method="mala", **options)
    assert "was fitted to draws by laplace" in caplog.text and "may be wrong for chains" in caplog.text


def test_results_at_another_slack_or_temperature_are_not_taken_for_these(folder, pictures, tmp_path):
    def kept(slack, temperature):
        Calibration(slack, temperature, 2, {}).write(folder)

    def laplace(**options):
        return draw_posterior(
            folder, pictures, tmp_path / "out", budget=SHORT, device="cpu", method="laplace", **options
        )

    kept(0.4, 2e-3)
    laplace()
    asked = read_json(tmp_path / "out/posterior.json")
    assert (asked["slack"], asked["temperature"]) == (0.4, 2e-3)
    laplace()  # the same again: taken
    for slack, temperature in ((0.8, 2e-3), (0.4, 1e-3)):
        kept(slack, temperature)
        with pytest.raises(FileExistsError, match="other options"):
            laplace()
    laplace(temperature=2e-3)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_temperature_of_zero_is_refused_not_replaced(folder, pictures, tmp_path, calibrated):
    if calibrated:
        Calibration(0.4, 2e-3, 2, {}).write(folder)
    with pytest.raises(ValueError, match="temperature of a posterior is positive; got 0"):
        draw_posterior(folder, pictures, tmp_path / "out", budget=SHORT, device="cpu", temperature=0.0)


def test_few_draws_are_warned_of(folder, pictures, tmp_path, caplog):
    drawn(folder, pictures, tmp_path / "few", method="laplace")
    assert "intervals of 4 draws cover about 57 %" in caplog.text
    caplog.clear()
    many = Budget(count=40, chains=4)
    draw_posterior(folder, pictures, tmp_path / "many", budget=many, device="cpu", temperature=1e-3, method="laplace")
    assert "cover about" not in caplog.text


@pytest.mark.parametrize("draws", [4, 8, 40])
def test_the_coverage_of_few_draws_is_that_of_a_simulation(draws):
    sizes = np.random.default_rng(0).random((20_000, draws))  # uniform: a gap's length is its share
    low, high = np.quantile(sizes, [0.025, 0.975], axis=1)
    assert module.coverage(draws) == pytest.approx((high - low).mean(), abs=0.005)


def test_the_row_has_the_worst_of_all_quantities():
    def row(*found):
        diagnoses = {str(number): each for number, each in enumerate(found)}
        return module._diagnostics(MaskDraws(torch.zeros(1, 2, 1, 1), acceptance=0.5, diagnoses=diagnoses))

    good, bad, short = Diagnosis(1.01, 30.0), Diagnosis(1.4, 9.0), Diagnosis(1.1, -1.0)
    stuck, neither = Diagnosis(math.inf, 4.0), Diagnosis(math.nan, math.nan)
    assert row(good, bad) == row(bad, good) == {"acceptance": 0.5, "r_hat": 1.4, "ess": 9.0}
    assert row(short) == {"acceptance": 0.5, "r_hat": 1.1, "ess": -1.0}
    for order in ((good, stuck), (stuck, good), (neither, stuck), (stuck, neither)):
        assert row(*order) == {"acceptance": 0.5, "r_hat": 999, "ess": 4.0}
    for order in ((good, neither), (neither, good)):
        assert row(*order) == {"acceptance": 0.5, "r_hat": 999, "ess": 30.0}
    assert row() == {"acceptance": 0.5, "r_hat": -1, "ess": -1}


def test_a_dataset_of_other_classes_cannot_calibrate(folder, tiny_dataset, monkeypatch):
    monkeypatch.setattr(Dataset, "labels", LabelSpace(("background", "heart")))
    with pytest.raises(ValueError, match="has the classes background, heart, the model background, lung"):
        module.calibrate_model(folder, tiny_dataset, device="cpu")


def test_iterates_know_no_temperature(model, images):
    from semgan.posterior import calibration

    with pytest.raises(ValueError, match="last iterates do not depend on the temperature; calibrate with"):
        calibration.calibrate(model, images, np.zeros((len(images), 16, 16)), method="iterates")


def test_the_best_temperature_is_the_one_of_the_smallest_nll(model, images, caplog):
    from semgan.posterior import calibration

    truth = model.segment_batch(images).label_map.numpy()
    told = []
    found = calibration.calibrate(
        model,
        images,
        truth,
        method="mala",
        budget=SHORT,
        temperatures=(1e2, 1e-3),
        progress=lambda *now: told.append(now),
    )
    done = [now for now, total, what in told if (total, what) == (6, "fitting the temperature")]
    assert len(done) == len(told) and done == sorted(done) and set(done) == set(range(7))
    assert set(found.scores) == {"optimised", "100", "0.001"}
    assert found.temperature == min((1e2, 1e-3), key=lambda each: found.scores[f"{each:g}"].nll)
    assert found.slack in calibration.SLACKS and found.images == 3
    assert f"{found.temperature:g}, is an end of those tried (100, 0.001)" in caplog.text


@pytest.mark.parametrize(
    ("best_of_all", "tried", "chosen", "told"),
    [
        (3e-4, ["0.001", "0.0003", "0.0001"], 3e-4, False),
        (3e-2, ["0.001", "0.0003", "0.0001", "0.003", "0.01", "0.03"], 3e-2, True),
        (3e-3, ["0.001", "0.0003", "0.0001", "0.003", "0.01"], 3e-3, False),
        (3e-5, ["0.001", "0.0003", "0.0001", "3e-05"], 3e-5, True),
    ],
)
def test_further_temperatures_are_tried_while_an_end_is_the_best(
    model, images, monkeypatch, caplog, best_of_all, tried, chosen, told
):
    from semgan.posterior import calibration
    from semgan.posterior.latent import LatentPosterior

    asked = []
    monkeypatch.setattr(calibration, "TEMPERATURES", (1e-3, 3e-4, 1e-4))
    monkeypatch.setattr(calibration, "LADDER", (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5))
    draw = LatentPosterior.draw
    monkeypatch.setattr(
        LatentPosterior, "draw", lambda self, *a, **o: asked.append(self.temperature) or draw(self, *a, **o)
    )

    def scored(probabilities, truth):
        away = abs(math.log10((asked or [1.0])[-1] / best_of_all))
        return CalibrationScores(ece=0.0, brier=0.0, nll=away, pixels=1)

    monkeypatch.setattr(calibration, "calibration_scores", scored)
    shown = []
    found = calibration.calibrate(
        model, images, np.zeros((3, 16, 16)), method="mala", budget=SHORT, progress=lambda *now: shown.append(now)
    )
    assert list(found.scores) == ["optimised", *tried] and found.temperature == chosen
    assert all(done <= total for done, total, _ in shown) and shown[-1][0] == shown[-1][1] == 3 * len(tried)
    assert ("is an end of those tried" in caplog.text) == told


def test_the_slack_follows_the_codes(model):
    """Codes with one w in all layers want little slack, codes with unrelated layers all of it."""
    from semgan.posterior.calibration import fit_slack
    from semgan.posterior.prior import fit_coupling

    chance = torch.Generator().manual_seed(0)
    layers, w_dim = model.generator.layers, model.generator.w_dim
    free = torch.randn(40, layers, w_dim, generator=chance)
    equal = torch.randn(40, 1, w_dim, generator=chance).expand(-1, layers, -1)
    coupling = fit_coupling(model.generator, model.whitening, style_mixing=model.settings.gan.style_mixing)
    assert fit_slack(coupling, free) == 1.0 and fit_slack(coupling, equal) == 0.1


def test_entropy_and_intervals():
    half = np.full((2, 1, 2), 0.5)
    half[:, 0, 1] = (1, 0)
    assert entropy_share(half) == pytest.approx(np.array([[1, 0]]), abs=1e-6)
    row = interval("lung_px", list(range(101)))
    assert row == {"lung_px": 50, "lung_px_low": 2.5, "lung_px_high": 97.5}


def test_what_cannot_be_drawn_is_told(folder, pictures, tmp_path, capsys):
    with pytest.raises(ValueError, match="Unknown method 'gibbs'"):
        drawn(folder, pictures, tmp_path / "out", method="gibbs")
    (folder / "encoder.safetensors").unlink()
    with pytest.raises(ValueError, match="has no encoder"):
        drawn(folder, pictures, tmp_path / "out")
    with pytest.raises(SystemExit, match="2"):
        main(["posterior", "-m", str(folder), "-i", str(pictures), "-o", str(tmp_path / "o"), "-n", "5", "--json"])
    assert "5 draws do not go into 4 chains" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_the_command_tells_its_rows(folder, pictures, tmp_path, capsys):
    command = ["posterior", "-m", str(folder), "-i", str(pictures), "-o", str(tmp_path / "o"), "-n", "4"]
    main_exits_with_0([*command, "--method", "laplace", "--temperature", "0.001", "--json", "--device", "cpu"])
    told = json.loads(capsys.readouterr().out)
    assert [row["stem"] for row in told["rows"]] == ["case_0", "case_1", "case_2"]


def main_exits_with_0(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code in (0, None)
