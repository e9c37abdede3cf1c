"""metrics.jsonl as curves: stage -> name -> values over images seen."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts

INVERSION = "inversion"  # one line after training: validation score by number of steps
STEPS = re.compile(r"^validation/.*/steps_(\d+)$")
PACE = ("images_per_second", "cpu_seconds")
EPOCH = 1e8  # seconds above this are times of day, not durations
STAGES = {
    "gan": "Joint GAN",
    "encoder": "Encoder",
    "baseline": "Baseline",
    "pool": "Generated pairs",
    "student": "Student",
}


@dataclass(frozen=True)
class Curve:
    """One quantity over training; ``images`` rises, ``values`` are finite."""

    images: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def last(self) -> float:
        return float(self.values[-1])

    def part(self, begin: float, end: float) -> np.ndarray:
        """Values between two shares of the training so far (0 = first image, 1 = latest)."""
        span = self.images[-1] if len(self) else 0
        return self.values[(self.images >= begin * span) & (self.images <= end * span)]

    def smoothed(self, window: int) -> np.ndarray:
        """Running mean over ``window`` lines, centred, of the same length."""
        if window < 2 or len(self) < 3:
            return self.values
        half = min(window, len(self) - 1) // 2
        padded = np.concatenate([np.zeros(1), np.cumsum(self.values)])
        at = np.arange(len(self))
        low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(self))
        return (padded[high] - padded[low]) / (high - low)


@dataclass(frozen=True)
class History:
    """All curves of a run.

    seconds, images: training time and images seen by stage
    broken:          (stage, name) that turned to nan or infinity -> images seen
    step_scores:     inversion steps -> validation score, once the number of steps was chosen
    """

    stages: dict[str, dict[str, Curve]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    broken: dict[tuple[str, str], int] = field(default_factory=dict)
    step_scores: dict[int, float] = field(default_factory=dict)

    def curve(self, stage: str, name: str) -> Curve | None:
        return self.stages.get(stage, {}).get(name)

    def named(self, stage: str, prefix: str) -> dict[str, Curve]:
        """Curves whose name begins with a prefix, without it."""
        curves = self.stages.get(stage, {})
        return {name[len(prefix) :]: curve for name, curve in curves.items() if name.startswith(prefix)}

    def validation(self, stage: str) -> dict[str, Curve]:
        """Validation scores by metric; the running best that some stages also log is left out."""
        return {name: curve for name, curve in self.named(stage, "validation/").items() if name != "best"}

    def losses(self, stage: str) -> dict[str, Curve]:
        """``loss``, ``loss/...`` and whatever has no other place."""
        others = ("score/", "r1/", "labels/", "validation/", "path_length", "augment_", "learning_rate", *PACE)
        return {
            name.removeprefix("loss/"): curve
            for name, curve in self.stages.get(stage, {}).items()
            if not name.startswith(others) and not is_distance(name)
        }

    def class_shares(self, stage: str) -> dict[str, tuple[Curve, Curve]]:
        """Class -> its share of pixels in samples and in the labelled set."""
        samples = self.named(stage, "labels/")
        suffix = "_share_samples"
        names = [name.removesuffix(suffix) for name in samples if name.endswith(suffix)]
        pairs = {name: (samples[name + suffix], samples.get(name + "_share_labelled")) for name in names}
        return {name: (ours, truth) for name, (ours, truth) in pairs.items() if truth is not None}


def is_distance(name: str) -> bool:
    """Whether a metric is a Frechet distance over some features: lower is better, by preview."""
    return name.startswith(("frechet", "fid")) or name.endswith("feature_distance")


def read_history(metrics: Path) -> History:
    """Curves of a metrics.jsonl; no file, no curves. Lines may come in any order and hold any names."""
    history = History()
    if not metrics.is_file():
        return history
    points: dict[str, dict[str, dict[int, float]]] = {}
    rows = [row for row in artifacts.read_metrics(metrics) if isinstance(row, dict)]
    for row in rows:
        _collect(row, history, points)
    for stage, clock in _clocks(rows).items():
        history.seconds[stage] = elapsed(clock)
    for stage, names in points.items():
        history.stages[stage] = {}
        for name, values in names.items():
            images = sorted(values)
            curve = Curve(np.asarray(images, float), np.asarray([values[i] for i in images], float))
            history.stages[stage][name] = curve
    return history


def _clocks(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    clocks: dict[str, list[float]] = {}
    for row in rows:
        if isinstance(row.get("seconds"), int | float) and row.get("stage", INVERSION) != INVERSION:
            clocks.setdefault(str(row["stage"]), []).append(float(row["seconds"]))
    return clocks


def elapsed(clock: list[float]) -> float:
    """Seconds of training from the ``seconds`` of a stage's lines: a running total, or the time of day since 1970.

    Of times of day the pauses between an interruption and the next start are left out: gaps longer than ten usual
    ones (and than a minute) count as one usual gap.
    """
    if not clock:
        return 0.0
    if max(clock) < EPOCH:
        return max(clock)
    gaps = np.diff(np.sort(np.asarray(clock)))
    gaps = gaps[gaps > 0]
    if len(gaps) == 0:
        return 0.0
    usual = float(np.median(gaps))
    worked = np.where(gaps > max(60.0, 10 * usual), usual, gaps)
    return float(worked.sum()) + usual  # the first line, too, took time


def _collect(row: dict[str, Any], history: History, points: dict[str, dict[str, dict[int, float]]]) -> None:
    if "stage" not in row or "images_seen" not in row:
        return
    if row["stage"] == INVERSION:
        found = {STEPS.search(name): value for name, value in row.items()}
        history.step_scores.update({int(match[1]): float(value) for match, value in found.items() if match})
        return
    stage, images = str(row["stage"]), int(row["images_seen"])
    history.images[stage] = max(images, history.images.get(stage, 0))
    names = points.setdefault(stage, {})
    for name, value in row.items():
        if name in ("stage", "images_seen", "seconds") or isinstance(value, bool | str | list | dict) or value is None:
            continue
        if math.isfinite(value):
            names.setdefault(name, {})[images] = float(value)
        else:
            history.broken.setdefault((stage, name), images)
