"""The clerk: runs any stage step by step, writes its diary, saves its state, and can stop and go on at any step.

A stage's step is a pure function of its state and the number of images seen, so a run that was interrupted and resumed
ends with the same weights, bit for bit on a CPU, as one that was not. Of several processes (`semgan.ranks`) all take
the same steps and stop together, and the first one writes.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from semgan import ranks
from semgan.artifacts import RunFolder, load_checkpoint, save_checkpoint
from semgan.config import RunSettings
from semgan.runtime.deadline import Deadline
from semgan.runtime.distributed import average, by_first, check_equal


class Stage(Protocol):
    """What the clerk needs of a stage."""

    name: str
    total_images: int
    batch: int

    def step(self, images_seen: int) -> dict[str, Tensor]: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...


class TrainingDiverged(ValueError):
    """A loss or a weight is not a number any more."""


@dataclass(frozen=True)
class StageResult:
    """How far a stage got; ``finished`` is False where time ran out or somebody interrupted.

    ended: not finished, but its clock has ended it for good
    """

    images_seen: int
    finished: bool
    interrupted: bool = False
    ended: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.finished or self.ended


SAME_WISH_S = 5.0
Progress = Callable[[int, int, str], Any]  # (done, total, what)
Preview = Callable[[int], Mapping[str, float]]


@contextmanager
def polite_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) asks to stop after the current step; the second stops at once.

    One of several processes may get one wish twice, from the system and handed on by torchrun.
    """
    asked: float | None = None

    def remember(signum: int, frame: Any) -> None:
        nonlocal asked
        if asked is not None and (ranks.count() == 1 or time.monotonic() - asked > SAME_WISH_S):
            raise KeyboardInterrupt
        asked = time.monotonic()

    before = {}
    try:
        for name in (signal.SIGINT, signal.SIGTERM):
            before[name] = signal.signal(name, remember)
    except ValueError:  # not the main thread: whoever owns it decides
        pass
    try:
        yield lambda: asked is not None
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class Diary:
    """Means of the losses, over steps and processes, since the last line of metrics.jsonl."""

    def __init__(self, run: RunFolder, stage: str):
        self.run, self.stage = run, stage
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.images, self.since = 0, time.monotonic()

    def add(self, losses: Mapping[str, Tensor], images: int) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1
        self.images += images

    def write(self, images_seen: int) -> None:
        """One line; raises TrainingDiverged where a mean is not finite."""
        now = time.monotonic()
        means = average({name: float(total) / self.counts[name] for name, total in self.sums.items()})
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise TrainingDiverged(
                f"Training diverged: {', '.join(broken)} not finite near image {images_seen} of stage '{self.stage}'. "
                "The last good checkpoint is kept; go on from it with a smaller learning rate, or --set "
                f"{self.stage}.precision=float32, in a new run with --init-from."
            )
        speed = self.images / max(now - self.since, 1e-9)
        row = {"stage": self.stage, "images_seen": images_seen, "seconds": round(time.time(), 3)}
        pace = {"images_per_second": speed, "cpu_seconds": round(time.process_time(), 3)}
        if ranks.is_first():
            self.run.append_metrics(row | means | pace)
        self.sums, self.counts, self.images, self.since = {}, {}, 0, time.monotonic()


def checkpoint_path(run: RunFolder, stage: str) -> Path:
    return run.checkpoints / f"{stage}.safetensors"


def _first_broken(state: Any, name: str = "") -> str | None:
    """Name of the first tensor in a nested state that holds a NaN or infinity."""
    if isinstance(state, Tensor):
        return name if state.is_floating_point() and not bool(torch.isfinite(state).all()) else None
    items = state.items() if isinstance(state, Mapping) else enumerate(state) if isinstance(state, list | tuple) else ()
    for key, value in items:
        broken = _first_broken(value, f"{name}/{key}" if name else str(key))
        if broken:
            return broken
    return None


def save_stage(stage: Stage, run: RunFolder, images_seen: int) -> None:
    """Checkpoint a stage, unless its weights are not numbers any more."""
    state = stage.state()
    broken = _first_broken(state)
    if broken:
        raise TrainingDiverged(
            f"Training diverged: '{broken}' of stage '{stage.name}' is not finite at image {images_seen}. "
            f"The last good checkpoint is kept in {run.checkpoints}."
        )
    check_equal(state, f"the state of stage '{stage.name}' after {images_seen} images")
    saved = {"stage": stage.name, "images_seen": images_seen, "state": state}
    by_first(lambda: save_checkpoint(checkpoint_path(run, stage.name), saved))


