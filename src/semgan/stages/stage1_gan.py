"""Stage 1: the joint GAN (method sec. 3). One generator pass serves both critics' updates and the generator's own.

Departure: the paper's code draws new latents for every one of the three updates. Using one batch of generated pairs
for all three halves the number of generator passes and changes no expectation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from semgan import ranks, seeding
from semgan.config import GanSettings, Settings
from semgan.data.loading import ImageStream
from semgan.models.discriminators import ImageCritic, PairCritic, PatchScores
from semgan.models.generator import Generator, resolve_widths
from semgan.objectives import adversarial, augmentation
from semgan.objectives.labels import class_share_loss, signed_labels, signed_probabilities
from semgan.runtime.device import autocast
from semgan.runtime.distributed import average_gradients, weights_of
from semgan.types import Batch, JointImage, LabelSpace

EMA_RAMP = 0.1  # largest half-life of the average, share of the images seen so far; [ADA] 0.05


def build_generator(settings: Settings, labels: LabelSpace) -> Generator:
    rule = settings.preprocessing
    return Generator(
        settings.generator, size_px=rule.size_px, image_channels=rule.channels, label_channels=labels.channels
    )


def build_image_critic(settings: Settings) -> ImageCritic:
    given = settings.critics.widths or settings.generator.widths
    widths = resolve_widths(given, settings.generator.width_multiplier, settings.preprocessing.size_px)
    return ImageCritic(widths, channels=settings.preprocessing.channels)


def build_pair_critic(settings: Settings, labels: LabelSpace) -> PairCritic:
    critics = settings.critics
    return PairCritic(
        image_channels=settings.preprocessing.channels,
        label_channels=labels.channels,
        base_width=critics.pair_base_width,
        scales=critics.pair_scales,
        layers=critics.pair_layers,
    )


def _placed(network: Any, device: torch.device) -> Any:
    """On the device, in the memory layout in which convolutions are fastest."""
    return network.to(device=device, memory_format=torch.channels_last)


def _adam(weights: Any, settings: GanSettings, every: int | None) -> torch.optim.Adam:
    """Adam with StyleGAN2's correction for a penalty that is applied every ``every`` steps."""
    share = 1.0 if every is None else every / (every + 1)
    betas = (float(settings.beta1**share) if settings.beta1 else 0.0, float(settings.beta2**share))
    return torch.optim.Adam(weights, lr=settings.learning_rate * share, betas=betas, eps=1e-8, fused=True)


