"""Training of a baseline under the same loop as every other method; by itself, supervised learning [S sec. 5].

A supervised baseline (``unet``, ``unet-strong``, ``deeplabv2``) is `BaselineStage` as it stands: cross-entropy + Dice
on the labelled images with the flips and affine maps of the labelled stream, Adam, and the weights with the best
validation score are kept. Every semi-supervised one is a class in a file of its own that says what it does with the
unlabelled images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from semgan import config, ranks
from semgan.baselines.dropout import seeded_step
from semgan.baselines.networks import build_network, parameter_groups
from semgan.baselines.segmenter import WEIGHTS, NetworkSegmenter
from semgan.data.transforms import rules_by_modality
from semgan.models.batch_norm import with_whole_batch_norm
from semgan.runtime.device import autocast
from semgan.runtime.distributed import average_gradients, weights_of, with_whole_batch_dropout
from semgan.types import Batch, LabelSpace, Segmenter

if TYPE_CHECKING:
    from semgan.data.loading import ImageStream, MixedStream

PHOTOMETRIC_STREAM = "baseline/photometric"
PHOTOMETRIC_PROBABILITY = 0.5  # of each of the five changes, per image
POLY_POWER = 0.9  # DeepLab, nnU-Net
NNUNET_MOMENTUM, NNUNET_WEIGHT_DECAY = 0.99, 3e-5  # Isensee et al. 2021, methods, "training"
SIBLING = "second"  # name of a second network's state
SIBLING_SEED = 1_000_003  # far from the seeds that people choose

Validate = Callable[[Segmenter], float]


@dataclass(frozen=True)
class Streams:
    """What a baseline learns from. unlabelled: images without label maps; None where the dataset has none."""

    labelled: ImageStream | MixedStream
    unlabelled: ImageStream | None = None


class ValidatedStage(ABC):
    """Length and progress of a stage, and its validation: the weights with the best score so far are the model's.

    A stage says which network answers (``answering``) and how (``segmenter``). validate: model -> score on the
    validation list, higher is better; None: the last weights are kept.
    """

    name: str
    needs_unlabelled = False

    def __init__(self, settings: config.Settings, validate: Validate | None) -> None:
        self.settings, self._validate = settings, validate
        self.total_images, self.batch = settings.baseline.images, settings.baseline.batch
        self.best_score: float | None = None
        self.best_images_seen = 0
        self._best_weights: dict[str, Tensor] = {}

    @property
    @abstractmethod
    def answering(self) -> nn.Module:
        """The network that is validated and saved."""

    @property
    @abstractmethod
    def segmenter(self) -> Segmenter:
        """The present answering network as a segmenter."""

    @abstractmethod
    def step(self, images_seen: int) -> dict[str, Tensor]:
        """Learn from the next batch; losses as scalars."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""

    def progress(self, images_seen: int) -> float:
        """Share of the training's schedule that is done, in [0, 1]."""
        return min(images_seen / (self.settings.baseline.schedule_images or self.total_images), 1.0)

    def preview(self, images_seen: int) -> dict[str, float]:
        """Score the validation list and keep the weights where they are the best so far."""
        if self._validate is None:
            return {}
        score = ranks.of_first(float(self._validate(self.segmenter)))
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_images_seen = score, images_seen
            self._best_weights = {name: value.detach().cpu().clone() for name, value in self._weights().items()}
        return {f"validation/{self.settings.metric}": score, "validation/best": self.best_score}

    def model_weights(self) -> dict[str, dict[str, Tensor]]:
        """What the model folder holds: the best weights by validation, else the last."""
        return {WEIGHTS: self._best_weights or self._weights()}

    def _weights(self) -> dict[str, Tensor]:
        return dict(self.answering.state_dict())

    def best_state(self) -> dict[str, Any]:
        """The part of a checkpoint that keeps the best weights."""
        return {"score": self.best_score, "images_seen": self.best_images_seen, "weights": self._best_weights}

    def load_best_state(self, best: Mapping[str, Any]) -> None:
        self.best_score, self.best_images_seen = best["score"], best["images_seen"]
        self._best_weights = dict(best["weights"])


