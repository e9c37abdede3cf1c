"""``semgan report``: many runs and scores on one page, whole, self-contained, and without pictures where asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semgan.evaluate import evaluate
from semgan.report import browser, gallery
from semgan.report.collection import WARNING, write_report
from semgan.report.evaluations import read_evaluation
from semgan.report.gallery import chosen_ranks, failures
from semgan.report.latex import escaped
from semgan.report.sources import short_names
from semgan.results import ScoreRow, write_rows

CASES = 9
CLASSES = ["background", "lung", "heart & <b>"]


def label_map(shift: int = 0, side: int = 24) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[4:12, 4 + shift : 14 + shift] = 1
    mask[14:20, 6:16] = 2
    return mask


@pytest.fixture
def scored(tmp_path: Path) -> dict[str, Path]:
    """Images, labels and two evaluated predictions: of ``good`` case i is off by i // 2 pixels, of ``bad`` by i."""
    folders = {name: tmp_path / name for name in ("images", "labels", "good", "bad")}
    for folder in folders.values():
        folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(CASES):
        name = f"case {i}.png"
        Image.fromarray(random.integers(0, 255, (24, 24), np.uint8)).save(folders["images"] / name)
        Image.fromarray(label_map()).save(folders["labels"] / name)
        Image.fromarray(label_map(i // 2)).save(folders["good"] / name)
        Image.fromarray(label_map(i)).save(folders["bad"] / name)
    for name in ("good", "bad"):
        evaluate(folders[name], folders["labels"], metric="dice", classes=CLASSES)
    return folders


@pytest.fixture
def short_run(make_run, encoder_log) -> Path:
    """A run of one stage: every curve takes time to draw."""
    return make_run(encoder_log)


def results_folder(folder: Path, methods: dict[str, float], seeds: int = 2) -> Path:
    rows = [
        ScoreRow("lungs", "dice", 64, 9, 0, seed, method, "kermany", name, 0, 1, 20, value + seed / 100, "abc")
        for method, value in methods.items()
        for seed in range(seeds)
        for name in ("lung", "mean")
    ]
    folder.mkdir()
    write_rows(folder / "scores.csv", rows)
    return folder


# ---------------------------------------------------------------- the page


def test_runs_results_and_predictions_are_one_page_without_anything_outside(short_run, scored, tmp_path, page_of):
    run, table = short_run, results_folder(tmp_path / "table", {"unet": 0.8, "semgan": 0.9})
    result = write_report([run, table, scored["good"], scored["bad"]], tmp_path / "out", images=scored["images"])
    page = page_of(tmp_path / "out" / "report.html")
    assert page.outside == [] and "script" not in page.tags
    wanted = {"Scores by method", "Scored predictions", "The run", "Failure cases: good", "run: Settings"}
    assert wanted | {"run: Health", "run: Curves: Encoder", "run: Samples: Encoder"} <= set(page.headings)
    assert "0.8050 ± 0.0071" in page.text and "0.9050 ± 0.0071" in page.text
    assert "learning_rate: 0.002" in page.text
    assert WARNING in page.text and result["shows_images"]
    good = read_evaluation(scored["good"]).scores
    assert f"{good['interval'][0]:.4f} to {good['interval'][1]:.4f}" in page.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "tables.tex"]


def test_every_case_is_there_from_best_to_worst_with_links_both_ways(scored, tmp_path, page_of):
    write_report([scored["bad"]], tmp_path / "out", images=scored["images"])
    page = page_of(tmp_path / "out" / "report.html")
    places = [page.text.index(f"{rank}. case {rank - 1}: ") for rank in range(1, CASES + 1)]
    assert places == sorted(places)
    cards = [f"case-1-{rank}" for rank in range(1, CASES + 1)]
    assert set(cards) <= set(page.places)
    assert page.leads_to.count("case-1-failures") >= CASES  # from every card back to the list
    worst = page.text[page.text.index("The lowest scores first") : page.text.index("All 9 cases")]
    assert worst.index("case 8") < worst.index("case 7") < worst.index("case 6") and "case 5" not in worst
    assert {f"case-1-{rank}" for rank in (7, 8, 9)} <= set(page.leads_to)
    alts = [alt for alt, _ in page.images]
    assert alts[:3] == ["case 0: image", "case 0: truth", "case 0: prediction"] and len(alts) == 3 * CASES


def test_pictures_show_what_they_say(scored, tmp_path, page_of):
    write_report([scored["bad"]], tmp_path / "out", images=scored["images"])
    pictures = dict(page_of(tmp_path / "out" / "report.html").images)
    image = np.array(Image.open(scored["images"] / "case 8.png"))
    plain, truth, found = (np.array(pictures[f"case 8: {what}"]) for what in ("image", "truth", "prediction"))
    assert (plain == image[..., None]).all()
    assert ((truth != plain).any(-1) <= (label_map() > 0)).all() and (truth != plain).any()
    assert ((found != plain).any(-1) <= (label_map(8) > 0)).all() and (found != truth).any()


def test_without_images_no_picture_of_a_case_or_of_training_is_embedded(short_run, scored, tmp_path, page_of):
    run = short_run
    with_pictures = write_report([run, scored["good"]], tmp_path / "with")
    without = write_report([run, scored["good"]], tmp_path / "out", with_images=False)
    page = page_of(tmp_path / "out" / "report.html")
    assert with_pictures["shows_images"] and not without["shows_images"]
    assert page.images and all("over images seen" in alt for alt, _ in page.images), "curves stay"
    assert WARNING not in page.text and "--no-images" in page.text
    assert "case 8" in page.text  # scores by case stay
    with pytest.raises(ValueError, match="one or other"):
        write_report([scored["good"]], tmp_path / "no", images=scored["images"], with_images=False)


def test_of_many_cases_the_worst_and_evenly_spaced_others_are_shown(scored, tmp_path, page_of):
    write_report([scored["bad"]], tmp_path / "out", images=scored["images"], most=5)
    page = page_of(tmp_path / "out" / "report.html")
    assert [place for place in page.places if place[:6] == "case-1" and place[7:].isdigit()] == [
        "case-1-1", "case-1-6", "case-1-7", "case-1-8", "case-1-9"
    ]  # fmt: skip
    assert "5 of 9 cases" in page.text


@given(st.integers(1, 300), st.integers(1, 80))
def test_chosen_ranks_hold_the_worst_and_the_best_and_no_more_than_asked(cases, most):
    ranks = chosen_ranks(cases, most)
    worst = failures(cases, most)
    assert 1 <= worst <= gallery.WORST and ranks == sorted(set(ranks)) and len(ranks) <= max(most, 1)
    assert set(range(cases - worst, cases)) <= set(ranks) <= set(range(cases))
    assert cases > most or len(ranks) == cases
    assert most == worst or 0 in ranks


def test_a_runs_own_report_is_never_replaced(make_run, tmp_path):
    run = make_run([])
    with pytest.raises(FileExistsError, match="is a run with a report of its own; give another folder"):
        write_report([run], run)


def test_names_from_files_are_escaped(scored, tmp_path, page_of):
    write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    text = (tmp_path / "out" / "report.html").read_text()
    assert "heart & <b>" not in text and "heart & <b>" in page_of(tmp_path / "out" / "report.html").text
    assert "heart \\& \\textless{}b\\textgreater{}" in (tmp_path / "out" / "tables.tex").read_text()


def test_overlays_of_segment_stand_in_for_images(scored, tmp_path, page_of):
    (scored["good"] / "overlays").mkdir()
    for path in scored["images"].iterdir():
        shutil.copy(path, scored["good"] / "overlays" / path.name)
    write_report([scored["good"]], tmp_path / "out")
    pictures = dict(page_of(tmp_path / "out" / "report.html").images)
    shown = np.array(pictures["case 3: prediction"])
    assert (shown == np.array(Image.open(scored["images"] / "case 3.png"))[..., None]).all()


def test_masks_that_are_gone_are_told_and_the_scores_stay(scored, tmp_path, page_of):
    shutil.rmtree(scored["labels"])
    write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    page = page_of(tmp_path / "out" / "report.html")
    assert "no longer where" in page.text
    assert {alt.split(": ")[1] for alt, _ in page.images} == {"image", "prediction"}


def test_cases_with_ignored_pixels_are_shown_as_they_were_scored(scored, tmp_path, page_of):
    for i in range(2, CASES):  # not in the first: the crash was in the middle of the report
        mask = label_map()
        mask[:3] = 255
        Image.fromarray(mask).save(scored["labels"] / f"case {i}.png")
    evaluate(scored["good"], scored["labels"], metric="dice", classes=CLASSES, ignore=(255,))
    write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    page = page_of(tmp_path / "out" / "report.html")
    assert len(page.images) == 3 * CASES and "Not shown" not in page.text
    image = np.array(Image.open(scored["images"] / "case 3.png"))
    truth = np.array(dict(page.images)["case 3: truth"])
    assert (truth[:2] == image[:2, :, None]).all(), "what is ignored has no colour, but an outline"


def test_masks_that_are_not_what_was_scored_are_told_and_not_shown(scored, tmp_path, page_of):
    swapped = {0: 0, 1: 2, 2: 1}
    for path in scored["labels"].iterdir():
        Image.fromarray(np.array([0, 2, 1], np.uint8)[np.array(Image.open(path))]).save(path)
    evaluate(scored["good"], scored["labels"], metric="dice", classes=CLASSES, mapping=swapped)
    (scored["good"] / "case 1.png").write_bytes(b"no picture")
    Image.fromarray(np.ones((24, 24), np.uint8)).save(scored["good"] / "case 2.png")
    write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    page = page_of(tmp_path / "out" / "report.html")
    shown = [alt for alt, _ in page.images]
    assert not [alt for alt in shown if alt.endswith("truth")]
    assert "case 1: prediction" not in shown and "case 2: prediction" not in shown and "case 3: prediction" in shown
    assert "Not shown (truth): 9 of 9" in page.text and "Not shown (prediction): 2 of 9" in page.text


def test_images_with_their_channels_in_files_of_their_own_are_found(scored, tmp_path, page_of):
    for path in list(scored["images"].iterdir()):
        for channel in range(2):
            shutil.copy(path, path.with_name(f"{path.stem}_{channel:04d}.png"))
        path.unlink()
    write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    assert len(page_of(tmp_path / "out" / "report.html").images) == 3 * CASES


def test_true_masks_of_other_kinds_than_png_are_shown(scored, tmp_path, page_of):
    for path in list(scored["labels"].iterdir()):
        Image.open(path).save(path.with_suffix(".tif"))
        path.unlink()
    write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    assert len(page_of(tmp_path / "out" / "report.html").images) == 3 * CASES


def test_cases_without_a_score_are_counted(scored, tmp_path, page_of):
    for name in ("labels", "good"):
        for i in range(4):
            Image.fromarray(np.zeros((24, 24), np.uint8)).save(scored[name] / f"case {i}.png")
    evaluate(scored["good"], scored["labels"], metric="miou-per-case", classes=CLASSES)
    write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    assert "All 5 cases. 4 more have none of the classes" in page_of(tmp_path / "out" / "report.html").text


# ---------------------------------------------------------------- tables


def test_of_predictions_of_the_same_cases_the_best_is_set_off_and_of_others_none(scored, tmp_path):
    shutil.copytree(scored["labels"], tmp_path / "perfect")
    (tmp_path / "perfect" / "case 8.png").unlink()
    (tmp_path / "fewer").mkdir()
    for path in (tmp_path / "perfect").iterdir():
        shutil.copy(path, tmp_path / "fewer" / path.name)
    evaluate(tmp_path / "perfect", tmp_path / "fewer", metric="dice", classes=CLASSES)  # 1, but of other cases
    write_report([scored["bad"], scored["good"], tmp_path / "perfect"], tmp_path / "out", with_images=False)
    lines = (tmp_path / "out" / "tables.tex").read_text().splitlines()
    strong = [line.split(" & ")[0] for line in lines if "textbf" in line]
    assert strong == ["good"]


def test_a_run_called_run_keeps_the_names_of_its_facts(short_run, tmp_path):
    assert short_run.name == "run"
    write_report([short_run], tmp_path / "out")
    tex = (tmp_path / "out" / "tables.tex").read_text()
    assert "run & run \\\\" in tex and "Size & " in tex


def test_differences_are_paired_and_against_the_best(scored, tmp_path, page_of):
    write_report([scored["bad"], scored["good"]], tmp_path / "out", with_images=False)
    means = {name: read_evaluation(scored[name]).scores["mean"] for name in ("good", "bad")}
    tex = (tmp_path / "out" / "tables.tex").read_text()
    line = next(line for line in tex.splitlines() if line.startswith("bad & good"))
    assert f"{means['bad'] - means['good']:+.4f}" in line
    assert "Differences" in page_of(tmp_path / "out" / "report.html").text


def test_predictions_of_other_cases_are_not_compared(scored, tmp_path):
    for name in ("images", "labels", "good"):
        (scored[name] / "case 0.png").unlink()
    evaluate(scored["good"], scored["labels"], metric="dice", classes=CLASSES)
    write_report([scored["bad"], scored["good"]], tmp_path / "out", with_images=False)
    assert "% Differences" not in (tmp_path / "out" / "tables.tex").read_text()


def test_methods_of_several_folders_are_told_apart(tmp_path):
    one = results_folder(tmp_path / "one", {"unet": 0.8}, seeds=1)
    two = results_folder(tmp_path / "two", {"unet": 0.9}, seeds=1)
    write_report([one, two], tmp_path / "out")
    tex = (tmp_path / "out" / "tables.tex").read_text()
    assert "one: unet & 0.8000" in tex and "two: unet & \\textbf{0.9000}" in tex


def test_settings_that_differ_are_set_side_by_side(make_run, tmp_path, page_of):
    first = make_run([]).rename(tmp_path / "first")
    second = make_run([], recipe="other").rename(tmp_path / "second")
    write_report([first, second], tmp_path / "out")
    page = page_of(tmp_path / "out" / "report.html")
    assert "Runs side by side" in page.headings and "Settings that differ" in page.text
    tex = (tmp_path / "out" / "tables.tex").read_text()
    assert "recipe & phantoms & other" in tex and "learning\\_rate" not in tex


@given(st.text(alphabet="ab&%$#_{}~^\\± <>|", max_size=20))
def test_latex_leaves_no_special_sign_bare(text):
    bare = escaped(text)
    assert "<" not in bare and ">" not in bare and "|" not in bare
    for known in ("\\textbackslash{}", "\\textasciitilde{}", "\\textasciicircum{}", "$\\pm$"):
        bare = bare.replace(known, "")
    for known in ("\\textless{}", "\\textgreater{}", "\\textbar{}"):
        bare = bare.replace(known, "")
    for sign in "&%$#_{}":
        bare = bare.replace(f"\\{sign}", "")
    assert not set(bare) & set("&%$#_{}~^\\±")


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=1, max_size=6))
def test_short_names_tell_folders_apart_and_end_alike(parts):
    folders = [Path("/", *each) for each in parts]
    names = short_names(folders)
    assert len(set(names.values())) == len(set(folders))
    assert all(str(folder).endswith(name) for folder, name in names.items())


