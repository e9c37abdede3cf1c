"""The verb benchmark on phantoms: scores, tables, going on, damage, sharing a folder, exit codes."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from semgan import artifacts, results
from semgan.benchmark import run as module
from semgan.benchmark.cells import CellFolder, DamagedCell, cells_of, read_cases
from semgan.benchmark.grid import read_grid
from semgan.benchmark.run import benchmark
from semgan.cli import main
from semgan.metrics import overlap

pytestmark = pytest.mark.usefixtures("without_reports")
CELLS = ("chests-4-semgan-seed0", "chests-4-unet-seed0")


def only_unet(grid):
    grid["methods"] = ["unet"]


def state_of(out, name):
    return artifacts.read_json(out / "cells" / name / "state.json")


@pytest.fixture(scope="module")
def finished(grids_of_module, tmp_path_factory):
    """Grid file, OUT, sheets and result of both methods."""
    folder = tmp_path_factory.mktemp("finished")
    published = folder / "paper.csv"
    published.write_text(
        "task,metric,labels,method,test_set,class,value\n"
        "lungs,dice,4,U-Net,JSRT,mean,0.9318\nlungs,dice,9,U-Net,JSRT,mean,0.1\nlungs,dice,4,U-Net,NIH,mean,0.2\n"
    )

    def change(grid):
        task = grid["tasks"][0]
        task["published"] = {"file": str(published), "task": "lungs", "sets": {"standard": "JSRT"}}
        task["steps"] = [1]
        task["settings"]["run"]["validation_cases"] = 2  # of 3

    path = grids_of_module.write(change, "finished.yaml")
    return (
        path,
        folder / "out",
        folder / "sheets",
        benchmark(path, folder / "out", sheets=folder / "sheets", device="cpu"),
    )


def test_every_cell_is_done_and_the_conditions_were_equal(finished):
    _, out, _, result = finished
    assert [(cell.name, cell.status) for cell in result.cells] == [(name, "done") for name in CELLS]
    assert result.unfair == []
    ours, rival = (state_of(out, name) for name in CELLS)
    assert ours["facts"] == rival["facts"] and ours["facts"]["labelled list"]
    assert sum(ours["images_seen"].values()) == sum(rival["images_seen"].values()) == 32
    assert set(ours["images_seen"]) == {"gan", "encoder"}


def test_steps_are_chosen_on_as_many_validation_images_as_weights_are(finished):
    _, out, _, _ = finished
    lines = artifacts.read_metrics(out / "cells" / CELLS[0] / "run" / "metrics.jsonl")
    assert [line["images_seen"] for line in lines if line["stage"] == "inversion"] == [2]


def test_every_test_set_was_opened_once_after_training(finished):
    _, out, _, _ = finished
    for name in CELLS:
        state = state_of(out, name)
        assert {test_set: len(times) for test_set, times in state["opened"].items()} == {"standard": 1, "inverted": 1}
        last_line = artifacts.read_metrics(out / "cells" / name / "run" / "metrics.jsonl")[-1]["seconds"]
        opened = time.mktime(time.strptime(state["opened"]["standard"][0][:19], "%Y-%m-%dT%H:%M:%S"))
        assert opened >= int(last_line)


def test_scores_are_rows_of_the_projects_table_and_follow_from_the_cases(finished):
    _, out, _, _ = finished
    rows = results.read_rows(out / "scores.csv")
    assert {(row.method, row.test_set) for row in rows if row.class_name == results.MEAN} >= {
        (method, test_set) for method in ("semgan", "unet") for test_set in ("standard", "inverted")
    }
    assert {row.steps for row in rows if row.method == "semgan" and row.test_set == "standard"} >= {0, 1}
    assert {(row.labels, row.seed, row.split_seed, row.resolution) for row in rows} == {(4, 0, 0, 16)}
    for name in CELLS:
        cases = read_cases(out / "cells" / name / "cases.csv")
        own = [row for row in results.read_rows(out / "cells" / name / "scores.csv") if row.test_set in cases]
        for row in own:
            if row.class_name == results.MEAN and row.chosen:
                found = cases[row.test_set][row.steps]
                assert overlap.overall(found.counts, row.metric, found.over) == pytest.approx(row.value, abs=1e-4)
                assert row.n == len(found.stems) == 3


def test_tables_show_both_methods_without_optimisation_too_and_the_published_number(finished):
    _, out, _, _ = finished
    rows = results.read_rows(out / "scores.csv")
    value = {
        row.method: row.value for row in rows if (row.test_set, row.class_name, row.chosen) == ("standard", "mean", 1)
    }
    text = (out / "tables.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert list(lines) == ["method", "semgan (NO)", "semgan", "unet", "published: U-Net"]
    assert "4 labels: standard" in lines["method"] and "4 labels: inverted" in lines["method"]
    assert f"{value['unet']:.4f}" in lines["unet"] and f"{value['semgan']:.4f}" in lines["semgan"]
    best = max(value, key=lambda name: value[name])
    assert lines[best].split(" | ")[1].startswith("**")
    assert lines["published: U-Net"].split(" | ")[1:] == ["0.9318", " |"] and "0.1000" not in text
    assert "32 images in training" in text and "Not equal" not in text
    latex = (out / "tables.tex").read_text()
    assert r"\multicolumn{2}{c}{4 labels}" in latex and r"\textbf{" in latex and latex.count(r"\begin{tabular}") == 1
    assert "<table" in (out / "tables.html").read_text()
    with open(out / "comparisons.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["test_set"] for line in lines} == {"standard", "inverted"} and all(line["n"] == "3" for line in lines)


def test_sheets_lie_outside_the_tidy_results(finished):
    _, out, sheets, _ = finished
    assert sorted(path.name for path in sheets.iterdir()) == ["chests-4-inverted.png", "chests-4-standard.png"]
    tidy = [path for path in out.rglob("*.png") if "run" not in path.parts and "data" not in path.parts]
    assert tidy == [] and "/cells/*/run/" in (out / ".gitignore").read_text()


def test_logs_name_no_place_of_this_machine(finished):
    _, out, _, _ = finished
    logs = out / "cells" / CELLS[0] / "logs"
    assert {path.name for path in logs.iterdir()} == {"config.yaml", "environment.json", "log.txt", "metrics.jsonl"}
    assert not [path for path in logs.iterdir() if str(out) in path.read_text()]


def test_the_same_command_again_does_nothing_but_tables(finished):
    path, out, _, _ = finished
    before = {file: file.stat().st_mtime_ns for file in (out / "cells").rglob("*") if file.is_file()}
    assert benchmark(path, out, device="cpu").count("done") == 2
    assert before == {file: file.stat().st_mtime_ns for file in (out / "cells").rglob("*") if file.is_file()}


def test_a_dry_run_tells_state_and_time_and_writes_nothing(finished, capsys):
    path, out, _, _ = finished
    before = sorted(out.rglob("*"))
    with pytest.raises(SystemExit) as leave:
        main(["benchmark", str(path), "-o", str(out), "--dry-run", "--only", "chests/4/unet", "--json"])
    assert not leave.value.code
    found = json.loads(capsys.readouterr().out)
    assert [(cell["name"], cell["status"]) for cell in found["cells"]] == [(CELLS[1], "done")]
    assert found["cells"][0]["expected_seconds"] > 0 and found["expected_seconds"] == 0
    assert sorted(out.rglob("*")) == before


def test_a_cell_of_another_grid_is_damaged_and_not_overwritten(finished):
    path, out, _, _ = finished
    content = yaml.safe_load(path.read_text())
    content["budget"] = {"images": 64}
    other = path.with_name("other.yaml")
    other.write_text(yaml.safe_dump(content))
    result = benchmark(other, out, only=["chests/4/unet"], device="cpu")
    assert result.cells[0].status == "damaged" and "another grid (budget differ)" in (result.cells[0].problem or "")
    assert state_of(out, CELLS[1])["status"] == "done"


# ---------------------------------------------------------------- what goes wrong


def test_failing_cells_are_told_and_the_others_go_on(grids, tmp_path, capsys):
    """More labels than exist, an unknown method, a damaged folder."""

    def change(grid):
        grid["methods"] = ["unet", "unte"]
        grid["tasks"][0]["labels"] = [4, 99]

    path, out = grids.write(change), tmp_path / "out"
    damaged = out / "cells" / "chests-4-unte-seed0"
    damaged.mkdir(parents=True)
    (damaged / "state.json").write_text('{"status": "do')
    with pytest.raises(SystemExit) as leave:
        main(["benchmark", str(path), "-o", str(out), "--device", "cpu", "--json"])
    assert leave.value.code == 2
    out_text, err = capsys.readouterr()
    cells = {cell["name"]: cell for cell in json.loads(out_text)["cells"]}
    assert cells["chests-4-unet-seed0"]["status"] == "done"
    assert "99 labelled cases were asked for" in cells["chests-99-unet-seed0"]["problem"]
    assert "Unknown method 'unte'. Did you mean 'unet'? There are: semgan" in cells["chests-99-unte-seed0"]["problem"]
    assert "Damaged cell" in cells["chests-4-unte-seed0"]["problem"] and "remove the folder" in err
    assert "Traceback" not in err and (out / "tables.md").is_file()
    (damaged / "state.json").unlink()
    assert benchmark(path, out, only=["chests/4"], device="cpu").cells[1].status == "failed"  # tried anew


def test_a_finished_cell_with_a_cut_table_is_damaged(grids, tmp_path):
    path, out = grids.write(only_unet), tmp_path / "out"
    benchmark(path, out, device="cpu")
    cases = out / "cells" / CELLS[1] / "cases.csv"
    cases.write_text(cases.read_text()[:-30])
    (cell,) = benchmark(path, out, device="cpu").cells
    assert cell.status == "damaged" and "cases.csv" in (cell.problem or "")
    assert results.read_rows(out / "cells" / CELLS[1] / "scores.csv")


def test_a_fault_of_ours_is_code_1_with_its_traceback_in_the_cell(grids, tmp_path, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(module, "work", broken)
    with pytest.raises(SystemExit) as leave:
        main(["benchmark", str(grids.write(only_unet)), "-o", str(tmp_path / "out"), "--device", "cpu"])
    assert leave.value.code == 1
    assert "ZeroDivisionError: a fault" in (tmp_path / "out" / "cells" / CELLS[1] / "error.txt").read_text()


def test_a_folder_of_other_things_is_not_touched(grids, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="holds no benchmark"):
        benchmark(grids.write(), tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_dry_run_names_what_would_fail(grids, tmp_path):
    def change(grid):
        grid["methods"] = ["unet", "unte"]
        grid["tasks"][0]["test_sets"][0]["labels"] = "nowhere"

    result = benchmark(grids.write(change), tmp_path / "out", dry_run=True)
    assert "nowhere is not a folder" in (result.cells[0].problem or "")
    assert "Unknown method" in (result.cells[1].problem or "") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("cores", [1, 2])
def test_a_test_list_of_the_folder_that_is_trained_on_stays_closed(grids, phantoms, tmp_path, monkeypatch, cores):
    """As the real sets are: some cases of the labelled folder are the test set. Caching leaves them alone."""
    monkeypatch.setattr("semgan.CORES", set(range(cores)))
    test, *others = sorted(path.stem for path in (phantoms / "labels").iterdir())
    lists = {"test": [test], "validation": others[:2], "pool": others[2:], "labelled_4_seed0": others[2:6]}
    (tmp_path / "lists.json").write_text(json.dumps(lists))

    def change(grid):
        grid["methods"] = ["unet"]
        task = grid["tasks"][0]
        task["prepare"].pop("manifest")
        task["splits"] = "lists.json"
        folders = {key: task["prepare"][key] for key in ("images", "labels")}
        task["test_sets"] = [{"name": "own", "only": "lists.json:test", **folders}]

    result = benchmark(grids.write(change), tmp_path / "out", device="cpu")
    assert [(cell.status, cell.problem) for cell in result.cells] == [("done", None)]


def test_a_problem_of_many_cells_is_told_once(grids, tmp_path, capsys):
    path = grids.write(lambda grid: grid["tasks"][0]["test_sets"][0].update(labels="nowhere"))
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", str(path), "-o", str(tmp_path / "out"), "--dry-run"])
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "nowhere is not a folder" in line]
    assert "and 1 others: " in told


def test_a_budget_of_processor_time_is_refused_on_a_gpu(grids, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "choose_device", lambda asked: SimpleNamespace(type="cuda"))
    with pytest.raises(ValueError, match="cpu_minutes does not see what a GPU does; give minutes"):
        benchmark(grids.write(lambda grid: grid.update(budget={"cpu_minutes": 1})), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("one_thread")
def test_the_processors_clock_ends_a_cell(grids, tmp_path):
    """Two seconds of processor time, really taken; the length was planned by the same clock.

    With one thread, as it is meant: two that wait for each other beside other work wait by spinning.
    """
    path = grids.write(lambda grid: grid.update(budget={"cpu_minutes": 2 / 60}, methods=["unet"]))
    result = benchmark(path, tmp_path / "out", device="cpu")
    assert [cell.status for cell in result.cells] == ["done"] and not result.problems
    (state,) = (artifacts.read_json(path) for path in (tmp_path / "out" / "cells").glob("*/state.json"))
    assert 1 < sum(state["seconds"].values()) < 4


def test_a_variant_is_a_row_of_its_own_with_its_settings_and_its_budget(grids, tmp_path):
    variant = {"method": "unet", "budget": {"images": 48}, "settings": {"baseline": {"learning_rate": 0.01}}}
    path = grids.write(lambda grid: grid.update(methods=["unet", "longer"], variants={"longer": variant}))
    result = benchmark(path, tmp_path / "out", device="cpu")
    assert [cell.status for cell in result.cells] == ["done", "done"] and not result.problems
    states = [artifacts.read_json(place / "state.json") for place in sorted((tmp_path / "out" / "cells").iterdir())]
    assert [state["images_seen"] for state in states] == [{"baseline": 48}, {"baseline": 32}]
    model = artifacts.read_json(tmp_path / "out" / "cells" / "chests-4-longer-seed0" / "run" / "model" / "config.json")
    assert model["method"] == "unet" and model["settings"]["baseline"]["learning_rate"] == 0.01
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "Every cell saw 32 images in training. Not so longer: 48 images; never the best here." in table
    assert "| longer | 0." in table and "| unet | **" in table
    changed = {"longer": variant | {"method": "unet-strong"}}
    with pytest.raises(DamagedCell, match="trains differ"):
        grid = read_grid(grids.write(lambda grid: grid.update(methods=["longer"], variants=changed)))
        CellFolder(tmp_path / "out", cells_of(grid)[0], grid).read()


# ---------------------------------------------------------------- going on, sharing


def interrupting_at(images):
    def progress(done, total, what):
        if what == "train baseline" and done >= images:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_cell_goes_on_with_its_run_and_ends_with_the_same_scores(grids, tmp_path):
    path = grids.write(only_unet)
    with pytest.raises(KeyboardInterrupt):
        benchmark(path, tmp_path / "a", device="cpu", progress=interrupting_at(20))
    cell = tmp_path / "a" / "cells" / CELLS[1]
    assert (cell / "run" / "checkpoints" / "baseline.safetensors").is_file() and not (cell / "claim.json").exists()
    used = state_of(tmp_path / "a", CELLS[1])
    assert used["status"] == "open" and used["seconds"]["all"] > 0 and not used["opened"]
    seen = []
    benchmark(path, tmp_path / "a", device="cpu", progress=lambda done, total, what: seen.append((what, done)))
    assert min(done for what, done in seen if what == "train baseline") > 12  # not from the start
    assert state_of(tmp_path / "a", CELLS[1])["seconds"]["all"] > used["seconds"]["all"]
    benchmark(path, tmp_path / "b", device="cpu")
    one, other = (results.read_rows(tmp_path / name / "scores.csv") for name in "ab")
    assert [(row.key, row.value) for row in one] == [(row.key, row.value) for row in other]


def test_a_model_that_changed_after_a_test_set_was_opened_is_not_scored_again(grids, tmp_path):
    path, out = grids.write(only_unet), tmp_path / "out"
    benchmark(path, out, device="cpu")
    cell = out / "cells" / CELLS[1]
    state = state_of(out, CELLS[1])
    artifacts.write_json(cell / "state.json", state | {"status": "trained", "scored": ["standard"]})
    card = cell / "run" / "model" / "README.md"
    card.write_text(card.read_text() + "more training")
    (report,) = benchmark(path, out, device="cpu").cells
    assert report.status == "failed" and "after a test set was opened" in (report.problem or "")


def test_the_whole_commands_time_is_kept_and_the_next_call_goes_on(grids, tmp_path, capsys):
    path, out = grids.write(only_unet), tmp_path / "out"
    with pytest.raises(SystemExit) as leave:
        main(["benchmark", str(path), "-o", str(out), "--max-minutes", "0", "--device", "cpu"])
    assert not leave.value.code and "0 of 1 cells done" in capsys.readouterr().out
    assert benchmark(path, out, device="cpu").count("done") == 1


def test_two_processes_share_a_folder_and_no_cell_is_done_twice(grids, tmp_path):
    def change(grid):
        only_unet(grid)
        grid["seeds"] = [0, 1, 2]

    path, out = grids.write(change), tmp_path / "out"
    words = [sys.executable, "-m", "semgan", "benchmark", str(path), "-o", str(out), "--device", "cpu", "--runs"]
    with subprocess.Popen([*words, str(tmp_path / "runs")], stderr=subprocess.PIPE, text=True) as other:
        end = time.monotonic() + 120
        while not (out / "cells").is_dir() and other.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        mine = benchmark(path, out, runs=tmp_path / "runs", device="cpu")
        _, errors = other.communicate(timeout=200)
    assert other.returncode == 0, errors
    assert {cell.status for cell in mine.cells} <= {"done", "elsewhere"}
    names = [f"chests-4-unet-seed{seed}" for seed in range(3)]
    for name in names:
        state = state_of(out, name)
        assert state["status"] == "done" and state["attempts"] == 1
        assert [len(times) for times in state["opened"].values()] == [1, 1]
        pointer = artifacts.read_json(out / "cells" / name / "run.json")["run"]
        assert not os.path.isabs(pointer) and (out / "cells" / name / pointer / "model").is_dir()
    result = benchmark(path, out, runs=tmp_path / "runs", device="cpu")
    rows = [
        row for row in results.read_rows(out / "scores.csv") if row.test_set == "standard" and row.class_name == "mean"
    ]
    assert result.count("done") == 3 and sorted(row.seed for row in rows) == [0, 1, 2]
    spread = np.std([row.value for row in rows], ddof=1)
    assert f"± {spread:.4f}" in (out / "tables.md").read_text()


def test_answers_after_optimisation_are_held_against_step_0(finished, tmp_path):
    _, out, _, _ = finished
    path = Path(__file__).parents[2] / "results" / "never_worse.py"
    spec = importlib.util.spec_from_file_location("never_worse", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copytree(out / "cells", tmp_path / "cells")
    module.main(tmp_path)
    rows = list(csv.DictReader((tmp_path / "never_worse.csv").open()))
    assert {row["method"] for row in rows} == {"semgan"}  # a network has no steps
    assert len(rows) == len({row["test_set"] for row in rows}) > 1
    for row in rows:
        gained = float(row["score"]) - float(row["score_0"])
        assert float(row["difference"]) == pytest.approx(gained, abs=2e-4)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        assert row["never_worse"] == ("yes" if float(row["low"]) >= -0.002 else "no")
    with pytest.raises(SystemExit, match="no finished cells of a method with a choice"):
        shutil.rmtree(tmp_path / "cells" / "chests-4-semgan-seed0")
        module.main(tmp_path)
