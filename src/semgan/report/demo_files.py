"""What the demo leaves behind, with one writer and one reader each: the report is made from these files alone.

OUT/demo.json                               the record: family, seed, classes, domains, seconds of every chapter
OUT/segmented/inputs/DOMAIN.safetensors     image uint8 [images, h, w, 3], truth uint8 [images, h, w]
OUT/segmented/METHOD/DOMAIN.safetensors     masks uint8 [steps, images, h, w],
                                            reconstructions uint8 [steps, shown, h, w, 3]
OUT/scores.csv                              one row per method, domain, step and class, as in `semgan.results`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts
from semgan.results import MEAN, ScoreRow, read_rows
from semgan.words import as_typed

FORMAT = 1
VALIDATION = "validation"


@dataclass
class Method:
    """One entry of the comparison.

    weights: "live" (trained by this demo) or "shipped" (trained longer, before); trained: how long, for people
    steps:   optimisation steps whose masks are kept; chosen_steps: the one picked on validation
    """

    title: str
    weights: str
    trained: str
    steps: list[int] = field(default_factory=lambda: [0])
    chosen_steps: int = 0
    segment_seconds: float = 0.0


@dataclass
class Record:
    """What the demo was asked for and how far it came; seconds of the chapters that are done."""

    family: str
    seed: int
    minutes: float
    size_px: int = 0
    classes: list[str] = field(default_factory=list)
    metric: str = "dice"
    plan: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    domains: list[str] = field(default_factory=list)
    images_per_domain: int = 0
    methods: dict[str, Method] = field(default_factory=dict)
    chapters: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    commit: str = "unknown"
    format: int = FORMAT


@dataclass(frozen=True)
class Inputs:
    """image: uint8 ``[images, h, w, 3]``; truth: uint8 ``[images, h, w]`` class indices."""

    image: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Answers:
    """masks: uint8 ``[steps, images, h, w]``; reconstructions: uint8 ``[steps, shown, h, w, 3]``, None without any."""

    steps: tuple[int, ...]
    masks: np.ndarray
    reconstructions: np.ndarray | None = None


def write_record(out: Path, record: Record) -> None:
    artifacts.write_json(out / "demo.json", asdict(record))


def read_record(out: Path) -> Record:
    """Raises FileNotFoundError where ``out`` holds no demo, ValueError for other formats."""
    path = Path(out) / "demo.json"
    if not path.is_file():
        raise FileNotFoundError(f"{out} holds no demo (no demo.json); make one with `semgan demo -o {as_typed(out)}`.")
    content = artifacts.read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a demo of format {FORMAT}; remove the folder and run `semgan demo` again.")
    methods = {name: Method(**value) for name, value in content.pop("methods").items()}
    return Record(methods=methods, **content)


def write_inputs(out: Path, domain: str, inputs: Inputs) -> None:
    _write(out / "segmented" / "inputs" / f"{domain}.safetensors", {"image": inputs.image, "truth": inputs.truth}, {})


def read_inputs(out: Path, domain: str) -> Inputs:
    arrays, _ = _read(out / "segmented" / "inputs" / f"{domain}.safetensors")
    return Inputs(arrays["image"], arrays["truth"])


def answers_path(out: Path, method: str, domain: str) -> Path:
    return out / "segmented" / method / f"{domain}.safetensors"


def write_answers(out: Path, method: str, domain: str, answers: Answers) -> None:
    arrays = {"masks": answers.masks}
    if answers.reconstructions is not None:
        arrays["reconstructions"] = answers.reconstructions
    _write(answers_path(out, method, domain), arrays, {"steps": ",".join(map(str, answers.steps))})


def read_answers(out: Path, method: str, domain: str) -> Answers:
    arrays, notes = _read(answers_path(out, method, domain))
    return Answers(tuple(map(int, notes["steps"].split(","))), arrays["masks"], arrays.get("reconstructions"))


def _write(path: Path, arrays: dict[str, np.ndarray], notes: dict[str, str]) -> None:
    import torch

    artifacts.save_tensors(path, {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}, notes)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    tensors, notes = artifacts.load_tensors(path)
    return {name: tensor.numpy() for name, tensor in tensors.items()}, notes


def score_rows(out: Path) -> list[ScoreRow]:
    return read_rows(out / "scores.csv")


def find_score(
    rows: Sequence[ScoreRow], method: str, domain: str, *, steps: int | None = None, name: str = MEAN
) -> float | None:
    """The value at a number of steps, or at the chosen one (None); None where there is no such row."""
    for row in rows:
        if (row.method, row.test_set, row.class_name) == (method, domain, name):
            if row.chosen == 1 if steps is None else row.steps == steps:
                return row.value
    return None
