"""A cell's folder: failed and tried again, damaged, taken over, moved; and what is told before hours are spent."""

from __future__ import annotations

import json
import shutil

import pytest

from semgan import artifacts, claims
from semgan.benchmark import run as run_module
from semgan.benchmark import work as work_module
from semgan.benchmark.cells import CellFolder, DamagedCell, State, cells_of
from semgan.benchmark.grid import read_grid
from semgan.benchmark.run import benchmark

pytestmark = pytest.mark.usefixtures("without_reports")
UNET = "chests-4-unet-seed0"


def only_unet(grid):
    grid["methods"] = ["unet"]


def state_of(out, name=UNET):
    return artifacts.read_json(out / "cells" / name / "state.json")


def stopping_at(images):
    def progress(done, total, what):
        if what == "train baseline" and done >= images:
            raise KeyboardInterrupt

    return progress


# ---------------------------------------------------------------- failed, and tried again


def test_a_cell_that_failed_is_under_way_again_when_it_is_tried_again(grids, tmp_path, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("a fault")

    path, out = grids.write(only_unet), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "work", broken)
        assert benchmark(path, out, device="cpu").cells[0].status == "failed"
    with pytest.raises(KeyboardInterrupt):
        benchmark(path, out, device="cpu", progress=stopping_at(20))
    (paused,) = benchmark(path, out, device="cpu", max_minutes=0).cells
    assert (paused.status, paused.problem) == ("started", None) and state_of(out)["status"] == "open"
    (done,) = benchmark(path, out, device="cpu").cells
    assert done.status == "done" and not (out / "cells" / UNET / "error.txt").exists()


# ---------------------------------------------------------------- where the run lies


def test_a_run_stays_where_it_was_begun(grids, tmp_path):
    """Another place for it would mean training from the start, with the time already used."""
    path, out = grids.write(only_unet), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        benchmark(path, out, device="cpu", progress=stopping_at(20))
    seen = []
    result = benchmark(
        path, out, runs=tmp_path / "runs", device="cpu", progress=lambda done, _, what: seen.append((what, done))
    )
    assert result.count("done") == 1 and min(done for what, done in seen if what == "train baseline") > 12
    assert (out / "cells" / UNET / "run" / "model").is_dir() and not (tmp_path / "runs" / UNET).exists()


def test_runs_of_a_linked_folder_lie_where_they_were_asked_for(grids, tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "far" / "away")
    benchmark(grids.write(only_unet), tmp_path / "out", runs=tmp_path / "runs", device="cpu")
    assert (tmp_path / "runs" / UNET / "model").is_dir()


# ---------------------------------------------------------------- damage

