"""``semgan robustness``: models on validation images that synthetic shifts make look as if from another source.

    OUT/robustness.csv    model, method, shift, n, score, its interval, and the difference from the unshifted images
    OUT/robustness.png    the same as bars, models side by side
    OUT/means.json        per model: without shift, mean and worst over shifts
    OUT/robustness.json   what was asked

The shifts are those of `semgan.data.shifts`; every model sees the same pixels. Scores are the first model's metric, of
all models, at the images' own size, patients as cases where the data set counts patients. Test images play no part:
this is where settings are chosen and models compared before anybody looks at images of another source.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts, masks
from semgan.data.folder import Dataset
from semgan.data.readers import read_image_files
from semgan.data.shifts import SHIFTS, checked_shifts, shifted
from semgan.data.splits import COUNTED_IN
from semgan.metrics import overlap
from semgan.metrics.intervals import overlap_interval
from semgan.report.robustness import draw_robustness
from semgan.result_folder import ResultFolder
from semgan.segment import load_identified
from semgan.types import AUTO, Case, Segmenter, Steps

logger = logging.getLogger(__name__)

MARKER, TABLE, FIGURE = "robustness.json", "robustness.csv", "robustness.png"
SUMMARY = "means.json"
NONE = "none"  # the images as they are
Progress = Callable[[int, int, str], Any]


@dataclass(frozen=True)
class Row:
    """One model under one shift. interval: 95 % bootstrap over cases, None for fewer than two."""

    model: str
    method: str
    shift: str
    n: int
    score: float
    interval: tuple[float, float] | None
    difference: float


def robustness(
    models: Sequence[Path | str],
    dataset: Path | str,
    out: Path | str,
    *,
    shifts: Sequence[str] = tuple(SHIFTS),
    cases: int | None = None,
    steps: Steps | None = None,
    seed: int = 0,
    batch: int = 64,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Row]:
    """Score models on the validation list of a data set as it is and under every shift; returns the table's rows.

    models: run or model folders; shifts: names of `semgan.data.shifts.SHIFTS`, or "mixed"
    cases:  the first so many validation images; None: all
    steps:  of the models that optimise, as `semgan segment` takes them; feed-forward networks have none

    Raises ValueError, before any work, for unknown shifts, models of other classes than the data set, no validation
    list, steps that no model takes; FileNotFoundError where there is no model; FileExistsError where ``out`` has other
    content.
    """
    from semgan.runtime.device import prepare_cpu

    shifts, out = checked_shifts(shifts), Path(out)
    prepare_cpu()
    loaded = [load_identified(Path(model), device) for model in models]
    data = Dataset.open(dataset)
    for path, (segmenter, _) in zip(models, loaded, strict=True):
        chosen = data.validation_for(segmenter, cases, name=str(path))
    contestants = _contestants(models, [segmenter for segmenter, _ in loaded], steps)
    request = {
        "format": 2,
        "models": [identity for _, identity in loaded],
        "data": data.fingerprint,
        "cases": [case.stem for case in chosen],
        "truths": data.judged_by(chosen),
        "shifts": list(shifts),
        "metric": contestants[0].metric,
        "steps": steps,
        "seed": seed,
    }
    folder = ResultFolder(out, MARKER, request)
    if folder.is_finished():
        logger.warning("%s already holds these results; nothing to do.", out)
        return read_rows(out / TABLE)
    bench = _Bench(data, chosen, contestants[0].metric, seed, batch)
    folder.begin(overwrite=overwrite)
    with folder.filling():
        rows = bench.rows(contestants, (NONE, *shifts), progress)
    _write(folder.partial, rows)
    folder.finish()
    return read_rows(out / TABLE)  # rounded, as the same call finds them


@dataclass(frozen=True)
class _Contestant:
    """A model to score. metric: its own; steps: None: the model's own choice, and none for feed-forward networks."""

    name: str
    segmenter: Segmenter
    method: str
    metric: str
    steps: Steps | None


def _contestants(
    models: Sequence[Path | str], segmenters: Sequence[Segmenter], steps: Steps | None
) -> list[_Contestant]:
    """Raises ValueError for steps that no model takes, and for "auto" where one has no stopping rule."""
    from semgan.student_answer import gan_of

    gans = [gan_of(segmenter) for segmenter in segmenters]
    if steps and not any(gan is not None for gan in gans):
        raise ValueError("No model here is optimised at test time: all are feed-forward networks; leave --steps out.")
    for path, gan in zip(models, gans, strict=True):
        if steps == AUTO and gan is not None and gan.rule is None:
            raise ValueError(f"{path} has no stopping rule for --steps auto; give a number, or leave --steps out.")
    about = [artifacts.read_json(artifacts.find_model(Path(path)) / "config.json") for path in models]
    parts = zip(_names(models), segmenters, gans, about, strict=True)
    found = [
        _Contestant(name, segmenter, own["method"], own["settings"]["metric"], None if gan is None else steps)
        for name, segmenter, gan, own in parts
    ]
    if others := [one.name for one in found if one.metric != found[0].metric]:
        told = (found[0].metric, found[0].name, ", ".join(others))
        logger.warning("All scores are %s, the metric of %s; on their own %s count another.", *told)
    return found


