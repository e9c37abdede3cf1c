"""Every method by name: how it trains, how its model is loaded, and what it changes in a recipe. The only registry."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semgan.config import Settings
    from semgan.job import TrainingJob
    from semgan.runtime.loop import StageResult
    from semgan.types import Segmenter


@dataclass(frozen=True)
class Method:
    """``changes`` are laid over the recipe's settings; ``rival`` methods do not use our generator.

    derived: settings that follow others, after all changes; what is asked for by name wins over them
    stages: of training, in order, as metrics and checkpoints name them
    needs: (package, extra of ours that brings it), where a method is somebody else's program
    """

    summary: str
    train: Callable[[TrainingJob], StageResult]
    load: Callable[[Path, str], Segmenter]
    rival: bool
    stages: tuple[str, ...] = ("baseline",)
    changes: Callable[[Settings], dict[str, Any]] = lambda settings: {}
    derived: Callable[[Settings], dict[str, Any]] = lambda settings: {}
    needs: tuple[str, str] | None = None

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs[0]) is not None

    def stages_after(self, init_from: object | None) -> tuple[str, ...]:
        """The stages that are trained where another run is given: students take its model as it is."""
        reused = ("gan", "encoder") if init_from is not None and "student" in self.stages else ()
        return tuple(stage for stage in self.stages if stage not in reused)


def _train_semantic_gan(job: TrainingJob) -> StageResult:
    from semgan.stages.pipeline import train_semantic_gan

    return train_semantic_gan(job)


def _load_semantic_gan(folder: Path, device: str) -> Segmenter:
    from semgan.stages.semantic_gan import SemanticGan

    return SemanticGan.load(folder, device=device)


def _baseline(module: str, stage: str) -> Callable[[TrainingJob], StageResult]:
    """Training of a baseline: the class ``stage`` of the file ``semgan/baselines/module.py``."""

    def train(job: TrainingJob) -> StageResult:
        from semgan.baselines.pipeline import train_baseline

        return train_baseline(job, getattr(importlib.import_module(f"semgan.baselines.{module}"), stage))

    return train


def _load_network(folder: Path, device: str) -> Segmenter:
    from semgan.baselines.segmenter import NetworkSegmenter

    return NetworkSegmenter.load(folder, device=device)


def _train_nnunet(job: TrainingJob) -> StageResult:
    from semgan.baselines.nnunet import train_nnunet

    return train_nnunet(job)


def _load_nnunet(folder: Path, device: str) -> Segmenter:
    from semgan.baselines.nnunet import NnunetSegmenter

    return NnunetSegmenter.load(folder, device=device)


def _train_student(job: TrainingJob) -> StageResult:
    from semgan.student import train_student

    return train_student(job)


def _load_student(folder: Path, device: str) -> Segmenter:
    from semgan.student_answer import load_student

    return load_student(folder, device)


def _train_semgan_student(job: TrainingJob) -> StageResult:
    from semgan.student import train_semgan_student

    return train_semgan_student(job)


def _load_semgan_student(folder: Path, device: str) -> Segmenter:
    from semgan.student_answer import load_with_student

    return load_with_student(folder, device)


def strong_changes(settings: Settings) -> dict[str, Any]:
    """Intensity augmentation for a U-Net: what makes it strong on images of another source."""
    return {"baseline": {"intensity_augment": True}}


def nnunet_changes(settings: Settings) -> dict[str, Any]:
    """nnU-Net's augmentation, optimiser and schedule (Isensee et al. 2021, supplement note 4) for our U-Net."""
    return {
        "data": {
            "affine_scale_range": (0.7, 1.4),
            "affine_translate": 0.0,
            "affine_rotate_deg": 180.0,
            "affine_probability": 0.2,
        },
        "baseline": {
            "intensity_augment": "nnunet",
            "optimiser": "sgd",
            "learning_rate": 0.01,
            "clip_norm": 12.0,
            "schedule": "poly",
            "test_time_flips": True,
        },
    }


# lambda_3 and steps of the supplement's section 3, by the first word of the recipe; on MRI as the recipe says.
PAPER_INVERSION = {"lungs": (0.001, 200), "chest": (0.001, 200), "skin": (0.1, 200), "liver": (0.001, 400)}
PAPER_INVERSION_ELSE = (0.001, 400)  # faces
PAPER_BATCHES = (32, 16)  # of the GAN and the encoder
PAPER_EMA_IMAGES = 10_000  # StyleGAN2
PAPER_MRI_PIXEL_SHARE = 0.01  # lambda_3 on MRI, of that on CT


