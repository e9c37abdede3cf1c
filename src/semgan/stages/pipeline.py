"""The paper's method from data to model folder: joint GAN, encoder, and when inversion stops, by validation."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semgan import artifacts, ranks
from semgan.data.transforms import to_levels, to_unit
from semgan.job import Scored, TrainingJob
from semgan.metrics.frechet import FeatureStatistics, feature_statistics, frechet_distance
from semgan.metrics.validation import score_label_maps
from semgan.models.discriminators import ImageCritic
from semgan.models.encoder import Encoder
from semgan.models.lpips_weights import build_perceptual
from semgan.models.whitening import Whitening, fit_whitening
from semgan.objectives.segmentation import probabilities
from semgan.runtime.distributed import by_first, check_equal, copy_first
from semgan.runtime.loop import Progress, StageResult, checkpoint_path, read_stage_checkpoint, run_stage
from semgan.stages.semantic_gan import Distance, SemanticGan, model_files
from semgan.stages.stage1_gan import GanStage, build_image_critic
from semgan.stages.stage2_encoder import EncoderStage, build_encoder
from semgan.stages.stopping import FEWEST_CASES, FIRST_SHARES, LearnedRule, StoppingRule, learn_rule
from semgan.types import AUTO
from semgan.words import as_typed

logger = logging.getLogger("semgan")

NOTE = "started_from.json"  # in checkpoints/: the run whose networks stage 1 began with
GRID_SEEDS = range(32)
STATISTICS_SAMPLES = 512
CANDIDATE_STEPS = (0, 5, 10, 25, 50, 100, 200, 400)


def train_semantic_gan(job: TrainingJob) -> StageResult:
    """Stages 1 and 2, then the choice of the steps; each goes on from its checkpoint. Writes the model."""
    gan = GanStage(
        job.settings,
        job.labels,
        labelled=job.labelled_stream("labelled", moved=job.settings.gan.pair_augment == "real"),
        real_images=job.image_stream("images", with_labelled=job.settings.gan.labelled_in_image_critic),
        device=job.device,
    )
    _check_start(job)
    if job.init_from is not None and not checkpoint_path(job.run, "gan").is_file():
        warm_start(gan, job)
    result = _run_gan(gan, job)
    if job.stage == "gan" or (job.stage == "all" and not result.finished) or result.interrupted:
        return result
    return _run_encoder(gan, job, result.images_seen)


def _check_start(job: TrainingJob) -> None:
    """Raises ValueError where the run began from other networks than those that are named, or not named, now."""
    note = job.run.checkpoints / NOTE
    earlier = artifacts.read_json(note)["folder"] if note.is_file() else None
    has_generator = checkpoint_path(job.run, "gan").is_file()
    if job.init_from is not None and has_generator and str(job.init_from.resolve()) != earlier:
        began = "from the start" if earlier is None else f"from {earlier}"
        raise ValueError(
            f"--init-from: {job.run.path} began {began}; leave it out to go on, or give another folder with -o."
        )
    if job.init_from is None and earlier is not None and not has_generator:
        raise ValueError(
            f"{job.run.path} began from {earlier} and has no generator of its own yet; "
            f"add --init-from {as_typed(earlier)}."
        )


def warm_start(gan: GanStage, job: TrainingJob) -> None:
    """Start stage 1 from the networks of another run."""
    assert job.init_from is not None
    path = artifacts.RunFolder(job.init_from).checkpoints / "gan.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"--init-from: {path} does not exist; name a run whose stage 'gan' has a checkpoint.")
    seen, state = read_stage_checkpoint(path, "gan")
    try:
        gan.load_networks(state)
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--init-from: {path} has other networks than these settings ask for ({reason}).") from None
    began = {"folder": str(job.init_from.resolve())}
    by_first(lambda: artifacts.write_json(job.run.checkpoints / NOTE, began))
    logger.info("Started from the networks of %s after %d images.", job.init_from, seen)


def _run_gan(gan: GanStage, job: TrainingJob) -> StageResult:
    if job.stage == "encoder":
        path = checkpoint_path(job.run, "gan")
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: stage 'encoder' needs a generator; run --stage gan first.")
        seen, state = read_stage_checkpoint(path, "gan")
        gan.load_state(state)
        return StageResult(seen, True)
    monitor = GanMonitor(gan, job)
    result = run_stage(
        gan, job.run, job.settings.run, deadline=job.deadline, preview=monitor.preview, progress=job.progress
    )
    if not ranks.of_first(_holds_generator(job, result.images_seen)):
        perceptual, _ = _perceptual_distance(job, gan.image_critic)
        _save(job, gan, fit_whitening(gan.average), None, perceptual, {"images_seen_gan": result.images_seen})
    return result


def _holds_generator(job: TrainingJob, gan_images: int) -> bool:
    """Whether the model folder has this very generator already, perhaps with its encoder, which then stays."""
    path = job.run.model / "config.json"
    return path.is_file() and artifacts.read_json(path).get("training", {}).get("images_seen_gan") == gan_images


def _perceptual_distance(job: TrainingJob, critic: ImageCritic) -> tuple[Distance, str]:
    """The run's distance and its name. What ``auto`` became the first time holds for the whole run, so that a resumed
    run does not change it because the network is there, or is not, this time."""
    settings = job.settings.perceptual
    saved = job.run.model / "config.json"
    if settings.distance == "auto" and saved.is_file():
        earlier = artifacts.read_json(saved)["settings"]["perceptual"]["distance"]
        settings = settings.model_copy(update={"distance": earlier})
    return build_perceptual(settings, critic, job.settings.preprocessing.channels)


def _run_encoder(gan: GanStage, job: TrainingJob, gan_images: int) -> StageResult:
    generator, critic = gan.average.eval(), copy.deepcopy(gan.image_critic).requires_grad_(False).eval()
    whitening = fit_whitening(generator)
    copy_first(whitening)
    perceptual, description = _perceptual_distance(job, critic)
    logger.info("Perceptual distance: %s", description)
    by_first(lambda: _forget_encoder_of_another_generator(job, gan_images))
    check_equal(perceptual.state_dict(), "the perceptual distance, whose published weights a machine may lack")
    if ranks.of_first(_is_complete(job, gan_images)):
        return StageResult(job.settings.encoder.images, True)
    stage = EncoderStage(
        job.settings,
        generator=generator,
        whitening=whitening,
        perceptual=perceptual,
        encoder=build_encoder(job.settings, generator),
        labelled=job.labelled_stream("labelled"),
        unlabelled=job.image_stream("images", with_labelled=False),
        device=job.device,
        validation=lambda: _encoder_scores(stage, job),
    )
    result = run_stage(
        stage,
        job.run,
        job.settings.run,
        deadline=job.deadline,
        preview=lambda seen: _encoder_preview(stage, job, seen),
        progress=job.progress,
    )
    model = SemanticGan(job.settings, generator, whitening, stage.encoder.eval(), perceptual, device=job.device)
    is_last = result.over
    choice = choose_steps(model, job) if is_last and job.chooses_steps else StepChoice()
    facts = {
        "images_seen_gan": gan_images,
        "images_seen_encoder": result.images_seen,
        "perceptual_distance": description,
    }
    _save(job, gan, whitening, stage.encoder, perceptual, facts, choice)
    return result


def _is_complete(job: TrainingJob, gan_images: int) -> bool:
    """Whether the model folder holds this generator, its finished encoder and the chosen number of steps already."""
    if not _holds_generator(job, gan_images) or not checkpoint_path(job.run, "encoder").is_file():
        return False
    saved = artifacts.read_json(job.run.model / "config.json")
    finished = saved["training"].get("images_seen_encoder", 0) >= job.settings.encoder.images
    nothing_to_choose = not len(job.validation) or not job.chooses_steps
    return finished and (saved["inversion"]["chosen_steps"] is not None or nothing_to_choose)


def _forget_encoder_of_another_generator(job: TrainingJob, gan_images: int) -> None:
    """An encoder belongs to the generator it was trained with; after more of stage 1 it starts anew."""
    note, checkpoint = job.run.checkpoints / "encoder_of.json", checkpoint_path(job.run, "encoder")
    if checkpoint.is_file() and artifacts.read_json(note)["gan_images_seen"] != gan_images:
        logger.warning("The generator was trained further since the encoder: the encoder starts anew.")
        checkpoint.unlink()
    artifacts.write_json(note, {"gan_images_seen": gan_images})


def _encoder_scores(stage: EncoderStage, job: TrainingJob) -> dict[str, float]:
    if not len(job.validation):
        return {}
    score = job.validate(lambda image: probabilities(stage.predict(image).logits))
    return {f"validation/{job.settings.metric}": score}


def _encoder_preview(stage: EncoderStage, job: TrainingJob, images_seen: int) -> dict[str, float]:
    """Validation score, and a grid of reconstructions of training images (never of test images)."""
    numbers = stage.preview(images_seen)
    if job.draw is not None:
        rows = (job.unlabelled if len(job.unlabelled) else job.labelled).rows[: len(GRID_SEEDS)]
        image = to_unit(torch.from_numpy(np.asarray(job.images[rows])))
        joint = stage.predict(image)
        draw_pairs(job, joint.image, joint.logits, "encoder", images_seen)
    return numbers


def draw_pairs(job: TrainingJob, image: Tensor, logits: Tensor, stage: str, images_seen: int) -> None:
    """A grid of image + mask pairs into the run's samples/."""
    assert job.draw is not None
    pixels = to_levels(image).permute(0, 2, 3, 1).cpu().numpy()
    pixels = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
    label_maps = probabilities(logits.float()).argmax(1).byte().cpu().numpy()
    job.draw(pixels, label_maps, job.labels.classes, job.run.samples / f"{stage}-{images_seen:09d}.png")


