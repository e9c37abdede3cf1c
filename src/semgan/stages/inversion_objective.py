"""What the inversion minimises, image by image: Eq. 7 of the paper, and the codes it is searched in.

    d(G_x(w+), x*) + lambda_3 ||G_x(w+) - x*||^2 + lambda_2 ||w+ - E(G_x(w+))||^2

Nothing here knows how the search goes: `semgan.stages.inversion_slots` walks, `semgan.stages.stage3_inversion` is the
way in and lists the departures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from semgan.config import InversionSettings
from semgan.models.encoder import Encoder
from semgan.models.generator import Generator
from semgan.models.perceptual import LPIPS, DiscriminatorDistance
from semgan.models.whitening import Whitening
from semgan.objectives.reconstruction import pixel_distance
from semgan.objectives.segmentation import soft_cross_entropy
from semgan.runtime.device import autocast
from semgan.stages.view import POSE, TONE, seen
from semgan.types import JointImage

LEAVES = ("code", "noise", "pose", "tone")  # what the search may move


@dataclass(frozen=True)
class Guide:
    """Another model's answer that the generated mask explains beside the image (Departure: `semgan.student_answer`).

    probabilities: ``[batch, classes, side, side]``; weight: of the cross-entropy against them; 0: as without a guide
    """

    probabilities: Tensor
    weight: float


@dataclass(frozen=True)
class Objective:
    """Eq. 7 for any images; codes are whitened or w+, as ``settings.space`` says. guide_weight: see `Guide`."""

    generator: Generator
    encoder: Encoder | None
    whitening: Whitening
    perceptual: LPIPS | DiscriminatorDistance
    settings: InversionSettings
    guide_weight: float = 0.0

    @property
    def whitened(self) -> bool:
        return self.settings.space == "whitened"

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    @torch.no_grad()
    def target_features(self, image: Tensor) -> list[Tensor]:
        """The inputs' features, computed once per image."""
        with autocast(self.device, self.settings.precision):
            return self.perceptual.features(image)

    @torch.no_grad()
    def start(self, image: Tensor) -> Tensor:
        """First codes ``[batch, layers, w_dim]``: the encoder's, or the mean latent without encoder."""
        if self.encoder is None:
            v = image.new_zeros(len(image), self.generator.layers, self.generator.w_dim, dtype=torch.float32)
        else:
            with autocast(self.device, self.settings.precision):
                v = self.encoder(image.float())
        v = v.float()
        return (v if self.whitened else self.whitening.to_w(v)).clone()

    def leaves(self, image: Tensor) -> dict[str, Tensor]:
        """What is optimised, by name of `LEAVES`, as the search begins: every tensor's first index counts images.

        noise: the generator's own; pose and tone: as they were generated
        """
        count, found = len(image), {"code": self.start(image)}
        if self.settings.optimise_noise:
            found["noise"] = self.generator.fixed_noise.float().expand(count, -1).clone()
        if self.settings.lambda_pose is not None:
            found["pose"] = image.new_zeros(count, POSE, dtype=torch.float32)
        if self.settings.lambda_tone is not None:
            found["tone"] = image.new_zeros(count, image.shape[1], TONE, dtype=torch.float32)
        return found

    def generate(self, tensors: Mapping[str, Tensor]) -> JointImage:
        """The pair of the leaves' code and noise."""
        w_plus = self.w_plus(tensors["code"])
        with autocast(self.device, self.settings.precision):
            return self.generator.synthesis(w_plus, tensors.get("noise"))

    def seen(self, joint: JointImage, tensors: Mapping[str, Tensor]) -> JointImage:
        """What was generated under the leaves' pose and tone: what explains the input, and the mask of the input."""
        return seen(joint, tensors.get("pose"), tensors.get("tone"))

    def w_plus(self, code: Tensor) -> Tensor:
        return self.whitening.to_w(code) if self.whitened else code

    def v(self, code: Tensor) -> Tensor:
        return code if self.whitened else self.whitening.to_v(code)

    def terms(
        self, tensors: Mapping[str, Tensor], joint: JointImage, shown: JointImage, target: list[Tensor]
    ) -> dict[str, Tensor]:
        """Unweighted terms and their weighted sum ``loss``, float32 ``[batch]``; networks of weight 0 are not run.

        tensors: the leaves, the input as ``image``, and a guide's probabilities as ``guide`` where there is one;
        joint, shown: what they generate, and `seen` of it; target: the input's `target_features`
        """
        settings, code = self.settings, tensors["code"]
        with autocast(self.device, settings.precision):
            features = self.perceptual.features(shown.image)
        terms = {
            "perceptual": self.perceptual.distance(features, target),
            "pixel": pixel_distance(shown.image, tensors["image"], settings.reduction),
        }
        loss = terms["perceptual"]
        if settings.lambda_pixel:
            loss = loss + settings.lambda_pixel * terms["pixel"]
        if settings.lambda_encoder and self.encoder is not None:
            terms["encoder"] = self._reduced(code - self._encoded(joint.image))
            loss = loss + settings.lambda_encoder * terms["encoder"]
        if settings.lambda_prior:
            terms["prior"] = self.v(code).square().mean((1, 2))
            loss = loss + settings.lambda_prior * terms["prior"]
        for name, weight in (("pose", settings.lambda_pose), ("tone", settings.lambda_tone)):
            if weight is not None:
                terms[name] = tensors[name].square().flatten(1).mean(1)
                loss = loss + weight * terms[name]
        if "guide" in tensors:
            terms["guide"] = soft_cross_entropy(shown.logits, tensors["guide"]).mean((1, 2))
            loss = loss + self.guide_weight * terms["guide"]
        if "noise" in tensors:
            terms["noise"] = noise_autocorrelation(self.generator.noise_maps(tensors["noise"]))
            loss = loss + settings.noise_regulariser * terms["noise"]
        return {"loss": loss, **terms}

    def _reduced(self, difference: Tensor) -> Tensor:
        squares = difference.square().flatten(1)
        return squares.sum(1) if self.settings.reduction == "sum" else squares.mean(1)

    def _encoded(self, image: Tensor) -> Tensor:
        """E(G(w+)) in the space that is optimised."""
        assert self.encoder is not None
        through = torch.is_grad_enabled() and not self.settings.detach_encoder_term
        with torch.set_grad_enabled(through), autocast(self.device, self.settings.precision):
            v = self.encoder(image)
        v = v.float()
        return v if self.whitened else self.whitening.to_w(v)


