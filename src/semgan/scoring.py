"""A trained model on a held-out set, counted at several optimisation steps, as rows of a results table.

Images are segmented once, with the masks kept at every step asked for; scores are at the images' own size. What was
chosen on validation (``model/config.json``) is the reported one: a stopping rule ("auto"), else a step. Shared by
`semgan benchmark` and ``results/score_model.py``, so that a number means the same wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts, masks, methods, results
from semgan.metrics import overlap
from semgan.types import AUTO, Segmenter, Steps, parse_steps, step_order

VALIDATION = "validation"  # the name of rows whose scores come from the validation list


@dataclass(frozen=True)
class HeldOut:
    """Images with true masks that no training sees.

    only:            stems to score; None: every image
    mapping:         value of a true mask -> class; map_predictions: class of the model -> class of this set
    classes:         names in this set; None: the model's; mean_over: names that make the mean; None: all but the first
    """

    name: str
    images: Path
    labels: Path
    only: tuple[str, ...] | None = None
    mapping: masks.ClassMapping | None = None
    map_predictions: masks.ClassMapping | None = None
    classes: tuple[str, ...] | None = None
    mean_over: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Scored:
    """Counts of every case by step; ``over``: class indices of the mean; ``shown``: stem -> mask at the chosen step."""

    held_out: str
    classes: tuple[str, ...]
    over: tuple[int, ...]
    stems: tuple[str, ...]
    counts: Mapping[Steps, overlap.Counts]
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)


class TrainedModel:
    """A run's model with what its scores are filed under."""

    def __init__(self, run: Path, *, device: str = "auto") -> None:
        from semgan.runtime.device import prepare_cpu
        from semgan.student_answer import check_has_student

        prepare_cpu()
        self.device = device
        self.run = artifacts.RunFolder(run)
        self.description: dict[str, Any] = artifacts.read_json(artifacts.find_model(run) / "config.json")
        self.settings: dict[str, Any] = self.description["settings"]
        stages = methods.get(self.description["method"]).stages
        if "student" in stages:  # else a generative model alone would be filed under the name of both
            check_has_student(run)
        self.segmenter: Segmenter = methods.load(run, device=device)
        # A student's folder keeps the inversion of its generator's run, and answers without it.
        self.optimises = "encoder" in stages
        self.chosen: Steps = self._chosen()

    def _chosen(self) -> Steps:
        """What was chosen on validation: a stopping rule, or a step; the recipe's where nothing was chosen."""
        if not self.optimises:
            return 0
        if self.description["inversion"].get("rule"):
            return AUTO
        chosen = self.description["inversion"]["chosen_steps"]
        return self.settings["inversion"]["steps"] if chosen is None else chosen

    def steps(self, wanted: Sequence[int]) -> tuple[Steps, ...]:
        """The steps to score: those wanted, 0, the chosen one and a rule's; 0 alone without optimisation."""
        if not self.optimises:
            return (0,)
        fixed = self.description["inversion"]["chosen_steps"]
        return tuple(sorted({0, self.chosen, *([] if fixed is None else [fixed]), *wanted}, key=step_order))

    def score(self, held_out: HeldOut, steps: Sequence[int] = (), shown: Sequence[str] = ()) -> Scored:
        """Segment and count a held-out set once. Raises ValueError naming files that do not fit, or are missing."""
        from semgan.data.whole_images import find_inputs, segment_images

        inputs, _ = find_inputs(held_out.images, self.settings["preprocessing"]["channels"])
        inputs = [item for item in inputs if held_out.only is None or item.stem in set(held_out.only)]
        truths = masks.masks_in(held_out.labels)
        _check_pairs(held_out, [item.stem for item in inputs], truths)
        classes = tuple(held_out.classes or self.description["classes"])
        reader = masks.MaskReader("label", held_out.mapping)
        to_theirs = _table(held_out.map_predictions)
        every = self.steps(steps)
        counts: dict[Steps, list[overlap.Counts]] = {step: [] for step in every}
        kept: dict[str, np.ndarray] = {}
        last = every[-1] if self.optimises else None  # a rule's answers come with the snapshots of fixed steps
        fixed = tuple(step for step in every if isinstance(step, int))
        answers = segment_images(self.segmenter, inputs, steps=last, snapshot_steps=fixed)
        for item, answer in zip(inputs, answers, strict=True):
            truth = reader.read(truths[item.stem], classes)
            for step in every:
                found = answer.label_map if step == AUTO else answer.snapshots[step]
                found = found if to_theirs is None else to_theirs[found]
                counts[step].append(overlap.count(found, truth, len(classes)))
                if step == self.chosen and item.stem in shown:
                    kept[item.stem] = found.astype(np.uint8)
        if doubt := reader.doubt():
            raise ValueError(doubt)
        stems = tuple(item.stem for item in inputs)
        return Scored(
            held_out.name,
            classes,
            _averaged(classes, held_out),
            stems,
            {step: overlap.concatenate(parts) for step, parts in counts.items()},
            kept,
        )

    def rows(self, scored: Scored, task: str, metric: str) -> list[results.ScoreRow]:
        """A row for the mean and every class but the background, at every step."""
        rows = []
        for step, cases in scored.counts.items():
            values = overlap.class_scores(cases, metric)
            rows += [
                self.row(task, metric, scored.held_out, name, step, cases.cases, float(value))
                for name, value in zip(scored.classes[1:], values[1:], strict=True)
            ]
            mean = overlap.overall(cases, metric, scored.over)
            rows.append(self.row(task, metric, scored.held_out, results.MEAN, step, cases.cases, mean))
        return rows

    def validation_rows(self, task: str) -> list[results.ScoreRow]:
        """Scores on the validation list at the network's resolution, as training noted them.

        None for answers of inversion and student together: the share's scores are of shifted images, too.
        """
        metric, stages = self.settings["metric"], methods.get(self.description["method"]).stages
        found: dict[Steps, tuple[int, float]] = {}
        lines = artifacts.read_metrics(self.run.metrics) if self.run.metrics.is_file() else []
        for line in lines:
            if line["stage"] == "inversion" and "student" not in stages:
                for name, value in line.items():
                    if name.startswith(f"validation/{metric}/steps_"):
                        found[parse_steps(name.rpartition("_")[2])] = (line["images_seen"], value)
            elif line["stage"] in ("baseline", "student") and not self.optimises and "validation/best" in line:
                cases = int(self.description["training"]["validation images"])
                found[0] = (min(cases, self.settings["run"]["validation_cases"]), line["validation/best"])
        return [
            self.row(task, metric, VALIDATION, results.MEAN, step, count, value)
            for step, (count, value) in sorted(found.items(), key=lambda item: step_order(item[0]))
        ]

    def row(
        self, task: str, metric: str, test_set: str, name: str, step: Steps, count: int, value: float
    ) -> results.ScoreRow:
        """A number about this model; test_set: where, name: of the class, count: cases, value in [0, 1]."""
        return results.ScoreRow(
            task=task,
            metric=metric,
            resolution=self.settings["preprocessing"]["size_px"],
            labels=self.settings["labels"] or 0,
            split_seed=self.settings["split_seed"],
            seed=self.settings["seed"],
            method=self.settings["method"],
            test_set=test_set,
            class_name=name,
            steps=step,
            chosen=int(step == self.chosen),
            n=count,
            value=round(value, 5),
            commit=artifacts.read_json(self.run.environment)["commit"],
        )


