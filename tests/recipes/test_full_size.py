"""The recipes at 256 px as they stand but for narrower networks and batches: twenty steps of stage 1, and a dry run.

An encoder's step takes a second or two, alike in all recipes: one recipe has twenty of them here, another ResNet-50,
the rest a few with a narrow trunk. results/recipes-256/run.sh does all of it at the paper's widths, for an hour.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from semgan import recipes
from semgan import train as module
from semgan.artifacts import read_json, read_metrics
from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder
from semgan.rehearsal import DryRun
from semgan.train import train

STEPS = 20
BATCH = 2
NARROW = [
    "generator={w_dim: 64, widths: [8, 8, 8, 8, 8, 4, 4]}",
    "critics.pair_base_width=8",
    "encoder.lateral_width=32",
    f"gan={{batch: {BATCH}, images: {STEPS * BATCH}}}",
    f"encoder={{batch: {BATCH}, images: {STEPS * BATCH}}}",
    "inversion.steps=1",
    "perceptual.download=false",
    f"run={{log_every_images: {BATCH}, preview_every_images: null, validation_cases: 2}}",
]
FAMILIES = {"chest-xray": "chests", "liver-ct": "chests", "skin": "faces", "faces": "faces"}


@pytest.fixture(scope="module", params=FAMILIES)
def task(request, tmp_path_factory) -> tuple[str, Path]:
    """A recipe and a dataset with the channels that it expects."""
    folder = tmp_path_factory.mktemp(request.param)
    plain = write_phantom_dataset(
        folder / "plain", FAMILIES[request.param], size_px=64, labelled=3, unlabelled=3, validation=2, test=0, seed=1
    )
    prepare_folder(
        plain / "images",
        plain / "labels",
        folder / "dataset",
        unlabelled=plain / "unlabelled",
        manifest=plain / "manifest.csv",
        classes=plain / "classes.json",
        workers=1,
    )
    return request.param, folder / "dataset"


def changed(recipe: str) -> list[str]:
    return NARROW if recipe == "skin" else [*NARROW, "encoder.trunk=narrow"]


def encoder_steps(recipe: str) -> int:
    return STEPS if recipe == "faces" else 4


def test_twenty_steps_at_256_px_learn(task, tmp_path, monkeypatch):
    name, dataset = task
    monkeypatch.setattr(module, "_report", lambda run: [])  # tests/report draws curves
    changes = [*changed(name), f"encoder.images={encoder_steps(name) * BATCH}"]
    result = train(dataset, tmp_path / "run", recipe=name, method="semgan-paper", changes=changes, device="cpu")
    assert result.finished
    settings = read_json(tmp_path / "run" / "model" / "config.json")["settings"]
    assert settings["preprocessing"] == recipes.load(name).preprocessing.model_dump(mode="json")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "images_per_second" in row]
    steps = {stage: [row for row in rows if row["stage"] == stage] for stage in ("gan", "encoder")}
    assert len(steps["gan"]) == STEPS and len(steps["encoder"]) == encoder_steps(name)
    assert {"r1/image", "r1/pair", "path_length"} <= {key for row in steps["gan"] for key in row}
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))


def test_a_dry_run_says_how_long_the_whole_training_takes(task, tmp_path):
    name, dataset = task
    changes = [*changed(name), "gan.images=320000", "encoder.images=96000"]
    found = train(dataset, tmp_path / "dry", recipe=name, method="semgan-paper", changes=changes, dry_run=True)
    assert isinstance(found, DryRun) and set(found.expected_minutes) == {"gan", "encoder"}
    assert min(found.expected_minutes.values()) > 1
    assert not (tmp_path / "dry").exists()