def paper_changes(settings: Settings) -> dict[str, Any]:
    """What the supplement says, laid over a recipe's data, network sizes and numbers of training steps."""
    debug = settings.recipe == "debug"  # keeps its few steps, and downloads nothing
    lambda_pixel, steps = PAPER_INVERSION.get(settings.recipe.split("-")[0], PAPER_INVERSION_ELSE)
    gan_batch, encoder_batch = (settings.gan.batch, settings.encoder.batch) if debug else PAPER_BATCHES
    has_mri = settings.inversion.lambda_pixel_mri is not None
    return {
        "gan": {
            "batch": gan_batch,
            "images": settings.gan.images * gan_batch // settings.gan.batch,
            "ema_half_life_images": settings.gan.ema_half_life_images if debug else PAPER_EMA_IMAGES,
            "learning_rate": 0.002,
            "r1_gamma": 10.0,
            "class_share_weight": 0.0,
            "feature_matching_of": "pairs",
            "pair_augment": "real",
            "augment": "none",
            "path_length_weight": 2.0,
            "path_length_every": 4,
        },
        "perceptual": {"distance": "discriminator" if debug else "auto"},
        "encoder": {
            "batch": encoder_batch,
            "images": settings.encoder.images * encoder_batch // settings.encoder.batch,
            "learning_rate": 0.001,
            "generated_weight": 0.0,
            "photometric_augment": 0.0,
            "perceptual_weight": 1.0,
            "lambda_pixel": 0.1,
        },
        "inversion": {
            "space": "w_plus",
            "reduction": "sum",
            "learning_rate": 0.1,
            "lambda_encoder": 0.1,
            "lambda_pixel": lambda_pixel,
            "lambda_pixel_mri": lambda_pixel * PAPER_MRI_PIXEL_SHARE if has_mri else None,
            "lambda_prior": 0.0,
            "steps": settings.inversion.steps if debug else steps,
            "choose": False,
        },
    }


def paper_derived(settings: Settings) -> dict[str, Any]:
    """Weights of the supplement in our scales. Theirs: half of the two hinges, R1 of the batch's mean added up over the
    critic's scales, feature matching added up over layers; ours are the whole hinges and means over pairs, scales and
    layers (objectives/adversarial.py)."""
    critics = settings.critics
    return {
        "gan": {
            "pair_r1_gamma": 2 * 10.0 * (critics.pair_scales / settings.gan.batch) ** 2,
            "feature_matching": 2.0 * (critics.pair_layers + 1),
        }
    }


def deeplab_changes(settings: Settings) -> dict[str, Any]:
    """DeepLabV2 and its schedule: also those of the semi-supervised rivals in the toolbox that the paper used."""
    return {"baseline": {"network": "deeplabv2", "schedule": "poly"}}


OURS = ("gan", "encoder")
# PixelSSL, DeepLabV2 on PASCAL VOC: lambda_dc, and 3 of 20 epochs.
GCT = {"network": "deeplabv2", "schedule": "poly", "consistency_weight": 100.0, "ramp_up_share": 0.15}
# Lambda of the paper for PASCAL VOC (6 for Cityscapes; 1 in the authors' script); no ramp there, ours is GCT's.
CPS = {"consistency_weight": 1.5, "ramp_up_share": 0.15, "schedule": "poly"}
# Intensity as unet-strong; the decay is that of UniMatch V2's code, the threshold UniMatch's.
UNIMATCH = {"intensity_augment": True, "ema_decay": 0.996, "confidence_threshold": 0.95, "colour_changes": True}
# Chosen on validation images of the lungs, shifted ones too (results/students-64): unlabelled images .930 against .904
# without; a rising share of real pairs, which saves .013 where the generator is poor.
CONSISTENT_STUDENT = {
    "baseline": UNIMATCH,
    "student": {"unlabelled": True, "real_share": 0.5, "last_real_share": 1.0},
}

