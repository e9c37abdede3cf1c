"""The real nnU-Net v2 as a method: its plan and training in our loop, its model folder, and what happens without it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import semgan
from semgan import artifacts, methods
from semgan.data.folder import Dataset
from semgan.job import Pixels
from semgan.train import train
from semgan.types import IGNORE, LabelSpace

needs_nnunet = pytest.mark.skipif(
    importlib.util.find_spec("nnunetv2") is None,
    reason="needs the package nnunetv2: pip install 'semgan[nnunet]'",
)


@pytest.fixture(scope="module")
def trained(tiny_dataset, quick, tmp_path_factory):
    """Run folder of four steps of four images."""
    out = tmp_path_factory.mktemp("nnunet") / "run"
    assert train(tiny_dataset, out, recipe="debug", method="nnunet", changes=quick, device="cpu").finished
    return out


def test_without_the_package_every_use_says_how_to_get_it(monkeypatch, tiny_dataset, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "nnunetv2" else find(name))
    with pytest.raises(ValueError, match=r"Method 'nnunet' needs the package nnunetv2.*pip install 'semgan\[nnunet\]'"):
        train(tiny_dataset, tmp_path / "run", recipe="debug", method="nnunet")
    assert not (tmp_path / "run").exists()
    artifacts.save_model(tmp_path / "model", {"method": "nnunet"}, {}, "card")
    with pytest.raises(ValueError, match=r"pip install 'semgan\[nnunet\]'"):
        methods.load(tmp_path)


def test_a_broken_package_is_told_with_its_reason(monkeypatch):
    from semgan.baselines.nnunet_plan import trainer_class

    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    monkeypatch.delitem(sys.modules, "nnunetv2.training.nnUNetTrainer.nnUNetTrainer", raising=False)
    with pytest.raises(ValueError, match=r"nnunetv2 cannot be used here \(.*nnunetv2.*pip install 'semgan\[nnunet\]'"):
        trainer_class()


def test_nnunets_names_of_the_values_end_with_those_to_ignore():
    from semgan.baselines.nnunet_plan import _label_values

    labels = LabelSpace(("nothing", "lung", "heart"))
    assert _label_values(labels, ignored=False) == {"background": 0, "lung": 1, "heart": 2}
    assert _label_values(labels, ignored=True)["ignore"] == 3  # nnU-Net wants it last


@needs_nnunet
def test_masks_without_foreground_are_refused(tmp_path):
    from semgan.baselines.nnunet_plan import make_plan

    empty = Pixels(np.arange(2), np.array([np.zeros((16, 16)), np.full((16, 16), IGNORE)], np.uint8))
    with pytest.raises(ValueError, match="foreground of the labelled masks, and they have none"):
        make_plan(SimpleNamespace(labelled=empty), tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@needs_nnunet
def test_nnunet_gets_our_images_our_lists_and_our_budget(trained, tiny_dataset):
    from PIL import Image

    home, name = trained / "nnunet", "Dataset001_semgan"
    (fold,) = artifacts.read_json(home / "preprocessed" / name / "splits_final.json")
    dataset = Dataset.open(tiny_dataset)
    ours = len(dataset.labelled(None, 0)), len(dataset.validation())
    assert (len(fold["train"]), len(fold["val"])) == ours == (6, 3)
    assert len(list((home / "raw" / name / "imagesTr").iterdir())) == 9
    assert Image.open(home / "raw" / name / "imagesTr" / f"{fold['train'][0]}_0000.png").size == (16, 16)
    plans = artifacts.read_json(trained / "model" / "config.json")["nnunet"]["plans"]
    assert plans["configurations"]["2d"]["batch_size"] == 4
    rows = artifacts.read_metrics(trained / "metrics.jsonl")
    assert [row["images_seen"] for row in rows if "loss" in row] == [4, 8, 12, 16]
    assert rows[-1]["validation/dice"] == rows[-1]["validation/best"]


@needs_nnunet
def test_the_model_folder_holds_no_pickle_and_answers_as_nnunet_does(trained):
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    assert {path.name for path in (trained / "model").iterdir()} == {"config.json", "network.safetensors", "README.md"}
    model = semgan.load(trained, device="cpu")
    pixels, properties = NaturalImage2DIO().read_images(
        [str(trained / "nnunet/raw/Dataset001_semgan/imagesTr/validation_00000_0000.png")]
    )
    image = torch.from_numpy(pixels[:, 0]) / 127.5 - 1
    found = model.segment_batch(image[None].expand(2, -1, -1, -1)).probabilities
    _, theirs = model._predictor.predict_single_npy_array(pixels, properties, None, None, True)  # type: ignore[attr-defined]
    assert_close(found[1], torch.from_numpy(theirs[:, 0]))
    assert model.network.decoder.deep_supervision is False and found.std() > 1e-3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not optimised at test time"):
        model.segment_batch(image[None], steps=3)


@needs_nnunet
def test_a_run_that_was_interrupted_ends_with_the_same_weights(trained, tiny_dataset, quick, tmp_path, capsys):
    out, options = tmp_path / "run", {"recipe": "debug", "method": "nnunet", "changes": quick, "device": "cpu"}

    def stop_once(done, total, what):
        if (done, what) == (8, "train baseline"):
            os.kill(os.getpid(), signal.SIGINT)

    before = os.environ.get("nnUNet_raw"), torch.initial_seed(), np.random.get_state()[1][0]  # type: ignore[index]
    with pytest.raises(KeyboardInterrupt):
        train(tiny_dataset, out, progress=stop_once, **options)
    assert train(tiny_dataset, out, **options).finished
    whole, parts = (artifacts.read_model(run)[1]["network"] for run in (trained, out))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert capsys.readouterr().out == ""  # what nnU-Net prints is in its log
    assert before == (os.environ.get("nnUNet_raw"), torch.initial_seed(), np.random.get_state()[1][0])  # type: ignore[index]


@needs_nnunet
@pytest.mark.parametrize("place", ["network_class_name", "conv_op"])
def test_a_plan_with_parts_that_no_nnunet_has_is_refused(trained, tmp_path, place):
    description, weights = artifacts.read_model(trained)
    network = description["nnunet"]["plans"]["configurations"]["2d"]["architecture"]
    (network if place in network else network["arch_kwargs"])[place] = "subprocess.Popen"
    artifacts.save_model(tmp_path / "model", description, weights, "card")
    with pytest.raises(ValueError, match="asks for parts that no nnU-Net has: subprocess.Popen"):
        semgan.load(tmp_path, device="cpu")


@needs_nnunet
def test_nothing_of_it_needs_torchvision():
    code = "import sys; sys.modules['torchvision'] = sys.modules['timm'] = None; "
    code += "from semgan.baselines.nnunet_plan import its, trainer_class; trainer_class(); "
    code += "its('inference.predict_from_raw_data', 'nnUNetPredictor'); "
    code += "its('experiment_planning.plan_and_preprocess_api', 'plan_experiment_dataset')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
