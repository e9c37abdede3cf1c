"""A dataset with strange images among the unlabelled ones, and models of both kinds for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from strange_chests import prepared, write_plain
from tiny_gan import saved_gan, tiny_gan

from semgan.data.splits import write_splits
from semgan.train import train


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Path:
    return write_plain(tmp_path_factory.mktemp("suggest") / "plain")


@pytest.fixture(scope="session")
def dataset(plain) -> Path:
    """3 of the 6 masks are used: the list labelled_3_seed0."""
    out = prepared(plain, plain.parent / "dataset")
    write_splits(out, 3)
    return out


@pytest.fixture(scope="session")
def unet(dataset, quick) -> Path:
    """Hardly trained. What its features find strange is luck: neither random nor trained weights tell stripes from
    chests on every processor (docs/logbook.md)."""
    run = dataset.parent / "unet"
    changes = [*quick, "baseline.precision=float32"]
    train(dataset, run, recipe="debug", method="unet", labels=3, changes=changes, device="cpu")
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