METHODS: dict[str, Method] = {
    "semgan": Method(
        "the paper with our departures, without a student", _train_semantic_gan, _load_semantic_gan, False, OURS
    ),
    "semgan-paper": Method(
        "as the paper and its supplement say",
        _train_semantic_gan,
        _load_semantic_gan,
        False,
        OURS,
        paper_changes,
        paper_derived,
    ),
    "student": Method(
        "strong U-Net on pairs drawn from our generator, in the manner of DatasetGAN",
        _train_student,
        _load_student,
        False,
        ("gan", "pool", "student"),
        strong_changes,
    ),
    "semgan-student": Method(
        "mean of a student that learns from unlabelled images too and the inversion that it guides",
        _train_semgan_student,
        _load_semgan_student,
        False,
        (*OURS, "pool", "student"),
        lambda settings: CONSISTENT_STUDENT,
    ),
    "unet": Method("U-Net on the labelled images", _baseline("stage", "BaselineStage"), _load_network, True),
    "unet-strong": Method(
        "U-Net with gamma, contrast, brightness, noise and blur augmentation",
        _baseline("stage", "BaselineStage"),
        _load_network,
        True,
        changes=strong_changes,
    ),
    "unet-nnunet": Method(
        "U-Net with nnU-Net's augmentation, optimiser, schedule and test-time flips",
        _baseline("stage", "BaselineStage"),
        _load_network,
        True,
        changes=nnunet_changes,
    ),
    "deeplabv2": Method(
        "DeepLabV2 on the labelled images",
        _baseline("stage", "BaselineStage"),
        _load_network,
        True,
        changes=deeplab_changes,
    ),
    "mean-teacher": Method(
        "an averaged teacher that its student agrees with",
        _baseline("mean_teacher", "MeanTeacherStage"),
        _load_network,
        True,
        changes=deeplab_changes,
    ),
    "advssl": Method(
        "a discriminator of label maps tells which answers to learn from",
        _baseline("advssl", "AdversarialStage"),
        _load_network,
        True,
        changes=deeplab_changes,
    ),
    "gct": Method(
        "guided collaborative training: two DeepLabV2 and a flaw detector, with unlabelled images",
        _baseline("gct", "GuidedCollaborativeStage"),
        _load_network,
        True,
        changes=lambda settings: {"baseline": GCT},
    ),
    "cps": Method(
        "cross pseudo supervision of two U-Nets, with unlabelled images",
        _baseline("cps", "CrossPseudoStage"),
        _load_network,
        True,
        changes=lambda settings: {"baseline": CPS},
    ),
    "unimatch": Method(
        "U-Net of unet-strong that agrees on strong views of unlabelled images",
        _baseline("unimatch", "UniMatchStage"),
        _load_network,
        True,
        changes=lambda settings: {"baseline": UNIMATCH},
    ),
    "nnunet": Method(
        "the real nnU-Net v2, where it is installed (semgan[nnunet])",
        _train_nnunet,
        _load_nnunet,
        True,
        needs=("nnunetv2", "nnunet"),
    ),
}


def get(name: str) -> Method:
    """The method of that name. Raises ValueError for unknown names (with a suggestion), and what is not installed."""
    if name not in METHODS:
        guess = difflib.get_close_matches(name, METHODS, n=1)
        hint = f" Did you mean '{guess[0]}'?" if guess else ""
        raise ValueError(f"Unknown method '{name}'.{hint} There are: {', '.join(METHODS)}.")
    if not METHODS[name].installed:
        package, extra = METHODS[name].needs or ("", "")
        raise ValueError(f"Method '{name}' needs the package {package}; get it with: pip install 'semgan[{extra}]'.")
    return METHODS[name]


def load(path: Path | str, *, device: str = "auto") -> Segmenter:
    """A trained model of any method, from RUN or RUN/model.

    Raises FileNotFoundError where there is no model, ValueError where its files are damaged or of another version.
    """
    from semgan import artifacts

    folder = artifacts.find_model(Path(path))
    return get(described(folder)["method"]).load(folder, device)


def described(folder: Path) -> dict[str, Any]:
    """What the config.json of a model folder says; ValueError where it names no method."""
    from semgan import artifacts

    found = artifacts.read_json(folder / "config.json")
    if not isinstance(found, dict) or "method" not in found:
        raise ValueError(f"{folder / 'config.json'} names no method; copy the whole model folder again.")
    return found
