"""The verb train: resolve the settings, open the data, let the method train, write the report."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from semgan import config, methods, ranks, recipes
from semgan.artifacts import RunFolder, git_commit, locked_folder, temporary_beside
from semgan.config import Precision, Settings
from semgan.data.folder import Dataset
from semgan.job import StageName
from semgan.rehearsal import DryRun, rehearse
from semgan.runtime.deadline import Deadline
from semgan.runtime.device import faster_precision, prepare_cpu
from semgan.runtime.distributed import by_first, device_of_this_process
from semgan.runtime.loop import Progress, StageResult

logger = logging.getLogger("semgan")


@dataclass(frozen=True)
class TrainResult:
    """What a call of `train` did. ``finished`` is False where time ran out or it was interrupted.

    ended: not finished, but over: its clock has ended the training for good (``clock_ends``)
    """

    run: str
    method: str
    finished: bool
    interrupted: bool
    images_seen: int
    seconds: float
    report: str | None
    advice: list[str] = field(default_factory=list)
    ended: bool = False


def resolve_settings(
    dataset: Dataset,
    recipe: str | Path,
    *,
    method: str | None = None,
    labels: int | None = None,
    split_seed: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    changes: list[str] | None = None,
) -> Settings:
    """Recipe, then the method's changes, then the dataset's facts, then the command line; later ones win.

    Raises ValueError naming the key for settings that do not exist or do not fit.
    """
    settings = recipes.load(recipe)
    name = method or settings.method
    own = settings
    settings = config.override(settings, methods.get(name).changes(settings) | {"method": name}, f"method {name}")
    _tell_overruled(recipe, own, settings)
    facts = {
        "classes": list(dataset.labels.names),
        "metric": _metric(dataset, settings),
        "preprocessing": {"channels": dataset.channels},
    }
    settings = config.override(settings, facts, str(dataset.path))
    named = {"labels": labels, "split_seed": split_seed, "seed": seed, "device": device}
    given = {key: value for key, value in named.items() if value is not None}
    settings = config.override(settings, given, "the command line")
    asked = config.parse_assignments(changes or [])
    settings = config.override(settings, asked, "--set")
    derived = methods.get(name).derived(settings)  # constants that follow what was asked for, unless they were, too
    return config.override(config.override(settings, derived, f"method {name}"), asked, "--set")


def _tell_overruled(recipe: str | Path, own: Settings, settings: Settings) -> None:
    """Warn of what a YAML file says and the method says otherwise."""
    found = []
    for section, values in recipes.written_in(recipe).items():
        for key in values if isinstance(values, dict) else ():
            said, meant = (getattr(getattr(each, section), key) for each in (own, settings))
            if said != meant:
                found.append(f"{section}.{key} is {meant}, not {said}")
    if found:
        words = (recipe, settings.method, "; ".join(found))
        logger.warning("%s is overruled by method '%s': %s. --set has the last word.", *words)


def _metric(dataset: Dataset, settings: Settings) -> str:
    """The protocol's metric where the splits name one; else the recipe's, unless that is the general Dice."""
    return dataset.splits.get("metric") or (dataset.metric if settings.metric == "dice" else settings.metric)


@ranks.joined()
def train(
    dataset: Path | str,
    out: Path | str,
    *,
    recipe: str | Path,
    method: str | None = None,
    labels: int | None = None,
    split_seed: int | None = None,
    seed: int | None = None,
    stage: str = "all",
    init_from: Path | str | None = None,
    max_minutes: float | None = None,
    cpu_minutes: float | None = None,
    clock_ends: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    changes: list[str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    progress: Progress | None = None,
) -> TrainResult | DryRun:
    """Train a method on a dataset folder into a run folder; the same call goes on with an unfinished run.

    ``resume`` insists that the run exists already; cpu_minutes: of this process, all threads together. With
    ``clock_ends`` the end of ``cpu_minutes``, or else of ``max_minutes``, is the end of the training, so that the
    number of steps is chosen then too. precision: what ``auto`` becomes; None: what is faster here. Started by
    torchrun, several processes train together, each a share of every batch; the first one writes. Raises ValueError,
    FileNotFoundError or FileExistsError with the cure for bad input, `semgan.runtime.loop.TrainingDiverged` where
    training broke down.
    """
    opened = Dataset.open(Path(dataset))
    settings = resolve_settings(
        opened,
        recipe,
        method=method,
        labels=labels,
        split_seed=split_seed,
        seed=seed,
        device=device,
        changes=changes,
    )
    _check_request(settings, stage, init_from)
    run = RunFolder(Path(out))
    if resume and not run.config.is_file():
        raise FileNotFoundError(f"--resume: {run.path} is not a run; leave --resume out to start one.")
    deadline = Deadline.after(max_minutes, cpu_minutes, final=clock_ends)
    prepare_cpu(settings.threads, training=True)
    settings = _settle_precision(settings, run, precision)
    if dry_run:
        ranks.refuse_several("train --dry-run")
        stages = methods.get(settings.method).stages_after(init_from)
        return rehearse(settings, stages, functools.partial(_new_job, opened, init_from))
    started = time.monotonic()
    run.check(settings)
    job = _job(opened, settings, run, stage, init_from, deadline, progress)
    with contextlib.ExitStack() as held:
        by_first(lambda: _create_run(run, settings, opened, held))  # only now: bad data leaves no run behind
        words = (settings.method, settings.recipe, opened.path.name, git_commit())
        logger.info("Training %s by recipe %s on %s (%s)", *words)
        if max_minutes is not None and not clock_ends:
            logger.info("Stops after %g minutes, whatever is left then; the same command goes on.", max_minutes)
        result = methods.get(settings.method).train(job)
        advice: list[str] = []
        by_first(lambda: advice.extend(_report(run)))
        logger.info("%s after %d images.", "Finished" if result.finished else "Stopped", result.images_seen)
    if result.interrupted:
        raise KeyboardInterrupt
    return _outcome(run, settings, result, time.monotonic() - started, advice)


def _settle_precision(settings: Settings, run: RunFolder, precision: str | None) -> Settings:
    """``auto`` replaced by what the run has already, or else as given, or by what is faster where the first process is.

    The inversion's stays where neither says it: the machine that answers decides.
    """
    choices = get_args(Precision)
    if precision is not None and precision not in choices:
        raise ValueError(f"Unknown precision '{precision}'; expected {', '.join(choices)}.")
    found: dict[str, Any] = {}
    known = config.load(run.config) if ranks.is_first() and run.config.is_file() else settings
    for name in config.PRECISION_SECTIONS:
        if getattr(settings, name).precision != "auto":
            continue
        kept: str = getattr(known, name).precision
        if kept == "auto" and precision is not None:
            kept = precision
        elif kept == "auto" and ranks.is_first() and name != "inversion":
            kept = faster_precision(device_of_this_process(settings.device).type)
        found[name] = {"precision": choices[int(ranks.of_first(choices.index(kept)))]}
    return config.override(settings, found, "the settled precision")


def _outcome(run: RunFolder, settings: Settings, result: StageResult, seconds: float, advice: list[str]) -> TrainResult:
    return TrainResult(
        str(run.path),
        settings.method,
        result.finished,
        result.interrupted,
        result.images_seen,
        seconds,
        str(run.report) if run.report.is_file() else None,
        advice,
        result.ended,
    )


def _check_request(settings: Settings, stage: str, init_from: Path | str | None) -> None:
    if stage not in get_args(StageName):
        raise ValueError(f"Unknown stage '{stage}'; expected {', '.join(get_args(StageName))}.")
    method = methods.get(settings.method)
    if method.rival and (stage != "all" or init_from is not None):
        raise ValueError(f"--stage and --init-from belong to our generator; method '{settings.method}' has none.")
    if stage not in ("all", *method.stages_after(init_from)):
        trained = ", ".join(method.stages_after(init_from))
        reused = "" if init_from is None else " with --init-from"
        raise ValueError(f"Method '{settings.method}'{reused} has no stage '{stage}'; it trains {trained}.")


def _create_run(run: RunFolder, settings: Settings, dataset: Dataset, held: contextlib.ExitStack | None = None) -> None:
    """The run's folder, with ``held`` for this training alone and with its log. ValueError where another trains it."""
    if held is not None:
        run.path.mkdir(parents=True, exist_ok=True)
        try:
            held.enter_context(locked_folder(run.path, wait=False))
        except BlockingIOError:
            raise ValueError(
                f"Another process trains {run.path}; wait until it has ended, or give another folder with -o."
            ) from None
    run.create(settings, f"{dataset.name} {dataset.fingerprint[:16]}")
    if held is not None:
        held.enter_context(log_into(run.log))


