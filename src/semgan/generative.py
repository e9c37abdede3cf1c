"""What the verbs that need a code (`explain`, `ablate`, `interpolate`, `posterior`) share: loading their model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semgan.stages.semantic_gan import SemanticGan

logger = logging.getLogger("semgan")


def load_generative(
    model: Path | str | SemanticGan, device: str = "auto", *, encoder: bool = True
) -> tuple[SemanticGan, str | None]:
    """A model that generates images, and what identifies its files (None for one that only lives in memory).

    Of a model with a student it is the part that generates, which is told.

    encoder: whether it must have one, as it must where images are explained by codes
    Raises ValueError for feed-forward models and for a missing encoder, FileNotFoundError where there is no model.
    """
    from semgan.runtime.device import prepare_cpu
    from semgan.segment import load_identified
    from semgan.student_answer import gan_of

    prepare_cpu()
    found, identity = load_identified(model, device)
    source = model if isinstance(model, (Path, str)) else type(model).__name__
    gan = gan_of(found)
    if gan is None:
        raise ValueError(
            f"The model {source} answers with a feed-forward network: it has no code to optimise or to walk through. "
            "Give a model of method semgan, semgan-paper or semgan-student. How sure a model of any method is, "
            "`semgan segment --save-probabilities --signals` says, for several networks (-m A -m B) or, trained with "
            "baseline.dropout, --dropout-passes 20 as well."
        )
    if gan is not found:
        logger.warning("Of %s this shows the generative model alone; its answers are mixed with a student's.", source)
    if encoder and gan.encoder is None:
        raise ValueError(
            f"The model {source} has no encoder (stage 2 was not trained), so no image can be given its first code. "
            "Go on with `semgan train ... --stage encoder`, or --stage all; `semgan interpolate --seeds` needs none."
        )
    return gan, identity


def distance_name(model: SemanticGan) -> str:
    """One phrase that names the model's perceptual distance, and says where it is not LPIPS."""
    from semgan.models.perceptual import LPIPS

    distance = model.perceptual
    if isinstance(distance, LPIPS):
        return f"LPIPS ({distance.network})"
    return "features of the trained image critic (not LPIPS: compares with no published number)"
