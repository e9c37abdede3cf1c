"""One cell from data to scores: train with the test sets closed, then open each of them once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semgan import artifacts, methods
from semgan.benchmark.cells import DONE, ERROR, FAILED, OPEN, TRAINED, CellFolder, State, read_cases
from semgan.benchmark.fairness import Conditions, check_separate, closed, guard_of
from semgan.benchmark.grid import Grid, Task, held_out
from semgan.benchmark.parts import class_mapping, class_names, part
from semgan.benchmark.precision import trained_in
from semgan.benchmark.training import Context, settings_of, train_cell
from semgan.data.folder import Dataset
from semgan.scoring import HeldOut, Scored, TrainedModel, check_held_out, stems_of
from semgan.types import step_order
from semgan.volume_scoring import VolumeSet, score_volumes

if TYPE_CHECKING:
    from semgan.runtime.loop import Progress

SHOWN = "shown"  # in the run folder: masks of a few test images, for sheets
SHOWN_CASES = 4
MASKS = "masks"  # in the run folder: SET/steps-N, the masks of volumes
LOGS = ("config.yaml", "environment.json", "log.txt", "metrics.jsonl")


def prepared(task: Task, data: Path, progress: Progress | None = None) -> Path:
    """The task's dataset folder; prepared under DATA/TASK where the grid names plain folders. Safe beside others."""
    if task.prepare is None:
        assert task.dataset is not None
        return Path(task.dataset)
    from semgan.data.prepare.folder import prepare_folder
    from semgan.data.splits import import_splits

    data.mkdir(parents=True, exist_ok=True)
    source = task.prepare
    names, mapping = part(source.classes), class_mapping(source.mapping)
    if isinstance(names, dict) and isinstance(names.get("classes"), list | dict):
        names = names["classes"]
    with artifacts.locked_folder(data):
        prepare_folder(
            source.images,
            source.labels,
            data / task.name,
            unlabelled=source.unlabelled,
            manifest=source.manifest,
            classes=None if names is None else list(class_names(names)),
            mapping=None if mapping is None else dict(mapping if isinstance(mapping, dict) else enumerate(mapping)),
            progress=progress,
        )
        if task.splits is not None:
            import_splits(data / task.name, task.splits)
    return data / task.name


def ensure_list(task: Task, dataset: Path, labels: int, seed: int) -> None:
    """Draw the labelled list of a dataset that the benchmark itself prepared, where nobody drew it before.

    Raises ValueError where there are fewer labelled images, or the grid's own lists lack it.
    """
    from semgan.data.splits import write_splits

    check_list(task, labels, seed)
    if task.prepare is None or task.splits is not None:
        return
    with artifacts.locked_folder(dataset.parent):
        if f"labelled_{labels}_seed{seed}" not in Dataset.open(dataset).splits:
            write_splits(dataset, labels, seed)


def check_list(task: Task, labels: int, seed: int) -> None:
    """Raise ValueError where the grid names lists, and not the labelled one."""
    if task.splits is None:
        return
    lists, name = artifacts.read_json(Path(task.splits)), f"labelled_{labels}_seed{seed}"
    if name not in lists:
        known = ", ".join(key for key in lists if key.startswith("labelled_")) or "none"
        raise ValueError(f"{task.splits} has no list '{name}', only {known}; add it, or ask for others in the grid.")


def check_test_sets(held_outs: Sequence[HeldOut | VolumeSet], dataset: Dataset) -> None:
    """Raise ValueError or FileNotFoundError for what scoring would miss after all of the training; by names alone."""
    for each in held_outs:
        if isinstance(each, HeldOut):
            check_held_out(each, dataset.channels, dataset.labels.names)


def work(folder: CellFolder, context: Context) -> State:
    """Train and score a cell as far as time allows; the state says how far it came. Raises what goes wrong."""
    state = folder.begin()
    if state.status == DONE:
        return state
    cell = folder.cell
    methods.get(context.grid.method_of(cell.method))  # the first thing to be told
    ensure_list(cell.task, context.dataset, cell.labels, cell.seed)
    dataset = Dataset.open(context.dataset)
    held_outs = [held_out(entry) for entry in cell.task.test_sets]
    state.error, state.fault, state.attempts = None, False, state.attempts + 1
    state.status = OPEN if state.status == FAILED else state.status
    if state.status != TRAINED:
        check_test_sets(held_outs, dataset)
        check_separate(held_outs, dataset, sources(cell.task))
        state.facts = facts(folder, dataset, context)
        folder.write(state)
        with closed(guard_of(held_outs, dataset)):
            if not train_cell(folder, state, context):
                return state
    if not _score(folder, state, held_outs, context):
        return state
    context.check()
    _keep_logs(folder)
    (folder.path / ERROR).unlink(missing_ok=True)  # of an earlier try
    state.status = DONE
    folder.write(state)
    return state


def sources(task: Task) -> list[Path]:
    """The plain folders that a dataset is prepared from; none where the grid names a prepared one."""
    if task.prepare is None:
        return []
    return [Path(folder) for folder in (task.prepare.images, task.prepare.unlabelled) if folder is not None]