def _new_job(dataset: Dataset, init_from: Path | str | None, settings: Settings, run: RunFolder) -> Any:
    """A job in a run of its own, without pictures, time limit or progress."""
    _create_run(run, settings, dataset)
    return _job(dataset, settings, run, "all", init_from, None, None)


def _job(
    dataset: Dataset,
    settings: Settings,
    run: RunFolder,
    stage: str,
    init_from: Path | str | None,
    deadline: Deadline | None,
    progress: Progress | None,
) -> Any:
    from semgan.data.cache import open_cache
    from semgan.job import TrainingJob, load_pixels, shifted_validation

    if ranks.count() > 1:  # one process decodes, and the others find it done
        by_first(lambda: open_cache(dataset.path, None, settings.preprocessing, progress=progress))
    cache, pixels = load_pixels(dataset, settings, progress)
    return TrainingJob(
        settings=settings,
        labels=dataset.labels,
        run=run,
        device=device_of_this_process(settings.device),
        images=cache.images,
        **pixels,
        stage=stage,  # type: ignore[arg-type]
        init_from=None if init_from is None else Path(init_from),
        deadline=deadline,
        chooses_steps=settings.inversion.choose,
        progress=progress,
        draw=draw_grid if ranks.is_first() else None,
        read_shifted=functools.partial(shifted_validation, dataset, settings),
    )


def draw_grid(images: np.ndarray, label_maps: np.ndarray, classes: int, path: Path) -> None:
    """Image + mask pairs as one PNG, written atomically."""
    from PIL import Image

    from semgan.sample import sample_grid

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    Image.fromarray(sample_grid(images, label_maps, classes)).save(temporary, format="PNG")
    temporary.replace(path)


def _report(run: RunFolder) -> list[str]:
    from semgan.report.run_report import run_findings, write_run_report

    if not run.metrics.is_file():
        return []
    write_run_report(run.path)
    advice = [finding.text for finding in run_findings(run.path)]
    for line in advice:
        logger.info("%s", line)
    return advice


@contextlib.contextmanager
def log_into(path: Path) -> Iterator[None]:
    """Log lines of the package into a file as well, while the block runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger.addHandler(handler)
    before = logger.level
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        # For the file alone: whoever catches the error tells it.
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "%s", (error,), None))
        raise
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
