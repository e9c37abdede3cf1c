"""Budgets: equal images or equal seconds, shared out among stages; the clock of a cell, and training that it ends."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from semgan import config, recipes
from semgan.artifacts import read_json
from semgan.benchmark import training as module
from semgan.benchmark.cells import CellFolder, State, cells_of
from semgan.benchmark.grid import read_grid
from semgan.benchmark.rows import shares_of
from semgan.benchmark.training import Context, Piece, lengths_in_images, pieces_of, train_cell
from semgan.rehearsal import DryRun
from semgan.runtime.deadline import Deadline
from semgan.train import train


def settings(method, **changes):
    return config.override(recipes.load("lungs-64"), {"method": method, **changes}, "the test")


def test_the_images_of_a_budget_are_the_same_for_every_method(grids):
    grid = read_grid(grids.write(lambda g: g.update(shares={"gan": 3, "encoder": 1})))
    assert lengths_in_images("unet", settings("unet"), grid, 6400) == {"baseline": 6400}
    assert lengths_in_images("semgan", settings("semgan"), grid, 6400) == {"gan": 4800, "encoder": 1600}
    odd = lengths_in_images("semgan", settings("semgan"), grid, 1000)
    assert sum(odd.values()) == 1000 and odd["gan"] % settings("semgan").gan.batch == 0
    with pytest.raises(ValueError, match="budget of 8 images is too small for the stages gan, encoder"):
        lengths_in_images("semgan", settings("semgan"), grid, 8)


def test_minutes_are_shared_out_and_the_choice_of_steps_has_its_part(grids):
    shares = {"gan": 6, "encoder": 3, "steps": 1}
    grid = read_grid(grids.write(lambda g: g.update(budget={"minutes": 10}, shares=shares)))
    assert shares_of("semgan", grid) == pytest.approx({"gan": 0.6, "encoder": 0.3, "steps": 0.1})
    gan, encoder = pieces_of("semgan", grid)
    assert (gan.stage, encoder.stage) == ("gan", "encoder")
    assert gan.ends_at == pytest.approx(360) and encoder.ends_at == pytest.approx(540)
    assert pieces_of("unet", grid) == [Piece("all", 600)]
    assert pieces_of("unet", read_grid(grids.write())) == [Piece("all", None)]


def test_a_variant_with_shares_of_its_own_keeps_time_for_its_choice(grids):
    own = {"gan": 4, "encoder": 3, "pool": 1, "student": 3, "choice": 1}
    methods = ["semgan", "semgan-student"]
    shared = {"methods": methods, "budget": {"minutes": 12}, "shares": {"gan": 6, "encoder": 5, "steps": 1}}
    grid = read_grid(grids.write(lambda g: g.update(shared, settings={}, variants={"semgan-student": {"shares": own}})))
    assert shares_of("semgan", grid) == pytest.approx({"gan": 0.5, "encoder": 5 / 12, "steps": 1 / 12})
    ends = {piece.stage: piece.ends_at for piece in pieces_of("semgan-student", grid)}
    assert ends == pytest.approx({"gan": 240, "encoder": 420, "pool": 480, "student": 660})  # and 60 s for the choice


MINUTES = {"gan": 0.1, "encoder": 0.05, "baseline": 0.01}


class Clockwork:
    """Stands in for `train`: notes what it was asked for, and takes the seconds it is given on a clock of its own."""

    def __init__(self, monkeypatch, *, finished=False, share=1.0):
        self.calls, self.now, self.finished, self.share = [], 1000.0, finished, share
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "_train", self.train)
        monkeypatch.setattr(module, "images_seen", lambda run: {"gan": 1, "encoder": 1, "baseline": 1})

    def train(self, cell, context, run, changes, **options):
        if options.get("dry_run"):  # 6 s per 160 images of the GAN, and so on
            own = settings(cell.method, gan={"images": 160}, encoder={"images": 160}, baseline={"images": 160})
            return DryRun(own.model_dump(), 4, 6, 3, MINUTES, {"baseline": 0.02})
        self.calls.append((options["stage"], options["max_minutes"], options["clock_ends"], changes))
        self.now += 60 * options["max_minutes"] * self.share
        return SimpleNamespace(finished=self.finished, ended=options["clock_ends"])


def cell_of(grids, tmp_path, method, minutes=10):
    shares = {"gan": 6, "encoder": 3, "steps": 1}
    grid = read_grid(grids.write(lambda g: g.update(budget={"minutes": minutes}, shares=shares)))
    cell = next(cell for cell in cells_of(grid) if cell.method == method)
    return CellFolder(tmp_path / "out", cell, grid), grid


def test_a_clock_ends_every_stage_and_lengths_fit_it(grids, tmp_path, monkeypatch):
    folder, grid = cell_of(grids, tmp_path, "semgan")
    clock, state = Clockwork(monkeypatch), State()
    assert train_cell(folder, state, Context(grid, tmp_path, "cpu"))
    assert [(stage, pytest.approx(minutes), ends) for stage, minutes, ends, _ in clock.calls] == [
        ("gan", 6, True),
        ("encoder", 3, True),
    ]
    assert state.seconds == {"gan": 360.0, "encoder": 180.0} and state.status == "trained"
    # 360 s at 6 s per 160 images, and some room, in batches of 32
    assert 9600 * 1.1 < state.lengths["gan"] < 9600 * 1.25 and state.lengths["gan"] % 32 == 0
    changes = clock.calls[0][3]
    assert changes["gan.images"] == state.lengths["gan"]
    # The encoder's rate is to be at its end when the clock is: 180 s at 3 s per 160 images.
    assert changes["encoder.schedule_images"] == pytest.approx(9600, rel=0.01) and "gan.schedule_images" not in changes


def test_a_cell_that_was_interrupted_has_only_the_rest_of_its_time(grids, tmp_path, monkeypatch):
    folder, grid = cell_of(grids, tmp_path, "unet")
    clock, state = Clockwork(monkeypatch), State(lengths={"baseline": 64}, seconds={"all": 240.0})
    assert train_cell(folder, state, Context(grid, tmp_path, "cpu"))
    assert clock.calls[0][:3] == ("all", pytest.approx(6), True) and state.seconds["all"] == 600
    assert clock.calls[0][3]["baseline.images"] == 64  # as planned the first time
    assert "baseline.schedule_images" not in clock.calls[0][3]  # by a version that planned none


def test_the_commands_own_time_is_a_pause_and_not_the_end(grids, tmp_path, monkeypatch):
    folder, grid = cell_of(grids, tmp_path, "unet")
    clock, state = Clockwork(monkeypatch), State(lengths={"baseline": 64})
    assert not train_cell(folder, state, Context(grid, tmp_path, "cpu", deadline=1000.0 + 120))
    assert clock.calls[0][1:3] == (pytest.approx(2), False) and not state.done_pieces and state.status == "open"
    assert train_cell(folder, state, Context(grid, tmp_path, "cpu"))
    assert clock.calls[1][1:3] == (pytest.approx(8), True) and state.seconds["all"] == 600


def test_processor_time_is_the_cells_and_wall_time_the_commands(grids, tmp_path, monkeypatch):
    """Half of the wall's seconds are the process's own; the command's two minutes come first, and are a pause."""
    grid = read_grid(grids.write(lambda g: g.update(budget={"cpu_minutes": 10})))
    folder = CellFolder(tmp_path / "out", next(cell for cell in cells_of(grid) if cell.method == "unet"), grid)
    clock, asked = Clockwork(monkeypatch), []
    monkeypatch.setattr(time, "process_time", lambda: clock.now / 2)

    def train(cell, context, run, changes, **options):
        if options.get("dry_run"):
            return clock.train(cell, context, run, changes, **options)
        asked.append((options["max_minutes"], options["cpu_minutes"], options["clock_ends"], changes))
        own, whole = 120 * options["cpu_minutes"], 60 * (options["max_minutes"] or 1000)
        clock.now += min(own, whole)
        return SimpleNamespace(finished=False, ended=own < whole)

    monkeypatch.setattr(module, "_train", train)
    state = State()
    assert not train_cell(folder, state, Context(grid, tmp_path, "cpu", deadline=clock.now + 120))
    assert asked[0][:3] == (pytest.approx(2), pytest.approx(10), True) and state.status == "open"
    assert state.seconds == {"all": 60.0} and not state.done_pieces
    assert train_cell(folder, state, Context(grid, tmp_path, "cpu"))
    assert asked[1][:3] == (None, pytest.approx(9), True) and state.seconds == {"all": 600.0}
    # 0.02 minutes of processor time per 160 images, twice what the wall's clock said, and some room
    assert asked[0][3]["baseline.images"] == pytest.approx(1.15 * 160 * 10 / 0.02, rel=0.01)


