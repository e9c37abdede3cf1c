"""What every method keeps to: it trains with the recipe `debug`, its model loads, segments, and says what it is.

A new method adds two lines: its name and the stages of its metrics.
"""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import semgan
from semgan import config, methods
from semgan.artifacts import find_model, read_json, read_metrics
from semgan.demo import WEIGHTS
from semgan.methods import METHODS
from semgan.segment import segment
from semgan.train import train

STAGES = {
    "semgan": {"gan", "encoder", "inversion"},
    "semgan-paper": {"gan", "encoder"},  # its steps are fixed
    "student": {"gan", "pool", "student"},
    "semgan-student": {"gan", "encoder", "pool", "student"},
    "unet": {"baseline"},
    "unet-strong": {"baseline"},
    "unet-nnunet": {"baseline"},
    "deeplabv2": {"baseline"},
    "mean-teacher": {"baseline"},
    "advssl": {"baseline"},
    "gct": {"baseline"},
    "cps": {"baseline"},
    "unimatch": {"baseline"},
    "nnunet": {"baseline"},
}


def if_installed(name):
    absent = not METHODS[name].installed
    return pytest.param(name, marks=pytest.mark.skipif(absent, reason=f"{name} needs {METHODS[name].needs}"))


def test_every_method_is_in_this_test():
    assert set(STAGES) == set(METHODS)


@pytest.fixture(scope="module", params=[if_installed(name) for name in STAGES])
def trained(request, tiny_dataset, quick, tmp_path_factory):
    """Name, run folder and result of a method trained for a few steps."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    result = train(tiny_dataset, out, recipe="debug", method=request.param, changes=quick, device="cpu")
    return request.param, out, result


def test_training_ends_with_model_metrics_and_report(trained):
    name, out, result = trained
    assert result.finished and not result.interrupted and result.method == name
    assert (out / "report.html").is_file() and "Training" in (out / "log.txt").read_text()
    rows = read_metrics(out / "metrics.jsonl")
    assert {row["stage"] for row in rows} == STAGES[name]
    assert any(key.startswith("validation/dice") for row in rows for key in row)
    described = read_json(find_model(out) / "config.json")
    assert described["method"] == name and described["classes"] == ["background", "lung"]
    assert "Not a medical device" in (out / "model" / "README.md").read_text()


def test_the_loaded_model_gives_probabilities_of_every_class(trained):
    model = semgan.load(trained[1], device="cpu")
    assert model.labels.names == ("background", "lung")
    wide = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    image = torch.stack([model.preprocess(wide), model.preprocess(wide.T), model.preprocess(wide[::-1])])
    assert image.shape == (3, 1, 16, 16) and -1 <= image.min() < image.max() <= 1
    found = model.segment_batch(image, steps=0, snapshot_steps=(0,))
    assert found.probabilities.shape == (3, 2, 16, 16) and found.probabilities.dtype == torch.float32
    assert_close(found.probabilities.sum(1), torch.ones(3, 16, 16))
    assert found.confidence.shape == (3,) and (0.5 <= found.confidence).all() and (found.confidence <= 1).all()
    assert found.label_map.shape == (3, 16, 16) and found.steps == 0
    assert_close(found.snapshots[0], found.probabilities)
    alone = model.segment_batch(image[1:2], steps=0, modality="default")
    assert_close(alone.probabilities, found.probabilities[1:2], rtol=2e-2, atol=2e-2)  # bfloat16


def test_the_verb_segment_writes_masks_of_the_images_own_size(trained, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 50), dtype=np.uint8)).save(
        tmp_path / "images" / "a.png"
    )
    segment(trained[1], tmp_path / "images", tmp_path / "masks", device="cpu")
    mask = Image.open(tmp_path / "masks" / "a.png")
    assert mask.size == (50, 20) and set(np.unique(np.array(mask))) <= {0, 1}
    with open(tmp_path / "masks" / "segmentation.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["stem"] == "a" and 0 <= float(row["confidence"]) <= 1


def test_weights_of_the_package_answer_in_what_is_faster_on_the_machine():
    """Emulated, bfloat16 takes several times as long: the precision of their training binds nobody."""
    shipped = [path.parent for path in WEIGHTS.glob("*/config.json")]
    assert shipped
    for folder in shipped:
        assert config.load(folder / "config.yaml").inversion.precision == "auto"
        assert methods.described(folder)["settings"]["inversion"]["precision"] == "auto"
