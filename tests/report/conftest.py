"""A run folder as training leaves it, made up from formulas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Page, read_page
from PIL import Image

from semgan import artifacts, config
from semgan.report.history import History, read_history

CLASSES = ("background", "skin", "hair", "eyes")


def gan_rows(lines: int = 120, images_per_line: int = 640) -> list[dict[str, Any]]:
    """A healthy stage 1: critics in balance, distance falling, every class present."""
    noise = np.random.default_rng(0).normal(0, 0.05, (lines, 12))
    rows = []
    for i in range(lines):
        images, share = (i + 1) * images_per_line, (i + 1) / lines
        row: dict[str, Any] = {"stage": "gan", "images_seen": images, "seconds": images / 90}
        row |= {"loss/image_critic": 1.1 + noise[i, 0], "loss/pair_critic": 1.6 + noise[i, 1]}
        row |= {"loss/generator_image": 0.9 + 0.3 * share + noise[i, 2], "loss/generator_label": 0.3 + noise[i, 3]}
        row |= {"loss/feature_matching": 2.5 - share + noise[i, 4]}
        row |= {"score/image_real": 0.8 + noise[i, 5], "score/image_fake": -0.8 + noise[i, 6]}
        row |= {"score/pair_real": 0.4 + noise[i, 7], "score/pair_fake": -0.3 + noise[i, 8]}
        row |= {"r1/image": 0.02 * (1 + abs(noise[i, 9])), "r1/pair": 0.005 * (1 + abs(noise[i, 10]))}
        row |= {"path_length": 0.4 + noise[i, 11], "augment_probability": 0.0, "images_per_second": 90.0}
        row |= {"cpu_seconds": images / 45}
        rows.append(row)
        if i % 12 == 11:
            preview = {"frechet_distance_critic_features": 40 * np.exp(-2.5 * share) + 2}
            preview |= {"validation/miou": 0.6 * (1 - np.exp(-4 * share))}
            for name, labelled in zip(CLASSES, (0.5, 0.3, 0.18, 0.02), strict=True):
                preview |= {f"labels/{name}_share_samples": labelled * 0.9, f"labels/{name}_share_labelled": labelled}
            rows.append({"stage": "gan", "images_seen": images, "seconds": images / 90} | preview)
    return rows


def encoder_rows(lines: int = 40) -> list[dict[str, Any]]:
    rows = []
    for i in range(lines):
        row: dict[str, Any] = {"stage": "encoder", "images_seen": (i + 1) * 320, "seconds": i + 1.0}
        rows.append(row | {"loss/total": 2 * 0.97**i, "loss/perceptual": 0.97**i, "loss/pixel": 0.1 * 0.96**i})
        if i % 8 == 7:
            rows.append({**row, "validation/miou": 0.5 + 0.002 * i})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(rows: list[dict[str, Any]] | None = None, *, recipe: str = "phantoms") -> Path:
        run = artifacts.RunFolder(tmp_path / "run")
        settings = config.override(config.Settings(), {"recipe": recipe, "labels": 20, "classes": CLASSES})
        run.create(settings, "data/phantoms-faces")
        write_rows(run.metrics, gan_rows() + encoder_rows() if rows is None else rows)
        random = np.random.default_rng(1)
        for name in ("gan-000016000", "gan-000032000", "gan-000048000", "gan-000064000", "encoder-000012800"):
            Image.fromarray(random.integers(0, 255, (64, 128, 3), np.uint8)).save(run.samples / f"{name}.png")
        return run.path

    return make


@pytest.fixture
def gan_log() -> list[dict[str, Any]]:
    return gan_rows()


@pytest.fixture
def encoder_log() -> list[dict[str, Any]]:
    return encoder_rows()


@pytest.fixture
def history_of(tmp_path: Path) -> Callable[[list[dict[str, Any]]], History]:
    """Curves of rows, by way of a file."""
    return lambda rows: read_history(write_rows(tmp_path / "metrics.jsonl", rows))


@pytest.fixture
def page_of() -> Callable[[Path], Page]:
    """Parse a page and make sure that it is whole."""

    def read(path: Path) -> Page:
        page = read_page(path)
        assert page.unclosed == []
        assert len(set(page.places)) == len(page.places) and set(page.leads_to) <= set(page.places)
        assert all(alt for alt, _ in page.images), "pictures need a text for those who cannot see them"
        return page

    return read
