"""A trained semantic GAN: generator, encoder and inversion as one model that segments and samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semgan import artifacts, config, seeding
from semgan.config import InversionSettings, Preprocessing, Settings
from semgan.data.transforms import network_input, rules_by_modality
from semgan.data.whole_images import Input, SegmentedImage, segment_images, to_pixels
from semgan.model_card import model_card
from semgan.models.encoder import Encoder
from semgan.models.generator import Generator
from semgan.models.lpips_weights import build_perceptual
from semgan.models.perceptual import LPIPS, DiscriminatorDistance
from semgan.models.whitening import Whitening
from semgan.objectives.segmentation import probabilities
from semgan.runtime.device import choose_device
from semgan.runtime.modes import freeze
from semgan.stages.encoder_only import segment_by_encoder
from semgan.stages.inversion_objective import Guide
from semgan.stages.stage1_gan import build_generator, build_image_critic
from semgan.stages.stage3_inversion import invert
from semgan.stages.stopping import StoppingRule
from semgan.types import AUTO, JointImage, LabelSpace, Segmentation, Steps

logger = logging.getLogger("semgan")

Distance = LPIPS | DiscriminatorDistance
NO_ENCODER = "This model has no encoder yet, and steps 0 are its answer alone: finish the training, or give more steps."
_WHITENING = "whitening."  # prefix of the whitening's tensors in generator.safetensors
_SAMPLE_BATCH = 64


@dataclass(frozen=True)
class Samples:
    """Drawn pairs, row i from ``seeds[i]``.

    images:     uint8 ``[n, size_px, size_px]`` (grey) or ``[n, size_px, size_px, channels]``
    label_maps: uint8 ``[n, size_px, size_px]`` class indices
    """

    seeds: tuple[int, ...]
    images: np.ndarray
    label_maps: np.ndarray


class SemanticGan:
    """The three stages' product (`semgan.types.Segmenter`), frozen and on one device.

    rules:        preprocessing rules by modality; None: those of the settings
    chosen_steps: inversion steps picked on validation; None: ``settings.inversion.steps``
    rule:         picks every image's own steps, learned on validation; it goes before ``chosen_steps``
    perceptual:   the distance, or a function that loads it, called at the first segmentation: sampling needs none
    """

    def __init__(
        self,
        settings: Settings,
        generator: Generator,
        whitening: Whitening,
        encoder: Encoder | None,
        perceptual: Distance | Callable[[], Distance],
        *,
        device: torch.device | str = "cpu",
        rules: Mapping[str, Preprocessing] | None = None,
        chosen_steps: int | None = None,
        rule: StoppingRule | None = None,
    ) -> None:
        self.settings = settings
        self.labels = LabelSpace(tuple(settings.classes))
        self.device = torch.device(device)
        self.rules = dict(rules or rules_by_modality(settings))
        self.rule = rule
        self.fixed_steps = settings.inversion.steps if chosen_steps is None else chosen_steps
        self.steps: Steps = self.fixed_steps if rule is None else AUTO
        self.generator, self.whitening = self._placed(generator), self._placed(whitening)
        self.encoder = None if encoder is None else self._placed(encoder)
        self._told = False
        self._load_perceptual = (lambda: perceptual) if isinstance(perceptual, nn.Module) else perceptual

    @cached_property
    def perceptual(self) -> Distance:
        """The distance of the inversion, frozen. Raises `WeightsNotAtHand` where LPIPS finds no weights."""
        distance = self._placed(self._load_perceptual())
        freeze(distance)
        return distance

    def _placed(self, module: Any) -> Any:
        return module.to(self.device)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "auto") -> SemanticGan:
        """The model of a run folder or model folder.

        Raises FileNotFoundError where there is none, ValueError for damaged files.
        """
        folder = artifacts.find_model(Path(folder))
        description, weights = artifacts.read_model(folder)
        defaults = Settings()  # type: ignore[call-arg]
        settings = config.override(defaults, description["settings"], f"{folder}/config.json")
        rules = {name: Preprocessing(**rule) for name, rule in description["preprocessing"].items()}
        generator, whitening, encoder = _networks(
            settings, weights, folder, trained_encoder="images_seen_encoder" in description.get("training", {})
        )
        inversion = description.get("inversion", {})
        model = cls(
            settings,
            generator,
            whitening,
            encoder,
            _perceptual(settings, weights, folder),
            device=choose_device(device),
            rules=rules,
            chosen_steps=inversion.get("chosen_steps"),
            rule=StoppingRule.from_json(inversion["rule"]) if inversion.get("rule") else None,
        )
        for module in (model.generator, model.whitening, model.encoder):
            if module is not None:
                freeze(module)
        return model

    # ------------------------------------------------------------ segmenting

    def preprocess(self, image: np.ndarray, modality: str = "default") -> Tensor:
        """One decoded image of any size -> ``[channels, size_px, size_px]`` in [-1, 1], by the rule of its modality."""
        return network_input(image, self.rules, modality)

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
        guide: Guide | None = None,
    ) -> Segmentation:
        """Segment ``[batch, channels, size_px, size_px]`` in [-1, 1] by inversion; steps 0 is the encoder alone.

        steps:    "auto": each image's own, by the model's stopping rule (ValueError where it has none)
        modality: may have its own weight of the pixels, lambda_3
        guide:    another model's answer that the masks explain beside the images
        Raises ValueError also for steps 0 without an encoder.
        """
        self.check(image)
        steps = self.steps if steps is None else steps
        if steps == AUTO and self.rule is None:
            raise ValueError(
                "The model has no stopping rule (too few validation images, or guided); give a number of steps."
            )
        if self.encoder is None:
            self._tell_of_no_encoder(steps)
        return invert(
            self.generator,
            self.encoder,
            self.whitening,
            self.perceptual,
            image,
            self.inversion_settings(modality),
            steps=None if steps == AUTO else steps,
            snapshot_steps=snapshot_steps,
            rule=self.rule if steps == AUTO else None,
            guide=guide,
        )

    def _tell_of_no_encoder(self, steps: Steps) -> None:
        """Raises ValueError for steps 0, which would give every image the same mask; else says once what to expect."""
        if steps == 0:
            raise ValueError(NO_ENCODER)
        if not self._told:
            logger.warning(
                "The model has no encoder yet, so every search begins at the same code and needs more steps."
            )
            self._told = True

    def masks_only(self, image: Tensor) -> Segmentation:
        """`segment_batch` at steps 0 without losses, about half of the work. Raises ValueError without an encoder."""
        self.check(image)
        if self.encoder is None:
            raise ValueError(NO_ENCODER)
        return segment_by_encoder(self.generator, self.encoder, self.whitening, image, self.settings.inversion)

    def check(self, image: Tensor) -> None:
        """Raises ValueError for images of another size or channel count."""
        rule = self.settings.preprocessing
        expected = (rule.channels, rule.size_px, rule.size_px)
        if tuple(image.shape[1:]) != expected:
            wanted = ", ".join(map(str, expected))
            raise ValueError(f"The model takes images [batch, {wanted}]; got {tuple(image.shape)}.")

    def inversion_settings(self, modality: str) -> InversionSettings:
        own = self.settings.inversion
        if modality != "mri" or own.lambda_pixel_mri is None:
            return own
        return own.model_copy(update={"lambda_pixel": own.lambda_pixel_mri})

    def segment(
        self,
        images: Iterable[np.ndarray | Path | str | Input],
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str | None = None,
    ) -> list[SegmentedImage]:
        """Decoded images or files -> answers at each image's own size, in order."""
        return list(segment_images(self, images, steps=steps, snapshot_steps=snapshot_steps, modality=modality))

    # ------------------------------------------------------------ sampling

    @torch.no_grad()
    def generate(
        self,
        seeds: Sequence[int],
        *,
        truncation: float = 1.0,
        style_mixing: float = 0.0,
        seed: int = 0,
        stream: str = "sample",
    ) -> JointImage:
        """Random pairs, row i a function of (seed, stream, ``seeds[i]``) alone; truncation < 1 pulls w to its mean.

        style_mixing: how often the finer layers, from a random one on, have another latent's w, as in training
        """
        w_plus = self.generator.broadcast(self.random_w(seeds, truncation=truncation, seed=seed, stream=stream))
        if style_mixing > 0:
            other = self.random_w(seeds, truncation=truncation, seed=seed, stream=f"{stream}/other")
            draws = seeding.uniform(seed, f"{stream}/mixing", seeds, (2,)).to(self.device)
            w_plus = self.generator.crossed(w_plus[:, 0], other, draws, style_mixing)
        return self.generator.synthesis(w_plus, self.random_noise(seeds, seed=seed, stream=stream))

    @torch.no_grad()
    def random_w(self, seeds: Sequence[int], *, truncation: float, seed: int, stream: str) -> Tensor:
        """The w ``[n, w_dim]`` of `generate`."""
        z = seeding.normal(seed, f"{stream}/z", seeds, (self.generator.w_dim,)).to(self.device)
        return self.whitening.mean + truncation * (self.generator.mapping(z) - self.whitening.mean)

    def random_noise(self, seeds: Sequence[int], *, seed: int, stream: str) -> Tensor:
        """The noise ``[n, noise_size]`` of `generate`."""
        return seeding.normal(seed, f"{stream}/noise", seeds, (self.generator.noise_size,)).to(self.device)

    def sample(self, seeds: Sequence[int], *, truncation: float = 1.0) -> Samples:
        """Random images with their label maps as uint8 arrays."""
        images, label_maps = [], []
        for start in range(0, len(seeds), _SAMPLE_BATCH):
            joint = self.generate(seeds[start : start + _SAMPLE_BATCH], truncation=truncation)
            images += [to_pixels(image) for image in joint.image]
            label_maps.append(probabilities(joint.logits).argmax(1).byte().cpu().numpy())
        if not images:
            raise ValueError("sample needs at least one seed; got none.")
        return Samples(tuple(int(seed) for seed in seeds), np.stack(images), np.concatenate(label_maps))


