"""A cell's training under its budget: the same images seen, or the same seconds, whatever the method's stages are.

In minutes, by the clock on the wall or the processor's, the pace of every stage is measured first (`semgan.rehearsal`)
and each stage gets the length that fits its share, and some room; then the clock alone decides. Schedules and ramp-ups
end where the clock is expected to, without that room. They follow the images seen, not the clock, so that a cell that
goes on is where it was. The time of the rehearsal, in which nothing is learnt, does not count.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semgan import methods
from semgan.artifacts import RunFolder, load_checkpoint
from semgan.benchmark.cells import DONE, TRAINED, Cell, CellFolder, State, first_of
from semgan.benchmark.grid import SCHEDULE_SETTINGS, Grid, leaves
from semgan.benchmark.rows import ends_of, shares_of
from semgan.config import Settings
from semgan.data.folder import Dataset
from semgan.rehearsal import LENGTHS, DryRun, stage_length
from semgan.runtime.loop import Progress

HEADROOM = 1.15  # a stage's length beyond what was measured, so that its clock ends it, not a slow moment before
NOTE_EVERY_S = 10.0  # between notes of the time used
ALL = "all"


@dataclass(frozen=True)
class Context:
    """What training a cell needs besides the cell. deadline: of the whole command, in time.monotonic() seconds.

    precision: what settings leave open becomes, see `semgan.benchmark.precision`; None: what is faster here, as for
    cells whose number of images is given by another seed's
    """

    grid: Grid
    dataset: Path
    device: str
    deadline: float | None = None
    progress: Progress | None = None
    check: Callable[[], None] = lambda: None  # raises where the cell was taken over
    precision: str | None = None


@dataclass(frozen=True)
class Piece:
    """A stage of training and when it ends, in seconds of the cell's budget; None: when its images are seen."""

    stage: str
    ends_at: float | None


def changes_of(cell: Cell, grid: Grid) -> dict[str, Any]:
    """Settings that the grid changes, "gan.batch" -> 8: those of the task, then those of the method."""
    metric = {"metric": cell.task.metric} if cell.task.metric in ("dice", "jaccard", "miou") else {}
    return metric | leaves(cell.task.settings) | grid.settings_of(cell.method)


def settings_of(cell: Cell, dataset: Dataset, grid: Grid) -> Settings:
    """A cell's settings, but for the lengths that the budget gives."""
    from semgan.train import resolve_settings

    return resolve_settings(
        dataset,
        cell.task.recipe,
        method=grid.method_of(cell.method),
        labels=cell.labels,
        split_seed=cell.seed,
        seed=cell.seed,
        changes=assignments(changes_of(cell, grid)),
    )


def assignments(changes: dict[str, Any]) -> list[str]:
    """Changes of settings as `train` takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def lengths_in_images(row: str, settings: Settings, grid: Grid, images: int) -> dict[str, int]:
    """Stage -> images to see, ``images`` in all; whole batches for every stage but the last."""
    lengths: dict[str, int] = {}
    *others, last = methods.get(settings.method).stages
    shares = shares_of(row, grid)
    for stage in others:
        batch = stage_length(settings, stage)[1]
        lengths[stage] = max(round(shares[stage] * images / batch), 1) * batch
    rest = images - sum(lengths.values())
    if rest <= 0:
        raise ValueError(f"A budget of {images} images is too small for the stages {', '.join([*others, last])}.")
    return lengths | {last: rest}


def lengths_in_minutes(cell: Cell, context: Context, minutes: float) -> dict[str, int]:
    """Stage -> images that fit into its share of the minutes by a rehearsal, with some room."""
    plan = rehearsed(cell, context)
    expected = plan.cpu_minutes if context.grid.counts_processor(cell.method) else plan.expected_minutes
    shares, found = shares_of(cell.method, context.grid), {}
    for stage in methods.get(context.grid.method_of(cell.method)).stages:
        section, images, batch = (LENGTHS[stage][0], *LENGTHS[stage][1:])
        own = plan.settings[section]
        seconds_per_image = 60 * expected[stage] / own[images]
        fitting = HEADROOM * shares[stage] * 60 * minutes / max(seconds_per_image, 1e-9)
        found[stage] = max(math.ceil(fitting / own[batch]), 1) * own[batch]
    return found


def schedules_of(lengths: Mapping[str, int]) -> dict[str, int]:
    """Setting -> images at which its schedule ends: the lengths without their room, where the clock is expected."""
    ends = {f"{LENGTHS[stage][0]}.schedule_images": math.ceil(count / HEADROOM) for stage, count in lengths.items()}
    return {name: count for name, count in ends.items() if name in SCHEDULE_SETTINGS}


def rehearsed(cell: Cell, context: Context) -> DryRun:
    """A cell's training, timed for a few steps."""
    plan = _train(cell, context, Path("unused"), changes_of(cell, context.grid), dry_run=True)
    assert isinstance(plan, DryRun)
    return plan


def pieces_of(row: str, grid: Grid) -> list[Piece]:
    """What to train one after the other: everything at once by images, stage by stage by the clock."""
    budget = grid.budget_of(row)
    if budget is None or budget.time is None:
        return [Piece(ALL, None)]
    stages, total = methods.get(grid.method_of(row)).stages, 60 * budget.time
    if len(stages) == 1:
        return [Piece(ALL, total)]
    return [Piece(stage, total * end) for stage, end in ends_of(row, grid).items()]


