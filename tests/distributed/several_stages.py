"""Every stage that trains, at its smallest and with all that depends on the whole batch switched on, for any ranks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))
from tiny_stages import CPU, FOUR, stream, tiny_encoder, tiny_gan, with_changes  # noqa: E402

from semgan.baselines.advssl import SEMI_SUPERVISED_FROM, AdversarialStage  # noqa: E402
from semgan.baselines.committee import CommitteeStage  # noqa: E402
from semgan.baselines.cps import CrossPseudoStage  # noqa: E402
from semgan.baselines.gct import GuidedCollaborativeStage  # noqa: E402
from semgan.baselines.mean_teacher import MeanTeacherStage  # noqa: E402
from semgan.baselines.stage import BaselineStage, Streams  # noqa: E402
from semgan.baselines.unimatch import UniMatchStage  # noqa: E402
from semgan.config import Settings  # noqa: E402
from semgan.runtime.distributed import average  # noqa: E402

STEPS = 3
UNSEEN = ["run.preview_every_images=null"]  # a preview takes longer than so short a training
REAL_SCORES = [1.0, 1.0, 1.0, -1.0]  # of a batch: half of them would say up, all of them say down
CONTROL = {"target": 0.6, "images": 4, "speed_images": 40.0}


def _baseline(kind: type[BaselineStage], **changes: Any) -> BaselineStage:
    settings = with_changes(
        baseline={"unlabelled_batch": 6, "batch": 4, "ramp_up_share": 0.0, "confidence_threshold": 0.5} | changes
    )
    return kind(settings, FOUR, Streams(stream("labelled", FOUR), stream("unlabelled", None)), CPU)


def _committee() -> CommitteeStage:
    chosen = _baseline(UniMatchStage, members=2).settings

    def build(settings: Settings) -> BaselineStage:
        return UniMatchStage(settings, FOUR, Streams(stream("labelled", FOUR), stream("unlabelled", None)), CPU)

    return CommitteeStage(chosen, build, None)


class _LateAdversarialStage(AdversarialStage):
    """With its unlabelled images from the first step."""

    def progress(self, images_seen: int) -> float:
        return max(super().progress(images_seen), SEMI_SUPERVISED_FROM)


BUILDERS: dict[str, Callable[[], Any]] = {
    # Batches of 8: two groups of the minibatch deviation, whose images lie in both processes.
    "gan": lambda: tiny_gan(with_changes(gan={"batch": 8, "class_share_weight": 1.0, "path_length_weight": 2.0})),
    "gan pairs": lambda: tiny_gan(with_changes(gan={"feature_matching_of": "pairs"})),
    "encoder": lambda: tiny_encoder(with_changes(encoder={"batch": 8})),
    "unet": lambda: _baseline(BaselineStage),
    "unet with dropout": lambda: _baseline(BaselineStage, dropout=0.3),
    "unet-nnunet": lambda: _baseline(BaselineStage, optimiser="sgd", clip_norm=0.1, learning_rate=0.01),
    "deeplabv2": lambda: _baseline(BaselineStage, network="deeplabv2", trunk="narrow"),
    "mean-teacher": lambda: _baseline(MeanTeacherStage),
    "advssl": lambda: _baseline(_LateAdversarialStage, discriminator_width=4),
    "gct": lambda: _baseline(GuidedCollaborativeStage, discriminator_width=4),
    "cps": lambda: _baseline(CrossPseudoStage),
    "unimatch": lambda: _baseline(UniMatchStage),
    "committee": lambda: _committee(),
}


def trained(name: str) -> tuple[Any, list[dict[str, float]], dict[str, Any]]:
    """The stage after a few steps, its losses step by step, and its state before the first."""
    stage = BUILDERS[name]()
    before = copied(stage.state())
    losses = []
    for step in range(STEPS):
        found = stage.step(step * stage.batch)
        losses.append(average({key: float(value) for key, value in found.items()}))
    return stage, losses, before


def copied(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list | tuple) else state
