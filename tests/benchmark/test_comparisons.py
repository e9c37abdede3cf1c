"""What is compared with what, over which cases and seeds, and how the tables say so."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from semgan import artifacts, results
from semgan.benchmark.cells import Cases
from semgan.benchmark.comparisons import Counted, compare
from semgan.benchmark.grid import read_grid
from semgan.benchmark.run import benchmark
from semgan.benchmark.tables import markdown, published_numbers
from semgan.metrics import overlap
from semgan.report.score_tables import Entry, ScoreTable

pytestmark = pytest.mark.usefixtures("without_reports")
TASK = SimpleNamespace(name="chests", labels=(4,), test_sets=[SimpleNamespace(name="far")])


def counted(method, value, *, seed=0, stems=30, truth=100) -> Counted:
    """A model whose cases all score about ``value`` in two classes."""
    noise = 0.01 * np.random.default_rng(seed).standard_normal(stems)
    hits = np.clip(np.round(truth * (value + noise)), 0, truth)
    columns = (
        np.stack([each, each], axis=1).astype(np.int64) for each in (hits, np.full(stems, truth), np.full(stems, truth))
    )
    cases = Cases(tuple(map(str, range(stems))), (1,), overlap.Counts(*columns))
    return Counted("chests", 4, seed, method, "far", cases)


def found(cells, **options):
    metric = options.pop("metric", "dice")
    return [(each.method, each.reference, each.mark, each.seeds) for each in compare(TASK, metric, cells, **options)]


def test_rows_of_another_budget_are_neither_the_reference_nor_compared_with_it():
    cells = [counted("unet", 0.7), counted("gct", 0.8), counted("longer", 0.95)]
    assert found(cells, reference=None, budgets={"longer": "60 minutes"}) == [("unet", "gct", "-", 1)]
    assert found(cells, reference="unet", budgets={"longer": "60 minutes"}) == [("gct", "unet", "+", 1)]


def test_rows_of_another_budget_are_compared_with_one_another():
    cells = [counted("unet", 0.7), counted("long", 0.95), counted("gct", 0.8), counted("longer", 0.9)]
    hour = dict.fromkeys(("long", "longer"), "60 minutes")
    assert found(cells, reference="unet", budgets=hour) == [("gct", "unet", "+", 1), ("longer", "long", "-", 1)]
    apart = {"long": "60 minutes", "longer": "90 minutes"}
    assert found(cells, reference="unet", budgets=apart) == [("gct", "unet", "+", 1)]


def test_without_the_reference_a_column_is_not_compared_with_another():
    assert found([counted("unet", 0.7), counted("gct", 0.8)], reference="semgan") == []


@pytest.mark.parametrize("metric", overlap.METRICS)
def test_only_the_same_cases_with_the_same_masks_are_paired(metric):
    for other in (counted("gct", 0.8, truth=120), counted("gct", 0.8, stems=29)):
        assert found([counted("unet", 0.7), other], reference=None, metric=metric) == []
    pairs = [counted("unet", 0.7), counted("gct", 0.8), counted("unet", 0.7, seed=1), counted("gct", 0.8, seed=1)]
    assert found(pairs, reference=None, metric=metric) == [("unet", "gct", "-", 2)]
    apart = [*pairs[:2], counted("unet", 0.7, seed=1, truth=120), counted("gct", 0.8, seed=1, truth=120)]
    assert found(apart, reference=None, metric=metric) == [("unet", "gct", "-", 1)]


def test_a_bar_in_a_name_does_not_end_its_cell():
    text = markdown([ScoreTable("t", (("", "left|right"),), (("a", (Entry(0.5),)),))], [])
    assert "| method | left\\|right |" in text


# ---------------------------------------------------------------- seeds, and answers without optimisation


def test_a_seed_whose_choice_was_no_step_counts_without_optimisation_too(grids, tmp_path):
    """As in the table: one seed of semgan takes steps, the other none."""

    def change(grid):
        grid["methods"], grid["seeds"] = ["semgan", "unet"], [0, 1]

    path, out = grids.write(change), tmp_path / "out"
    benchmark(path, out, device="cpu")
    for seed, chosen in ((0, 2), (1, 0)):
        file = out / "cells" / f"chests-4-semgan-seed{seed}" / "scores.csv"
        rows = [row for row in results.read_rows(file) if row.test_set != "validation" and row.steps == 0]
        own = [_with(row, steps=step, chosen=int(step == chosen)) for row in rows for step in sorted({0, chosen})]
        results.write_rows(file, own)
        _keep_steps(file.with_name("cases.csv"), {0, chosen})
    benchmark(path, out, device="cpu")
    with open(out / "comparisons.csv", newline="") as file:
        seeds = {line["seeds"] for line in csv.DictReader(file) if "semgan (NO)" in (line["method"], line["reference"])}
    assert seeds == {"2"}


def _with(row, **changes):
    return results.ScoreRow(**{**row.__dict__, **changes})


def _keep_steps(file, steps):
    """The cases of step 0, at every one of the steps."""
    head, *lines = [line.split(",") for line in file.read_text().splitlines()]
    own = [[line[0], str(step), *line[2:]] for step in sorted(steps) for line in lines if line[1] == "0"]
    artifacts.write_text_atomic(file, "".join(",".join(line) + "\n" for line in [head, *own]))


def test_rows_of_other_seeds_are_told_below_the_tables(grids, tmp_path):
    def change(grid):
        grid["methods"], grid["seeds_of"] = ["unet", "unet-strong"], {"unet": [0, 1]}

    benchmark(grids.write(change), tmp_path / "out", device="cpu")
    told = "Not equal: chests, 4 labels, is of the seeds unet 0, 1; unet-strong 0."
    assert told in (tmp_path / "out" / "tables.md").read_text()


# ---------------------------------------------------------------- published numbers

PAPER = "task,metric,labels,method,test_set,class,value\n"


def task_with(grids, tmp_path, text, sets):
    (tmp_path / "paper.csv").write_text(PAPER + text)
    published = {"file": str(tmp_path / "paper.csv"), "task": "lungs", "sets": sets}
    return grids.write(lambda grid: grid["tasks"][0].update(published=published))


def test_a_number_by_another_metric_is_not_shown_and_one_set_may_stand_for_two_of_ours(grids, tmp_path):
    lines = "lungs,dice,4,U-Net,JSRT,mean,0.9\nlungs,jaccard,4,DeepLab,JSRT,mean,0.8\nlungs,iou,4,GCT,JSRT,mean,0.7\n"
    path = task_with(grids, tmp_path, lines, {"standard": "JSRT", "inverted": "JSRT"})
    (task,) = read_grid(path).tasks
    assert published_numbers(task, "dice") == {
        ("U-Net", 4, "standard", "mean"): 0.9,
        ("U-Net", 4, "inverted", "mean"): 0.9,
    }
    assert {key[0] for key in published_numbers(task, "miou")} == {"GCT"}


@pytest.mark.parametrize("dry_run", [True, False])
def test_published_numbers_that_cannot_be_read_are_told_before_hours_are_spent(grids, tmp_path, dry_run):
    path = task_with(grids, tmp_path, "lungs,dice,4,U-Net,JSRT,mean,\n", {"standard": "JSRT"})
    with pytest.raises(ValueError, match=r"paper.csv, line 2: labels and value are numbers"):
        benchmark(path, tmp_path / "out", dry_run=dry_run, device="cpu")
    (tmp_path / "paper.csv").unlink()
    with pytest.raises(FileNotFoundError, match="published numbers of task 'chests' are missing: .*paper.csv"):
        benchmark(path, tmp_path / "out", dry_run=dry_run, device="cpu")
    assert not (tmp_path / "out").exists()