DAMAGE = {
    "a state of nothing": ("state.json", '{"seconds": null}'),
    "a state of text": ("state.json", '{"attempts": "two"}'),
    "zeros": ("cases.csv", "\0" * 200_000),
    "a pointer to nowhere": ("run.json", "{}"),
    "no json": ("run.json", '{"run": '),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_of_any_kind_is_told_and_the_other_cells_go_on(grids, tmp_path, what):
    path, out = grids.write(lambda grid: grid.update(methods=["unet", "unet-strong"])), tmp_path / "out"
    grid = read_grid(path)
    folder = CellFolder(out, cells_of(grid)[0], grid)
    folder.begin()
    name, text = DAMAGE[what]
    if name == "cases.csv":
        folder.write(State(status="done", scored=["standard", "inverted"]))
        (folder.path / "scores.csv").write_text(_scores_of_both_sets())
    (folder.path / name).write_text(text)
    with pytest.raises(DamagedCell, match="Damaged cell .*; remove the folder"):
        folder.read()
    damaged, other = benchmark(path, out, device="cpu").cells
    assert (damaged.status, other.status) == ("damaged", "done") and (folder.path / name).read_text() == text


@pytest.mark.parametrize("what", ["a file", "without its identity"])
def test_what_cannot_be_this_grids_cell_is_told_and_the_other_cells_go_on(grids, tmp_path, what):
    path, out = grids.write(lambda grid: grid.update(methods=["unet", "unet-strong"])), tmp_path / "out"
    grid = read_grid(path)
    folder = CellFolder(out, cells_of(grid)[0], grid)
    if what == "a file":
        folder.path.parent.mkdir(parents=True)
        folder.path.write_text("")
    else:
        folder.begin()
        folder.write(State(status="trained"))
        (folder.path / "cell.json").unlink()
    with pytest.raises(
        DamagedCell, match="it is a file; remove" if what == "a file" else "cell.json is missing; remove"
    ):
        folder.read()
    assert [cell.status for cell in benchmark(path, out, device="cpu").cells] == ["damaged", "done"]


@pytest.mark.parametrize("inside", [True, False])
def test_a_damaged_file_of_a_run_is_told_with_what_to_remove(grids, tmp_path, monkeypatch, inside):
    path, out = grids.write(lambda grid: grid.update(methods=["unet"])), tmp_path / "out"

    def damaged(folder, context):
        folder.begin()
        raise ValueError(f"{folder.run}/checkpoints/baseline.safetensors is not a readable safetensors file.")

    monkeypatch.setattr("semgan.benchmark.run.work", damaged)
    (cell,) = benchmark(path, out, runs=None if inside else tmp_path / "runs", device="cpu").cells
    places = str(out / "cells" / cell.name) + ("" if inside else f" and {tmp_path / 'runs' / cell.name}")
    assert cell.status == "failed" and f"If a file there is damaged: remove {places}, and" in (cell.problem or "")


def _scores_of_both_sets() -> str:
    from semgan.results import COLUMNS

    line = "chests,dice,16,4,0,0,unet,{},mean,0,1,3,0.5,x"
    return "\n".join([",".join(COLUMNS), *map(line.format, ("standard", "inverted"))]) + "\n"


# ---------------------------------------------------------------- taken over


def lost():
    raise claims.ClaimLost("taken over")


@pytest.mark.parametrize("has_failed", [False, True])
def test_who_lost_its_cell_while_it_scored_writes_nothing(grids, tmp_path, monkeypatch, has_failed):
    path, out = grids.write(only_unet), tmp_path / "out"
    is_lost, score = [], work_module._scored

    def slowly(model, each, folder, context):
        scored = score(model, each, folder, context)
        folder.write(State(attempts=7))  # the other process, meanwhile
        is_lost.append(True)
        if has_failed:
            raise ValueError("its run was removed under it")
        return scored

    class Claim:
        def __enter__(self):
            return lambda: lost() if is_lost else None

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(work_module, "_scored", slowly)
    monkeypatch.setattr(run_module.claims, "claimed", lambda folder: Claim())
    benchmark(path, out, device="cpu")
    assert not (out / "cells" / UNET / "scores.csv").exists()
    assert artifacts.read_json(out / "cells" / UNET / "state.json") == State(attempts=7).__dict__


# ---------------------------------------------------------------- told before hours are spent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only": ["nobody"]}, "has no image for 1 cases: nobody"),
        ({"mean_over": ["spleen"]}, "mean over .*spleen.* needs names out of"),
        ({"map_predictions": [0, 9]}, "map_predictions leads to 9, and its classes are 0 to"),
        ({"labels": "masks"}, "masks has no mask for 2 cases"),
    ],
)
def test_a_test_set_that_cannot_be_scored_fails_before_training(grids, phantoms, tmp_path, change, message):
    labels = sorted((phantoms / "test" / "standard" / "labels").iterdir())
    (tmp_path / "masks").mkdir()
    shutil.copy(labels[0], tmp_path / "masks")

    def wrong(grid):
        only_unet(grid)
        grid["tasks"][0]["test_sets"][0] |= change

    (cell,) = benchmark(grids.write(wrong), tmp_path / "out", device="cpu").cells
    assert cell.status == "failed" and cell.seconds == 0
    with pytest.raises(ValueError, match=message):
        raise ValueError(cell.problem)
    (planned,) = benchmark(grids.write(wrong), tmp_path / "out", dry_run=True, device="cpu").cells
    assert planned.problem == cell.problem