def test_a_stage_without_an_image_is_an_error(grids, tmp_path, monkeypatch):
    folder, grid = cell_of(grids, tmp_path, "semgan")
    Clockwork(monkeypatch)
    monkeypatch.setattr(module, "images_seen", lambda run: {"gan": 4})
    with pytest.raises(ValueError, match="too small for method 'semgan': its stage 'encoder' saw no image"):
        train_cell(folder, State(lengths={"gan": 4, "encoder": 4}), Context(grid, tmp_path, "cpu"))


@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("method", ["unet", "unimatch"])
def test_where_the_clock_is_the_end_the_last_weights_have_their_chance(
    tiny_dataset, quick, tmp_path, monkeypatch, method
):
    """Of a training that is never validated before: without the last look no weights would be known as the best."""
    over = []
    monkeypatch.setattr(Deadline, "passed", lambda self: bool(over))
    monkeypatch.setattr(Deadline, "ends_training", lambda self, early_s=0.0: self.final and bool(over))

    def progress(done, total, what):
        if what == "train baseline" and done >= 8:
            over.append(done)

    long = [*quick, "baseline.images=1000000", "run.preview_every_images=1000000"]
    options = {"recipe": "debug", "method": method, "changes": long, "device": "cpu", "progress": progress}
    train(tiny_dataset, tmp_path / "run", max_minutes=60, clock_ends=True, **options)
    facts = read_json(tmp_path / "run" / "model" / "config.json")["training"]
    assert facts["images seen"] == facts["best weights at"] >= 8


@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("end", ["max_minutes", "cpu_minutes"])
def test_where_the_clock_is_the_end_the_steps_are_chosen_too(tiny_dataset, quick, tmp_path, end):
    options = {"recipe": "debug", "changes": quick, "device": "cpu"}
    train(tiny_dataset, tmp_path / "run", stage="gan", **options)
    train(tiny_dataset, tmp_path / "run", stage="encoder", max_minutes=0, **options)
    config_file = tmp_path / "run" / "model" / "config.json"
    assert read_json(config_file)["inversion"]["chosen_steps"] is None  # a pause
    train(tiny_dataset, tmp_path / "run", stage="encoder", max_minutes=0, cpu_minutes=9, clock_ends=True, **options)
    assert read_json(config_file)["inversion"]["chosen_steps"] is None  # a pause: nine minutes of work were left
    train(tiny_dataset, tmp_path / "run", stage="encoder", **{end: 0}, clock_ends=True, **options)
    assert read_json(config_file)["inversion"]["chosen_steps"] in (0, 2)