class _Bench:
    """The validation images, at their own size, under one shift after the other; scores are all of one metric."""

    def __init__(self, data: Dataset, cases: Sequence[Case], metric: str, seed: int, batch: int) -> None:
        self.cases, self.metric, self.seed, self.batch = cases, metric, seed, batch
        reader = masks.MaskReader("label", None, () if data.ignore is None else (data.ignore,))
        self.truths = [reader.read(case.label, data.labels.names) for case in cases if case.label is not None]
        if doubt := reader.doubt():
            raise ValueError(doubt)
        by_patient = COUNTED_IN in data.splits
        self.groups = tuple(case.group or case.stem for case in cases) if by_patient else None

    def pairs(self, shift: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Decoded images and true masks; the number of an image is its place in the validation list."""
        for number, (case, truth) in enumerate(zip(self.cases, self.truths, strict=True)):
            image = read_image_files(case.image)
            yield (image, truth) if shift == NONE else shifted(image, truth, shift, seed=self.seed, number=number)

    def rows(self, contestants: Sequence[_Contestant], shifts: Sequence[str], progress: Progress | None) -> list[Row]:
        """Every model under every shift, NONE the first of them; model after model."""
        rows: list[Row] = []
        for shift in shifts:
            images, truths = zip(*self.pairs(shift), strict=True)  # once for all models
            for one in contestants:
                rows.append(self.row(one, shift, images, truths, rows))
                if progress is not None:
                    progress(len(rows), len(contestants) * len(shifts), "segment shifted images")
        names = [one.name for one in contestants]
        return sorted(rows, key=lambda row: names.index(row.model))

    def row(
        self,
        one: _Contestant,
        shift: str,
        images: Sequence[np.ndarray],
        truths: Sequence[np.ndarray],
        rows: Sequence[Row],
    ) -> Row:
        """The model's score on shifted images; rows: those before, the model's without shift among them."""
        from semgan.data.whole_images import segment_images

        answers = segment_images(one.segmenter, images, steps=one.steps, batch=self.batch)
        classes = one.segmenter.labels.classes
        parts = [overlap.count(own.label_map, truth, classes) for own, truth in zip(answers, truths, strict=True)]
        counts = overlap.concatenate(parts)
        counts = counts if self.groups is None else counts.pooled_by(self.groups)[1]
        score = overlap.overall(counts, self.metric)
        plain = next((row.score for row in rows if (row.model, row.shift) == (one.name, NONE)), score)
        interval = overlap_interval(counts, self.metric, seed=self.seed)
        return Row(one.name, one.method, shift, counts.cases, score, interval, score - plain)


def _names(models: Sequence[Path | str]) -> list[str]:
    """Short names of the models: their runs' or folders', numbered where two are the same."""
    names: list[str] = []
    for path in models:
        folder = Path(path).resolve()
        of_run = folder.name == "model" and (folder.parent / "config.yaml").is_file()
        name = folder.parent.name if of_run else folder.name
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


def means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Model -> its score without shift, mean and worst over shifts."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row.model for row in rows):
        scores = {row.shift: row.score for row in rows if row.model == name}
        plain = scores.pop(NONE)
        worst = min(scores.values(), default=plain)
        found[name] = {NONE: plain, "shifted": float(np.mean(list(scores.values()) or [plain])), "worst": worst}
    return found


def _write(folder: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["model", "method", "shift", "n", "score", "low", "high", "difference"])
    for row in rows:
        low, high = row.interval or (None, None)
        bounds = ["" if value is None else f"{value:.5f}" for value in (low, high)]
        table.writerow([row.model, row.method, row.shift, row.n, f"{row.score:.5f}", *bounds, f"{row.difference:.5f}"])
    artifacts.write_text_atomic(folder / TABLE, text.getvalue())
    artifacts.write_json(folder / SUMMARY, means(rows))
    (folder / FIGURE).write_bytes(draw_robustness([asdict(row) for row in rows]))


def read_rows(path: Path) -> list[Row]:
    """The rows of a robustness.csv."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Row(
                row["model"],
                row["method"],
                row["shift"],
                int(row["n"]),
                float(row["score"]),
                (float(row["low"]), float(row["high"])) if row["low"] else None,
                float(row["difference"]),
            )
            for row in csv.DictReader(file)
        ]
