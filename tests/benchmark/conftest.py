"""A grid on phantoms: one prepared task, two test sets, two methods of a few steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from semgan import train as train_module
from semgan.config import parse_assignments
from semgan.data.phantoms import write_phantom_dataset
from semgan.rehearsal import LENGTHS

DOMAINS = ("standard", "inverted")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Plain folders: 6 labelled, 3 validation, 6 unlabelled chests, and 3 test images of every domain, 32 px."""
    return write_phantom_dataset(
        tmp_path_factory.mktemp("phantoms") / "plain",
        "chests",
        size_px=32,
        labelled=6,
        validation=3,
        unlabelled=6,
        test=3,
        seed=1,
    )


@dataclass
class Grids:
    """Makes grid files: ``content`` is a whole grid that works, to be changed by the test."""

    folder: Path
    content: dict[str, Any]

    def write(self, change: Callable[[dict[str, Any]], Any] = lambda grid: None, name: str = "grid.yaml") -> Path:
        content = copy.deepcopy(self.content)
        change(content)
        path = self.folder / name
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path


@pytest.fixture
def grids(phantoms, quick, tmp_path, monkeypatch) -> Grids:
    """Grids in the test's own folder; the plain folders are named by the environment variable PLAIN."""
    monkeypatch.setenv("PLAIN", str(phantoms))
    return Grids(tmp_path, grid_content(quick))


@pytest.fixture(scope="module")
def grids_of_module(phantoms, quick, tmp_path_factory) -> Iterator[Grids]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAIN", str(phantoms))
        yield Grids(tmp_path_factory.mktemp("grids"), grid_content(quick))


def grid_content(quick: list[str]) -> dict[str, Any]:
    """A grid that works: prepared from plain folders, one label count, two test sets, a budget of 32 images."""
    settings = parse_assignments(quick)
    for section, images, _ in LENGTHS.values():
        settings[section].pop(images, None)  # the budget says it
    task = {
        "name": "chests",
        "prepare": {
            "images": "${PLAIN}/images",
            "labels": "${PLAIN}/labels",
            "unlabelled": "${PLAIN}/unlabelled",
            "manifest": "${PLAIN}/manifest.csv",
            "classes": "${PLAIN}/classes.json",
        },
        "recipe": "debug",
        "metric": "dice",
        "labels": [4],
        "test_sets": [
            {"name": name, "images": f"${{PLAIN}}/test/{name}/images", "labels": f"${{PLAIN}}/test/{name}/labels"}
            for name in DOMAINS
        ],
        "settings": settings,
    }
    return {"methods": ["semgan", "unet"], "budget": {"images": 32}, "tasks": [task]}


@pytest.fixture(scope="module")
def without_reports():
    """Drawing curves takes most of so short a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "_report", lambda run: [])
        yield
