"""Every stage of training at its smallest: 16 px, 24 images, batch 4; everything random is switched on."""

import numpy as np
import torch

from semgan.baselines.stage import BaselineStage, Streams
from semgan.config import Settings, override
from semgan.data.loading import ImageStream
from semgan.models.discriminators import ImageCritic
from semgan.models.perceptual import DiscriminatorDistance
from semgan.models.whitening import fit_whitening
from semgan.stages.stage1_gan import GanStage, build_generator
from semgan.stages.stage2_encoder import EncoderStage, build_encoder
from semgan.types import LabelSpace

SIZE_PX, BATCH = 16, 4
CPU = torch.device("cpu")
BINARY, FOUR = LabelSpace(("background", "lung")), LabelSpace(("background", "a", "b", "c"))

SETTINGS = override(
    Settings(),
    {
        "preprocessing": {"size_px": SIZE_PX, "channels": 1},
        "generator": {"w_dim": 8, "mapping_layers": 2, "widths": [8, 8, 8]},
        "critics": {"pair_base_width": 4, "pair_layers": 2},
        "gan": {
            "images": 24,
            "batch": BATCH,
            "precision": "float32",
            "r1_every": 2,
            "path_length_every": 2,
            "augment": "adaptive",
            "augment_probability": 0.3,
            "augment_speed_images": 100,
            "pair_augment": "both",
            "feature_matching_of": "means",
        },
        "encoder": {
            "trunk": "narrow",
            "lateral_width": 8,
            "images": 24,
            "batch": BATCH,
            "precision": "float32",
            "generated_weight": 0.5,
            "photometric_augment": 0.5,
        },
        "baseline": {
            "widths": [4, 4, 8, 8],
            "images": 24,
            "batch": BATCH,
            "precision": "float32",
            "intensity_augment": True,
        },
        "run": {"log_every_images": 8, "checkpoint_every_images": 8, "preview_every_images": 1000},
    },
    "the test",
)


def with_changes(**changes) -> Settings:
    """``gan={"batch": 2}`` and the like over the tiny settings."""
    return override(SETTINGS, changes, "the test")


def stream(name: str, labels: LabelSpace | None, channels: int = 1, cases: int = 10) -> ImageStream:
    """Blocks of grey; their brightness tells the class."""
    coarse = np.random.default_rng(3).integers(0, 256, (cases, channels, 4, 4), dtype=np.uint8)
    images = coarse.repeat(4, 2).repeat(4, 3)
    label_maps = None if labels is None else images[:, 0] // (256 // labels.classes)
    affine = None if labels is None else (0.1, 0.15, 15.0)
    return ImageStream(images, label_maps, seed=0, stream_name=name, mirror=True, affine=affine)


def tiny_gan(settings: Settings = SETTINGS, labels: LabelSpace = BINARY) -> GanStage:
    channels = settings.preprocessing.channels
    return GanStage(
        settings,
        labels,
        labelled=stream("labelled", labels, channels),
        real_images=stream("images", None, channels),
        device=CPU,
    )


def tiny_encoder(settings: Settings = SETTINGS) -> EncoderStage:
    torch.manual_seed(0)
    generator = build_generator(settings, BINARY)
    return EncoderStage(
        settings,
        generator=generator,
        whitening=fit_whitening(generator, samples=200),
        perceptual=DiscriminatorDistance(ImageCritic((8, 8, 8), channels=1)),
        encoder=build_encoder(settings, generator),
        labelled=stream("labelled", BINARY),
        unlabelled=stream("images", None),
        device=CPU,
    )


def tiny_unet(settings: Settings = SETTINGS) -> BaselineStage:
    return BaselineStage(settings, BINARY, Streams(stream("labelled", BINARY)), CPU)
