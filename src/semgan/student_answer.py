"""How inversion and student answer together, and what of that is chosen on validation.

The inversion is guided: beside the image it explains the student's answer,

    Eq. 7  +  guide_weight * cross-entropy(student's probabilities, G_y(w+))

so that the search starts from what the student saw and stays among the pairs that the generator knows; then both
probabilities are averaged. Departure: the paper explains the image alone. Where the image alone misleads the search
(another zoom, pose or exposure), the guide leads it back; where the student falls for a marker or a shadow, the
generator's shapes correct it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from semgan import artifacts, ranks
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.data.transforms import to_unit
from semgan.job import Scored, TrainingJob
from semgan.stages.inversion_objective import Guide
from semgan.stages.semantic_gan import SemanticGan
from semgan.types import AUTO, Segmentation, Steps

if TYPE_CHECKING:
    from semgan.types import LabelSpace, Segmenter

logger = logging.getLogger("semgan")

STUDENT = "student"  # student.safetensors of the model folder
STUDENT_SHARES = (0.5, 0.25, 0.75, 0.0, 1.0)  # tried on validation; the first wins ties
GUIDED_STEPS = (0, 10, 25)  # tried where the inversion's own number allows; of equal ones the fewest


def check_has_student(folder: Path) -> None:
    """Raises FileNotFoundError where the training of a model folder has not come to its student yet."""
    if not (artifacts.find_model(folder) / f"{STUDENT}.safetensors").is_file():
        raise FileNotFoundError(f"{folder} has no student yet; let `semgan train` with the same options finish it.")


def load_student(folder: Path, device: str = "auto") -> NetworkSegmenter:
    """The student of a model folder. Raises FileNotFoundError where training has not come to it yet."""
    check_has_student(folder)
    return NetworkSegmenter.load(folder, device, STUDENT)


def load_with_student(folder: Path, device: str = "auto") -> SemganStudent | SemanticGan:
    """Inversion and student, or, with a warning, the generative model alone where training has not come further."""
    try:
        check_has_student(folder)
    except FileNotFoundError as error:
        logger.warning("%s Until then the generative model answers alone.", error)
        return SemanticGan.load(folder, device=device)
    return SemganStudent.load(folder, device)


def mix(inverted: Tensor, learnt: Tensor, share: float) -> Tensor:
    """Probabilities of two models, ``share`` in [0, 1] of the second."""
    return torch.lerp(inverted, learnt.to(inverted.device), share)


class SemganStudent:
    """Guided inversion and student as one `semgan.types.Segmenter`.

    share: of the student in the answer, in [0, 1]; guide_weight: of the student's answer in the inversion, 0 for none
    """

    def __init__(self, model: SemanticGan, student: NetworkSegmenter, share: float, guide_weight: float) -> None:
        self.model, self.student, self.share, self.guide_weight = model, student, share, guide_weight
        self.labels: LabelSpace = model.labels
        self.rules = model.rules

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> SemganStudent:
        """From a run or model folder. Raises FileNotFoundError where training has not come to the student yet."""
        student, model = load_student(folder, device), SemanticGan.load(folder, device=device)
        chosen = artifacts.read_json(artifacts.find_model(folder) / "config.json")["student"]
        named = model.settings.student.answer_share
        share = next(share for share in (named, chosen["share"], STUDENT_SHARES[0]) if share is not None)
        return cls(model, student, share, chosen.get("guide_weight", 0.0))  # folders of before had no guide

    def preprocess(self, image: np.ndarray, modality: str = "default") -> Tensor:
        """As `SemanticGan.preprocess`; both networks see the same image."""
        return self.model.preprocess(image, modality)

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
    ) -> Segmentation:
        """As `SemanticGan.segment_batch`, with the student's share in every answer; steps count the inversion's.

        Where the student alone answers (share 1), steps would change nothing, and none is taken.
        """
        if self.share == 1 and steps != AUTO:
            found, learnt = self.inverted(image, steps=0, modality=modality)
            found = replace(found, snapshots=dict.fromkeys(snapshot_steps, learnt))
        else:
            found, learnt = self.inverted(image, steps=steps, snapshot_steps=snapshot_steps, modality=modality)
        mixed = mix(found.probabilities, learnt, self.share)
        return replace(
            found,
            probabilities=mixed,
            confidence=mixed.amax(1).mean((1, 2)),
            snapshots={step: mix(answer, learnt, self.share) for step, answer in found.snapshots.items()},
        )

    def inverted(self, image: Tensor, **options: Any) -> tuple[Segmentation, Tensor]:
        """The guided inversion's own answer, with options of `SemanticGan.segment_batch` and the student's signals, and
        the student's probabilities ``[batch, classes, size_px, size_px]``."""
        self.model.check(image)
        learnt = self.student.segment_batch(image)
        found = self.model.segment_batch(image, **options, guide=Guide(learnt.probabilities, self.guide_weight))
        return replace(found, signals={**found.signals, **learnt.signals}), learnt.probabilities


