"""What `semgan evaluate` wrote (scores.json, cases.csv), for reports: scores, cases from best to worst, differences."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts
from semgan.metrics import overlap
from semgan.metrics.intervals import paired_overlap_difference

COLUMNS = ("stem", "group", "class", "intersection", "prediction", "truth")


@dataclass(frozen=True)
class Cases:
    """The rows of a cases.csv, by case in their order. over: indices of the classes that are averaged."""

    stems: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    counts: overlap.Counts
    metric: str
    over: tuple[int, ...]

    @cached_property
    def scores(self) -> np.ndarray:
        """``[cases, classes]``, nan where a class does not count."""
        return overlap.case_scores(self.counts, self.metric)

    @cached_property
    def means(self) -> np.ndarray:
        """``[cases]``, as averaged in the score; nan for a case that does not count."""
        return overlap.case_means(self.counts, self.metric, self.over)

    def ranked(self) -> list[tuple[str, float]]:
        """(stem, mean score) from best to worst; cases that do not count are left out."""
        known = [(float(mean), stem) for stem, mean in zip(self.stems, self.means, strict=True) if not np.isnan(mean)]
        return [(stem, mean) for mean, stem in sorted(known, key=lambda item: (-item[0], item[1]))]

    def pooled(self, per: str) -> overlap.Counts:
        """The counts of what was averaged: images, or groups."""
        return self.counts if per == "image" else self.counts.pooled_by(self.groups)[1]


@dataclass(frozen=True)
class Evaluation:
    """``scores``: as scores.json holds them; cases: None where cases.csv is missing."""

    folder: Path
    scores: dict[str, Any]
    cases: Cases | None

    @property
    def metric(self) -> str:
        return self.scores["metric"]


def read_evaluation(folder: Path) -> Evaluation:
    """Raises FileNotFoundError without scores.json, ValueError naming a file that is not what evaluate writes."""
    file = Path(folder) / "scores.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; `semgan evaluate` writes it beside the predictions.")
    scores = artifacts.read_json(file)
    if not isinstance(scores, dict) or not {"metric", "mean", "classes"} <= set(scores):
        raise ValueError(f"{file} is no output of `semgan evaluate`: it lacks metric, mean or classes. Write it again.")
    table = file.with_name("cases.csv")
    return Evaluation(file.parent, scores, read_cases(table, scores) if table.is_file() else None)


def read_cases(path: Path, scores: Mapping[str, Any]) -> Cases | None:
    """Raises ValueError naming the file where it lacks columns or rows; None where it has no case."""
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        rows = list(table)
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; let `semgan evaluate` write it again.")
    if not rows:
        return None
    classes = tuple(dict.fromkeys(row["class"] for row in rows))
    stems = tuple(dict.fromkeys(row["stem"] for row in rows))
    try:
        numbers = np.array([[int(row[name]) for name in COLUMNS[3:]] for row in rows], np.int64)
        parts = numbers.reshape(len(stems), len(classes), 3)
    except (TypeError, ValueError):
        raise ValueError(
            f"{path} is damaged: {len(stems)} cases of {len(classes)} classes need a row of whole numbers each. "
            "Let `semgan evaluate` write it again."
        ) from None
    groups = tuple(row["group"] for row in rows[:: len(classes)])
    averaged = scores.get("mean_over") or classes[1:]
    over = tuple(place for place, name in enumerate(classes) if name in averaged)
    counts = overlap.Counts(parts[..., 0], parts[..., 1], parts[..., 2])
    return Cases(stems, groups, classes, counts, str(scores["metric"]), over)


def is_foreign(file: Path) -> bool:
    """Whether a scores.json is another command's; `semgan explain` writes one, too."""
    content = artifacts.read_json(file)
    return isinstance(content, dict) and not {"metric", "mean", "classes"} & set(content)


def short_names(folders: Sequence[Path]) -> dict[Path, str]:
    """Each folder's last names, as many as tell them all apart."""
    different = list(dict.fromkeys(folders))
    parts = {folder: folder.resolve().parts[1:] for folder in different}
    for length in range(1, 1 + max((len(each) for each in parts.values()), default=1)):
        names = {folder: "/".join(each[-length:]) for folder, each in parts.items()}
        if len(set(names.values())) == len(different):
            break
    else:
        names = {folder: str(folder) for folder in different}
    return names


# ---------------------------------------------------------------- tables


def score_lines(evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """A line per evaluation: mean with its interval, cases, classes."""
    classes = list(dict.fromkeys(name for each in evaluations.values() for name in each.scores["classes"]))
    return [
        {
            "predictions": name,
            "metric": each.metric,
            "mean": each.scores["mean"],
            "95 % interval": interval_text(each.scores.get("interval")),
            "n": each.scores.get("n"),
            "per": each.scores.get("per", "image"),
        }
        | {label: each.scores["classes"].get(label) for label in classes}
        for name, each in evaluations.items()
    ]


def interval_text(interval: Sequence[float] | None) -> str:
    """``[0.81, 0.9]`` -> ``0.8100 to 0.9000``."""
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def difference_lines(evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """A line for every evaluation against the best one of the same cases; none where no two can be compared."""
    lines = []
    for names in comparable(evaluations):
        best = best_of(names, evaluations)
        for name in names:
            if name != best:
                lines.append(_difference(name, best, evaluations))
    return lines


def best_of(names: Sequence[str], evaluations: Mapping[str, Evaluation]) -> str:
    """The name with the highest mean; of equals the first."""
    return max(names, key=lambda name: evaluations[name].scores["mean"])


def comparable(evaluations: Mapping[str, Evaluation]) -> list[list[str]]:
    """Names of evaluations of the same cases, classes, truths and metric; groups of two and more."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, each in evaluations.items():
        if each.cases is not None and each.cases.counts.cases > 1:
            cases = each.cases
            truth = cases.counts.truth.tobytes()
            key = (cases.stems, cases.groups, cases.classes, cases.over, each.metric, each.scores.get("per"), truth)
            found.setdefault(key, []).append(name)
    return [names for names in found.values() if len(names) > 1]


def _difference(name: str, best: str, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    own, reference = evaluations[name], evaluations[best]
    assert own.cases is not None and reference.cases is not None
    per = own.scores.get("per", "image")
    counts = own.cases.pooled(per), reference.cases.pooled(per)
    line: dict[str, Any] = {"predictions": name, "against": best}
    try:
        found = paired_overlap_difference(*counts, own.metric, own.cases.over)
    except ValueError:  # a single group, or cases that do not count
        return line | {"difference": "too few cases"}
    low, high = found.interval
    numbers = {"difference": f"{found.difference:+.4f}", "95 % interval": f"{low:+.4f} to {high:+.4f}"}
    return line | numbers | {"p": found.p_value, "n": found.n}
