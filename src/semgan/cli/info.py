"""What a dataset, run or model folder holds, and what this machine offers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semgan.cli.output import existing


def describe(path: Path | None) -> dict[str, Any]:
    """Facts about a folder by its kind; about the installation where no path is given.

    Raises ValueError for a folder that is neither dataset, run nor model.
    """
    if path is None:
        return _installation()
    existing(path, "Folder")
    if (path / "dataset.json").is_file():
        return _dataset(path)
    if (path / "config.json").is_file():  # first: weights may lie beside the settings of their run
        return _model(path)
    if (path / "config.yaml").is_file():
        return _run(path)
    raise ValueError(
        f"{path} is neither a dataset folder (dataset.json), a run folder (config.yaml) "
        "nor a model folder (config.json). Name one of these."
    )


def _installation() -> dict[str, Any]:
    import os

    import torch

    from semgan import artifacts, methods, recipes

    devices = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"}
    for number in range(torch.cuda.device_count()):
        devices[f"cuda:{number}"] = torch.cuda.get_device_name(number)
    return {
        "kind": "installation",
        "versions": artifacts.versions(),
        "devices": devices,
        "recipes": list(recipes.names()),
        "methods": [name for name, method in methods.METHODS.items() if method.installed],
    }


def _dataset(path: Path) -> dict[str, Any]:
    from semgan import artifacts
    from semgan.data.folder import Dataset

    dataset = Dataset.open(path)
    sets = {"train": dataset.cases("train"), "validation": dataset.validation(), "test": dataset.test()}
    whole = len(list(path.glob("volumes/*/images/*.nii*")))
    lists = artifacts.read_json(path / "splits.json") if (path / "splits.json").is_file() else {}
    return {
        "kind": "dataset",
        "name": dataset.name,
        "classes": list(dataset.labels.names),
        "channels": dataset.channels,
        "cases": {name: len(cases) for name, cases in sets.items()} | {"unlabelled": len(dataset.cases("unlabelled"))},
        **({"test_volumes": whole} if whole else {}),
        "labelled_lists": sorted(name for name in lists if name.startswith("labelled_")),
    }


def _run(path: Path) -> dict[str, Any]:
    from semgan import artifacts, config

    run = artifacts.RunFolder(path)
    settings = config.load(run.config)
    environment = artifacts.read_json(run.environment) if run.environment.is_file() else {}
    rows = artifacts.read_metrics(run.metrics) if run.metrics.is_file() else []
    return {
        "kind": "run",
        "recipe": settings.recipe,
        "method": settings.method,
        "labels": settings.labels,
        "split_seed": settings.split_seed,
        "seed": settings.seed,
        "size_px": settings.preprocessing.size_px,
        "classes": list(settings.classes),
        "dataset": environment.get("dataset"),
        "commit": environment.get("commit"),
        "stages": _progress(rows),
        "model": (run.model / "config.json").is_file(),
    }


def _progress(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per stage: images seen and the last validation scores."""
    stages: dict[str, dict[str, Any]] = {}
    for row in rows:
        stage = stages.setdefault(str(row.get("stage")), {})
        for name, value in row.items():
            if name == "images_seen" or name.startswith("validation/"):
                stage[name] = value
    return stages


def _model(path: Path) -> dict[str, Any]:
    from semgan import methods

    description = methods.described(path)
    settings: Mapping[str, Any] = description.get("settings", {})
    return {
        "kind": "model",
        "method": description["method"],
        "classes": description.get("classes"),
        "recipe": settings.get("recipe"),
        "labels": settings.get("labels"),
        "preprocessing": description.get("preprocessing"),
        "inversion": description.get("inversion"),
        "versions": description.get("versions"),
        "files": {file.name: f"{file.stat().st_size / 2**20:.1f} MiB" for file in sorted(path.glob("*.safetensors"))},
    }
