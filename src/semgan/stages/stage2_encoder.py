"""Stage 2: train the encoder against the frozen generator (method sec. 4, supplement sec. 2).

    L_s = E_labelled [ CE(y, G_y(E(x))) + Dice(y, G_y(E(x))) ]
    L_u = E_all      [ d(x, G_x(E(x))) + lambda_1 mean (x - G_x(E(x)))^2 ]
    L_E = L_s + L_u

The pixel term is a mean, as in the authors' code, where its ratio to LPIPS is the supplement's lambda_1 = 0.1.
Half of every batch is labelled, half unlabelled; where one of the two streams is missing the other fills the batch.
Departures, all off unless set: ``generated_weight`` adds images drawn from the generator, whose w is known, with the
relative squared error in w; ``lambda_prior`` keeps the whitened codes of real images where the generator's own lie;
``photometric_augment`` changes the intensities of what the encoder sees, while targets stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from semgan import ranks, seeding
from semgan.config import Settings
from semgan.data.loading import ImageStream
from semgan.data.photometric import photometric
from semgan.models.batch_norm import with_whole_batch_norm
from semgan.models.encoder import Encoder
from semgan.models.generator import Generator
from semgan.models.whitening import Whitening
from semgan.objectives.reconstruction import pixel_distance
from semgan.objectives.segmentation import cross_entropy, dice_loss
from semgan.runtime.device import autocast
from semgan.runtime.distributed import average_gradients
from semgan.runtime.modes import evaluating, frozen
from semgan.types import Batch, JointImage

FLOAT16_SCALE = 2.0**12  # of the loss


def build_encoder(settings: Settings, generator: Generator) -> Encoder:
    """The encoder that fits a generator; its weights follow from the seed."""
    rule = settings.preprocessing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 2)
        return Encoder(
            settings.encoder,
            size_px=rule.size_px,
            image_channels=rule.channels,
            layers=generator.layers,
            w_dim=generator.w_dim,
        )


def build_ranger(weights: Any, learning_rate: float) -> torch.optim.Optimizer:
    """Ranger = RAdam + Lookahead (k 6, alpha 0.5), betas (0.95, 0.999), eps 1e-5, without gradient centralisation.

    ``degenerated_to_sgd`` is needed: without it pytorch-optimizer (4.1) walks *up* the gradient in the first 5 steps.
    """
    from pytorch_optimizer import Ranger

    return Ranger(
        weights, lr=learning_rate, betas=(0.95, 0.999), eps=1e-5, k=6, alpha=0.5, degenerated_to_sgd=True, use_gc=False
    )


def learning_rate_share(progress: float, constant_share: float) -> float:
    """Share of the learning rate at ``progress`` in [0, 1]: constant, then a cosine to 0."""
    if progress <= constant_share:
        return 1.0
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - constant_share) / (1 - constant_share)))


def _own_batch(stream: ImageStream, first: int, count: int) -> Batch:
    """This process' rows of the stream's images ``first`` to ``first + count - 1``."""
    index = ranks.own(range(first, first + count))
    return stream.batch(index.start, len(index))


class EncoderStage:
    """State and step of stage 2, for `semgan.runtime.loop.run_stage`.

    perceptual: a distance as `semgan.models.lpips_weights.build_perceptual` returns it.
    validation: called without arguments at previews, in eval mode; its numbers go into the metrics.
    Raises ValueError where there is no stream to train on.
    """

    name = "encoder"

    def __init__(
        self,
        settings: Settings,
        *,
        generator: Generator,
        whitening: Whitening,
        perceptual: nn.Module,
        encoder: Encoder,
        labelled: ImageStream | None,
        unlabelled: ImageStream | None,
        device: torch.device,
        validation: Callable[[], Mapping[str, float]] | None = None,
    ):
        if labelled is None and unlabelled is None:
            raise ValueError("The encoder needs labelled or unlabelled images to train on; got neither.")
        self.settings, self.options, self.device = settings, settings.encoder, device
        self.total_images, self.batch = settings.encoder.images, settings.encoder.batch
        self.labelled, self.unlabelled, self.validation = labelled, unlabelled, validation
        self.generator = generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.whitening, self.perceptual = whitening.to(device), perceptual.to(device)
        self.encoder = with_whole_batch_norm(encoder).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ranger = build_ranger(self.encoder.parameters(), self.options.learning_rate)
        self.labelled_per_batch = 0 if labelled is None else self.batch if unlabelled is None else self.batch // 2
        self.generated_per_batch = self.batch // 2 if self.options.generated_weight > 0 else 0
        for part in (self.labelled_per_batch, self.batch - self.labelled_per_batch, self.generated_per_batch):
            ranks.share_of(part, "A part of encoder.batch (labelled, unlabelled or generated images)")

    # ------------------------------------------------------------ the step, as the paper tells it

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """One update on ``batch`` real images (and half as many generated ones, if used); detached scalars."""
        image, label_map = self._real(images_seen)
        self.encoder.train()
        with frozen(self.generator, self.perceptual, self.whitening), autocast(self.device, self.options.precision):
            known_v, generated = self._generated(images_seen)
            v = self.encoder(self._seen_by_encoder(image, generated, images_seen))
            joint = self.generator.synthesis(self.whitening.to_w(v[: len(image)]))
            losses = self.unsupervised_losses(image, joint)
            if self.options.lambda_prior > 0:
                losses["loss/prior"] = v[: len(image)].float().square().mean()
            if label_map is not None:
                losses |= self.supervised_losses(joint.logits[: len(label_map)], label_map)
            if known_v is not None:
                losses["loss/generated_code"] = self.whitening.relative_error(v[len(image) :], known_v)
            loss = self._weighted(losses)
        norm = self._update(loss, images_seen)
        return {"loss/encoder": loss.detach(), "gradient_norm": norm} | {k: x.detach() for k, x in losses.items()}

    def unsupervised_losses(self, image: Tensor, joint: JointImage) -> dict[str, Tensor]:
        """Unweighted terms of L_u."""
        with torch.no_grad():
            target = self.perceptual.features(image)  # type: ignore[operator]
        features = self.perceptual.features(joint.image)  # type: ignore[operator]
        return {
            "loss/perceptual": self.perceptual.distance(features, target).mean(),  # type: ignore[operator]
            "loss/pixel": pixel_distance(joint.image, image).mean(),
        }

    def supervised_losses(self, logits: Tensor, label_map: Tensor) -> dict[str, Tensor]:
        """Unweighted terms of L_s."""
        return {
            "loss/cross_entropy": cross_entropy(logits, label_map),
            "loss/dice": dice_loss(logits, label_map),
        }

    def _weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        options = self.options
        weights = {
            "loss/perceptual": options.perceptual_weight,
            "loss/pixel": options.lambda_pixel,
            "loss/cross_entropy": options.supervised_weight,
            "loss/dice": options.supervised_weight,
            "loss/generated_code": options.generated_weight,
            "loss/prior": options.lambda_prior,
        }
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    # ------------------------------------------------------------ what the step is made of

    def _real(self, images_seen: int) -> tuple[Tensor, Tensor | None]:
        """This process' share of ``batch`` images, labelled ones first, and the label maps of those."""
        images, label_map = [], None
        count = self.labelled_per_batch
        if self.labelled is not None and count:
            batch = _own_batch(self.labelled, images_seen // self.batch * count, count)
            images.append(batch.image)
            label_map = batch.truth.to(self.device, non_blocking=True)
        if self.unlabelled is not None:
            rest = self.batch - count
            images.append(_own_batch(self.unlabelled, images_seen // self.batch * rest, rest).image)
        return torch.cat(images).to(self.device, non_blocking=True), label_map

    @torch.no_grad()
    def _generated(self, images_seen: int) -> tuple[Tensor | None, Tensor | None]:
        """Whitened codes that are known, and their images: latents with style mixing, fresh noise maps."""
        count, seed = self.generated_per_batch, self.settings.seed
        if not count:
            return None, None
        first = images_seen // self.batch * count
        index = ranks.own(range(first, first + count))
        z = seeding.normal(seed, "encoder/z", index, (2, self.generator.w_dim)).to(self.device)
        draws = seeding.uniform(seed, "encoder/mixing", index, (2,)).to(self.device)
        w_plus = self.generator.mixed(z, draws, self.settings.gan.style_mixing)
        noise = seeding.normal(seed, "encoder/noise", index, (self.generator.noise_size,)).to(self.device)
        return self.whitening.to_v(w_plus), self.generator.synthesis(w_plus, noise).image

    def _seen_by_encoder(self, image: Tensor, generated: Tensor | None, images_seen: int) -> Tensor:
        """The encoder's input: real images, then generated ones, with photometric changes where these are set."""
        seed, probability = self.settings.seed, self.options.photometric_augment
        places = range(images_seen, images_seen + self.batch)
        parts = (places[: self.labelled_per_batch], places[self.labelled_per_batch :])
        index = [number for part in parts for number in ranks.own(part)]
        seen = photometric(image, seed=seed, stream="encoder/real", index=index, probability=probability)
        if generated is None:
            return seen
        first = images_seen // self.batch * self.generated_per_batch
        index = ranks.own(range(first, first + self.generated_per_batch))
        changed = photometric(generated, seed=seed, stream="encoder/generated", index=index, probability=probability)
        return torch.cat([seen, changed])

    def _update(self, loss: Tensor, images_seen: int) -> Tensor:
        """Clipped Ranger step; returns the gradient norm before clipping."""
        progress = min(images_seen / (self.options.schedule_images or self.total_images), 1.0)
        share = learning_rate_share(progress, self.options.constant_share)
        for group in self.ranger.param_groups:
            group["lr"] = self.options.learning_rate * share
        self.ranger.zero_grad(set_to_none=True)
        if self.options.precision == "float16":
            self._backward_in_float16(loss)
        else:
            loss.backward()
        average_gradients(self.encoder.parameters())
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), self.options.clip_norm)
        self.ranger.step()
        return norm.detach()

    def _backward_in_float16(self, loss: Tensor) -> None:
        """Gradients of means over a million pixels are below float16's smallest number, unless they are scaled up."""
        (loss * FLOAT16_SCALE).backward()
        for weight in self.encoder.parameters():
            if weight.grad is not None:  # overflow is part of float16 training; elsewhere it is a fault
                torch.nan_to_num_(weight.grad.div_(FLOAT16_SCALE), nan=0.0, posinf=1e5, neginf=-1e5)

    # ------------------------------------------------------------ looking and saving

    @torch.no_grad()
    def predict(self, image: Tensor) -> JointImage:
        """Reconstruction and logits of images ``[batch, channels, R, R]`` in [-1, 1], by the encoder alone."""
        with evaluating(self.encoder, self.generator), autocast(self.device, self.options.precision):
            return self.generator.synthesis(self.whitening.to_w(self.encoder(image.to(self.device))))

    def preview(self, images_seen: int) -> dict[str, float]:
        """Validation numbers, by the function given; modes and weights are as before afterwards."""
        if self.validation is None:
            return {}
        with evaluating(self.encoder, self.generator), torch.no_grad():
            return dict(self.validation())

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on (generator and perceptual distance are fixed inputs).

        The whitening is fitted, and an axis fitted elsewhere may point the other way.
        """
        return {
            "encoder": self.encoder.state_dict(),
            "ranger": self.ranger.state_dict(),
            "whitening": self.whitening.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.ranger.load_state_dict(state["ranger"])
        if "whitening" in state:  # not in checkpoints of earlier versions
            self.whitening.load_state_dict(state["whitening"])
