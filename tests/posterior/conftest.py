"""A tiny semantic GAN with a folder; its masks depend on its codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))
from tiny_networks import WIDTHS, generated_images, tiny_networks  # noqa: E402

from semgan import artifacts  # noqa: E402
from semgan.config import Settings, override  # noqa: E402
from semgan.stages.semantic_gan import SemanticGan, model_files  # noqa: E402

SETTINGS = override(
    Settings(),
    {
        "classes": ("background", "lung"),
        "recipe": "tiny",
        "preprocessing": {"size_px": 16, "channels": 1},
        "generator": {"w_dim": 16, "mapping_layers": 2, "widths": WIDTHS},
        "encoder": {"trunk": "narrow", "lateral_width": 16},
        "inversion": {"steps": 3, "precision": "float32", "lambda_pixel": 1.0, "reduction": "mean"},
    },
    "the test",
)


@pytest.fixture(scope="session")
def networks():
    return tiny_networks()


@pytest.fixture(scope="session")
def model(networks) -> SemanticGan:
    parts = (networks.generator, networks.whitening, networks.encoder, networks.perceptual)
    return SemanticGan(SETTINGS, *parts, chosen_steps=2)


@pytest.fixture(scope="session")
def images(networks) -> torch.Tensor:
    return generated_images(networks, 3)


@pytest.fixture
def folder(networks, tmp_path) -> Path:
    files = model_files(
        SETTINGS,
        generator=networks.generator,
        whitening=networks.whitening,
        encoder=networks.encoder,
        perceptual=networks.perceptual,
        chosen_steps=2,
    )
    artifacts.save_model(tmp_path / "model", *files)
    return tmp_path / "model"