def facts(folder: CellFolder, dataset: Dataset, context: Context) -> dict[str, Any]:
    """What must be the same for every method of a task, number of labels and seed."""
    cell = folder.cell
    settings = settings_of(cell, dataset, context.grid)
    unlabelled = dataset.unlabelled(cell.labels, cell.seed)
    return {
        "dataset": dataset.fingerprint[:16],
        "labelled list": _hash_of([case.stem for case in dataset.labelled(cell.labels, cell.seed)]),
        "unlabelled images": _hash_of([case.stem for case in unlabelled]),
        "validation list": _hash_of([case.stem for case in dataset.validation()]),
        "validation cases": settings.run.validation_cases,
        "preprocessing": settings.preprocessing.model_dump(mode="json"),
        "metric": settings.metric,
    }


def _hash_of(stems: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(stems)).encode()).hexdigest()[:16]


def conditions(folder: CellFolder, state: State, grid: Grid) -> Conditions:
    """What a finished cell had, and was scored on, for `fairness.unfairness`."""
    cell = folder.cell
    group, seen = (cell.task.name, cell.labels, cell.seed), sum(state.images_seen.values())
    scored = {test_set: next(iter(by_step.values())) for test_set, by_step in read_cases(folder.cases).items()}
    trained = trained_in(folder.path / "logs" / "config.yaml")
    rounds_alike = trained is None or state.repeats is not None  # the latter's length does not depend on its pace
    known = state.facts | ({} if rounds_alike else {"precision": trained})
    known |= {
        f"cases or masks of test set '{name}'": _hash_of(
            [f"{stem} {truth}" for stem, truth in zip(cases.stems, cases.counts.truth.tolist(), strict=True)]
        )
        for name, cases in scored.items()
    }
    budget = None if state.repeats is not None else grid.budget_of(cell.method)
    return Conditions(cell.name, group, known, seen, state.training_seconds, budget, state.repeats)


def _score(folder: CellFolder, state: State, held_outs: Sequence[HeldOut | VolumeSet], context: Context) -> bool:
    """Open every test set once; after that the model is what it is. False where the command's time ran out before."""
    cell, began = folder.cell, time.monotonic()
    model, fingerprint = TrainedModel(folder.run, device=context.device), model_hash(folder.run)
    if state.model not in (None, fingerprint):
        raise ValueError(
            f"{folder.run} was trained further after a test set was opened; its scores would not be fair. "
            f"Remove {folder.path}, and the same command makes the cell again."
        )
    state.model = fingerprint
    metric = cell.task.metric or model.settings["metric"]
    for done, each in enumerate(held_outs):
        context.check()
        if each.name in state.scored:
            continue
        if context.deadline is not None and time.monotonic() >= context.deadline:
            return False
        if context.progress is not None:
            context.progress(done, len(held_outs), "score test sets")
        state.opened.setdefault(each.name, []).append(time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        folder.write(state)
        scored = _scored(model, each, folder, context)
        context.check()
        rows = model.rows(scored, cell.task.name, metric)
        if not state.scored:
            rows += model.validation_rows(cell.task.name)
        rows = [replace(row, method=cell.method) for row in rows]  # the row's name, where it is a variant
        folder.add_scores(rows, scored, sorted({0, model.chosen}, key=step_order))
        if scored.shown:
            _keep_shown(folder.run / SHOWN / each.name, scored.shown)
        state.scored.append(each.name)
        state.scoring_seconds += round(time.monotonic() - began, 2)
        began = time.monotonic()
        folder.write(state)
    return True


def _scored(model: TrainedModel, each: HeldOut | VolumeSet, folder: CellFolder, context: Context) -> Scored:
    """A test set's counts at every step asked for; of images with masks of a few."""
    steps = folder.cell.task.steps
    if isinstance(each, VolumeSet):
        return score_volumes(model, each, folder.run / MASKS / each.name, steps, context.progress)
    return model.score(each, steps, some(stems_of(each, model.settings["preprocessing"]["channels"])))


def some(stems: Sequence[str], count: int = SHOWN_CASES) -> list[str]:
    """A few cases, evenly spaced in the order of names: nobody picked them."""
    if len(stems) <= count:
        return list(stems)
    return [stems[(2 * place + 1) * len(stems) // (2 * count)] for place in range(count)]


def _keep_shown(folder: Path, masks: Any) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for stem, mask in masks.items():
        Image.fromarray(mask).save(folder / f"{stem}.png")


def model_hash(run: Path) -> str:
    """sha256 over the files of a run's model."""
    digest = hashlib.sha256()
    for path in sorted(artifacts.find_model(run).iterdir()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _keep_logs(folder: CellFolder) -> None:
    """Settings, environment, log and metrics of the run beside its scores, without the machine's paths."""
    logs = folder.path / "logs"
    logs.mkdir(exist_ok=True)
    for name in LOGS:
        if (file := folder.run / name).is_file():
            text = without_places(file.read_text(encoding="utf-8"), folder)
            artifacts.write_text_atomic(logs / name, text)


def without_places(text: str, folder: CellFolder) -> str:
    """Text with folders of this machine replaced by names."""
    places = {
        str(folder.run.resolve()): "RUN",
        str(folder.path.parents[1].resolve()): "OUT",
        str(Path.cwd()): ".",
        str(Path.home()): "~",
    }
    task = folder.cell.task
    for each in task.test_sets:
        places[os.path.dirname(os.path.normpath(each.inputs))] = f"TEST_SET_{each.name}"
    if task.dataset is not None:
        places[str(Path(task.dataset).resolve().parent)] = "DATA"
    for place in sorted(places, key=len, reverse=True):
        if len(place) > 1:
            text = text.replace(place, places[place])
    return text
