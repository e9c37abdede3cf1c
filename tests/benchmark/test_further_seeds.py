"""`further_seeds: images`: the first seed has the minutes, the others see as many images as it did, on any machine."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

from semgan import artifacts, config
from semgan.benchmark import precision, training
from semgan.benchmark.cells import CellFolder, State, cells_of, first_of
from semgan.benchmark.grid import read_grid
from semgan.benchmark.run import benchmark
from semgan.benchmark.training import Context, train_cell

pytestmark = pytest.mark.usefixtures("without_reports")
FIRST, SECOND = "chests-4-unet-seed1", "chests-4-unet-seed0"


def change(grid):
    """Two seeds, of which the first that is named is 1; a short clock."""
    grid.update(methods=["unet"], settings={}, seeds=[1, 0], budget={"cpu_minutes": 0.05}, further_seeds="images")
    grid["tasks"][0]["settings"].setdefault("baseline", {})["precision"] = "auto"


def state_of(out, name):
    return artifacts.read_json(out / "cells" / name / "state.json")


@pytest.fixture(scope="module")
def finished(grids_of_module, tmp_path_factory):
    """Grid file and OUT; the further seed was made where the other precision is the faster one."""
    path, out = grids_of_module.write(change, "seeds.yaml"), tmp_path_factory.mktemp("seeds") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "faster_precision", lambda kind: "bfloat16")
        early = benchmark(path, out, only=["chests/4/unet/0"], device="cpu")  # before there is anything to repeat
        assert early.count("open") == 1 and not (out / "cells" / SECOND).exists()
        assert benchmark(path, out, only=["chests/4/unet/1"], device="cpu").count("done") == 1
        patch.setattr("semgan.train.faster_precision", lambda kind: "float32")
        result = benchmark(path, out, device="cpu")
    assert result.count("done") == 2 and not result.unfair, result
    return path, out


def test_a_first_seed_that_comes_later_in_the_order_is_waited_for_within_the_call(grids, tmp_path):
    def late(grid):
        change(grid)
        grid["priority"] = [{"seeds": [0]}]  # the further seed

    result = benchmark(grids.write(late), tmp_path / "out", device="cpu")
    assert [cell.name for cell in result.cells] == [SECOND, FIRST] and result.count("done") == 2


def test_it_sees_as_many_images_on_the_same_schedule(finished):
    _, out = finished
    first, second = state_of(out, FIRST), state_of(out, SECOND)
    assert first["repeats"] is None and second["repeats"] == FIRST
    assert second["images_seen"] == first["images_seen"] != {}
    assert second["schedules"] == first["schedules"] != {}


def test_every_stage_has_the_length_that_the_first_seed_came_to(grids, tmp_path, monkeypatch):
    def two_seeds(grid):
        grid.update(methods=["student"], settings={}, seeds=[0, 1], budget={"minutes": 9}, further_seeds="images")

    grid = read_grid(grids.write(two_seeds))
    first, second = (CellFolder(tmp_path / "out", cell, grid) for cell in cells_of(grid))
    seen, asked = {"gan": 40, "pool": 16, "student": 88}, []
    with pytest.raises(ValueError, match="chests-4-student-seed0, whose number of images it is to see, is not trained"):
        train_cell(second, State(), Context(grid, tmp_path, "cpu"))
    first.begin()
    planned = {"gan": 50, "pool": 20, "student": 100}  # with room for the clock
    first.write(
        State(
            "trained", lengths=planned, images_seen=seen, schedules={"baseline.schedule_images": 90}, seconds={"a": 540}
        )
    )
    monkeypatch.setattr(training, "images_seen", lambda run: seen)

    def train(cell, context, run, changes, **options):
        asked.append((changes, options))
        return SimpleNamespace(finished=True, ended=False)

    monkeypatch.setattr(training, "_train", train)
    state = State()
    assert train_cell(second, state, Context(grid, tmp_path, "cpu")) and state.lengths == seen
    [(changes, options)] = asked  # all stages at once, without a clock
    assert (changes["gan.images"], changes["student.pool_images"], changes["baseline.images"]) == (40, 16, 88)
    assert changes["baseline.schedule_images"] == 90
    assert options["max_minutes"] is None and options["cpu_minutes"] is None and not options["clock_ends"]


def test_they_are_trained_in_what_is_faster_where_they_are_made(finished):
    _, out = finished
    found = [config.load(out / "cells" / name / "logs" / "config.yaml") for name in (FIRST, SECOND)]
    assert [settings.baseline.precision for settings in found] == ["bfloat16", "float32"]


def test_the_tables_say_so(finished):
    _, out = finished
    assert (
        "Not so 1 cells of further seeds: as many images as their row's first seed" in (out / "tables.md").read_text()
    )


def test_a_first_seed_that_was_made_again_is_told(finished, tmp_path):
    path, out = finished
    copied = tmp_path / "out"
    shutil.copytree(out, copied)
    state = copied / "cells" / FIRST / "state.json"
    content = json.loads(state.read_text())
    content["images_seen"]["baseline"] += 4
    state.write_text(json.dumps(content))
    total = sum(content["images_seen"].values())
    unfair = benchmark(path, copied, device="cpu").unfair
    assert unfair == [f"{SECOND} saw {total - 4} images, and {FIRST}, which it repeats, {total}"]


def test_the_first_seed_is_that_of_the_row(grids):
    def rows(grid):
        grid.update(methods=["unet", "semgan"], seeds=[0], seeds_of={"unet": [2, 5]}, further_seeds="images")
        grid.update(budget={"minutes": 1}, settings={})

    grid = read_grid(grids.write(rows))
    found = {(cell.method, cell.seed): first_of(cell, grid) for cell in cells_of(grid)}
    assert found["unet", 2] is None and found["semgan", 0] is None
    first = found["unet", 5]
    assert first is not None and first.name == "chests-4-unet-seed2"
    usual = read_grid(grids.write(lambda grid: (rows(grid), grid.pop("further_seeds"))))
    assert all(first_of(cell, usual) is None for cell in cells_of(usual))


def test_without_a_clock_there_is_nothing_to_repeat(grids):
    with pytest.raises(ValueError, match="'further_seeds: images' is for a budget of minutes or cpu_minutes"):
        read_grid(grids.write(lambda grid: grid.update(further_seeds="images")))
