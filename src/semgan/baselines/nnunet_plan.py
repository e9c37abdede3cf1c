"""nnU-Net's side of the method ``nnunet``: its folders, and its own fingerprint, plan and preprocessing of our images.

    RUN/nnunet/raw/Dataset001_semgan/            imagesTr/CASE_0000.png, labelsTr/CASE.png, dataset.json
    RUN/nnunet/preprocessed/Dataset001_semgan/   nnUNetPlans.json, splits_final.json, the preprocessed cases
    RUN/nnunet/results/                          nnU-Net's log

Made anew whenever training begins or goes on, so that nnU-Net reads nothing that this process has not written (it keeps
the properties of a case as a pickle). No process is started: a run uses the cores it was given.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from semgan.artifacts import read_json, write_json
from semgan.job import Pixels, TrainingJob
from semgan.types import IGNORE, LabelSpace

DATASET = "Dataset001_semgan"
CONFIGURATION, FOLD = "2d", 0
PLANS = "nnUNetPlans"  # nnU-Net's name of its default plans
INTENSITY_SAMPLES = 10_000  # foreground pixels of a case for the fingerprint; only CT's normalisation would use them
PERCENTILES = {"percentile_00_5": 0.5, "median": 50.0, "percentile_99_5": 99.5}


@dataclass(frozen=True)
class Plan:
    """What nnU-Net decided: its plans and the description of the dataset, both as JSON holds them."""

    plans: dict[str, Any]
    dataset: dict[str, Any]


def its(module: str, name: str) -> Any:
    """A part of the package nnunetv2. Raises ValueError where it cannot be imported, whatever the reason."""
    try:
        return getattr(importlib.import_module(f"nnunetv2.{module}"), name)
    except Exception as error:
        raise ValueError(
            f"The package nnunetv2 cannot be used here ({type(error).__name__}: {error}); "
            "install it with what it needs: pip install 'semgan[nnunet]'."
        ) from None


def trainer_class() -> Any:
    return its("training.nnUNetTrainer.nnUNetTrainer", "nnUNetTrainer")


def plans_manager(plans: Mapping[str, Any]) -> Any:
    """nnU-Net's reader of its plans."""
    return its("utilities.plans_handling.plans_handler", "PlansManager")(dict(plans))


@contextlib.contextmanager
def at_home(folder: Path) -> Iterator[None]:
    """While the block runs, nnU-Net's folders lie in ``folder``, and what it prints goes to its log.txt."""
    wanted = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    wanted |= {"nnUNet_compile": "false", "nnUNet_wandb_enabled": "0"}
    with environment(wanted), quiet(folder / "log.txt"):
        yield


@contextlib.contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Environment variables have these values while the block runs: nnU-Net takes its options from there."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def quiet(log: Path | str = os.devnull) -> Iterator[None]:
    """What is printed goes to a file: standard output belongs to the caller (``--json``)."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def make_plan(job: TrainingJob, folder: Path) -> Plan:
    """Write the labelled and the validation list as nnU-Net's dataset, let it plan and preprocess; inside `at_home`.

    The validation list is the only fold. Raises ValueError where no mask has any foreground.
    """
    if not any(((maps > 0) & (maps != IGNORE)).any() for maps in [job.labelled.label_maps] if maps is not None):
        raise ValueError("nnU-Net plans by the foreground of the labelled masks, and they have none; check the labels.")
    for part in ("raw", "preprocessed", "results"):
        shutil.rmtree(folder / part, ignore_errors=True)
    raw, preprocessed = folder / "raw" / DATASET, folder / "preprocessed" / DATASET
    dataset, splits = _write_raw(job, raw)
    preprocessed.mkdir(parents=True)
    write_json(preprocessed / "splits_final.json", splits)
    write_json(preprocessed / "dataset_fingerprint.json", _fingerprint(raw, dataset))
    with environment({"nnUNet_n_proc_DA": str(torch.get_num_threads())}):  # it asks for threads under this name
        its("experiment_planning.plan_and_preprocess_api", "plan_experiment_dataset")(1)
    plans = read_json(preprocessed / f"{PLANS}.json")
    plans["configurations"][CONFIGURATION]["batch_size"] = job.settings.baseline.batch
    write_json(preprocessed / f"{PLANS}.json", plans)
    _preprocess(raw, preprocessed, plans, dataset)
    return Plan(plans, {key: value for key, value in dataset.items() if key != "dataset"})


# ---------------------------------------------------------------- its raw dataset


def _write_raw(job: TrainingJob, raw: Path) -> tuple[dict[str, Any], list[dict[str, list[str]]]]:
    """The images as every method gets them, a file per channel, with their masks; dataset.json and the fold."""
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    lists = {"train": ("labelled", job.labelled), "val": ("validation", job.validation)}
    fold = {name: _write_cases(job, raw, prefix, pixels) for name, (prefix, pixels) in lists.items()}
    fold["val"] = fold["val"] or fold["train"]  # nnU-Net's own way without a fold: it wants some
    cases = sorted({*fold["train"], *fold["val"]})
    channels = range(job.settings.preprocessing.channels)
    ignored = any((pixels.label_maps == IGNORE).any() for _, pixels in lists.values() if len(pixels))
    dataset = {
        "channel_names": {str(channel): f"channel {channel}" for channel in channels},  # so: mean 0, deviation 1
        "labels": _label_values(job.labels, ignored=bool(ignored)),
        "numTraining": len(cases),
        "file_ending": ".png",
        "dataset": {
            case: {
                "images": [f"imagesTr/{case}_{channel:04d}.png" for channel in channels],
                "label": f"labelsTr/{case}.png",
            }
            for case in cases
        },
    }
    write_json(raw / "dataset.json", dataset)
    return dataset, [fold]


def _label_values(labels: LabelSpace, *, ignored: bool) -> dict[str, int]:
    """nnU-Net's names of the values in its masks; what is not counted is the last one."""
    values = {"background": 0} | {name: value for value, name in enumerate(labels.names) if value > 0}
    return values | ({"ignore": labels.classes} if ignored else {})