def _match_memory_formats(optimiser: torch.optim.Optimizer) -> None:
    """Lay the moments out as their weights are: fused Adam walks through memory, and files hold plain order."""
    for weight, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == weight.shape:
                moments[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _same_shapes(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return {name: value.shape for name, value in first.items()} == {name: value.shape for name, value in second.items()}


def _without_other_labels(
    own: Mapping[str, Tensor], other: Mapping[str, Tensor], image_channels: int
) -> dict[str, Tensor]:
    """A generator's state with ``own`` label outputs where ``other`` is for another number of classes."""
    state = dict(other)
    for name in state.keys() & own.keys():
        if state[name].shape == own[name].shape:
            continue
        if name.endswith(".label_weight"):
            state[name] = own[name]
        elif name.startswith("heads.") and name.count(".") == 2 and name.endswith(".bias"):
            state[name] = torch.cat([state[name].to(own[name].device)[:image_channels], own[name][image_channels:]])
    return state


class GanStage:
    """State and step of stage 1, for `semgan.runtime.loop.run_stage`."""

    name = "gan"

    def __init__(
        self,
        settings: Settings,
        labels: LabelSpace,
        *,
        labelled: ImageStream,
        real_images: ImageStream,
        device: torch.device,
    ):
        self.settings, self.gan, self.labels, self.device = settings, settings.gan, labels, device
        self.labelled, self.real_images = labelled, real_images
        self.total_images, self.batch = settings.gan.images, settings.gan.batch
        ranks.share_of(self.batch, "gan.batch")
        self.path_batch = max(1, round(self.batch * self.gan.path_length_batch_share))
        if self.gan.path_length_weight > 0:
            ranks.share_of(self.path_batch, "gan.batch times gan.path_length_batch_share")
        torch.manual_seed(settings.seed)
        self.generator = _placed(build_generator(settings, labels), device)
        self.image_critic = _placed(build_image_critic(settings), device)
        self.pair_critic = _placed(build_pair_critic(settings, labels), device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        with_path_length = self.gan.path_length_weight > 0
        self.generator_adam = _adam(
            self.generator.parameters(), self.gan, self.gan.path_length_every if with_path_length else None
        )
        self.image_adam = _adam(self.image_critic.parameters(), self.gan, self.gan.r1_every)
        self.pair_adam = _adam(self.pair_critic.parameters(), self.gan, self.gan.r1_every)
        self.mean_path_length = torch.zeros((), device=device)
        self.probability = torch.tensor(self.gan.augment_probability, device=device)
        data = settings.data
        if self.gan.pair_augment == "both" and (data.affine_scale_range is not None or data.affine_probability != 1):
            raise ValueError(
                "gan.pair_augment=both moves every pair by data.affine_scale; leave data.affine_scale_range and "
                "data.affine_probability out, or set gan.pair_augment=real."
            )
        self.pair_limits = augmentation.AugmentationRange(
            scale=data.affine_scale, translate=data.affine_translate, rotate_deg=data.affine_rotate_deg
        )

    # ------------------------------------------------------------ the step, as the paper tells it

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """One alternation of the three networks on ``batch`` images; returns detached scalars."""
        index = ranks.own(range(images_seen, images_seen + self.batch))
        real = self._to_device(self.real_images.batch(index.start, len(index)))
        pair = self._to_device(self.labelled.batch(index.start, len(index)))
        with autocast(self.device, self.gan.precision):
            fake = self.generate(index)
            losses = self.update_image_critic(real.image, fake.image.detach(), index)
            losses |= self.update_pair_critic(pair, fake, index)
            losses |= self.update_generator(pair, fake, index)
            losses |= self.regularise(real, pair, images_seen // self.batch, index)
        self.update_average(images_seen)
        return losses

    def update_image_critic(self, real: Tensor, fake: Tensor, index: range) -> dict[str, Tensor]:
        seen = self._seen_by_image_critic(torch.cat([real, fake]), index, "critic")
        features = self.image_critic.features(seen)[-1]
        # Scored apart: the minibatch deviation must never be taken over real and generated images together.
        real_score, fake_score = (self.image_critic.score_features(part) for part in features.split(len(real)))
        loss = adversarial.logistic_critic_loss(real_score, fake_score)
        self._update(self.image_adam, loss)
        if self.gan.augment == "adaptive":
            self.probability = augmentation.adapted_probability(
                self.probability,
                real_score,
                target=self.gan.augment_target,
                images=self.batch,
                speed_images=self.gan.augment_speed_images,
            )
        return {
            "loss/image_critic": loss.detach(),
            "score/image_real": real_score.detach().mean(),
            "score/image_fake": fake_score.detach().mean(),
            "augment_probability": self.probability,
        }

    def update_pair_critic(self, pair: Batch, fake: JointImage, index: range) -> dict[str, Tensor]:
        fake_label = signed_probabilities(fake.logits.detach())
        real_scores = self._judge_pair(*self._real_pair(pair), index, "real")
        fake_scores = self._judge_pair(fake.image.detach(), fake_label, index, "fake")
        loss = adversarial.hinge_critic_loss([s.score for s in real_scores], [s.score for s in fake_scores])
        self._update(self.pair_adam, loss)
        return {
            "loss/pair_critic": loss.detach(),
            "score/pair_real": torch.stack([s.score.detach().mean() for s in real_scores]).mean(),
            "score/pair_fake": torch.stack([s.score.detach().mean() for s in fake_scores]).mean(),
        }

    def update_generator(self, pair: Batch, fake: JointImage, index: range) -> dict[str, Tensor]:
        """The pair critic teaches the label branch and the shared trunk through the labels, never through the image."""
        self._critics_need_gradients(False)
        image_loss = adversarial.logistic_generator_loss(
            self.image_critic(self._seen_by_image_critic(fake.image, index, "generator"))
        )
        fake_scores = self._judge_pair(fake.image.detach(), signed_probabilities(fake.logits), index, "generator")
        label_loss = adversarial.hinge_generator_loss([s.score for s in fake_scores])
        loss = image_loss + label_loss
        losses = {"loss/generator_image": image_loss.detach(), "loss/generator_label": label_loss.detach()}
        if self.gan.feature_matching > 0:
            with torch.no_grad():
                real_scores = self._judge_pair(*self._real_pair(pair), index, "matching")
            matching = self._feature_matching(real_scores, fake_scores)
            loss = loss + self.gan.feature_matching * matching
            losses["loss/feature_matching"] = matching.detach()
        if self.gan.class_share_weight > 0:
            assert pair.label_map is not None
            shares = class_share_loss(fake.logits, pair.label_map)
            loss = loss + self.gan.class_share_weight * shares
            losses["loss/class_share"] = shares.detach()
        self._update(self.generator_adam, loss)
        self._critics_need_gradients(True)
        return losses

    def regularise(self, real: Batch, pair: Batch, step: int, index: range) -> dict[str, Tensor]:
        """R1 on both critics and path length on the generator, each when due and weighted for the steps skipped."""
        losses: dict[str, Tensor] = {}
        if step % self.gan.r1_every == 0:
            losses |= self.regularise_image_critic(real, index) | self.regularise_pair_critic(pair, index)
        if self.gan.path_length_weight > 0 and step % self.gan.path_length_every == 0:
            losses |= self.regularise_path_length(index)
        return losses

    def regularise_image_critic(self, real: Batch, index: range) -> dict[str, Tensor]:
        image = self._seen_by_image_critic(real.image, index, "r1").detach().requires_grad_()
        penalty = adversarial.r1_penalty(self.image_critic(image), [image])
        self._update(self.image_adam, penalty * (self.gan.r1_gamma / 2 * self.gan.r1_every))
        return {"r1/image": penalty.detach()}

    def regularise_pair_critic(self, pair: Batch, index: range) -> dict[str, Tensor]:
        image, label = (
            x.detach().requires_grad_() for x in self._seen_by_pair_critic(*self._real_pair(pair), index, "r1")
        )
        scores = torch.stack([s.score.mean((1, 2, 3)) for s in self.pair_critic(image, label)]).mean(0)
        penalty = adversarial.r1_penalty(scores, [image, label])
        self._update(self.pair_adam, penalty * (self.gan.pair_r1_gamma / 2 * self.gan.r1_every))
        return {"r1/pair": penalty.detach()}

    def regularise_path_length(self, index: range) -> dict[str, Tensor]:
        first = index.start - ranks.rank() * len(index)
        index = ranks.own(range(first, first + self.path_batch))
        w_plus = self.w_plus(index, "path")
        image = self.generator.synthesis(w_plus, self._noise(index, "path")).image
        noise = seeding.normal(self.settings.seed, "path/image", index, tuple(image.shape[1:])).to(self.device)
        lengths = adversarial.path_lengths(image, w_plus, noise)
        self.mean_path_length = self.mean_path_length.lerp(ranks.mean(lengths.detach().mean()), 0.01)
        penalty = (lengths - self.mean_path_length).square().mean()
        weight = self.gan.path_length_weight * self.gan.path_length_every
        self._update(self.generator_adam, penalty * weight)
        return {"path_length": lengths.detach().mean()}

    @torch.no_grad()
    def update_average(self, images_seen: int) -> None:
        """Exponential average with a half-life that grows with training, as short runs need [ADA]."""
        half_life = min(self.gan.ema_half_life_images, max(images_seen * EMA_RAMP, self.batch))
        decay = 0.5 ** (self.batch / half_life)
        for slow, fast in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)

    # ------------------------------------------------------------ what the step is made of

    def w_plus(self, index: range, stream: str) -> Tensor:
        """W+ codes of freshly drawn latents, with style mixing."""
        seed, shape = self.settings.seed, (2, self.generator.w_dim)
        z = seeding.normal(seed, f"{stream}/z", index, shape).to(self.device)
        draws = seeding.uniform(seed, f"{stream}/mixing", index, (2,)).to(self.device)
        return self.generator.mixed(z, draws, self.gan.style_mixing)

    def generate(self, index: range) -> JointImage:
        return self.generator.synthesis(self.w_plus(index, "gan"), self._noise(index, "gan"))

    def _noise(self, index: range, stream: str) -> Tensor:
        noise = seeding.normal(self.settings.seed, f"{stream}/noise", index, (self.generator.noise_size,))
        return noise.to(self.device)

    def _draws(self, index: range, stream: str) -> Tensor:
        return seeding.uniform(self.settings.seed, stream, index, (augmentation.DRAWS,)).to(self.device)

    def _seen_by_image_critic(self, image: Tensor, index: range, stream: str) -> Tensor:
        if self.gan.augment == "none":
            return image
        draws = torch.cat([self._draws(index, f"augment/{stream}/{part}") for part in range(len(image) // len(index))])
        return augmentation.augment_image(image, draws, self.probability, augmentation.AugmentationRange())

    def _seen_by_pair_critic(self, image: Tensor, label: Tensor, index: range, stream: str) -> tuple[Tensor, Tensor]:
        if self.gan.pair_augment == "real":  # the labelled stream has moved the real pairs already
            return image, label
        draws = self._draws(index, f"augment/pair/{stream}")
        return augmentation.augment_pair(image, label, draws, 1.0, self.pair_limits, mirror=self.settings.data.mirror)

    def _judge_pair(self, image: Tensor, label: Tensor, index: range, stream: str) -> list[PatchScores]:
        return self.pair_critic(*self._seen_by_pair_critic(image, label, index, stream))

    def _real_pair(self, pair: Batch) -> tuple[Tensor, Tensor]:
        assert pair.label_map is not None, "the labelled stream carries label maps"
        return pair.image, signed_labels(pair.label_map, self.labels.channels)

    def _feature_matching(self, real: list[PatchScores], fake: list[PatchScores]) -> Tensor:
        distance = {"pairs": adversarial.feature_matching_pairs, "means": adversarial.feature_matching_means}
        return distance[self.gan.feature_matching_of]([s.features for s in real], [s.features for s in fake])

    def _critics_need_gradients(self, needed: bool) -> None:
        for critic in (self.image_critic, self.pair_critic):
            critic.requires_grad_(needed)

    def _update(self, adam: torch.optim.Adam, loss: Tensor) -> None:
        adam.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=False):
            loss.backward()
        average_gradients(weights_of(adam))
        if self.gan.precision == "float16":  # overflow is part of float16 training [ADA]; elsewhere it is a fault
            for group in adam.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        torch.nan_to_num_(weight.grad, nan=0.0, posinf=1e5, neginf=-1e5)
        adam.step()
        torch.clear_autocast_cache()  # else R1, later in this step, would meet copies of the weights from before

    def _to_device(self, batch: Batch) -> Batch:
        label_map = None if batch.label_map is None else batch.label_map.to(self.device, non_blocking=True)
        return Batch(batch.index, batch.image.to(self.device, non_blocking=True), label_map)

    # ------------------------------------------------------------ state

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "generator": self.generator,
            "average": self.average,
            "image_critic": self.image_critic,
            "pair_critic": self.pair_critic,
            "generator_adam": self.generator_adam,
            "image_adam": self.image_adam,
            "pair_adam": self.pair_adam,
        }

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return parts | {"mean_path_length": self.mean_path_length, "probability": self.probability}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
            if isinstance(part, torch.optim.Optimizer):
                _match_memory_formats(part)
        self.mean_path_length = state["mean_path_length"].to(self.device)
        self.probability = state["probability"].to(self.device)

    def load_networks(self, state: Mapping[str, Any]) -> None:
        """Warm start: networks of another run's stage 1; optimisers start afresh.

        Where the number of classes differs, the label outputs and the pair critic start anew. Raises RuntimeError for
        any other difference.
        """
        self.image_critic.load_state_dict(state["image_critic"])
        for name in ("generator", "average"):
            part = getattr(self, name)
            part.load_state_dict(_without_other_labels(part.state_dict(), state[name], part.image_channels))
        self.mean_path_length = state["mean_path_length"].to(self.device)
        self.probability = state["probability"].to(self.device)
        if _same_shapes(self.pair_critic.state_dict(), state["pair_critic"]):
            self.pair_critic.load_state_dict(state["pair_critic"])

    @torch.no_grad()
    def sample(self, seeds: range) -> JointImage:
        """Pairs from the averaged generator, one per seed, without style mixing."""
        z = seeding.normal(self.settings.seed, "sample/z", seeds, (self.average.w_dim,)).to(self.device)
        parts = []
        with autocast(self.device, self.gan.precision):
            for start in range(0, len(z), self.batch):
                parts.append(self.average(z[start : start + self.batch]))
        return JointImage(torch.cat([p.image for p in parts]), torch.cat([p.logits for p in parts]))
