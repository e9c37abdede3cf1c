"""``semgan train --dry-run``: a few steps of every stage, timed, and what the whole training would take."""

from __future__ import annotations

import contextlib
import itertools
import logging
import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from semgan import config, methods
from semgan.artifacts import RunFolder, read_metrics
from semgan.config import Settings

if TYPE_CHECKING:
    import torch

    from semgan.job import TrainingJob

logger = logging.getLogger(__name__)

# What a lazy regulariser leaves in the line of a step that it took part in.
LAZY = {"r1/image": "r1_every", "path_length": "path_length_every"}
# Rehearsed so often that seven steps hold: none, R1, path length, R1, none, both (and the first, which warms up).
REHEARSED = {"r1_every": 2, "path_length_every": 3}
STEPS = 7
CPU_PIXELS = 32 * 64 * 64  # of a rehearsed batch without a GPU: a batch of 32 at 256 px takes minutes a step and 13 GB
# Which settings give the length and the batch of a stage.
LENGTHS = {
    "gan": ("gan", "images", "batch"),
    "encoder": ("encoder", "images", "batch"),
    "baseline": ("baseline", "images", "batch"),
    "pool": ("student", "pool_images", "pool_batch"),
    "student": ("baseline", "images", "batch"),
}


@dataclass(frozen=True)
class DryRun:
    """What `train` would do: resolved settings, case counts, expected minutes by stage, memory so far in MiB.

    cpu_minutes: expected minutes by the processor's clock, all threads of this process together
    timed_batches: images per step in the rehearsal, by stage; where it is fewer than the batch of the settings, time is
    scaled by the images, and the memory is that of the smaller batch
    """

    settings: dict[str, Any]
    labelled: int
    unlabelled: int
    validation: int
    expected_minutes: dict[str, float] = field(default_factory=dict)
    cpu_minutes: dict[str, float] = field(default_factory=dict)
    memory_mb: float = 0.0
    timed_batches: dict[str, int] = field(default_factory=dict)


def rehearse(
    settings: Settings, stages: tuple[str, ...], job_of: Callable[[Settings, RunFolder], TrainingJob]
) -> DryRun:
    """Time a few steps of every stage in a temporary run; nothing is kept. job_of: creates the run and its job."""
    logger.info("Timing %d steps of every stage; at 256 px without a GPU that takes minutes.", STEPS)
    short: dict[str, dict[str, Any]] = {}
    batches = {name: timed_batch(settings, name) for name in stages}
    for name in stages:
        section, length, batch = LENGTHS[name]
        short.setdefault(section, {}).update({length: batches[name] * STEPS, batch: batches[name]})
        if section == "baseline":  # unlabelled images come in the proportion of the training
            own = settings.baseline
            short[section]["unlabelled_batch"] = max(1, round(own.unlabelled_batch * batches[name] / own.batch))
    if "gan" in stages:
        short["gan"] |= REHEARSED
    quiet = {"run": {"log_every_images": 1, "preview_every_images": None}, "inversion": {"steps": 0}}
    with tempfile.TemporaryDirectory(prefix="semgan-dry-run-") as folder:
        trial = RunFolder(Path(folder) / "run")
        job = job_of(config.override(settings, short | quiet, "the dry run"), trial)
        with _warnings_only():
            if methods.get(settings.method).train(job).interrupted:
                raise KeyboardInterrupt
        rows = [row for row in read_metrics(trial.metrics) if row.get("images_per_second")]
    every = {key: getattr(settings.gan, name) for key, name in LAZY.items()}
    minutes, cpu_minutes = {}, {}
    for name in stages:
        steps = [row for row in rows if row["stage"] == name]
        whole = stage_length(settings, name)[0] / batches[name] / 60
        minutes[name] = seconds_per_step(steps, batches[name], every) * whole
        cpu_minutes[name] = seconds_per_step(by_cpu_time(steps, batches[name]), batches[name], every) * whole
    return DryRun(
        settings.model_dump(mode="json"),
        labelled=len(job.labelled),
        unlabelled=len(job.unlabelled),
        validation=len(job.validation),
        expected_minutes=minutes,
        cpu_minutes=cpu_minutes,
        memory_mb=_peak_memory_mb(job.device),
        timed_batches=batches,
    )


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """What is told of a trial's images, scores and choices would be taken for the training's."""
    package = logging.getLogger("semgan")
    before = package.level
    package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(before)


def timed_batch(settings: Settings, stage: str) -> int:
    """Images per step in the rehearsal: the settings' own batch on a GPU, and what a CPU does in seconds elsewhere."""
    from semgan.runtime.device import choose_device

    batch = stage_length(settings, stage)[1]
    if choose_device(settings.device).type != "cpu" or stage == "pool":  # a pool's batch says what is kept of it
        return batch
    return max(2, min(batch, CPU_PIXELS // settings.preprocessing.size_px**2))


def stage_length(settings: Settings, stage: str) -> tuple[int, int]:
    """Images and batch of a stage."""
    section, images, batch = LENGTHS[stage]
    own = getattr(settings, section)
    return getattr(own, images), getattr(own, batch)


def seconds_per_step(rows: Iterable[Mapping[str, Any]], batch: int, every: Mapping[str, int]) -> float:
    """Mean price of a step, with each lazy regulariser charged once in ``every[its key]`` steps.

    rows: one line of metrics per step, in order; the first one warms up and does not count
    """
    seconds: dict[frozenset[str], list[float]] = {}
    for row in list(rows)[1:]:
        took_part = frozenset(key for key in every if key in row)
        seconds.setdefault(took_part, []).append(batch / row["images_per_second"])
    plain = mean(seconds[frozenset()])
    extra = {key: mean(seconds[frozenset({key})]) - plain for key in every if frozenset({key}) in seconds}
    return plain + sum(max(price, 0.0) / every[key] for key, price in extra.items())


def by_cpu_time(rows: Sequence[Mapping[str, Any]], batch: int) -> list[dict[str, Any]]:
    """Lines of metrics, one per step, with the pace by the processor's clock; the first line keeps its own."""
    clocks = [row["cpu_seconds"] for row in rows]
    paces = [batch / max(now - before, 1e-3) for before, now in itertools.pairwise(clocks)]
    return [dict(row) for row in rows[:1]] + [
        dict(row) | {"images_per_second": pace} for row, pace in zip(rows[1:], paces, strict=True)
    ]


def _peak_memory_mb(device: torch.device) -> float:
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