def gan_of(segmenter: Segmenter) -> SemanticGan | None:
    """The semantic GAN that answers, alone or with a student; None for feed-forward methods."""
    if isinstance(segmenter, SemganStudent):
        return segmenter.model
    return segmenter if isinstance(segmenter, SemanticGan) else None


# ---------------------------------------------------------------- what is chosen on validation


@dataclass(frozen=True)
class AnswerChoice:
    """steps of the guided inversion and share of the student; None: nothing was chosen. scores: of every pair tried."""

    steps: int | None = None
    share: float | None = None
    scores: dict[tuple[int, float], float] = field(default_factory=dict)

    def told(self, metric: str) -> dict[str, float]:
        """The scores by name, as a model's card has them."""
        head = f"validation {metric}, mean with shifted images"
        return {
            f"{head}, {steps} steps, {round(100 * share)} % student": score
            for (steps, share), score in self.scores.items()
        }

    def in_words(self) -> str:
        best = max(self.scores, key=lambda pair: round(self.scores[pair], 4))
        return f"{self.steps} guided steps, {round(100 * best[1])} % student"


def choose_answer(model: SemanticGan, student: NetworkSegmenter, job: TrainingJob) -> AnswerChoice:
    """The steps and the share with the best score together.

    Both are judged on the validation images as they are and under synthetic shifts, half and half: among images of the
    training source alone, the choice would not know what the two are worth on others. A share named in the settings
    stands. Nothing is chosen without a validation list.
    """
    if not len(job.validation):
        return AnswerChoice()
    shown, shifted = job.scored, job.read_shifted(job.settings.run.validation_cases)
    both = [shown] if shifted is None else [shown, shifted]
    named, limit = job.settings.student.answer_share, job.settings.inversion.steps
    shares = STUDENT_SHARES if named is None else (named,)
    last = min(limit, GUIDED_STEPS[-1])
    between = () if job.settings.inversion.has_ramps else GUIDED_STEPS  # part of a run with ramps is no shorter run
    tried = tuple(sorted({step for step in between if step <= limit} | {0, last}))
    scores = {(step, share): 0.0 for step in tried for share in shares}
    for shown in both:
        learnt, inverted = answers_of(model, student, shown, tried, job)
        for step, share in scores:
            mixed = mix(inverted[step], learnt, share)
            score = job.validate(lambda image, answer=mixed: answer, batch=len(mixed), on=shown)
            scores[step, share] += score / len(both)
    steps, share = max(scores, key=lambda pair: round(scores[pair], 4))
    choice = AnswerChoice(steps, share if named is None else None, scores)
    tried = ", ".join(f"{steps} steps and {share:.0%} {score:.4f}" for (steps, share), score in scores.items())
    judged = "as they are" if shifted is None else "as they are and shifted"
    logger.info("Chosen on validation images %s: %s (%s)", judged, choice.in_words(), tried)
    return choice


def answers_of(
    model: SemanticGan, student: NetworkSegmenter, shown: Scored, steps: tuple[int, ...], job: TrainingJob
) -> tuple[Tensor, dict[int, Tensor]]:
    """Probabilities of the student, and of the guided inversion after every number of steps, for all images.

    Of several processes each answers for its own images and gets all.
    """
    learnt: list[Tensor] = []
    inverted: dict[int, list[Tensor]] = {step: [] for step in steps}
    batch, weight = job.settings.inversion.batch, job.settings.student.guide_weight
    for rows in ranks.even_batches(len(shown.images), batch, job.progress, "choose answer"):
        own = to_unit(torch.from_numpy(np.asarray(shown.images[rows])))
        learnt.append(student.segment_batch(own).probabilities)
        found = model.segment_batch(own, steps=steps[-1], snapshot_steps=steps, guide=Guide(learnt[-1], weight))
        for step, kept in inverted.items():
            kept.append(found.snapshots[step])
    ranks.wait()

    def of_all(parts: list[Tensor]) -> Tensor:
        return ranks.gathered(torch.cat(parts))[: len(shown.images)]

    return of_all(learnt), {step: of_all(kept) for step, kept in inverted.items()}