def read_stage_checkpoint(path: Path, stage: str) -> tuple[int, dict[str, Any]]:
    """Images seen and state. Raises ValueError where the file belongs to another stage."""
    saved = load_checkpoint(path)
    if saved.get("stage") != stage:
        raise ValueError(f"{path} is a checkpoint of stage '{saved.get('stage')}'; expected one of stage '{stage}'.")
    return int(saved["images_seen"]), saved["state"]


def resume_stage(stage: Stage, run: RunFolder) -> int:
    """Load the stage's checkpoint if there is one; returns the images seen. Raises ValueError where it does not fit."""
    path = checkpoint_path(run, stage.name)
    if not path.is_file():
        return 0
    images_seen, state = read_stage_checkpoint(path, stage.name)
    try:
        stage.load_state(state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit these settings ({str(error).splitlines()[0]}); train into another folder with -o."
        ) from None
    return images_seen


def _due(before: int, after: int, every: int) -> bool:
    return after // every > before // every


def run_stage(
    stage: Stage,
    run: RunFolder,
    settings: RunSettings,
    *,
    deadline: Deadline | None = None,
    preview: Preview | None = None,
    keeps_best: bool = False,
    progress: Progress | None = None,
) -> StageResult:
    """Train a stage to its end, to ``deadline``, or to an interruption; then save it.

    Goes on from the stage's checkpoint. keeps_best: the model is the best of all previews, so what was learnt since the
    last one counts too: where the deadline ends the training, one more is the last thing within its time.
    Raises TrainingDiverged, with the last good checkpoint kept.
    """
    seen = resume_stage(stage, run)
    if ranks.count() > 1:
        start = [seen, stage.state()]
        ranks.wait()  # for the slowest disk
        check_equal(start, f"the state that stage '{stage.name}' starts from")
    by_first(lambda: run.truncate_metrics(stage.name, seen))
    diary, looks = Diary(run, stage.name), _Previews(stage, run, preview, deadline)
    with polite_interrupt() as interrupted:

        def ends_training() -> bool:
            return deadline is not None and deadline.ends_training(looks.price_s if keeps_best else 0.0)

        def must_stop() -> bool:
            return ranks.any_of(interrupted() or (deadline is not None and deadline.passed()) or ends_training())

        while seen < stage.total_images and not must_stop():
            diary.add(stage.step(seen), stage.batch)
            before, seen = seen, seen + stage.batch
            finished = seen >= stage.total_images
            if finished or _due(before, seen, settings.log_every_images):
                diary.write(seen)
            every = settings.preview_every_images
            if every is not None and (finished or _due(before, seen, every)):
                began = time.monotonic()
                looks.take(seen)
                diary.since += time.monotonic() - began
            if not finished and _due(before, seen, settings.checkpoint_every_images):
                save_stage(stage, run, seen)
            if progress:
                progress(min(seen, stage.total_images), stage.total_images, f"train {stage.name}")
        if seen:
            save_stage(stage, run, seen)
        finished = seen >= stage.total_images
        ended = not finished and ranks.any_of(ends_training()) and not ranks.any_of(interrupted())
        if ended and keeps_best and settings.preview_every_images is not None and looks.take(seen):
            save_stage(stage, run, seen)  # with the weights that are the best now
        stopped = ranks.any_of(interrupted())
        return StageResult(seen, finished, stopped, ended and not stopped)


class _Previews:
    """A stage's previews, into metrics.jsonl; in one process none twice at the same number of images.

    price_s: seconds that the last one took, by the clock that can end the training; of a process' first nobody knows
    """

    def __init__(self, stage: Stage, run: RunFolder, preview: Preview | None, deadline: Deadline | None) -> None:
        self._stage, self._run, self._preview = stage, run, preview
        self._now = time.monotonic if deadline is None else deadline.now
        self._taken_at, self.price_s = 0, 0.0

    def take(self, images_seen: int) -> bool:
        """Whether there was one to take."""
        if self._preview is None or not images_seen or self._taken_at == images_seen:
            return False
        began = self._now()
        numbers = self._preview(images_seen)
        if ranks.is_first():
            row = {"stage": self._stage.name, "images_seen": images_seen, "seconds": round(time.time(), 3)}
            self._run.append_metrics(row | dict(numbers))
        ranks.wait()  # for the first process, which draws
        self._taken_at, self.price_s = images_seen, self._now() - began
        return True
