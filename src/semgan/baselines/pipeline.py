"""A baseline from data to model folder: the same job, loop, data order and clock as the paper's method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from semgan import artifacts
from semgan.baselines.committee import CommitteeStage
from semgan.baselines.stage import BaselineStage, Streams, Validate, ValidatedStage
from semgan.config import Settings
from semgan.data.loading import ImageStream, MixedStream
from semgan.data.transforms import rules_by_modality
from semgan.job import TrainingJob
from semgan.runtime.distributed import by_first
from semgan.runtime.loop import StageResult, run_stage


def train_baseline(job: TrainingJob, kind: type[BaselineStage] = BaselineStage) -> StageResult:
    """Train a baseline; the best weights by validation go into the model folder.

    Raises ValueError where it needs unlabelled images and there are none.
    """
    stage, result = run_baseline(job, kind, lambda one: one.labelled_stream("labelled"))
    save_baseline(job, stage, {"images seen": result.images_seen, "best weights at": stage.best_images_seen})
    return result


def run_baseline(
    job: TrainingJob, kind: type[BaselineStage], labelled_of: Callable[[TrainingJob], ImageStream | MixedStream]
) -> tuple[BaselineStage | CommitteeStage, StageResult]:
    """Train on labelled pairs, and on the unlabelled images where the kind uses them; writes no model.

    labelled_of: the stream of pairs of a job, which is that of one member where several networks are trained
    """

    def build(settings: Settings, validate: Validate | None = None) -> BaselineStage:
        one = replace(job, settings=settings)
        unlabelled = one.image_stream("unlabelled", with_labelled=False, moved=True) if len(one.unlabelled) else None
        return kind(settings, one.labels, Streams(labelled_of(one), unlabelled), one.device, validate)

    validate = validation_of(job)
    several = job.settings.baseline.members > 1
    stage = CommitteeStage(job.settings, build, validate) if several else build(job.settings, validate)
    return stage, run_validated(job, stage)


def run_validated(job: TrainingJob, stage: ValidatedStage) -> StageResult:
    """Train a stage whose model is the best that its previews met."""
    run, own = job.run, job.settings.run
    preview, progress = stage.preview, job.progress
    return run_stage(stage, run, own, deadline=job.deadline, preview=preview, keeps_best=True, progress=progress)


def validation_of(job: TrainingJob) -> Validate | None:
    """How a job scores a segmenter on its validation list; None where it has no such list."""
    if not len(job.validation):
        return None
    return lambda segmenter: job.validate(lambda image: segmenter.segment_batch(image).probabilities)


def save_baseline(
    job: TrainingJob, stage: ValidatedStage, facts: dict[str, int], more: Mapping[str, Any] | None = None
) -> None:
    """The model folder of a trained baseline. more: further entries of its config.json"""
    scores = {} if stage.best_score is None else {f"validation {job.settings.metric}": stage.best_score}
    data = {"labelled images": len(job.labelled), "validation images": len(job.validation)}
    if stage.needs_unlabelled:
        data["unlabelled images"] = len(job.unlabelled)
    description = {
        "method": job.settings.method,
        "settings": job.settings.model_dump(mode="json"),
        "classes": list(job.labels.names),
        "preprocessing": {name: rule.model_dump(mode="json") for name, rule in rules_by_modality(job.settings).items()},
        "scores": scores,
        "training": facts | data,
        **(more or {}),
    }
    card = _card(job, facts | data, scores)
    by_first(lambda: artifacts.save_model(job.run.model, description, stage.model_weights(), card))


def _card(job: TrainingJob, facts: dict[str, int], scores: dict[str, float]) -> str:
    lines = [
        f"# {job.settings.recipe}: {job.settings.method}",
        "",
        f"A baseline (method `{job.settings.method}`, network `{job.settings.baseline.network}`) for "
        f"{', '.join(job.labels.names)}, trained with the recipe `{job.settings.recipe}`. **Not a medical device.**",
        "",
        *(f"- {name}: {value}" for name, value in (facts | scores).items()),
        "",
    ]
    return "\n".join(lines)