@dataclass(frozen=True)
class StepChoice:
    """How far to optimise, as chosen on validation.

    steps:  the best fixed number; None: nothing was chosen, and the recipe's number holds
    rule:   picks every image's own; None: too few validation cases
    scores: validation score of every fixed number tried (``steps_N``), and of a rule, cross-validated (``steps_auto``)
    """

    steps: int | None = None
    rule: StoppingRule | None = None
    scores: dict[str, float] = field(default_factory=dict)


def choose_steps(model: SemanticGan, job: TrainingJob) -> StepChoice:
    """Optimise the validation images once, and choose the number of steps and the stopping rule by their masks.

    Of fixed numbers with the same score the smallest. Without a validation list nothing is chosen. With ramps of the
    learning rate a part of a long run is no short run, so that only none and all of the steps are compared. The rule
    is learned from the images' shifted copies too (`TrainingJob.read_shifted`).
    """
    if not len(job.validation):
        return StepChoice()
    own = job.settings.inversion
    between = () if own.has_ramps else CANDIDATE_STEPS
    limit = own.steps
    candidates = tuple(sorted({step for step in between if step <= limit} | {0, limit}))
    shown = job.first_validation(own.choice_cases)
    masks, count = _optimised(model, shown.images, candidates, job.progress, "choose steps"), len(shown.images)
    mixed = {
        (share, step): score_label_maps(
            found, shown.label_maps, job.settings.metric, classes=job.labels.classes, groups=shown.groups
        )
        for share, by_step in masks.items()
        for step, found in by_step.items()
    }
    scores = {f"steps_{step}": mixed[0.0, step] for step in candidates}
    chosen = max(candidates, key=lambda step: (round(scores[f"steps_{step}"], 4), -step))
    learned = _learned(model, shown, masks, job, optimisation_gains=max(mixed.values()) > mixed[0.0, 0])
    if learned is not None:
        scores[f"steps_{AUTO}"] = learned.score
    by_first(lambda: _write_scores(scores, count, job))
    logger.info("Inversion steps chosen on validation: %d (%s)", chosen, scores)
    if learned is None:
        return StepChoice(chosen, None, scores)
    logger.info("Stopping rule: %s; %+.4f against step 0, %s", learned.rule.describe(), learned.gain, learned.interval)
    return StepChoice(chosen, learned.rule, scores)