# ---------------------------------------------------------------- bad input


def test_what_holds_nothing_to_report_on_is_told(scored, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "nothing to report on.*config.yaml"), (tmp_path / "no", "not exist")):
        with pytest.raises(FileNotFoundError, match=message):
            write_report([path], tmp_path / "out")
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path / "out")
    (scored["good"] / "scores.json").write_text('{"metric": "dice"}')
    with pytest.raises(ValueError, match="no output of `semgan evaluate`"):
        write_report([scored["good"]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["stem,score\n", "cut"])
def test_damaged_case_tables_are_told(scored, tmp_path, damage):
    table = scored["good"] / "cases.csv"
    table.write_text(damage if damage != "cut" else "\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"cases\.csv.*again"):
        write_report([scored["good"]], tmp_path / "out")


def test_a_file_in_the_place_of_the_folder_is_told_before_any_work(scored, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file; give a folder with -o"):
        write_report([scored["good"]], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_images_that_do_not_fit_are_told(make_run, scored, tmp_path):
    (scored["images"] / "case 2.png").unlink()
    with pytest.raises(ValueError, match="no image for 1 of 9 scored cases: case 2"):
        write_report([scored["good"]], tmp_path / "out", images=scored["images"])
    (scored["labels"] / "case 2.png").unlink()
    with pytest.raises(ValueError, match="no mask for 1 of the scored cases: case 2"):
        write_report([scored["good"]], tmp_path / "out", labels=scored["labels"])
    with pytest.raises(ValueError, match="none of the folders has any"):
        write_report([make_run([])], tmp_path / "out", images=scored["images"])


# ---------------------------------------------------------------- in a browser


MEASURE = """<body style="margin:0">
<iframe id="page" src="report.html" width="390" height="844" style="border:0"></iframe>
<script>onload = () => {
  const inside = document.getElementById("page").contentWindow, page = inside.document;
  const boxes = [...page.querySelectorAll("main > section > *, article, .contents li")];
  const wide = boxes.filter(box => box.getBoundingClientRect().right > 391).length;
  const fetched = inside.performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
  const broken = [...page.images].filter(image => !image.naturalWidth).length;
  const size = parseFloat(inside.getComputedStyle(page.body).fontSize);
  document.title = [page.documentElement.scrollWidth, wide, fetched.length, broken, page.images.length, size].join(" ");
}</script></body>"""


@pytest.fixture
def browser_or_skip() -> None:
    try:
        browser.find_browser()
    except ValueError:
        pytest.skip("needs a headless browser: Chromium or Chrome on the PATH")


def test_the_page_is_readable_on_a_phone_in_a_real_browser(browser_or_skip, short_run, scored, tmp_path):
    table = results_folder(tmp_path / "table", {"unet": 0.8, "a-method-with-quite-a-long-name": 0.9})
    write_report([short_run, table, scored["good"], scored["bad"]], tmp_path / "out", images=scored["images"])
    (tmp_path / "out" / "frame.html").write_text(MEASURE)
    address = (tmp_path / "out" / "frame.html").as_uri()
    found = browser.run_browser(address, "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=8000")
    title = found[found.index("<title>") + 7 : found.index("</title>")]
    width, wide, fetched, broken, images, size = (float(number) for number in title.split())
    assert width <= 390 and wide == 0, "nothing may be wider than the phone, but inside a box that scrolls"
    assert fetched == 0 and broken == 0
    assert images > 6 * CASES and size >= 14
    shot = tmp_path / "phone.png"
    browser.run_browser(address, f"--screenshot={shot}", "--window-size=500,844", "--virtual-time-budget=8000")
    pixels = np.array(Image.open(shot).convert("RGB"))[:, :380]
    ink = (pixels.max(-1) < 120).mean()
    assert pixels.std() > 10 and 0.01 < ink < 0.4, "a page with text, neither blank nor black"


def test_the_page_is_printed_as_pdf(browser_or_skip, scored, tmp_path):
    result = write_report([scored["good"]], tmp_path / "out", images=scored["images"], pdf=True)
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")
    assert result["files"][-1].endswith("report.pdf") and len(list((tmp_path / "out").iterdir())) == 3


def test_without_a_browser_the_pdf_is_refused_before_any_work(scored, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="print it into a PDF"):
        write_report([scored["good"]], tmp_path / "out", pdf=True)
    assert not (tmp_path / "out").exists()


def test_a_browser_that_fails_leaves_no_half_file(scored, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "chromium")
    failed = subprocess.CompletedProcess([], 1, "", "crashed")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(ValueError, match="crashed"):
        write_report([scored["good"]], tmp_path / "out", pdf=True)
    assert not list((tmp_path / "out").glob("*.pdf")) and not list((tmp_path / "out").glob(".*"))