def stems_of(held_out: HeldOut, channels: int) -> list[str]:
    """The cases of a held-out set by name, without opening any."""
    from semgan.data.whole_images import find_inputs

    inputs, _ = find_inputs(held_out.images, channels)
    return [item.stem for item in inputs if held_out.only is None or item.stem in set(held_out.only)]


def check_held_out(held_out: HeldOut, channels: int, classes: Sequence[str]) -> None:
    """Raise as `TrainedModel.score` does for what names of files and classes can tell.

    channels, classes: the model's
    """
    _check_pairs(held_out, stems_of(held_out, channels), masks.masks_in(held_out.labels))
    names = tuple(held_out.classes or classes)
    _averaged(names, held_out)
    table = _table(held_out.map_predictions)
    if table is not None and not 0 <= table.min() <= table.max() < len(names):
        raise ValueError(
            f"Test set '{held_out.name}': map_predictions leads to {table.max() if table.min() >= 0 else table.min()}, "
            f"and its classes are 0 to {len(names) - 1} ({masks.listed(names)})."
        )


def _check_pairs(held_out: HeldOut, stems: Sequence[str], truths: Mapping[str, Path]) -> None:
    without_image = sorted(set(held_out.only or ()) - set(stems))
    without_mask = [stem for stem in stems if stem not in truths]
    for what, names, folder in (("image", without_image, held_out.images), ("mask", without_mask, held_out.labels)):
        if names:
            raise ValueError(
                f"Test set '{held_out.name}': {folder} has no {what} for {len(names)} cases: {masks.listed(names)}. "
                "Add the files, or name the cases to score (only)."
            )
    if not stems:
        raise ValueError(f"Test set '{held_out.name}': no image of {held_out.images} is to be scored; check 'only'.")


def _table(mapping: masks.ClassMapping | None) -> np.ndarray | None:
    """Class of this set for every class of the model; classes that are not named become the background."""
    if mapping is None:
        return None
    items = dict(mapping.items() if isinstance(mapping, Mapping) else enumerate(mapping))
    table = np.zeros(256, np.int64)
    for value, target in items.items():
        table[int(value)] = int(target)
    return table


def _averaged(classes: Sequence[str], held_out: HeldOut) -> tuple[int, ...]:
    if held_out.mean_over is None:
        return tuple(range(1, len(classes)))
    unknown = [name for name in held_out.mean_over if name not in classes]
    if unknown or not held_out.mean_over:
        raise ValueError(
            f"Test set '{held_out.name}': the mean over {list(held_out.mean_over)} needs names out of {list(classes)}."
        )
    return tuple(classes.index(name) for name in held_out.mean_over)
