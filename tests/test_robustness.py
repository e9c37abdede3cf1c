"""`semgan robustness`: every model sees the same shifted validation images, and a weakness shows."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_gan import saved_gan, tiny_gan

import semgan
from semgan import robustness as module
from semgan.config import Preprocessing
from semgan.data.folder import Dataset
from semgan.metrics import overlap
from semgan.robustness import Row, means, read_rows, robustness
from semgan.types import Segmentation


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved_gan(tiny_gan(), tmp_path_factory.mktemp("robustness") / "model")


class Threshold:
    """Dark is lung: right on phantoms as they are, wrong where the light changes."""

    rules = {"default": Preprocessing(size_px=32, channels=1)}

    def __init__(self, labels):
        self.labels = labels

    def preprocess(self, image):
        grey = image if image.ndim == 2 else image.mean(2)
        return torch.from_numpy(np.asarray(Image.fromarray(grey.astype(np.uint8)).resize((32, 32)), np.float32))[None]

    def segment_batch(self, image, *, steps=None, snapshot_steps=()):
        lung = (image < image.mean((2, 3), keepdim=True)).float()
        return Segmentation(torch.cat([1 - lung, lung], 1), torch.ones(len(image)))


def test_scores_are_those_of_the_shifted_pixels(model, tiny_dataset, tmp_path, monkeypatch):
    data = Dataset.open(tiny_dataset)
    monkeypatch.setattr(module, "load_identified", lambda path, device: (Threshold(data.labels), "known"))
    rows = robustness([model], tiny_dataset, tmp_path / "out", shifts=("shading", "turn"), device="cpu")
    assert [row.shift for row in rows] == ["none", "shading", "turn"] and rows[0].difference == 0
    assert rows[1].score < rows[0].score  # uneven light
    bench = module._Bench(data, data.validation(), "dice", 0, 8)
    counts = []
    for image, truth in bench.pairs("turn"):
        answer = module_answer(Threshold(data.labels), image)
        counts.append(overlap.count(answer, truth, 2))
    assert rows[2].score == round(overlap.overall(overlap.concatenate(counts), "dice"), 5)  # as the table has it
    assert rows[2].difference == pytest.approx(rows[2].score - rows[0].score, abs=1.01e-5)


def module_answer(segmenter, image):
    from semgan.data.whole_images import segment_images

    return next(segment_images(segmenter, [image])).label_map


def test_the_files_tell_what_was_returned(model, tiny_dataset, tmp_path, monkeypatch):
    out = tmp_path / "out"
    rows = robustness([model, model], tiny_dataset, out, shifts=("mixed",), cases=2, steps=0, device="cpu")
    assert [row.shift for row in rows] == ["none", "mixed"] * 2
    assert rows[2].model == f"{rows[0].model} (2)"
    assert [row.score for row in rows[:2]] == [row.score for row in rows[2:]]  # the same model, the same pixels
    read = read_rows(out / "robustness.csv")
    assert rows == read
    assert json.loads((out / "means.json").read_text()).keys() == {row.model for row in rows}
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
    before = (out / "robustness.csv").stat().st_mtime_ns
    again = robustness([model, model], tiny_dataset, out, shifts=("mixed",), cases=2, steps=0, device="cpu")
    assert again == rows and len(again) == 4
    assert (out / "robustness.csv").stat().st_mtime_ns == before
    monkeypatch.setattr(Dataset, "judged_by", lambda self, cases: "other masks")
    with pytest.raises(FileExistsError, match="results of another model, other images"):
        robustness([model, model], tiny_dataset, out, shifts=("mixed",), cases=2, steps=0, device="cpu")


class Network(Threshold):
    """Refuses steps, as feed-forward networks do."""

    def segment_batch(self, image, *, steps=None, snapshot_steps=()):
        assert steps is None
        return super().segment_batch(image)


def test_steps_are_for_the_models_that_optimise(model, tiny_dataset, tmp_path, monkeypatch):
    network, gan = Network(Dataset.open(tiny_dataset).labels), semgan.load(model, device="cpu")
    given = []
    monkeypatch.setattr(gan, "segment_batch", lambda image, **own: given.append(own["steps"]) or answer(image, **own))
    answer = type(gan).segment_batch.__get__(gan)
    of = {"network": (network, "network"), "gan": (gan, "gan")}
    for name in of:
        shutil.copytree(model, tmp_path / name)
    monkeypatch.setattr(module, "load_identified", lambda path, device: of[path.name])
    options = {"shifts": ("turn",), "cases": 2, "device": "cpu"}
    both = [tmp_path / "network", tmp_path / "gan"]
    rows = robustness(both, tiny_dataset, tmp_path / "out", steps=3, **options)
    assert given == [3, 3] and [row.model for row in rows] == ["network", "network", "gan", "gan"]
    with pytest.raises(ValueError, match="No model here is optimised"):
        robustness(both[:1], tiny_dataset, tmp_path / "refused", steps=3, **options)
    with pytest.raises(ValueError, match="gan has no stopping rule for --steps auto"):
        robustness(both, tiny_dataset, tmp_path / "refused", steps="auto", **options)
    assert given == [3, 3] and not list(tmp_path.glob("refused*"))


def test_all_models_are_scored_by_the_first_ones_metric(model, tiny_dataset, tmp_path, caplog):
    other = shutil.copytree(model, tmp_path / "other")
    about = json.loads((other / "config.json").read_text())
    assert about["settings"]["metric"] == "dice"
    about["settings"]["metric"] = "jaccard"
    (other / "config.json").write_text(json.dumps(about))
    options = {"shifts": ("turn",), "cases": 2, "steps": 0, "device": "cpu"}
    rows = robustness([model, other], tiny_dataset, tmp_path / "dice", **options)
    assert [row.score for row in rows[:2]] == [row.score for row in rows[2:]]  # the same weights, the same metric
    assert "All scores are dice, the metric of model; on their own other count another" in caplog.text
    turned = robustness([other, model], tiny_dataset, tmp_path / "jaccard", **options)
    assert turned[0].score == turned[2].score != rows[0].score


def test_means_leave_the_unshifted_images_out():
    rows = [Row("a", "m", shift, 3, score, None, 0.0) for shift, score in (("none", 0.9), ("x", 0.4), ("y", 0.8))]
    assert means(rows) == {"a": {"none": 0.9, "shifted": pytest.approx(0.6), "worst": 0.4}}
    assert means(rows[:1]) == {"a": {"none": 0.9, "shifted": 0.9, "worst": 0.9}}


def test_wrong_requests_are_told_before_any_work(model, tiny_dataset, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Unknown shift 'rain'"):
        robustness([model], tiny_dataset, tmp_path / "a", shifts=("rain",))
    with pytest.raises(FileNotFoundError):
        robustness([tmp_path / "none"], tiny_dataset, tmp_path / "a")
    monkeypatch.setattr(Dataset, "validation", lambda self: [])
    with pytest.raises(ValueError, match="no validation list"):
        robustness([model], tiny_dataset, tmp_path / "a")
    other = SimpleNamespace(labels=SimpleNamespace(names=("background", "heart")))
    monkeypatch.setattr(module, "load_identified", lambda path, device: (other, "known"))
    with pytest.raises(ValueError, match="background, lung, .*model background, heart; give"):
        robustness([model], tiny_dataset, tmp_path / "a")
    assert not list(tmp_path.iterdir())
