"""What tests of several folders share: one small prepared dataset, and settings that train on it in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder

# Laid over the recipe `debug`; every stage takes three or four steps.
QUICK = (
    "preprocessing.size_px=16",
    "generator={w_dim: 8, mapping_layers: 2, widths: [8, 8, 8]}",
    "critics={pair_base_width: 4, pair_layers: 2}",
    "gan={images: 16, batch: 4}",
    "encoder={images: 16, batch: 4, lateral_width: 8}",
    "baseline={images: 16, batch: 4, widths: [4, 4, 8, 8]}",
    "student={pool_images: 16, pool_batch: 4, keep_share: 0.75}",
    "inversion.steps=2",
    "run={log_every_images: 4, checkpoint_every_images: 8, preview_every_images: 1000}",
)


@pytest.fixture
def one_thread():
    """Torch computes with one thread; what uses this says why."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def quick() -> list[str]:
    """``changes`` for `semgan.train.train` with the recipe `debug`."""
    return list(QUICK)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory) -> Path:
    """A prepared dataset of chests: 6 labelled, 6 unlabelled, 3 validation images of 32 px."""
    folder = tmp_path_factory.mktemp("tiny")
    plain = write_phantom_dataset(
        folder / "plain", "chests", size_px=32, labelled=6, unlabelled=6, validation=3, test=0, seed=1
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
    return folder / "dataset"
