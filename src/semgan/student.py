"""Synthetic-data training: a network learns from pairs drawn from our generator, alone or beside the inversion.

``student``: DatasetGAN's use of a generator (Zhang et al. 2021, arXiv:2104.06490) with ours, whose labels come from its
own label branch: a pool of pairs is drawn once, the least certain are dropped, and a U-Net learns from the rest mixed
with the real labelled images, under the intensity and affine augmentation of ``unet-strong``.
``semgan-student``: the inversion, guided by that student, and the student, averaged (`semgan.student_answer`).

Both take the model of a trained run (``--init-from``) or first train what they need themselves, in the same run folder.
They stand above stages and baselines because they are made of both.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from semgan import artifacts, config, ranks, seeding
from semgan.baselines.committee import CommitteeStage
from semgan.baselines.pipeline import run_baseline
from semgan.baselines.segmenter import WEIGHTS
from semgan.baselines.stage import BaselineStage
from semgan.baselines.unimatch import UniMatchStage
from semgan.data.loading import MixedStream, affine_grid, warp
from semgan.job import TrainingJob
from semgan.model_card import model_card
from semgan.runtime.distributed import by_first
from semgan.runtime.loop import StageResult, checkpoint_path, read_stage_checkpoint, run_stage
from semgan.stages.pipeline import train_semantic_gan
from semgan.stages.sample_pool import PoolStage, forget_pool, holds_pool, pairs_of, read_pool
from semgan.stages.semantic_gan import SemanticGan
from semgan.student_answer import STUDENT, AnswerChoice, choose_answer
from semgan.words import as_typed

logger = logging.getLogger("semgan")

NOTE = "student_of.json"  # in checkpoints/: the model that pool and student belong to
SAME = ("classes", "preprocessing", "labels", "split_seed")  # a student shares these with its generator
OWN = ("method", "seed", "data", "baseline", "student", "run")  # settings of this training; others are the generator's


class StudentStage(BaselineStage):
    """Supervised training under another name, so that curves and checkpoints tell them apart."""

    name = "student"


class ConsistentStudentStage(UniMatchStage):
    """The same with UniMatch's terms of the unlabelled images beside the pairs, real and generated.

    Departure from UniMatch, with ``student.strong_affine``: its strong views lie where the weak one does. Images of
    another source are nearer, farther or turned, beyond the labelled images' own changes, and the labels move along.
    """

    name = "student"

    def moved(self, image: Tensor, label_map: Tensor, stream: str, index: list[int]) -> tuple[Tensor, Tensor]:
        """Each view zoomed, shifted and turned, each of the three for half of the images; reflected from outside."""
        if not self.settings.student.strong_affine:
            return image, label_map
        draw = seeding.uniform(self.settings.seed, f"{stream}/affine", index, (7,))
        grid_of = functools.cache(
            lambda side_px: affine_grid(2 * draw[:, :4] - 1, STRONG_AFFINE, side_px, draw[:, 4:] < 0.5).to(image.device)
        )

        def moved(planes: Tensor, mode: str) -> Tensor:
            return warp(planes.float(), grid_of(planes.shape[-1]), mode)

        return moved(image, "bilinear"), moved(label_map[:, None], "nearest")[:, 0].to(label_map.dtype)


STRONG_AFFINE = ((0.7, 1.4), 0.1, 25.0)  # zoom, shift as a share of the side, rotation both ways in degrees
OWN_STAGES = (PoolStage.name, StudentStage.name)  # not the generator's


def train_student(job: TrainingJob) -> StageResult:
    """Generator (unless given), pool, student: the model folder answers with the student alone."""
    return _train(job, with_inversion=False)


def train_semgan_student(job: TrainingJob) -> StageResult:
    """Generator and encoder (unless given), pool, student, choice; the model folder answers with both."""
    return _train(job, with_inversion=True)


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class _Teacher:
    """A trained semantic GAN as its model folder holds it: description, weights, and a name of its contents."""

    folder: Path
    description: dict[str, Any]
    weights: dict[str, dict[str, Tensor]]
    fingerprint: str

    @classmethod
    def read(cls, folder: Path, job: TrainingJob, *, with_inversion: bool) -> _Teacher:
        """Raises ValueError where the model does not fit the job or lacks what is needed."""
        folder = artifacts.find_model(folder)
        description, weights = artifacts.read_model(folder)
        if "generator" not in weights:
            raise ValueError(
                f"--init-from: {folder} is of method '{description.get('method')}'; name a run of a "
                "method with a generator."
            )
        if with_inversion and "encoder" not in weights:
            raise ValueError(
                f"{folder} has no encoder yet; train that first (--stage encoder), or use --method student."
            )
        wanted = job.settings.model_dump(mode="json")
        found = config.override(config.Settings(), description["settings"], f"{folder}/config.json")
        saved = found.model_dump(mode="json")
        for key in SAME:
            if saved[key] != wanted[key]:
                raise ValueError(
                    f"--init-from: {folder} was trained with {key} {saved[key]!r}, and this run asks for "
                    f"{wanted[key]!r}; a student has the recipe and the labelled list of its generator."
                )
        weights = {name: state for name, state in weights.items() if name != STUDENT}
        return cls(folder, description, weights, _fingerprint(weights))


def _fingerprint(weights: Mapping[str, Mapping[str, Tensor]]) -> str:
    known = hashlib.sha256()
    for network, state in sorted(weights.items()):
        for name, value in sorted(state.items()):
            known.update(f"{network}/{name}".encode())
            known.update(value.contiguous().numpy().tobytes())
    return known.hexdigest()[:16]


def _train(job: TrainingJob, *, with_inversion: bool) -> StageResult:
    if job.init_from is None:
        _refuse_lost_teacher(job)
        if job.stage not in OWN_STAGES:
            own = replace(job, chooses_steps=False)  # the guided inversion's are chosen with the student
            result = train_semantic_gan(own if with_inversion else replace(own, stage="gan"))
            if job.stage != "all" or not result.finished or result.interrupted:
                return result
    teacher = _Teacher.read(job.init_from or job.run.model, job, with_inversion=with_inversion)
    if ranks.of_first(_is_complete(job, teacher)):
        return StageResult(job.settings.baseline.images, True)
    by_first(lambda: _forget_student_of_another(job, teacher))
    model = SemanticGan.load(teacher.folder, device=str(job.device))
    drawn = _run_pool(job, model)
    if job.stage == PoolStage.name or not drawn.finished or drawn.interrupted:
        return drawn
    pairs = read_pool(_pool_folder(job), pairs_of(job.settings, drawn.images_seen))
    own, length = job.settings.student, job.settings.baseline.schedule_images or job.settings.baseline.images

    def mixed(one: TrainingJob) -> MixedStream:
        generated = one.labelled_stream("student/generated", pairs=pairs)
        return MixedStream(generated, one.labelled_stream("labelled"), own.real_share, own.last_real_share, length)

    learns_from_unlabelled = job.settings.student.unlabelled and len(job.unlabelled) > 0
    stage, result = run_baseline(job, ConsistentStudentStage if learns_from_unlabelled else StudentStage, mixed)
    _save(job, teacher, stage, result, model if with_inversion else None)
    return result


def _run_pool(job: TrainingJob, model: SemanticGan) -> StageResult:
    """Draw the pool; for stage "student" alone it is taken as it is, also where a clock ended it."""
    path = checkpoint_path(job.run, PoolStage.name)
    if job.stage == StudentStage.name:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: stage 'student' needs drawn pairs; run --stage pool first.")
        drawn = read_stage_checkpoint(path, PoolStage.name)[0]
        logger.info("The student learns from %d of %d drawn pairs.", drawn, job.settings.student.pool_images)
        return StageResult(drawn, True)
    pool = PoolStage(job.settings, model, _pool_folder(job))
    return run_stage(pool, job.run, job.settings.run, deadline=job.deadline, progress=job.progress)


def _pool_folder(job: TrainingJob) -> Path:
    return job.run.path / "pool"


def _refuse_lost_teacher(job: TrainingJob) -> None:
    if (job.run.checkpoints / NOTE).is_file() and not checkpoint_path(job.run, "gan").is_file():
        earlier = artifacts.read_json(job.run.checkpoints / NOTE)["folder"]
        raise ValueError(f"{job.run.path} has no generator of its own; go on with --init-from {as_typed(earlier)}.")


def _is_complete(job: TrainingJob, teacher: _Teacher) -> bool:
    """Whether the model folder holds the finished student of this very teacher."""
    path = job.run.model / "config.json"
    if not path.is_file() or not (job.run.model / f"{STUDENT}.safetensors").is_file():
        return False
    training = artifacts.read_json(path).get("training", {})
    finished = training.get("images_seen_student", 0) >= job.settings.baseline.images
    return finished and training.get("student_of") == teacher.fingerprint


def _forget_student_of_another(job: TrainingJob, teacher: _Teacher) -> None:
    """Pool and student belong to the model they come from; for another one, or without their pool, they start anew."""
    note, folder = job.run.checkpoints / NOTE, _pool_folder(job)
    is_another = note.is_file() and artifacts.read_json(note)["fingerprint"] != teacher.fingerprint
    if is_another:
        logger.warning("The generator is another one than the student's: pool and student start anew.")
        checkpoint_path(job.run, StudentStage.name).unlink(missing_ok=True)
    if is_another or not holds_pool(folder):
        checkpoint_path(job.run, PoolStage.name).unlink(missing_ok=True)
        forget_pool(folder)
    artifacts.write_json(note, {"fingerprint": teacher.fingerprint, "folder": str(teacher.folder)})


def _save(
    job: TrainingJob,
    teacher: _Teacher,
    stage: BaselineStage | CommitteeStage,
    result: StageResult,
    model: SemanticGan | None,
) -> None:
    """The teacher's model folder with the student beside it, and how both answer, where they do."""
    network = stage.model_weights()[WEIGHTS]
    metric = job.settings.metric
    scores = {} if stage.best_score is None else {f"validation {metric}, student": stage.best_score}
    known = dict(teacher.description)
    known["scores"] = {name: value for name, value in known.get("scores", {}).items() if not _of_answers(name)}
    known.pop("student", None)
    facts: dict[str, Any] = {}
    if model is not None:
        stage.answering.load_state_dict(network)
        choice = choose_answer(model, stage.segmenter, job) if result.over else AnswerChoice()
        scores |= choice.told(metric)
        before = known.get("inversion", {}).get("chosen_steps")
        known["inversion"] = {"chosen_steps": before if choice.steps is None else choice.steps}  # no rule: unguided
        known["student"] = {"share": choice.share, "guide_weight": job.settings.student.guide_weight}
        facts = {} if choice.steps is None else {"answer": choice.in_words()}
    own = job.settings.model_dump(mode="json")
    described = config.override(config.Settings(), teacher.description["settings"], str(teacher.folder))
    settings = config.override(described, {key: own[key] for key in OWN}, "this run")
    training = teacher.description.get("training", {}) | {
        "images_seen_student": result.images_seen,
        "best_student_at": stage.best_images_seen,
        "student_of": teacher.fingerprint,
    }
    description = known | {
        "method": job.settings.method,
        "settings": settings.model_dump(mode="json"),
        "scores": known["scores"] | scores,
        "training": training,
    }
    data = {"labelled images": len(job.labelled), "validation images": len(job.validation)}
    card = model_card(settings, data=data, training=training | facts, scores=description["scores"])
    weights = teacher.weights | {STUDENT: network}
    by_first(lambda: artifacts.save_model(job.run.model, description, weights, card))


def _of_answers(name: str) -> bool:
    """Whether a score is of answers that a student changes: the inversion's alone, or those of another student."""
    return name.startswith("steps_") or "student" in name