def train_cell(folder: CellFolder, state: State, context: Context) -> bool:
    """Train what is left of a cell; False where the command's own time ran out before. Keeps state and clock."""
    cell, grid = folder.cell, context.grid
    budget = grid.budget_of(cell.method)
    if not state.lengths and (first := first_of(cell, grid)) is not None:
        copy_lengths(state, CellFolder(folder.path.parents[1], first, grid))
        folder.write(state)
    elif not state.lengths and budget is not None:
        images, minutes = budget.images, budget.time
        if images is not None:
            settings = settings_of(cell, Dataset.open(context.dataset), grid)
            state.lengths = lengths_in_images(cell.method, settings, grid, images)
        elif minutes is not None:
            state.lengths = lengths_in_minutes(cell, context, minutes)
            state.schedules = schedules_of(state.lengths)
        folder.write(state)
    lengths = {".".join(LENGTHS[stage][:2]): count for stage, count in state.lengths.items()}
    changes = changes_of(cell, grid) | lengths | state.schedules
    for piece in [Piece(ALL, None)] if state.repeats else pieces_of(cell.method, grid):
        if piece.stage not in state.done_pieces and not _train_piece(piece, folder, state, context, changes):
            return False
    state.images_seen = images_seen(folder.run)
    state.status = TRAINED
    folder.write(state)
    return True


def is_trained(state: State) -> bool:
    """Whether a cell's number of images is final."""
    return state.status in (TRAINED, DONE) and bool(state.images_seen)


def copy_lengths(state: State, first: CellFolder) -> None:
    """See as many images in every stage, on the same schedules, as the row's first seed did. ValueError: not yet."""
    known = first.read()
    if not is_trained(known):
        raise ValueError(f"{first.cell.name}, whose number of images it is to see, is not trained yet.")
    state.lengths, state.schedules, state.repeats = dict(known.images_seen), dict(known.schedules), first.cell.name


def _train_piece(piece: Piece, folder: CellFolder, state: State, context: Context, changes: dict[str, Any]) -> bool:
    """True where the piece has come to its end."""
    left = None if piece.ends_at is None else max(piece.ends_at - state.training_seconds, 0.0)
    allowed = None if context.deadline is None else max(context.deadline - time.monotonic(), 0.0)
    on_cpu = context.grid.counts_processor(folder.cell.method)
    is_last_word = left is not None and (on_cpu or allowed is None or left <= allowed)
    limits = [seconds for seconds in (None if on_cpu else left, allowed) if seconds is not None]
    watch = _Stopwatch(piece.stage, folder, state, context)
    try:
        result = _train(
            folder.cell,
            context,
            folder.run,
            changes,
            stage=piece.stage,
            max_minutes=min(limits) / 60 if limits else None,
            cpu_minutes=left / 60 if on_cpu and left is not None else None,
            clock_ends=is_last_word,
            progress=watch.progress,
        )
    finally:
        watch.note()
    if not (result.finished or result.ended):  # the command's own time was over first
        return False
    seen, method = images_seen(folder.run), context.grid.method_of(folder.cell.method)
    stages = methods.get(method).stages if piece.stage == ALL else (piece.stage,)
    if idle := [stage for stage in stages if not seen.get(stage)]:
        raise ValueError(
            f"The budget is too small for method '{method}': its stage '{idle[0]}' saw no image. Give more."
        )
    state.done_pieces.append(piece.stage)
    folder.write(state)
    return True


def _train(cell: Cell, context: Context, run: Path, changes: dict[str, Any], **options: Any) -> Any:
    from semgan.train import train

    return train(
        context.dataset,
        run,
        recipe=cell.task.recipe,
        method=context.grid.method_of(cell.method),
        labels=cell.labels,
        split_seed=cell.seed,
        seed=cell.seed,
        device=context.device,
        precision=None if first_of(cell, context.grid) else context.precision,
        changes=assignments(changes | _choice_of(cell, context)),
        **options,
    )


def _choice_of(cell: Cell, context: Context) -> dict[str, int]:
    """Steps of an inversion are chosen on no more validation images than every method's weights are."""
    settings = settings_of(cell, Dataset.open(context.dataset), context.grid)
    if "encoder" not in methods.get(settings.method).stages:
        return {}
    return {"inversion.choice_cases": min(settings.inversion.choice_cases, settings.run.validation_cases)}


class _Stopwatch:
    """Notes the seconds of a piece in the cell's state, every few seconds: a kill loses no more than that."""

    def __init__(self, stage: str, folder: CellFolder, state: State, context: Context) -> None:
        self._stage, self._folder, self._state, self._context = stage, folder, state, context
        self._before = state.seconds.get(stage, 0.0)
        self._clock = time.process_time if context.grid.counts_processor(folder.cell.method) else time.monotonic
        self._began = self._noted = self._clock()

    def progress(self, done: int, total: int, what: str) -> None:
        self._context.check()
        if self._clock() - self._noted > NOTE_EVERY_S:
            self.note()
        if self._context.progress is not None:
            self._context.progress(done, total, what)

    def note(self) -> None:
        self._context.check()
        self._noted = self._clock()
        self._state.seconds[self._stage] = round(self._before + self._noted - self._began, 2)
        self._folder.write(self._state)


def images_seen(run: Path) -> dict[str, int]:
    """Stage -> images that it was trained on, from its checkpoint."""
    found = {}
    for path in sorted(RunFolder(run).checkpoints.glob("*.safetensors")):
        saved = load_checkpoint(path)
        found[str(saved["stage"])] = int(saved["images_seen"])
    return found