def learning_rate_share(progress: float, settings: InversionSettings) -> float:
    """Share of the learning rate at ``progress`` in (0, 1): linear rise, cosine fall (StyleGAN2's projector)."""
    share = 1.0
    if settings.ramp_down and progress > 1 - settings.ramp_down:
        share *= 0.5 - 0.5 * math.cos(math.pi * (1 - progress) / settings.ramp_down)
    if settings.ramp_up and progress < settings.ramp_up:
        share *= progress / settings.ramp_up
    return share


def noise_autocorrelation(maps: Sequence[Tensor]) -> Tensor:
    """StyleGAN2's penalty on structure in noise maps ``[batch, 1, side, side]`` -> ``[batch]`` (arXiv:1912.04958).

    Squared mean product with the neighbour to the left and above, at every scale down to 8 px.
    """
    total = maps[0].new_zeros(len(maps[0]))
    for level in maps:
        while True:
            for axis in (2, 3):
                total = total + (level * level.roll(1, axis)).mean((1, 2, 3)).square()
            if level.shape[-1] <= 8:
                break
            level = F.avg_pool2d(level, 2)
    return total


@torch.no_grad()
def normalise_noise(maps: Sequence[Tensor]) -> None:
    """Give every noise map of every image mean 0 and variance 1 again, in place."""
    for level in maps:
        level -= level.mean((2, 3), keepdim=True)
        level *= level.square().mean((2, 3), keepdim=True).clamp_min(1e-8).rsqrt()
