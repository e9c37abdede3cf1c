"""A tiny generator with three classes, as a model folder."""

from __future__ import annotations

from pathlib import Path

import torch

from semgan import artifacts
from semgan.config import Settings, override
from semgan.models.discriminators import ImageCritic
from semgan.models.generator import Generator
from semgan.models.perceptual import DiscriminatorDistance
from semgan.models.whitening import fit_whitening
from semgan.stages.semantic_gan import model_files

SETTINGS = override(
    Settings(),
    {
        "classes": ("background", "left", "right"),
        "metric": "miou",
        "preprocessing": {"size_px": 16, "channels": 1},
        "generator": {"w_dim": 8, "mapping_layers": 2, "widths": (12, 8, 8)},
        "critics": {"widths": (8, 8, 8)},
        "perceptual": {"distance": "discriminator"},
    },
)


def write_model(folder: Path, *, channels: int = 1) -> Path:
    torch.manual_seed(0)
    settings = override(SETTINGS, {"preprocessing": {"size_px": 16, "channels": channels}})
    generator = Generator(settings.generator, size_px=16, image_channels=channels, label_channels=3)
    with torch.no_grad():
        for convolution in generator.convolutions:
            convolution.noise_strength.fill_(0.1)
    critic = ImageCritic((8, 8, 8), channels=channels)
    files = model_files(
        settings,
        generator=generator,
        whitening=fit_whitening(generator, samples=200),
        encoder=None,
        perceptual=DiscriminatorDistance(critic),
    )
    artifacts.save_model(folder, *files)
    return folder
