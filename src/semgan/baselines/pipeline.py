"""A baseline from data to model folder: the same job, loop, data order and clock as the paper's method."""

from __future__ import annotations

from semgan import artifacts
from semgan.baselines.unet import UNetStage
from semgan.data.transforms import rules_by_modality
from semgan.job import TrainingJob
from semgan.runtime.loop import StageResult, run_stage


def train_unet(job: TrainingJob) -> StageResult:
    """Train a U-Net on the labelled images; the best weights by validation go into the model folder."""

    def validate(segmenter) -> float:  # noqa: ANN001
        return job.validate(lambda image: segmenter.segment_batch(image).probabilities)

    stage = UNetStage(
        job.settings, job.labels, job.labelled_stream("labelled"), job.device, validate if len(job.validation) else None
    )
    result = run_stage(
        stage, job.run, job.settings.run, deadline=job.deadline, preview=stage.preview, progress=job.progress
    )
    facts = {"images seen": result.images_seen, "best weights at": stage.best_images_seen}
    scores = {} if stage.best_score is None else {f"validation {job.settings.metric}": stage.best_score}
    description = {
        "method": job.settings.method,
        "settings": job.settings.model_dump(mode="json"),
        "classes": list(job.labels.names),
        "preprocessing": {
            name: rule.model_dump(mode="json") for name, rule in rules_by_modality(job.settings).items()
        },
        "scores": scores,
        "training": facts | {"labelled images": len(job.labelled), "validation images": len(job.validation)},
    }
    artifacts.save_model(job.run.model, description, stage.model_weights(), _card(job, facts, scores))
    return result


def _card(job: TrainingJob, facts: dict[str, int], scores: dict[str, float]) -> str:
    lines = [
        f"# {job.settings.recipe}: {job.settings.method}",
        "",
        f"A U-Net (MONAI) for {', '.join(job.labels.names)}, trained as a baseline on {len(job.labelled)} labelled "
        f"images with the recipe `{job.settings.recipe}`. **Not a medical device.**",
        "",
        *(f"- {name}: {value}" for name, value in (facts | scores).items()),
        "",
    ]
    return "\n".join(lines)
