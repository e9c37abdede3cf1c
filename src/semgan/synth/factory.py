"""Pairs drawn from a trained generator, with what is measured of each; nothing is decided here.

Numbers are drawn in blocks of `BLOCK`, always whole and always the same ones: a pair is a function of (model, seed,
number), also to the last bit, since no network ever sees it among other neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semgan import artifacts
from semgan.data.whole_images import to_pixels
from semgan.metrics import overlap
from semgan.models.discriminators import ImageCritic
from semgan.models.perceptual import DiscriminatorDistance
from semgan.stages.sample_pool import Pairs, as_pairs
from semgan.stages.semantic_gan import SemanticGan
from semgan.types import JointImage

BLOCK = 32  # pairs drawn and judged together
DRAWS = "synth"  # the stream of random numbers


@dataclass(frozen=True)
class Drawn:
    """One block of pairs, row i of number ``numbers[i]``.

    images:     uint8 ``[n, height, width]`` or ``[n, height, width, channels]``
    label_maps: uint8 ``[n, height, width]``; shares: ``[n, classes]``, each class's share of the pixels
    entropy:    ``[n]`` nats per pixel; critic: ``[n]`` logits, None where the model keeps no critic
    w, noise:   what they were made of
    """

    numbers: tuple[int, ...]
    images: np.ndarray
    label_maps: np.ndarray
    shares: np.ndarray
    entropy: np.ndarray
    critic: np.ndarray | None
    w: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Restyled:
    """Other appearances of pairs: as `Drawn`; moved: ``[n]`` 1 - mean IoU of the own mask against the pair's."""

    images: np.ndarray
    entropy: np.ndarray
    critic: np.ndarray | None
    moved: np.ndarray


class Factory:
    """Draws pairs. ``deviation``: the critic's minibatch statistic, see `scored`; None takes each block's own."""

    def __init__(self, model: SemanticGan, seed: int, truncation: float) -> None:
        self.model, self.seed, self.truncation = model, seed, truncation
        self.classes = model.labels.classes
        self.deviation: float | None = None

    @classmethod
    def load(cls, model: Path | str, *, seed: int, truncation: float, device: str = "auto") -> Factory:
        """Raises FileNotFoundError where there is no model, ValueError where it cannot draw."""
        folder = artifacts.find_model(Path(model))
        if not (folder / "generator.safetensors").is_file():
            method = artifacts.read_json(folder / "config.json").get("method")
            raise ValueError(
                f"{folder} is of method '{method}', which segments but cannot draw images; name a model with a "
                "generator, as the method semgan trains."
            )
        return cls(SemanticGan.load(folder, device=device), seed, truncation)

    @property
    def layers(self) -> int:
        return self.model.generator.layers

    @cached_property
    def critic(self) -> ImageCritic | None:
        """The image critic that the model folder keeps: that of the perceptual distance, where it is one's features."""
        if self.model.settings.perceptual.distance != "discriminator":
            return None
        distance = self.model.perceptual
        assert isinstance(distance, DiscriminatorDistance) and isinstance(distance.critic, ImageCritic)
        return distance.critic

    @torch.no_grad()
    def draw(self, first: int, *, stream: str = DRAWS) -> Drawn:
        """The block of the numbers ``first`` to ``first + BLOCK - 1``."""
        numbers = tuple(range(first, first + BLOCK))
        w = self.model.random_w(numbers, truncation=self.truncation, seed=self.seed, stream=stream)
        noise = self.model.random_noise(numbers, seed=self.seed, stream=stream)
        joint = self.model.generator.synthesis(self.model.generator.broadcast(w), noise)
        pairs = as_pairs(joint)
        label_maps = pairs.label_maps.cpu().numpy()
        shares = [np.bincount(each.ravel(), minlength=self.classes) / each.size for each in label_maps]
        images, entropy, critic = self._measured(joint, pairs)
        return Drawn(numbers, images, label_maps, np.stack(shares), entropy, critic, w, noise)

    @torch.no_grad()
    def restyle(self, drawn: Drawn, rows: Sequence[int], style: int, layer: int, *, stream: str = DRAWS) -> Restyled:
        """Appearance number ``style`` (from 1) of some rows: w+ from ``layer`` on is another draw's, noise stays."""
        numbers = [drawn.numbers[row] for row in rows]
        options = {"truncation": self.truncation, "seed": self.seed, "stream": f"{stream}/style{style}"}
        w_plus = self.model.generator.broadcast(drawn.w[list(rows)]).clone()
        w_plus[:, layer:] = self.model.random_w(numbers, **options)[:, None]
        joint = self.model.generator.synthesis(w_plus, drawn.noise[list(rows)])
        pairs = as_pairs(joint)
        own = zip(pairs.label_maps.cpu().numpy(), drawn.label_maps[list(rows)], strict=True)
        moved = np.array([mask_movement(found, kept, self.classes) for found, kept in own])
        return Restyled(*self._measured(joint, pairs), moved)

    def _measured(self, joint: JointImage, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Images as they are written, label entropy, critic's scores."""
        images = np.stack([to_pixels(image) for image in joint.image])
        critic = None if self.critic is None else self.scored(joint.image, self.critic)
        return images, pairs.entropy.double().cpu().numpy(), critic

    def scored(self, image: Tensor, critic: ImageCritic) -> np.ndarray:
        """The critic's logits ``[n]``, as a function of each image alone.

        The critic also looks at how much the images of a batch differ. That number is replaced by its mean over
        blocks of the calibration, so that no neighbour has a say.
        """
        return critic.score_features(critic.features(image)[-1], self.deviation).double().cpu().numpy()

    @torch.no_grad()
    def fit_deviation(self, firsts: Sequence[int], *, stream: str) -> None:
        """Measure the minibatch statistic on some blocks, and keep it; nothing where there is no critic."""
        if self.critic is None:
            return
        found = []
        for first in firsts:
            numbers = range(first, first + BLOCK)
            joint = self.model.generate(numbers, truncation=self.truncation, seed=self.seed, stream=stream)
            coarsest = self.critic.features(joint.image)[-1]
            found.append(float(self.critic.minibatch_deviation(coarsest).double().mean()))
        self.deviation = float(np.mean(found))


def mask_movement(found: np.ndarray, kept: np.ndarray, classes: int) -> float:
    """1 - mean IoU over the classes, background included, that occur in one of two label maps: 0 where they agree."""
    counts = overlap.count(found, kept, classes)
    return float(1 - overlap.case_means(counts, "miou-per-case", range(classes))[0])