class BaselineStage(ValidatedStage):
    """Supervised training, and what all baselines share: batches, optimiser, best weights, state.

    A semi-supervised baseline overrides `loss_terms` (and adds its networks to ``networks``), `after_step`, or `step`
    where several players alternate. validate: see `ValidatedStage`.
    """

    name = "baseline"
    learners: tuple[str, ...] = (WEIGHTS,)  # the optimisers that go down the sum of the loss terms

    def __init__(
        self,
        settings: config.Settings,
        labels: LabelSpace,
        streams: Streams,
        device: torch.device,
        validate: Validate | None = None,
    ) -> None:
        if self.needs_unlabelled and (streams.unlabelled is None or not len(streams.unlabelled)):
            raise ValueError(
                f"Method '{settings.method}' learns from unlabelled images too, and the dataset has none; "
                "add some (data prepare folder --unlabelled), choose a shorter labelled list, or another method."
            )
        super().__init__(settings, validate)
        own = settings.baseline
        if own.dropout and type(self).step is not BaselineStage.step:
            raise ValueError(f"Method '{settings.method}' does not train with dropout; leave baseline.dropout out.")
        self.own_batch = ranks.share_of(own.batch, "baseline.batch")  # labelled images of a step, of this process
        if self.needs_unlabelled:
            ranks.share_of(own.unlabelled_batch, "baseline.unlabelled_batch")
        self.labels, self.device, self._streams = labels, device, streams
        self.network = self._built(settings.seed)
        self.networks: dict[str, nn.Module] = {WEIGHTS: self.network}  # all whose state is kept
        optimise = self.adam if own.optimiser == "adam" else self.sgd
        self.optimisers: dict[str, torch.optim.Optimizer] = {WEIGHTS: optimise(self.network, own.learning_rate)}
        self._scaler = torch.amp.GradScaler(device.type, enabled=own.precision == "float16")

    # ------------------------------------------------------------ for those who build on it

    def adam(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """The optimiser of one network."""
        return torch.optim.Adam(parameter_groups(network, learning_rate), learning_rate)

    def sgd(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """nnU-Net's optimiser of one network."""
        momentum, decay = NNUNET_MOMENTUM, NNUNET_WEIGHT_DECAY
        return torch.optim.SGD(network.parameters(), learning_rate, momentum, weight_decay=decay, nesterov=True)

    def add_sibling(self) -> nn.Module:
        """A second network of the same form with other initial weights, which learns together with the first."""
        own = self.settings
        sibling = self._built(own.seed + SIBLING_SEED)
        self.networks[SIBLING] = sibling
        self.optimisers[SIBLING] = self.adam(sibling, own.baseline.learning_rate)
        self.learners = (WEIGHTS, SIBLING)
        return sibling

    def _built(self, seed: int) -> nn.Module:
        """A network with the weights of a seed, which counts and draws for the batch of all processes."""
        network = build_network(self.settings, self.labels.channels, seed)
        return with_whole_batch_dropout(with_whole_batch_norm(network)).to(self.device)

    @property
    def answering(self) -> nn.Module:
        """The network that is validated and saved."""
        return self.network

    @property
    def segmenter(self) -> NetworkSegmenter:
        """The present answering network as a segmenter."""
        rules, flips = rules_by_modality(self.settings), self.settings.baseline.test_time_flips
        return NetworkSegmenter(self.answering, self.labels, rules, self.device, flips=flips)

    def labelled_batch(self, images_seen: int) -> Batch:
        """The next labelled images and their label maps, this process' share, on the device."""
        index = ranks.own(range(images_seen, images_seen + self.batch))
        batch = self._streams.labelled.batch(index.start, len(index))
        if batch.label_map is None:
            raise ValueError("A baseline learns from labelled images; this stream has no label maps.")
        image = self._layout(self.photometric(batch.image.to(self.device), batch.index, PHOTOMETRIC_STREAM))
        fine = None if batch.fine is None else batch.fine.to(self.device)
        return Batch(batch.index, image, batch.label_map.to(self.device), fine)

    def unlabelled_batch(self, images_seen: int) -> Batch:
        """The next ``baseline.unlabelled_batch`` images without label maps, on the device, not changed in intensity.

        Of several processes each gets its share.
        """
        assert self._streams.unlabelled is not None
        count = self.settings.baseline.unlabelled_batch
        first = images_seen // self.batch * count
        index = ranks.own(range(first, first + count))
        batch = self._streams.unlabelled.batch(index.start, len(index))
        return Batch(batch.index, self._layout(batch.image.to(self.device)))

    def photometric(self, image: Tensor, index: Tensor, stream: str, *, always: bool = False) -> Tensor:
        """The image changed in intensity where ``baseline.intensity_augment`` (or ``always``) asks for it."""
        if not (always or self.settings.baseline.intensity_augment):
            return image
        from semgan.data.photometric import NNUNET_CHANCES, NNUNET_RANGES, PhotometricRanges, photometric

        nnunet = self.settings.baseline.intensity_augment == "nnunet"
        return photometric(
            image,
            seed=self.settings.seed,
            stream=stream,
            index=index.tolist(),
            probability=NNUNET_CHANCES if nnunet else PHOTOMETRIC_PROBABILITY,
            ranges=NNUNET_RANGES if nnunet else PhotometricRanges(),
        )

    def forward(self, network: nn.Module, image: Tensor) -> Any:
        """A network's output for a batch, under the recipe's precision."""
        with autocast(self.device, self.settings.baseline.precision):
            return network(image)

    def loss_terms(self, images_seen: int) -> dict[str, Tensor]:
        """The terms whose sum the networks are trained on: here those of the labelled images."""
        from semgan.objectives.segmentation import supervised_loss

        batch = self.labelled_batch(images_seen)
        return supervised_loss(self.forward(self.network, batch.image).float(), batch.truth)

    def after_step(self, images_seen: int) -> None:
        """Called when the weights have changed, with the images seen before the step."""

    # ------------------------------------------------------------ the loop's side

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """Learn from the next batch; losses as scalars on the device, not waited for."""
        with seeded_step(self.settings.seed, images_seen) if self.settings.baseline.dropout else nullcontext():
            terms = self.loss_terms(images_seen)
        total = torch.stack(list(terms.values())).sum()
        self.update(total, images_seen, *self.learners)
        self.after_step(images_seen)
        return {"loss": total.detach(), **{name: value.detach() for name, value in terms.items()}}

    def update(self, loss: Tensor, images_seen: int, *names: str) -> None:
        """One step of the named optimisers down the gradient of a loss."""
        chosen = [self.optimisers[name] for name in names]
        for optimiser in chosen:
            self._set_learning_rate(optimiser, images_seen)
            optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        average_gradients(weight for optimiser in chosen for weight in weights_of(optimiser))
        for optimiser in chosen:
            self._clip(optimiser)
            self._scaler.step(optimiser)
        self._scaler.update()

    def _clip(self, optimiser: torch.optim.Optimizer) -> None:
        limit = self.settings.baseline.clip_norm
        if limit is not None:
            self._scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(list(weights_of(optimiser)), limit)

    def _set_learning_rate(self, optimiser: torch.optim.Optimizer, images_seen: int) -> None:
        if self.settings.baseline.schedule == "constant":
            return
        for group in optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * (1 - self.progress(images_seen)) ** POLY_POWER

    def _layout(self, image: Tensor) -> Tensor:
        return image.contiguous(memory_format=torch.channels_last)

    def state(self) -> dict[str, Any]:
        return {
            "networks": {name: dict(network.state_dict()) for name, network in self.networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "scaler": self._scaler.state_dict(),
            "best": self.best_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self._scaler.load_state_dict(state["scaler"])
        self.load_best_state(state["best"])
