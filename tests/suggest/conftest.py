"""A dataset with strange images among the unlabelled ones, and models of both kinds for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_gan import saved_gan, tiny_gan

from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder
from semgan.data.splits import write_splits
from semgan.train import train

ALIENS = ("alien_0", "alien_1", "alien_2")


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Path:
    """Chests in plain folders: 6 with masks, 2 to validate on, 6 without masks; and 3 stripes that are no chests, of
    which the first two are of one patient."""
    out = tmp_path_factory.mktemp("suggest") / "plain"
    write_phantom_dataset(out, "chests", size_px=32, labelled=6, unlabelled=6, validation=2, test=0, seed=3)
    for number, name in enumerate(ALIENS):
        stripes = np.zeros((32, 32), np.uint8)
        stripes[:, :: 2 + number] = 255
        Image.fromarray(stripes).save(out / "unlabelled" / f"{name}.png")
    with open(out / "manifest.csv", "a", encoding="utf-8") as lines:
        lines.write("alien_0,unlabelled,stranger\nalien_1,unlabelled,stranger\n")
    return out


def prepared(plain: Path, out: Path) -> Path:
    parts = {"manifest": plain / "manifest.csv", "classes": plain / "classes.json", "workers": 1}
    prepare_folder(plain / "images", plain / "labels", out, unlabelled=plain / "unlabelled", **parts)
    return out


@pytest.fixture(scope="session")
def dataset(plain) -> Path:
    """3 of the 6 masks are used: the list labelled_3_seed0."""
    out = prepared(plain, plain.parent / "dataset")
    write_splits(out, 3)
    return out


@pytest.fixture(scope="session")
def unet(dataset, quick) -> Path:
    run = dataset.parent / "unet"
    train(dataset, run, recipe="debug", method="unet", labels=3, changes=quick, device="cpu")
    return run


@pytest.fixture(scope="session")
def gan(tmp_path_factory) -> Path:
    """An untrained generator, and an encoder whose codes depend on the image."""
    model = tiny_gan(classes=("background", "lung"))
    assert model.encoder is not None
    with torch.no_grad():
        for heads in model.encoder.heads:
            if hasattr(heads, "weight"):
                heads.weight.mul_(1500)
    return saved_gan(model, tmp_path_factory.mktemp("gan") / "model")
