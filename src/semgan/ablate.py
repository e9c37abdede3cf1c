"""``semgan ablate``: the inversion under several settings, scored on validation images (the paper's Figure 2).

    OUT/ablation.png, .pdf    score over steps for every variant; reconstruction distance against score
    OUT/ablation.csv          variant, its settings, steps, n, score, its interval, distance, problem, and seconds: of
                              the variant's whole run, the same in each of its rows
    OUT/cases.csv             variant, steps, case, score, distance
    OUT/suggestion.json       the best variant, its difference from the model as saved, correlations, in words too
    OUT/variants/NNN.npz      counts and distances of a variant; the same command goes on with those that are missing
    OUT/ablation.json         what was asked

Scores are the model's metric at the images' own size, patients as cases where the data set counts patients. The
reconstruction distance is the model's own perceptual distance for every variant, so that variants compare. With ramps
of the learning rate, a score at step k of n is not the one of a run of k steps.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semgan import artifacts, config, masks
from semgan.data.folder import Dataset
from semgan.data.readers import read_image_files
from semgan.data.splits import COUNTED_IN
from semgan.data.whole_images import to_own_size
from semgan.explain import checked_steps
from semgan.generative import load_generative
from semgan.metrics import overlap
from semgan.metrics.intervals import overlap_interval
from semgan.report import pictures
from semgan.report.ablation import write_ablation
from semgan.report.ablation_numbers import Suggestion, Variant, suggestion
from semgan.result_folder import ResultFolder
from semgan.types import Case

if TYPE_CHECKING:
    from semgan.stages.semantic_gan import SemanticGan

logger = logging.getLogger(__name__)

MARKER, TABLE, CASES, SUGGESTION = "ablation.json", "ablation.csv", "cases.csv", "suggestion.json"
AS_SAVED = "as saved"
STEPS = (0, 10, 25, 50, 100, 200, 400)
VARIABLE = ("inversion", "perceptual")
Progress = Callable[[int, int, str], Any]


@dataclass(frozen=True)
class Ablation:
    """``best``: variant -> its best step and score; ``problems``: variant -> why it has no scores."""

    out: Path
    suggestion: str
    best: dict[str, dict[str, float]]
    problems: dict[str, str]
    details: Suggestion


def ablate(
    model: Path | str | SemanticGan,
    dataset: Path | str,
    out: Path | str,
    *,
    vary: Sequence[str],
    one_by_one: bool = False,
    steps: Sequence[int] = STEPS,
    cases: int | None = None,
    formats: Sequence[str] = ("png",),
    batch: int = 16,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Ablation:
    """Invert the validation images under every combination of ``vary`` and under the model's own settings.

    vary: ``["inversion.lambda_pixel=0.001,0.1", ...]``; one_by_one: change one at a time, the others as saved
    cases: the first so many validation images; None: all

    Raises ValueError for unknown settings and values, for models without inversion or encoder, for a data set without
    validation list or of other classes; FileExistsError where ``out`` has other content.
    """
    formats, out = pictures.checked_formats(formats, pictures.STILL), Path(out)
    gan, identity = load_generative(model, device)
    variants = grid(gan.settings, vary, one_by_one=one_by_one)
    data = Dataset.open(dataset)
    chosen = data.validation_for(gan, cases)
    steps = tuple(sorted({*checked_steps(steps), gan.fixed_steps}))
    request = {
        "format": 1,
        "model": identity,
        "data": data.fingerprint,
        "cases": [case.stem for case in chosen],
        "truths": data.judged_by(chosen),
        # In order: a variant's file is named by its number. Settings may hold paths.
        "variants": json.loads(json.dumps(list(variants.items()), default=str)),
        "steps": list(steps),
        "seed": seed,
        "formats": list(formats),
    }
    folder = ResultFolder(out, MARKER, request)
    if identity is not None and folder.is_finished():
        logger.warning("%s already holds these results; nothing to do.", out)
        return _read(out)
    bench = _Bench(gan, data, chosen, steps, batch)
    bench.check(variants.values())
    goes_on = folder.begin(overwrite=overwrite) and identity is not None
    found: list[Variant] = []
    with folder.filling(lambda: found):
        for number, (name, changes) in enumerate(variants.items()):
            file = folder.partial / "variants" / f"{number:03d}.npz"
            told = None if progress is None else _told(progress, number, len(variants), len(chosen))
            if not (goes_on and file.is_file()):
                _save(file, bench.measure(changes, told))
            found.append(_load(file, name, changes, steps))
    _finish(folder.partial, found, gan, bench, formats, seed)
    folder.finish()
    return _read(out)


def _told(progress: Progress, number: int, variants: int, cases: int) -> Callable[[int], None]:
    return lambda done: progress(number * cases + done, variants * cases, "invert")


def _read(out: Path) -> Ablation:
    stored = artifacts.read_json(out / SUGGESTION)
    details = Suggestion(**stored["details"])
    return Ablation(out, details.words, stored["best"], stored["problems"], details)


# ---------------------------------------------------------------- the grid


def grid(settings: config.Settings, vary: Sequence[str], *, one_by_one: bool = False) -> dict[str, dict[str, Any]]:
    """Variant name -> flat changes ``{"inversion.lambda_pixel": 0.1}``; the first is the model as saved.

    Raises ValueError for unknown keys and values, a key given twice, steps, and where nothing is varied.
    """
    axes: dict[str, list[Any]] = {}
    for text in vary:
        key, values = _axis(settings, text)
        if key in axes:
            raise ValueError(f"--vary {key} is given twice; list all its values once, as {key}=A,B,C.")
        axes[key] = values
    if not axes:
        raise ValueError("Nothing is varied. Give --vary KEY=A,B,C, for example inversion.lambda_pixel=0.001,0.1.")
    if one_by_one:
        combinations = [{key: value} for key, values in axes.items() for value in values]
    else:
        combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    variants: dict[str, dict[str, Any]] = {AS_SAVED: {}}
    for changes in combinations:
        changed = config.override(settings, _nested(changes), "--vary")
        if changed != settings:  # a value that the model has already is the variant "as saved"
            variants[", ".join(f"{key.split('.')[1]}={value}" for key, value in changes.items())] = changes
    return variants


def _axis(settings: config.Settings, text: str) -> tuple[str, list[Any]]:
    """One --vary: its key and its values, each checked alone."""
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not values.strip():
        raise ValueError(f"--vary takes KEY=A,B,C, for example inversion.lambda_pixel=0.001,0.1; got '{text}'.")
    if key.partition(".")[0] not in VARIABLE:
        raise ValueError(f"--vary takes settings of the inversion, inversion.* and perceptual.*; got '{key}'.")
    if key.count(".") != 1 or key.endswith("."):
        raise ValueError(f"--vary takes keys of a section and a name, like inversion.lambda_pixel; got '{key}'.")
    if key == "inversion.steps":
        raise ValueError("Steps are an axis of their own: give them as --steps 0,50,200.")
    section, _, leaf = key.partition(".")
    parsed = [config.parse_assignments([f"{key}={value.strip()}"])[section][leaf] for value in values.split(",")]
    checked = [config.override(settings, {section: {leaf: value}}, "--vary") for value in parsed]
    return key, [getattr(getattr(each, section), leaf) for each in checked]


def _nested(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, _, leaf = key.partition(".")
        nested.setdefault(section, {})[leaf] = value
    return nested


# ---------------------------------------------------------------- measuring


class _Bench:
    """The validation images, inverted under one variant after the other.

    shown: images as the network takes them; truths: label maps at their own size, read once
    """

    def __init__(self, gan: SemanticGan, data: Dataset, cases: Sequence[Case], steps: tuple[int, ...], batch: int):
        import torch

        reader = masks.MaskReader("label", None, () if data.ignore is None else (data.ignore,))
        self.gan, self.steps, self.batch, self.stems = gan, steps, batch, [case.stem for case in cases]
        self.images = torch.stack([gan.preprocess(read_image_files(case.image)) for case in cases])
        self.truths = [reader.read(case.label, gan.labels.names) for case in cases if case.label is not None]
        if doubt := reader.doubt():
            raise ValueError(doubt)
        by_patient = COUNTED_IN in data.splits
        self.groups = tuple(case.group or case.stem for case in cases) if by_patient else tuple(self.stems)

    def check(self, variants: Iterable[Mapping[str, Any]]) -> None:
        """Raises ValueError where the perceptual distance of a variant is not at hand, before any work."""
        for changes in variants:
            _changed(self.gan, changes)

    def measure(self, changes: Mapping[str, Any], told: Callable[[int], None] | None) -> dict[str, Any]:
        """Counts ``[steps, images, classes]``, distances ``[steps, images]``, seconds, and a problem where there is."""
        classes = self.gan.labels.classes
        counts = np.zeros((3, len(self.steps), len(self.stems), classes), np.int64)
        distances = np.full((len(self.steps), len(self.stems)), np.nan)
        began, problem = time.perf_counter(), ""
        variant = _changed(self.gan, changes)
        if told is not None:
            told(0)  # so that it is seen to have begun
        for start in range(0, len(self.stems), self.batch):
            images = self.images[start : start + self.batch]
            try:
                found = variant.segment_batch(images, steps=self.steps[-1], snapshot_steps=self.steps)
            except ValueError as error:  # a search that diverges tells about its settings, not about the others
                problem = str(error)
                break
            for place, step in enumerate(self.steps):
                distances[place, start : start + len(images)] = self._distance(images, found.reconstructions[step])
                for row in range(len(images)):
                    truth = self.truths[start + row]
                    own = to_own_size(found.snapshots[step][row], truth.shape).argmax(0).numpy()
                    parts = overlap.count(own, truth, classes)
                    for kind, values in enumerate((parts.intersection, parts.prediction, parts.truth)):
                        counts[kind, place, start + row] = values[0]
            if told is not None:
                told(start + len(images))
        seconds = time.perf_counter() - began
        return {"counts": counts, "distances": distances, "seconds": seconds, "problem": problem}

    def _distance(self, images: Any, reconstructions: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.gan.perceptual(reconstructions.to(self.gan.device), images.to(self.gan.device)).cpu().numpy()


def _changed(gan: SemanticGan, changes: Mapping[str, Any]) -> SemanticGan:
    """The model with other settings of the inversion. Raises ValueError where a perceptual distance is not at hand."""
    from semgan.models.lpips_weights import build_perceptual
    from semgan.models.perceptual import DiscriminatorDistance
    from semgan.stages.semantic_gan import SemanticGan

    settings = config.override(gan.settings, _nested(changes), "--vary")
    perceptual: Any = gan.perceptual
    if any(key.startswith("perceptual.") for key in changes):
        own = gan.perceptual
        critic = own.critic if isinstance(own, DiscriminatorDistance) else None
        perceptual = build_perceptual(settings.perceptual, critic, settings.preprocessing.channels)[0]
    return SemanticGan(
        settings, gan.generator, gan.whitening, gan.encoder, perceptual, device=gan.device, rules=gan.rules
    )


def _save(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = artifacts.temporary_beside(file)
    try:
        with open(temporary, "wb") as stream:
            np.savez_compressed(stream, **content)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _load(file: Path, name: str, changes: Mapping[str, Any], steps: tuple[int, ...]) -> Variant:
    with np.load(file) as stored:
        problem = str(stored["problem"])
        counts = {step: overlap.Counts(*stored["counts"][:, place]) for place, step in enumerate(steps)}
        distances = {step: stored["distances"][place] for place, step in enumerate(steps)}
        return Variant(name, dict(changes), counts, distances, float(stored["seconds"]), problem)


# ---------------------------------------------------------------- results


def _finish(
    partial: Path, variants: Sequence[Variant], gan: SemanticGan, bench: _Bench, formats: Sequence[str], seed: int
) -> None:
    metric = gan.settings.metric
    pooled = [variant.pooled_by(bench.groups) for variant in variants]
    details = suggestion(pooled, metric, gan.fixed_steps, by_rule=gan.rule is not None, seed=seed)
    best = {}
    for variant in pooled:
        if not variant.problem:
            step = variant.best_step(metric)
            best[variant.name] = {"step": step, "score": variant.score(step, metric)}
    problems = {variant.name: variant.problem for variant in variants if variant.problem}
    stored = {"details": asdict(details), "best": best, "problems": problems}
    artifacts.write_json(partial / SUGGESTION, stored)
    artifacts.write_text_atomic(partial / TABLE, _table(pooled, metric, gan.fixed_steps, seed))
    artifacts.write_text_atomic(partial / CASES, _cases(variants, bench.stems, metric))
    write_ablation(partial / "ablation", pooled, metric, gan.fixed_steps, details, formats)


def _table(variants: Sequence[Variant], metric: str, saved_steps: int, seed: int) -> str:
    keys = list(dict.fromkeys(key for variant in variants for key in variant.changes))
    rows = []
    for variant in variants:
        for step, counts in variant.counts.items():
            row: dict[str, Any] = {"variant": variant.name, **_settings_of(variant, keys)}
            row |= {"steps": step, "as_saved": int(not variant.changes and step == saved_steps), "n": counts.cases}
            if not variant.problem:
                interval = overlap_interval(counts, metric, seed=seed)
                low, high = ("", "") if interval is None else (round(value, 5) for value in interval)
                row |= {"score": round(variant.score(step, metric), 5), "low": low, "high": high}
                row |= {"distance": round(float(variant.distances[step].mean()), 6)}
            rows.append(row | {"seconds": round(variant.seconds, 1), "problem": variant.problem})
    columns = ["variant", *keys, "steps", "as_saved", "n", "score", "low", "high", "distance", "seconds", "problem"]
    return _written(columns, rows)


def _settings_of(variant: Variant, keys: Sequence[str]) -> dict[str, Any]:
    """Columns of the settings that a variant changes; empty: as saved."""
    return {key: "none" if (value := variant.changes[key]) is None else value for key in keys if key in variant.changes}


def _cases(variants: Sequence[Variant], stems: Sequence[str], metric: str) -> str:
    own = "miou-per-case" if metric == "miou" else metric
    rows = []
    for variant in variants:
        for step, counts in variant.counts.items() if not variant.problem else ():
            scores = overlap.case_means(counts, own)
            for stem, score, distance in zip(stems, scores, variant.distances[step], strict=True):
                known = "" if np.isnan(score) else round(float(score), 5)
                row = {"variant": variant.name, "steps": step, "case": stem, "score": known}
                rows.append(row | {"distance": f"{distance:.6g}"})
    return _written(["variant", "steps", "case", "score", "distance"], rows)


def _written(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
