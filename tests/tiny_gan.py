"""An untrained semantic GAN of 16 px, small enough for tests of what is done with a trained one."""

from __future__ import annotations

from pathlib import Path

import torch

from semgan import artifacts
from semgan.config import Settings, override
from semgan.models.discriminators import ImageCritic
from semgan.models.encoder import Encoder
from semgan.models.perceptual import DiscriminatorDistance
from semgan.models.whitening import fit_whitening
from semgan.stages.semantic_gan import SemanticGan, model_files
from semgan.stages.stage1_gan import build_generator
from semgan.types import LabelSpace

WIDTHS = (8, 8, 8)


def tiny_gan(
    *, channels: int = 1, classes: tuple[str, ...] = ("background", "lung"), encoder: bool = True
) -> SemanticGan:
    torch.manual_seed(0)
    settings = override(
        Settings(),
        {
            "classes": classes,
            "preprocessing": {"size_px": 16, "channels": channels},
            "generator": {"w_dim": 8, "mapping_layers": 2, "widths": WIDTHS},
            "encoder": {"trunk": "narrow", "lateral_width": 8},
            "perceptual": {"distance": "discriminator"},
            "inversion": {"steps": 4, "learning_rate": 0.05, "precision": "float32"},
        },
    )
    generator = build_generator(settings, LabelSpace(classes))
    network = Encoder(
        settings.encoder, size_px=16, image_channels=channels, layers=generator.layers, w_dim=generator.w_dim
    )
    distance = DiscriminatorDistance(ImageCritic(WIDTHS, channels=channels))
    whitening = fit_whitening(generator, samples=200)
    return SemanticGan(settings, generator, whitening, network.eval() if encoder else None, distance, chosen_steps=2)


def saved_gan(gan: SemanticGan, folder: Path) -> Path:
    """A model folder of it."""
    files = model_files(
        gan.settings,
        generator=gan.generator,
        whitening=gan.whitening,
        encoder=gan.encoder,
        perceptual=gan.perceptual,
        chosen_steps=gan.steps,
    )
    artifacts.save_model(folder, *files)
    return folder
