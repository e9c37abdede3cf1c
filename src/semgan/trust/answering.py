"""What `semgan segment` takes from a model's trust.json: further columns, and the model that chooses its answers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from semgan import artifacts
from semgan.data.whole_images import SegmentedImage
from semgan.posterior.calibration import BUDGET, Calibration
from semgan.posterior.calibration import FILE as CALIBRATION
from semgan.posterior.latent import LatentPosterior, Method
from semgan.stages.semantic_gan import SemanticGan
from semgan.stages.stage3_inversion import mean_confidence
from semgan.trust.fit import FILE, Trust
from semgan.trust.samples import FIRST, OWN, POSTERIOR
from semgan.trust.signals import answering_steps, measure
from semgan.trust.temperature import tempered
from semgan.types import Segmentation, Segmenter, Steps
from semgan.words import as_typed

if TYPE_CHECKING:
    from semgan.data.whole_images import Measure

logger = logging.getLogger(__name__)

TRUST_COLUMNS = ("predicted_score", "out_of_domain", "calibrated_confidence", "look_at")
ANSWER = "answer"  # signal of a choosing model: place of the answer among ANSWERS
ANSWERS = (OWN, FIRST, POSTERIOR)


def calibrated_posterior(segmenter: Segmenter, folder: Path) -> LatentPosterior | None:
    """The posterior of a model; None (told) where it was not calibrated. Raises ValueError for models without code."""
    if not isinstance(segmenter, SemanticGan):
        raise ValueError(
            "Only a model of method semgan or semgan-paper has several answers to choose from; this one answers with a "
            "feed-forward network, or with one beside the inversion. Leave --choose out."
        )
    known = Calibration.read(folder)
    if known is None:
        logger.warning(
            "The model's posterior was not calibrated, so its mean is not among the answers: run `semgan calibrate`."
        )
        return None
    return LatentPosterior(segmenter, temperature=known.temperature, slack=known.slack)


def posterior_fingerprint(folder: Path) -> str:
    """Of posterior.json of a model folder: a choice holds for the posterior that it was learned with."""
    return hashlib.sha256((folder / CALIBRATION).read_bytes()).hexdigest()[:16]


def posterior_means(posterior: LatentPosterior, image: Tensor, method: Method, modality: str = "default") -> Tensor:
    """Mean probabilities ``[batch, classes, size_px, size_px]``; image by image, each with the same random numbers, so
    that none depends on its neighbours."""
    return torch.stack([posterior.draw(each[None], method, BUDGET, modality=modality)[0].mean for each in image])


class ChoosingSegmenter:
    """A semantic GAN that answers as its `semgan.trust.choice.Choice` says. Raises ValueError where it learned none."""

    def __init__(self, model: Segmenter, trust: Trust | None, folder: Path) -> None:
        if not isinstance(model, SemanticGan):
            raise ValueError(f"{folder} has one answer only; leave --choose out.")
        if trust is None or trust.choice is None:
            raise ValueError(
                f"{folder} has not learned to choose its answers; run "
                f"`semgan trust fit -m {as_typed(folder)} DATASET --choose`."
            )
        self.model, self.choice = model, trust.choice
        self.steps: Steps = trust.steps
        self.labels, self.rules = model.labels, model.rules
        self.posterior = calibrated_posterior(model, folder) if POSTERIOR in self.choice.answers else None
        if POSTERIOR in self.choice.answers and self.posterior is None:
            raise ValueError(f"{folder} lost its posterior.json; run `semgan calibrate` and `semgan trust fit` again.")
        if self.posterior is not None and self.choice.posterior != posterior_fingerprint(folder):
            raise ValueError(f"{folder} was calibrated anew since it learned to choose; run `semgan trust fit` again.")

    def preprocess(self, image: np.ndarray, modality: str = "default") -> Tensor:
        """As `SemanticGan.preprocess`."""
        return self.model.preprocess(image, modality)

    def check(self, steps: Steps | None) -> None:
        """Raises ValueError for other steps than those that the choice was learned for."""
        if steps not in (None, self.steps):
            raise ValueError(f"The choice was learned for steps {self.steps}, not {steps}; leave the steps out.")

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
    ) -> Segmentation:
        """As `SemanticGan.segment_batch`, each image with the answer chosen for it; the signals are those of its own.

        Raises ValueError for other steps than those that the choice was learned for.
        """
        self.check(steps)
        wanted = tuple({0, *snapshot_steps})
        answer = self.model.segment_batch(image, steps=self.steps, snapshot_steps=wanted, modality=modality)
        signals = measure(self.model, image, answer, modality)
        names = self.choice.chosen({name: values.numpy() for name, values in signals.items()})
        shown, taken = answer.probabilities.clone(), torch.tensor([answer.steps_of(row) for row in range(len(image))])
        for row, name in enumerate(names):
            if name == FIRST:
                shown[row], taken[row] = answer.snapshots[0][row], 0
            elif name == POSTERIOR:
                assert self.posterior is not None and self.choice.method is not None
                own, method = image[row : row + 1], cast("Method", self.choice.method)
                shown[row] = posterior_means(self.posterior, own, method, modality)[0].to(shown)
        places = torch.tensor([ANSWERS.index(name) for name in names], dtype=torch.float64)
        return replace(
            answer,
            probabilities=shown,
            confidence=mean_confidence(shown),
            steps="auto",
            answered_steps=taken,
            signals={**signals, ANSWER: places},
        )


# ---------------------------------------------------------------- for segment


@dataclass(frozen=True)
class Answering:
    """A model as `semgan segment` was asked to use it.

    identity: what identifies the model's files; None for one that only lives in memory
    options:  what the request says of all this, empty where nothing was asked and nothing fitted
    """

    segmenter: Segmenter
    identity: str | None
    options: dict[str, Any]
    trust: Trust | None = None
    every_signal: bool = False

    def measure(self, modality: str | None) -> Measure | None:
        """What is measured of every answer; None: nothing."""
        if isinstance(self.segmenter, ChoosingSegmenter):
            return lambda image, answer: answer.signals  # it has measured them to choose
        if self.trust is None and not self.every_signal:
            return None
        if self.trust is not None and modality not in (None, "default"):
            logger.warning("Trust was fitted to images of the default rule; images of '%s' are judged by it.", modality)
        return lambda image, answer: measure(self.segmenter, image, answer, modality)

    def columns(self, answer: SegmentedImage) -> dict[str, Any]:
        """What an answer's row says beside steps, confidence and losses.

        The chosen answer, the method's own signals (or all, where asked for), and what trust makes of them.
        """
        signals = dict(answer.signals)
        found: dict[str, Any] = {}
        if ANSWER in signals:
            found[ANSWER] = ANSWERS[int(signals.pop(ANSWER))]
        if self.every_signal or self.trust is None:
            found |= {name: round(value, 6) for name, value in signals.items()}
        return found if self.trust is None else found | _judged(self.trust, signals, answer.probabilities)


def answering(
    model: Path | str | Segmenter | Sequence[Path],
    steps: Steps | None,
    device: str,
    *,
    signals: bool = False,
    choose: bool = False,
    dropout_passes: int | None = None,
) -> Answering:
    """Load what is asked for; arguments and errors as of `semgan.segment.segment`.

    Trust belongs to one model folder: ensembles, thinned networks and models in memory have none.
    """
    from semgan.ensemble import Ensemble, dropout_ensemble
    from semgan.segment import load_identified

    options: dict[str, Any] = {"signals": True} if signals else {}
    several: list[Any] = list(model) if isinstance(model, (list, tuple)) else [model]
    loaded = [load_identified(each, device) for each in several]
    segmenter, identity = loaded[0]
    if len(loaded) > 1:
        segmenter, identity = Ensemble([each for each, _ in loaded]), " ".join(str(name) for _, name in loaded)
    if dropout_passes is not None:
        segmenter = dropout_ensemble(segmenter, dropout_passes)
        identity = identity and f"{identity}, {dropout_passes} passes"
    if len(loaded) > 1 or dropout_passes is not None or identity is None:
        if choose:
            raise ValueError("Only one model folder of method semgan can choose its answers; leave --choose out.")
        return Answering(segmenter, identity, options, None, signals)
    folder = artifacts.find_model(several[0])
    trust = Trust.read(folder) if choose else trust_of(folder, segmenter, steps)
    if trust is not None:
        options["trust"] = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()[:16]
        options["temperature"] = trust.temperature
    if choose:
        segmenter, options = ChoosingSegmenter(segmenter, trust, folder), options | {"choose": True}
        segmenter.check(steps)
    return Answering(segmenter, identity, options, trust, signals)


def trust_of(folder: Path, segmenter: Segmenter, steps: Steps | None) -> Trust | None:
    """What was fitted for a model folder's answers; None where nothing was, or (told) only for other steps."""
    found = Trust.read(folder)
    if found is None:
        return None
    asked = answering_steps(segmenter, steps)
    if asked != found.steps:
        logger.warning(
            "Trust was fitted for answers of steps %s, and these are of steps %s: no predicted scores.",
            found.steps,
            asked,
        )
        return None
    return found


def _judged(trust: Trust, signals: Mapping[str, float], probabilities: np.ndarray) -> dict[str, Any]:
    columns = trust.columns({name: np.array([value]) for name, value in signals.items()})
    score, strange, look_at = (values[0] for values in columns.values())
    sure = float(tempered(probabilities, trust.temperature).max(0).mean())
    values = (round(float(score), 6), round(float(strange), 6), round(sure, 6), int(look_at))
    return dict(zip(TRUST_COLUMNS, values, strict=True))