def model_files(
    settings: Settings,
    *,
    generator: Generator,
    whitening: Whitening,
    encoder: Encoder | None,
    perceptual: Distance,
    chosen_steps: int | None = None,
    rule: StoppingRule | None = None,
    rules: Mapping[str, Preprocessing] | None = None,
    data: Mapping[str, object] | None = None,
    training: Mapping[str, object] | None = None,
    scores: Mapping[str, float] | None = None,
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]], str]:
    """Description, weights and card of a model folder: ``artifacts.save_model(folder, *model_files(...))``.

    The distance that training used is written down, so that the model never meets another one where it is loaded.
    data, training, scores: facts for the card, see `model_card`.
    """
    weights = {"generator": generator.state_dict() | {_WHITENING + k: v for k, v in whitening.state_dict().items()}}
    if encoder is not None:
        weights["encoder"] = encoder.state_dict()
    distance = "lpips"
    if isinstance(perceptual, DiscriminatorDistance):
        distance = "discriminator"
        weights["image_critic"] = perceptual.critic.state_dict()
    # Paths of weights hold on this machine alone.
    perceptual_settings = {"distance": distance, "trunk_weights": None, "head_weights": None}
    saved = config.override(settings, {"perceptual": perceptual_settings})
    named_rules = rules or rules_by_modality(settings)
    description = {
        "method": settings.method,
        "settings": saved.model_dump(mode="json"),
        "classes": list(settings.classes),
        "preprocessing": {name: rule.model_dump(mode="json") for name, rule in named_rules.items()},
        "inversion": {"chosen_steps": chosen_steps} | ({} if rule is None else {"rule": rule.to_json()}),
        "scores": dict(scores or {}),
    }
    facts = dict(training or {}) | ({} if rule is None else {"optimisation at test time": rule.describe()})
    card = model_card(saved, data=data, training=facts, scores=scores)
    return description, weights, card