@pytest.mark.parametrize("changed", ["lists.json", "mine.yaml"])
def test_files_that_a_grid_names_may_not_change_between_two_calls(grids, phantoms, tmp_path, changed):
    """Neither the list of a test set nor the recipe, whose names stay; a cell of before knows their names alone."""
    stems = sorted(path.stem for path in (phantoms / "test" / "standard" / "labels").iterdir())
    (tmp_path / "lists.json").write_text(json.dumps({"test": stems[:2], "other": stems}))
    (tmp_path / "mine.yaml").write_text("recipe: debug\ndata: {affine_rotate_deg: 5}\n")

    def change(grid):
        only_unet(grid)
        task = grid["tasks"][0]
        task["recipe"], task["test_sets"] = "mine.yaml", task["test_sets"][:1]
        task["test_sets"][0]["only"] = "lists.json:test"

    path, out = grids.write(change), tmp_path / "out"
    assert benchmark(path, out, device="cpu").cells[0].status == "done"
    (tmp_path / "lists.json").write_text(json.dumps({"test": stems[:2], "other": []}))  # another list of that file
    assert benchmark(path, out, device="cpu").cells[0].status == "done"
    new = {"lists.json": json.dumps({"test": stems}), "mine.yaml": "recipe: debug\ndata: {affine_rotate_deg: 9}\n"}
    (tmp_path / changed).write_text(new[changed])
    (cell,) = benchmark(path, out, device="cpu").cells
    assert cell.status == "damaged" and "made by another grid (contents of files differ)" in (cell.problem or "")
    known = artifacts.read_json(out / "cells" / UNET / "cell.json")
    del known["contents of files"]
    artifacts.write_json(out / "cells" / UNET / "cell.json", known)
    assert benchmark(path, out, device="cpu").cells[0].status == "done"


def test_a_list_that_the_grids_own_file_lacks_is_told_with_the_file(grids, phantoms, tmp_path):
    stems = sorted(path.stem for path in (phantoms / "labels").iterdir())
    lists = {"validation": stems[:2], "pool": stems[2:], "labelled_4_seed0": stems[2:6]}
    (tmp_path / "lists.json").write_text(json.dumps(lists))

    def change(grid):
        only_unet(grid)
        grid["seeds"] = [1]
        grid["tasks"][0]["prepare"].pop("manifest")
        grid["tasks"][0]["splits"] = "lists.json"

    path = grids.write(change)
    for dry_run in (True, False):
        (cell,) = benchmark(path, tmp_path / "out", dry_run=dry_run, device="cpu").cells
        assert "lists.json has no list 'labelled_4_seed1', only labelled_4_seed0" in (cell.problem or "")


def test_a_dry_run_finds_no_fault_with_lists_that_will_be_drawn(grids, tmp_path):
    out = tmp_path / "out"
    benchmark(grids.write(only_unet), out, device="cpu")
    more = {"methods": ["unet", "unet-strong"], "seeds_of": {"unet-strong": [5]}}
    result = benchmark(grids.write(lambda grid: grid.update(more)), out, dry_run=True, device="cpu")
    assert [(cell.status, cell.problem) for cell in result.cells] == [("done", None), ("open", None)]


def test_sheets_are_drawn_of_the_runs_that_are_still_there(grids, tmp_path):
    path, out = grids.write(lambda grid: grid.update(methods=["unet", "unet-strong"])), tmp_path / "out"
    benchmark(path, out, device="cpu")
    shutil.rmtree(out / "cells" / UNET / "run")
    benchmark(path, out, sheets=tmp_path / "sheets", device="cpu")
    assert len(list((tmp_path / "sheets").iterdir())) == 2