def _optimised(
    model: SemanticGan, images: np.ndarray, candidates: Sequence[int], progress: Progress | None, what: str
) -> dict[float, dict[int, np.ndarray]]:
    """Masks of all images (uint8, as `Scored` has them) by share of step 0 in the answer and number of steps; each
    process answers a part.

    A batch of the settings at a time: probabilities of a hundred images after every number of steps take gigabytes.
    """
    parts: dict[tuple[float, int], list[Tensor]] = {(share, step): [] for share in FIRST_SHARES for step in candidates}
    for rows in ranks.even_batches(len(images), model.settings.inversion.batch, progress, what):
        shown = to_unit(torch.from_numpy(images[rows]))
        found = model.segment_batch(shown, steps=max(candidates), snapshot_steps=tuple(candidates)).snapshots
        for (share, step), kept in parts.items():
            kept.append(torch.lerp(found[step], found[0], share).argmax(1).byte())
    ranks.wait()  # for the slowest process, which may take longer than a sum may be waited for
    masks = {key: ranks.gathered(torch.cat(kept))[: len(images)].cpu().numpy() for key, kept in parts.items()}
    return {share: {step: masks[share, step] for step in candidates} for share in FIRST_SHARES}


def _learned(
    model: SemanticGan,
    plain: Scored,
    masks: dict[float, dict[int, np.ndarray]],
    job: TrainingJob,
    *,
    optimisation_gains: bool,
) -> LearnedRule | None:
    """The rule of these masks; none where ramps of the learning rate make them unlike those of shorter runs.

    The images' shifted copies are optimised, too, where a fixed number of steps gains on the images as they are, alone
    or mixed with step 0: else no rule could be that optimises.
    """
    if job.settings.inversion.has_ramps:
        return None
    parts = [(plain, masks)]
    cases = plain.groups or tuple(str(row) for row in range(len(plain.images)))
    enough = len(set(cases)) >= FEWEST_CASES
    if enough and optimisation_gains and (shifted := job.read_shifted(len(plain.images))) is not None:
        copies = _optimised(model, shifted.images, list(masks[0.0]), job.progress, "choose steps, shifted copies")
        parts.append((shifted, copies))
    return learn_rule(
        {
            share: {step: np.concatenate([kept[share][step] for _, kept in parts]) for step in by_step}
            for share, by_step in masks.items()
        },
        np.concatenate([shown.label_maps for shown, _ in parts]),
        job.settings.metric,
        classes=job.labels.classes,
        groups=cases * len(parts),
        copies=None if len(parts) == 1 else np.repeat(np.arange(len(parts)), len(plain.images)),
        seed=job.settings.seed,
    )