def _networks(
    settings: Settings, weights: Mapping[str, dict[str, Tensor]], folder: Path, *, trained_encoder: bool
) -> tuple[Generator, Whitening, Encoder | None]:
    state = _weights_of(weights, "generator", folder)
    rule = settings.preprocessing
    generator = build_generator(settings, LabelSpace(tuple(settings.classes)))
    whitening = Whitening(generator.w_dim)
    _fill(generator, {k: v for k, v in state.items() if not k.startswith(_WHITENING)}, folder / "generator.safetensors")
    ours = {k.removeprefix(_WHITENING): v for k, v in state.items() if k.startswith(_WHITENING)}
    _fill(whitening, ours, folder / "generator.safetensors")
    encoder = None
    if trained_encoder and "encoder" not in weights:
        raise ValueError(f"{folder} lacks encoder.safetensors; copy the whole model folder again.")
    if "encoder" in weights:
        encoder = Encoder(
            settings.encoder,
            size_px=rule.size_px,
            image_channels=rule.channels,
            layers=generator.layers,
            w_dim=generator.w_dim,
        )
        _fill(encoder, weights["encoder"], folder / "encoder.safetensors")
    return generator.to(memory_format=torch.channels_last), whitening, encoder  # type: ignore[call-overload]


def _perceptual(
    settings: Settings, weights: Mapping[str, dict[str, Tensor]], folder: Path
) -> Distance | Callable[[], Distance]:
    """The saved critic's features at once, or how to get LPIPS once it is needed."""
    if settings.perceptual.distance == "discriminator":
        critic = build_image_critic(settings)
        _fill(critic, _weights_of(weights, "image_critic", folder), folder / "image_critic.safetensors")
        return DiscriminatorDistance(critic.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return lambda: build_perceptual(settings.perceptual, None, settings.preprocessing.channels)[0]


def _weights_of(weights: Mapping[str, dict[str, Tensor]], name: str, folder: Path) -> dict[str, Tensor]:
    if name not in weights:
        raise FileNotFoundError(f"{folder}/{name}.safetensors is missing; copy the whole model folder again.")
    return weights[name]


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} does not fit config.json beside it ({reason}); copy both again.") from None
