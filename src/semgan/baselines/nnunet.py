"""The real nnU-Net v2 (Isensee et al. 2021, Nature Methods 18), from the package nnunetv2, in the loop of all methods.

Its own: the plan (network, patch, normalisation), augmentation, foreground oversampling, loss with deep supervision,
optimiser and schedule, and prediction with mirrored images. Ours: the images (at the network's size, as every method
gets them), the labelled list, the validation list as its only fold, batch and length of the training, device and seed,
and the choice of the weights with the best validation score.

Departures: the schedule falls with every step, not every 250th; it has as many steps as the budget says. The random
numbers of a batch depend on (seed, number of the image) alone, so a resumed run equals one that was not interrupted;
on a GPU processes draw the batches ahead.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semgan import artifacts, config, ranks, seeding
from semgan.baselines.networks import seeded
from semgan.baselines.nnunet_plan import (
    CONFIGURATION,
    FOLD,
    Plan,
    at_home,
    environment,
    its,
    make_plan,
    plans_manager,
    quiet,
    trainer_class,
)
from semgan.baselines.pipeline import run_validated, save_baseline, validation_of
from semgan.baselines.segmenter import WEIGHTS
from semgan.baselines.stage import Validate, ValidatedStage
from semgan.data.parallel import available_workers
from semgan.data.transforms import network_input, rules_by_modality, to_levels
from semgan.job import TrainingJob
from semgan.runtime.device import choose_device
from semgan.runtime.loop import StageResult
from semgan.runtime.modes import evaluating
from semgan.types import LabelSpace, Segmentation, Steps

WORKPLACE = "nnunet"  # in the run folder
STREAM = "nnunet/batch"
MOST_WORKERS = 12  # nnU-Net's own default
MIRRORED = (0, 1)  # axes, in training and at prediction: nnU-Net's for two dimensions
PIXEL = {"spacing": (999, 1, 1)}  # what nnU-Net's reader says of a picture
# Where a plan may find its parts: a model folder is read without running anything else.
NETWORKS, PARTS = "dynamic_network_architectures.architectures.", "torch.nn."


def train_nnunet(job: TrainingJob) -> StageResult:
    """Plan, preprocess and train nnU-Net's 2d configuration; the best weights by validation go into the model folder.

    Raises ValueError where the package cannot be used, or no mask has any foreground.
    """
    ranks.refuse_several("Method 'nnunet'")
    if job.settings.baseline.members > 1:
        raise ValueError(
            f"Method 'nnunet' trains one network; got baseline.members={job.settings.baseline.members}. Train "
            "several runs with other --seeds, and answer with all of them: semgan segment -m RUN_0 -m RUN_1."
        )
    trainer_class()  # the first thing to be told
    folder = job.run.path / WORKPLACE
    with at_home(folder):
        plan = make_plan(job, folder)
        stage = NnunetStage(job.settings, job.labels, plan, job.device, validation_of(job))
    result = run_validated(job, stage)
    facts = {"images seen": result.images_seen, "best weights at": stage.best_images_seen}
    save_baseline(job, stage, facts, {"nnunet": {"plans": plan.plans, "dataset": plan.dataset}})
    return result


class NnunetStage(ValidatedStage):
    """nnU-Net's trainer, step by step. Made inside `at_home`, where its preprocessed cases lie."""

    name = "baseline"

    def __init__(
        self,
        settings: config.Settings,
        labels: LabelSpace,
        plan: Plan,
        device: torch.device,
        validate: Validate | None = None,
    ) -> None:
        super().__init__(settings, validate)
        self.labels, self.plan, self.device = labels, plan, device
        fresh = {**plan.plans, "continue_training": False}
        self.trainer: Any = trainer_class()(fresh, CONFIGURATION, FOLD, plan.dataset, device)
        self.trainer.device = device  # it takes the first GPU, whichever was asked for
        with drawn_from(settings.seed, STREAM, 0), environment({"nnUNet_n_proc_DA": "0"}):  # no processes of its own
            self.trainer.initialize()
            loader, _ = self.trainer.get_dataloaders()
        self._batches = _Batches(loader, settings.seed, self.batch)
        self._coming: Iterator[Any] | None = None

    @property
    def answering(self) -> nn.Module:
        return self.trainer.network

    @property
    def segmenter(self) -> NnunetSegmenter:
        return NnunetSegmenter(self.answering, self.labels, rules_by_modality(self.settings), self.device, self.plan)

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """One of nnU-Net's training steps; its loss, summed over the scales."""
        if self._coming is None:
            self._coming = self._from(images_seen // self.batch)
        trainer = self.trainer
        trainer.network.train()
        trainer.lr_scheduler.step(self.progress(images_seen) * trainer.num_epochs)
        return {"loss": torch.as_tensor(trainer.train_step(next(self._coming))["loss"])}

    def _from(self, step: int) -> Iterator[Any]:
        """Batches from a step on; on a GPU drawn ahead by processes, which changes none of them."""
        on_gpu = self.device.type == "cuda"
        steps = range(step, -(-self.total_images // self.batch))
        workers = min(MOST_WORKERS, available_workers()) if on_gpu else 0
        own = torch.Generator()  # the loader draws a number nobody needs; not from everybody's
        return iter(
            torch.utils.data.DataLoader(
                self._batches,  # type: ignore[arg-type]
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                collate_fn=_as_they_are,
                pin_memory=on_gpu,
                generator=own,
            )
        )

    def state(self) -> dict[str, Any]:
        trainer = self.trainer
        scaler = {} if trainer.grad_scaler is None else trainer.grad_scaler.state_dict()
        return {
            "network": dict(trainer.network.state_dict()),
            "optimiser": trainer.optimizer.state_dict(),
            "scaler": scaler,
            "best": self.best_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.trainer.network.load_state_dict(state["network"])
        self.trainer.optimizer.load_state_dict(state["optimiser"])
        if self.trainer.grad_scaler is not None:
            self.trainer.grad_scaler.load_state_dict(state["scaler"])
        self.load_best_state(state["best"])


class _Batches:
    """Number of a step -> nnU-Net's augmented batch, which depends on (seed, number of its first image) alone."""

    def __init__(self, loader: Any, seed: int, batch: int) -> None:
        self._loader, self._seed, self._batch = loader, seed, batch

    def __getitem__(self, step: int) -> Any:
        with drawn_from(self._seed, STREAM, step * self._batch):
            return next(self._loader)


def _as_they_are(batch: Any) -> Any:
    return batch


@contextlib.contextmanager
def drawn_from(seed: int, stream: str, index: int) -> Iterator[None]:
    """Random numbers of torch, numpy and Python depend on (seed, stream, index) in the block; theirs go on after it."""
    number = int(seeding.generator(seed, stream, index).integers(2**32))
    of_numpy, of_python = np.random.get_state(), random.getstate()
    np.random.seed(number)
    random.seed(number)
    try:
        with seeded(number):
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


# ---------------------------------------------------------------- the trained model


class NnunetSegmenter:
    """nnU-Net's prediction as a `semgan.types.Segmenter`: its preprocessing, mirrored images, and back to our size."""

    def __init__(
        self,
        network: nn.Module,
        labels: LabelSpace,
        rules: Mapping[str, config.Preprocessing],
        device: torch.device,
        plan: Plan,
    ) -> None:
        self.network, self.labels, self.rules, self.device = network, labels, dict(rules), device
        manager = plans_manager(plan.plans)
        with quiet():
            self._predictor = its("inference.predict_from_raw_data", "nnUNetPredictor")(device=device, allow_tqdm=False)
            self._predictor.manual_initialization(
                network,
                manager,
                manager.get_configuration(CONFIGURATION),
                [dict(network.state_dict())],
                plan.dataset,
                "nnUNetTrainer",
                MIRRORED,
            )

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> NnunetSegmenter:
        """From a run or model folder. Raises ValueError where it holds no nnU-Net, or one of unknown parts."""
        description, weights = artifacts.read_model(folder)
        if "nnunet" not in description or WEIGHTS not in weights:
            raise ValueError(f"{folder} holds a model of method '{description.get('method')}', which is no nnU-Net.")
        plan = Plan(description["nnunet"]["plans"], description["nnunet"]["dataset"])
        network = build_planned(plan, f"{folder}/config.json")
        network.load_state_dict(weights[WEIGHTS])
        rules = {name: config.Preprocessing(**rule) for name, rule in description["preprocessing"].items()}
        place = choose_device(device)
        return cls(network.to(place).eval(), LabelSpace(tuple(description["classes"])), rules, place, plan)

    def preprocess(self, image: np.ndarray, modality: str = "default") -> Tensor:
        """One decoded image -> ``[channels, size_px, size_px]`` in [-1, 1], by the rule of its modality."""
        return network_input(image, self.rules, modality)

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
    ) -> Segmentation:
        """Segment ``[batch, channels, size_px, size_px]`` in [-1, 1], one by one. Raises ValueError for steps.

        modality: makes no difference after preprocessing
        """
        if steps or any(snapshot_steps):
            raise ValueError("nnU-Net is not optimised at test time; leave steps out, or give 0.")
        levels = to_levels(image).cpu().numpy()
        with evaluating(self.network), single_scale(self.network):
            found = torch.stack([self._probabilities(one) for one in levels])
        confidence = found.amax(1).mean((1, 2))
        return Segmentation(found, confidence, snapshots={step: found for step in snapshot_steps})

    def _probabilities(self, levels: np.ndarray) -> Tensor:
        """``[channels, height, width]`` uint8 -> ``[classes, height, width]`` float32; to nnU-Net it is one slice."""
        _, found = self._predictor.predict_single_npy_array(levels[:, None], dict(PIXEL), None, None, True)
        return torch.as_tensor(np.asarray(found)[:, 0], dtype=torch.float32)


@contextlib.contextmanager
def single_scale(network: Any) -> Iterator[None]:
    """nnU-Net's network answers at full size only while the block runs."""
    before, network.decoder.deep_supervision = network.decoder.deep_supervision, False
    try:
        yield
    finally:
        network.decoder.deep_supervision = before


def build_planned(plan: Plan, where: str) -> nn.Module:
    """The network of a plan, untrained. Raises ValueError naming ``where`` for one that is made of anything else."""
    try:
        asked = plan.plans["configurations"][CONFIGURATION]["architecture"]
        parts = [asked["arch_kwargs"][name] for name in asked["_kw_requires_import"]]
        strange = [name for name in parts if name is not None and not str(name).startswith(PARTS)]
        strange += [asked["network_class_name"]] if not asked["network_class_name"].startswith(NETWORKS) else []
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{where} holds no plan of nnU-Net's 2d configuration; train again.") from None
    if strange:
        raise ValueError(f"{where} asks for parts that no nnU-Net has: {', '.join(map(str, strange))}. Train again.")
    manager = plans_manager(plan.plans)
    configuration = manager.get_configuration(CONFIGURATION)
    count = its("utilities.label_handling.label_handling", "determine_num_input_channels")
    channels = count(manager, configuration, plan.dataset)
    heads = manager.get_label_manager(plan.dataset).num_segmentation_heads
    build = trainer_class().build_network_architecture
    return build(manager, configuration, channels, heads, enable_deep_supervision=False)