def _write_cases(job: TrainingJob, raw: Path, prefix: str, pixels: Pixels) -> list[str]:
    names = []
    for place, row in enumerate(pixels.rows):
        assert pixels.label_maps is not None
        name = f"{prefix}_{place:05d}"
        for channel, image in enumerate(np.asarray(job.images[row])):
            Image.fromarray(image).save(raw / "imagesTr" / f"{name}_{channel:04d}.png")
        label_map = pixels.label_maps[place]
        mask = np.where(label_map == IGNORE, job.labels.classes, label_map).astype(np.uint8)
        Image.fromarray(mask).save(raw / "labelsTr" / f"{name}.png")
        names.append(name)
    return names


# ---------------------------------------------------------------- its fingerprint and preprocessing


def _fingerprint(raw: Path, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """dataset_fingerprint.json, from nnU-Net's analysis of every case; nnU-Net itself would start processes for it."""
    where = "experiment_planning.dataset_fingerprint.fingerprint_extractor"
    analyse = its(where, "DatasetFingerprintExtractor").analyze_case
    reader = its("imageio.natural_image_reader_writer", "NaturalImage2DIO")
    found = [analyse(*_files(raw, case), reader, INTENSITY_SAMPLES) for case in dataset["dataset"].values()]
    shapes, spacings, intensities, _, shares = zip(*found, strict=True)
    return {
        "spacings": [[float(step) for step in spacing] for spacing in spacings],
        "shapes_after_crop": [[int(side) for side in shape] for shape in shapes],
        "foreground_intensity_properties_per_channel": {
            str(channel): _statistics([case[channel] for case in intensities]) for channel in range(len(intensities[0]))
        },
        "median_relative_size_after_cropping": float(np.median(shares)),
    }


def _statistics(samples: Sequence[Any]) -> dict[str, float]:
    values = np.concatenate([np.asarray(part, np.float64) for part in samples])
    measured = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    measured |= {name: np.percentile(values, share) for name, share in PERCENTILES.items()}
    return {name: float(value) for name, value in measured.items()}


def _files(raw: Path, case: Mapping[str, Any]) -> tuple[list[str], str]:
    return [str(raw / image) for image in case["images"]], str(raw / case["label"])


def _preprocess(raw: Path, preprocessed: Path, plans: Mapping[str, Any], dataset: dict[str, Any]) -> None:
    """Every case by nnU-Net's preprocessor, as its command of that name does in several processes."""
    manager = plans_manager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    folder = preprocessed / configuration.data_identifier
    folder.mkdir()
    preprocessor = configuration.preprocessor_class(verbose=False)
    for name, case in dataset["dataset"].items():
        preprocessor.run_case_save(str(folder / name), *_files(raw, case), manager, configuration, dataset)
