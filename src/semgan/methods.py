"""Every method by name: how it trains, how its model is loaded, and what it changes in a recipe. The only registry."""

from __future__ import annotations

import difflib
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
    """``changes`` are laid over the recipe's settings; ``rival`` methods do not use our generator."""

    summary: str
    train: Callable[[TrainingJob], StageResult]
    load: Callable[[Path, str], Segmenter]
    rival: bool
    changes: Callable[[Settings], dict[str, Any]] = lambda settings: {}


def _train_semantic_gan(job: TrainingJob) -> StageResult:
    from semgan.stages.pipeline import train_semantic_gan

    return train_semantic_gan(job)


def _load_semantic_gan(folder: Path, device: str) -> Segmenter:
    from semgan.stages.semantic_gan import SemanticGan

    return SemanticGan.load(folder, device=device)


def _train_supervised(job: TrainingJob) -> StageResult:
    from semgan.baselines.pipeline import train_baseline

    return train_baseline(job)


def _train_gct(job: TrainingJob) -> StageResult:
    from semgan.baselines.gct import GuidedCollaborativeStage
    from semgan.baselines.pipeline import train_baseline

    return train_baseline(job, GuidedCollaborativeStage)


def _train_cps(job: TrainingJob) -> StageResult:
    from semgan.baselines.cps import CrossPseudoStage
    from semgan.baselines.pipeline import train_baseline

    return train_baseline(job, CrossPseudoStage)


def _train_unimatch(job: TrainingJob) -> StageResult:
    from semgan.baselines.pipeline import train_baseline
    from semgan.baselines.unimatch import UniMatchStage

    return train_baseline(job, UniMatchStage)


def _load_network(folder: Path, device: str) -> Segmenter:
    from semgan.baselines.segmenter import NetworkSegmenter

    return NetworkSegmenter.load(folder, device=device)


# lambda_3 and steps of the supplement's section 3, by the first word of the recipe; on MRI as the recipe says.
PAPER_INVERSION = {"lungs": (0.001, 200), "chest": (0.001, 200), "skin": (0.1, 200), "liver": (0.001, 400)}
PAPER_INVERSION_ELSE = (0.001, 400)  # faces


def paper_changes(settings: Settings) -> dict[str, Any]:
    """What the supplement says, laid over a recipe's data, network sizes and lengths of training."""
    debug = settings.recipe == "debug"  # keeps its few steps, and downloads nothing
    lambda_pixel, steps = PAPER_INVERSION.get(settings.recipe.split("-")[0], PAPER_INVERSION_ELSE)
    return {
        "gan": {
            "learning_rate": 0.002,
            "r1_gamma": 10.0,
            "pair_r1_gamma": 10.0,
            "feature_matching_of": "pairs",
            "pair_augment": "real",
            "augment": "none",
            "path_length_weight": 2.0,
            "path_length_every": 4,
        },
        "perceptual": {"distance": "discriminator" if debug else "auto"},
        "encoder": {
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
            "lambda_prior": 0.0,
            "steps": settings.inversion.steps if debug else steps,
        },
    }


# PixelSSL, DeepLabV2 on PASCAL VOC: lambda_dc, and 3 of 20 epochs.
GCT = {"network": "deeplabv2", "schedule": "poly", "consistency_weight": 100.0, "ramp_up_share": 0.15}
# Lambda of the paper's sec. 4.1 for PASCAL VOC (6 for Cityscapes); it has no ramp, ours is as long as GCT's.
CPS = {"consistency_weight": 1.5, "ramp_up_share": 0.15}
# Intensity as unet-strong; the decay is that of UniMatch V2's code, the threshold UniMatch's.
UNIMATCH = {"intensity_augment": True, "ema_decay": 0.996, "confidence_threshold": 0.95}

METHODS: dict[str, Method] = {
    "semgan": Method("our default: the paper with our departures", _train_semantic_gan, _load_semantic_gan, False),
    "semgan-paper": Method(
        "as the paper and its supplement say", _train_semantic_gan, _load_semantic_gan, False, paper_changes
    ),
    "unet": Method("U-Net on the labelled images", _train_supervised, _load_network, True),
    "unet-strong": Method(
        "U-Net with gamma, contrast, brightness, noise and blur augmentation",
        _train_supervised,
        _load_network,
        True,
        lambda settings: {"baseline": {"intensity_augment": True}},
    ),
    "gct": Method(
        "guided collaborative training: two DeepLabV2 and a flaw detector, with unlabelled images",
        _train_gct,
        _load_network,
        True,
        lambda settings: {"baseline": GCT},
    ),
    "cps": Method(
        "cross pseudo supervision of two U-Nets, with unlabelled images",
        _train_cps,
        _load_network,
        True,
        lambda settings: {"baseline": CPS},
    ),
    "unimatch": Method(
        "U-Net of unet-strong that agrees on strong views of unlabelled images",
        _train_unimatch,
        _load_network,
        True,
        lambda settings: {"baseline": UNIMATCH},
    ),
}


def get(name: str) -> Method:
    """The method of that name. Raises ValueError with a suggestion for unknown names."""
    if name not in METHODS:
        guess = difflib.get_close_matches(name, METHODS, n=1)
        hint = f" Did you mean '{guess[0]}'?" if guess else ""
        raise ValueError(f"Unknown method '{name}'.{hint} There are: {', '.join(METHODS)}.")
    return METHODS[name]


def load(path: Path | str, *, device: str = "auto") -> Segmenter:
    """A trained model of any method, from RUN or RUN/model.

    Raises FileNotFoundError where there is no model, ValueError where its files are damaged or of another version.
    """
    from semgan import artifacts

    folder = artifacts.find_model(Path(path))
    return get(artifacts.read_json(folder / "config.json")["method"]).load(folder, device)