def _write_scores(scores: dict[str, float], images: int, job: TrainingJob) -> None:
    job.run.truncate_metrics("inversion", -1)  # of an earlier call
    job.run.append_metrics(
        {"stage": "inversion", "images_seen": images, "seconds": 0.0}
        | {f"validation/{job.settings.metric}/{name}": score for name, score in scores.items()}
    )


def _save(
    job: TrainingJob,
    gan: GanStage,
    whitening: Whitening,
    encoder: Encoder | None,
    perceptual: Distance,
    facts: dict[str, Any],
    choice: StepChoice = StepChoice(),  # noqa: B008  # frozen
) -> None:
    data = {
        "labelled images": len(job.labelled),
        "unlabelled images": len(job.unlabelled),
        "validation images": len(job.validation),
    }
    description, weights, card = model_files(
        job.settings,
        generator=gan.average,
        whitening=whitening,
        encoder=encoder,
        perceptual=perceptual,
        chosen_steps=choice.steps,
        rule=choice.rule,
        data=data,
        training=facts,
        scores=choice.scores,
    )
    by_first(lambda: artifacts.save_model(job.run.model, description | {"training": facts | data}, weights, card))


class GanMonitor:
    """What stage 1 is watched by: sample grids, label statistics, and a Frechet distance that compares over time.

    The features are those of an untrained critic with fixed random weights: unlike the trained critic's they do not
    change during training. FID would need the Inception weights.
    """

    def __init__(self, gan: GanStage, job: TrainingJob):
        self.gan, self.job = gan, job
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.critic: ImageCritic = build_image_critic(job.settings).to(job.device).eval().requires_grad_(False)
        self.real: FeatureStatistics | None = None

    def preview(self, images_seen: int) -> dict[str, float]:
        joint = self.gan.sample(range(STATISTICS_SAMPLES))
        if self.job.draw is not None:
            count = len(GRID_SEEDS)
            draw_pairs(self.job, joint.image[:count], joint.logits[:count], "gan", images_seen)
        return self.label_shares(joint.logits) | {"frechet_distance_random_features": self.distance(joint.image)}

    def distance(self, image: Tensor) -> float:
        if self.real is None:
            stream = self.job.image_stream("frechet", with_labelled=True)
            batches = [stream.batch(first, 64).image.to(self.job.device) for first in range(0, STATISTICS_SAMPLES, 64)]
            self.real = feature_statistics(batches, self.critic.features)
        return frechet_distance(self.real, feature_statistics(image.split(64), self.critic.features))

    def label_shares(self, logits: Tensor) -> dict[str, float]:
        """Share of the pixels of each class, in samples and in the labelled set."""
        found = probabilities(logits).argmax(1)
        assert self.job.labelled.label_maps is not None
        shares: dict[str, float] = {}
        for index, name in enumerate(self.job.labels.names):
            shares[f"labels/{name}_share_samples"] = float((found == index).float().mean())
            shares[f"labels/{name}_share_labelled"] = float((self.job.labelled.label_maps == index).mean())
        return shares
