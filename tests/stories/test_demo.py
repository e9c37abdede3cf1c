"""The whole story in small: draw, prepare, train, segment, score, tell; interrupted and taken up again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semgan import demo as story
from semgan.demo import DemoPlan, DemoResult, demo
from semgan.report import demo_files
from semgan.report.demo_report import verdict
from semgan.results import read_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from pages import Page, read_page  # noqa: E402

TINY = DemoPlan(
    recipe="debug",
    labelled=4,
    unlabelled=12,
    validation=3,
    test=3,
    steps=(0, 1, 3),
    shown=1,
    changes=(
        "gan.images=64",
        "encoder.images=32",
        "baseline.images=64",
        "baseline.widths=[8,8,16,16]",
        "run.preview_every_images=32",
    ),
)
MINUTES = 30.0  # never reached: the tiny stages end by their number of images


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult, list[tuple[int, int, str]]]:
    out = tmp_path_factory.mktemp("story") / "demo"
    ticks: list[tuple[int, int, str]] = []
    options = {"family": "faces", "minutes": MINUTES, "plan": TINY, "device": "cpu"}
    result = demo(out, progress=lambda *tick: ticks.append(tick), **options)
    return out, result, ticks


@pytest.fixture(scope="module")
def page(told) -> Page:
    return read_page(told[0] / "report.html")


def test_the_report_is_whole_and_asks_nothing_of_the_network(page: Page) -> None:
    assert page.unclosed == []
    assert page.outside == []
    assert "script" not in page.tags
    assert all(alt for alt, _ in page.images)


def test_every_domain_shows_input_truth_masks_over_the_steps_and_reconstructions(page: Page) -> None:
    alts = [alt for alt, _ in page.images]
    for domain in ("photo", "drawing", "marble", "mosaic"):
        wanted = [f"{domain} 1: image", f"{domain} 1: true mask", f"{domain} 1: mask of U-Net (live)"]
        wanted += [f"{domain} 1: live, mask after {step} steps" for step in TINY.steps]
        wanted += [f"{domain} 1: live, image found after {step} steps" for step in TINY.steps]
        assert set(wanted) <= set(alts), domain
    assert {"Scores", "Masks over the optimisation", "Training: semgan, live"} <= set(page.headings)


def test_the_pictures_in_the_report_are_those_of_the_test_set(told, page: Page) -> None:
    inputs = demo_files.read_inputs(told[0], "marble")
    shown = next(picture for alt, picture in page.images if alt == "marble 1: image")
    assert (np.asarray(shown.convert("RGB")) == inputs.image[0]).all()


def test_scores_are_complete_and_agree_with_the_result(told) -> None:
    out, result, _ = told
    rows = read_rows(out / "scores.csv")
    record = demo_files.read_record(out)
    domains = {"validation", "photo", "drawing", "marble", "mosaic"}
    means = {(row.method, row.test_set, row.steps) for row in rows if row.class_name == "mean"}
    assert {("semgan-live", domain, step) for domain in domains for step in TINY.steps} <= means
    assert {("unet-live", domain, 0) for domain in domains} <= means
    chosen = [row for row in rows if row.chosen and row.class_name == "mean" and row.test_set == "mosaic"]
    assert {row.method for row in chosen} == set(record.methods)
    for row in chosen:
        assert result.scores[row.method]["mosaic"] == pytest.approx(row.value, abs=1e-6)


def test_steps_are_chosen_on_validation_alone(told) -> None:
    out = told[0]
    rows = [row for row in read_rows(out / "scores.csv") if row.method == "semgan-live" and row.class_name == "mean"]
    on_validation = {row.steps: row.value for row in rows if row.test_set == "validation"}
    best = min(step for step, value in on_validation.items() if value == max(on_validation.values()))
    assert demo_files.read_record(out).methods["semgan-live"].chosen_steps == best


def test_a_perfect_answer_scores_one_and_an_empty_one_does_not(told, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shutil.copytree(told[0], out)
    record = demo_files.read_record(out)
    for domain in [*record.domains, "validation"]:
        truth = demo_files.read_inputs(out, domain).truth[: record.images_per_domain]
        masks = np.stack([np.zeros_like(truth), truth, np.zeros_like(truth)])
        demo_files.write_answers(out, "semgan-live", domain, demo_files.Answers(TINY.steps, masks))
    rows = [row for row in story.score(out, record) if row.method == "semgan-live" and row.class_name == "mean"]
    assert record.methods["semgan-live"].chosen_steps == TINY.steps[1]
    assert all((row.value == 1.0) == (row.steps == TINY.steps[1]) for row in rows)


def test_the_sheet_for_the_readme_is_a_picture(told) -> None:
    picture = Image.open(told[0] / "demo.png").convert("RGB")
    assert picture.width > 900 and picture.height > 400
    assert len(set(picture.resize((60, 40)).getdata())) > 100  # not an empty sheet


def test_progress_runs_over_the_whole_story_to_its_end(told) -> None:
    whole = [(done, total) for done, total, what in told[2] if what == story.WHOLE]
    assert all(0 <= done <= total for done, total in whole)
    assert whole[-1][0] == whole[-1][1]
    assert {"train gan", "train encoder", "train baseline"} <= {what for _, _, what in told[2]}


def test_the_same_call_again_trains_nothing(told, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    out, first, _ = told
    monkeypatch.setattr("semgan.train.train", refuse)
    assert demo(out, family="faces", minutes=MINUTES, plan=TINY, device="cpu").scores == first.scores
    assert "keeps" not in caplog.text
    assert demo(out, family="faces", minutes=9 * MINUTES, plan=TINY, device="cpu").scores == first.scores
    assert f"holds a demo of {MINUTES:g} minutes, which it keeps" in caplog.text


def test_absent_shipped_weights_are_said_and_present_ones_are_told_apart(
    told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    shutil.copytree(told[0], out)
    record = demo_files.read_record(out)
    record.notes, record.methods = [], {name: m for name, m in record.methods.items() if m.weights == "live"}
    record.chapters = {name: s for name, s in record.chapters.items() if "shipped" not in name}
    demo_files.write_record(out, record)
    monkeypatch.setattr(story, "WEIGHTS", tmp_path / "none")
    demo(out, family="faces", minutes=MINUTES, plan=TINY, device="cpu")
    assert "No longer-trained weights for faces" in read_page(out / "report.html").text

    shipped = tmp_path / "weights" / "phantoms-faces"
    shutil.copytree(out / "runs" / "semgan" / "model", shipped)
    record.notes = []
    demo_files.write_record(out, record)
    monkeypatch.setattr(story, "WEIGHTS", tmp_path / "weights")
    result = demo(out, family="faces", minutes=MINUTES, plan=TINY, device="cpu")
    assert result.scores["semgan-shipped"] == result.scores["semgan-live"]  # the same weights here
    assert "'shipped' weights come with the package" in read_page(out / "report.html").text


def test_a_slow_machine_takes_fewer_test_images(told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "demo"
    shutil.copytree(told[0], out)
    record = demo_files.read_record(out)
    record.minutes, record.images_per_domain = 0.01, 0
    record.chapters = {name: s for name, s in record.chapters.items() if not name.startswith("segment")}
    demo_files.write_record(out, record)
    monkeypatch.setattr(story, "FEWEST_IMAGES", 2)
    demo(out, family="faces", plan=TINY, device="cpu")
    assert {row.n for row in read_rows(out / "scores.csv")} == {2}
    assert "2 images per domain" in read_page(out / "report.html").text


def test_an_interrupted_demo_goes_on_with_the_time_it_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import semgan.train

    asked: list[tuple[str, str, float]] = []

    def interrupted(dataset: Path, out: Path, *, method: str, stage: str, max_minutes: float, **options: Any) -> None:
        asked.append((method, stage, max_minutes))
        if stage == "encoder":
            raise KeyboardInterrupt

    monkeypatch.setattr(semgan.train, "train", interrupted)
    plan = replace(TINY, unlabelled=2, test=1, validation=1, labelled=2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path / "demo", minutes=2.0, plan=plan, device="cpu")
    assert [(method, stage) for method, stage, _ in asked] == [
        ("semgan", "gan"),
        ("semgan", "encoder"),
        ("semgan", "encoder"),
    ]
    record = demo_files.read_record(tmp_path / "demo")
    assert "train semgan: encoder" not in record.chapters
    assert record.budget["gan"] == pytest.approx(asked[0][2] * 60)


def test_training_fits_into_the_time_and_the_rival_gets_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import semgan.train

    asked: dict[str, float] = {}
    clock = [1000.0]

    def train(dataset: Path, out: Path, *, method: str, stage: str, max_minutes: float, **options: Any) -> None:
        asked[f"{method} {stage}"] = max_minutes
        clock[0] += 60 * max_minutes + 2  # stages end a little late
        if method == "unet":
            raise KeyboardInterrupt

    monkeypatch.setattr(semgan.train, "train", train)
    monkeypatch.setattr(story, "monotonic", lambda: clock[0])
    with pytest.raises(KeyboardInterrupt):
        demo(tmp_path / "demo", minutes=9.0, plan=replace(TINY, unlabelled=2, test=1), device="cpu")
    ours = asked["semgan gan"] + asked["semgan encoder"]
    assert asked["unet all"] == pytest.approx(ours + 4 / 60)  # what ours really took
    assert 5.5 < ours + asked["unet all"] < 7.5  # of 9 minutes; the rest is drawing, segmenting and the report


def test_other_settings_and_other_content_are_refused_and_left_alone(told, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="family faces, seed 0"):
        demo(told[0], family="chests", plan=TINY)
    (tmp_path / "holiday.txt").write_text("dear diary")
    with pytest.raises(FileExistsError, match="holds no demo"):
        demo(tmp_path, family="faces", plan=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    with pytest.raises(ValueError, match="faces, chests"):
        demo(tmp_path / "x", family="cats")
    with pytest.raises(ValueError, match="minutes"):
        demo(tmp_path / "x", minutes=0)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "words"), [({"minutes": float("nan")}, "some time"), ({"seed": 2**63}, "seed lies")]
)
def test_times_and_seeds_that_are_none_are_refused_before_any_work(tmp_path: Path, options, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        demo(tmp_path / "demo", plan=TINY, **options)
    assert not list(tmp_path.iterdir())


def test_the_verdict_says_so_where_we_are_behind(told) -> None:
    out = told[0]
    record, rows = demo_files.read_record(out), read_rows(out / "scores.csv")
    swapped = {"semgan-live": 0.2, "unet-live": 0.7}
    low = [replace(row, value=swapped[row.method]) for row in rows if row.method in swapped]
    assert "semgan (live) is behind the U-Net (live)" in verdict(record, low)[0]
    assert "0.200 against 0.700" in verdict(record, low)[1]


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_real_browser_shows_the_report(told, tmp_path: Path, width: int) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser here; looked for {', '.join(BROWSERS)} (apt-get install chromium)")
    picture = tmp_path / "page.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1600", f"--screenshot={picture}"]
    subprocess.run([*command, (told[0] / "report.html").as_uri()], check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(picture).convert("RGB"), int)
    assert pixels.shape[1] >= 300
    colourful = (pixels.max(2) - pixels.min(2)) > 60
    assert colourful.mean() > 0.001  # the plots and masks, not an empty page
