"""Stage 3: find the latent code whose image reproduces the input, and read off its label (Eq. 7 and 8 of the paper).

    w+* = argmin_w+  d(G_x(w+), x*) + lambda_3 ||G_x(w+) - x*||^2 + lambda_2 ||w+ - E(G_x(w+))||^2,  from w+ = E(x*)
    segmentation = G_y(w+*)

Norms are sums by default (``reduction = "sum"``), as the text writes norms; the authors' code takes means.
Departure: K classes take the most probable one, where the supplement thresholds at 0.5 (the same thing for two).
Departure: ``space = "whitened"`` optimises the whitened code v (per-w PCA of the mapping network), in which Adam's step
means the same in every direction; the encoder term is then ||v - E_v(G_x(w+))||^2.
Departure: ``lambda_prior * mean(v^2)`` is a Gaussian prior on the whitened code, which keeps it where G was trained.
The answer is the last iterate, as in the paper, not the one of lowest loss; the trace shows every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from semgan.objectives.segmentation import probabilities
from semgan.runtime.device import autocast
from semgan.runtime.modes import frozen
from semgan.types import JointImage, Segmentation


def mean_confidence(class_probabilities: Tensor) -> Tensor:
    """Mean over pixels of the winning class' probability, ``[batch]`` in [0, 1]."""
    return class_probabilities.amax(1).mean((1, 2))


def invert(
    generator: Generator,
    encoder: Encoder | None,
    whitening: Whitening,
    perceptual: LPIPS | DiscriminatorDistance,
    image: Tensor,
    settings: InversionSettings,
    *,
    steps: int | None = None,
    snapshot_steps: Sequence[int] = (),
) -> Segmentation:
    """Segment images by inversion; steps 0 is the encoder's code alone ("NO").

    Without an encoder the search starts at the mean latent and the encoder term is left out. Every image is optimised
    on its own: losses are summed over the batch, never averaged, so that its neighbours do not change its result.
    Images are taken ``settings.batch`` at a time; computation is on the generator's device, results on the image's.

    image: ``[batch, channels, size_px, size_px]`` in [-1, 1]
    snapshot_steps: steps whose probabilities and reconstructions are kept (0 = the start). With learning-rate ramps a
        snapshot at step k of n is not what a run of k steps gives.
    trace of the result: ``loss`` (weighted sum) and the unweighted terms ``perceptual``, ``pixel``, and where used
        ``encoder``, ``prior``, ``noise``; ``[steps + 1, batch]``, row k measured after k steps.
    Raises ValueError for snapshots beyond the last step and for a diverged search.
    """
    steps = settings.steps if steps is None else steps
    wanted = _checked_snapshots(snapshot_steps, steps)
    if image.ndim != 4 or len(image) == 0:
        raise ValueError(f"invert takes images [batch, channels, size_px, size_px]; got {tuple(image.shape)}.")
    networks = [part for part in (generator, encoder, whitening, perceptual) if part is not None]
    device = next(generator.parameters()).device
    parts = []
    with frozen(*networks), torch.inference_mode(False):
        for start in range(0, len(image), settings.batch):
            part = image[start : start + settings.batch].to(device)
            search = _Search(generator, encoder, whitening, perceptual, part, settings)
            parts.append(_moved(search.run(steps, wanted), image.device))
    return _joined(parts, steps)


def _checked_snapshots(snapshot_steps: Sequence[int], steps: int) -> frozenset[int]:
    if steps < 0:
        raise ValueError(f"Inversion takes 0 or more steps (0: encoder only); got {steps}.")
    beyond = sorted(step for step in snapshot_steps if not 0 <= step <= steps)
    if beyond:
        raise ValueError(f"Snapshots were asked for at steps {beyond}, but the inversion runs from 0 to {steps}.")
    return frozenset(snapshot_steps)


@dataclass
class _Found:
    """What the search of one chunk gives, with the fields of `Segmentation`."""

    probabilities: Tensor
    reconstruction: Tensor
    w_plus: Tensor
    trace: dict[str, Tensor]
    snapshots: dict[int, Tensor]
    reconstructions: dict[int, Tensor]


class _Search:
    """The optimisation of one chunk of images that fits into memory."""

    def __init__(
        self,
        generator: Generator,
        encoder: Encoder | None,
        whitening: Whitening,
        perceptual: LPIPS | DiscriminatorDistance,
        image: Tensor,
        settings: InversionSettings,
    ) -> None:
        self.generator, self.encoder, self.whitening, self.perceptual = generator, encoder, whitening, perceptual
        self.settings = settings
        self.image = image.float()
        self.whitened = settings.space == "whitened"
        with torch.no_grad(), autocast(image.device, settings.precision):
            self.target_features = perceptual.features(image)

    def run(self, steps: int, wanted: frozenset[int]) -> _Found:
        code = self.start().requires_grad_(steps > 0)
        noise = self._noise().requires_grad_(steps > 0) if self.settings.optimise_noise else None
        leaves = [code] if noise is None else [code, noise]
        optimiser = torch.optim.Adam(leaves, lr=self.settings.learning_rate, betas=(0.9, 0.999), eps=1e-8)
        rows: list[dict[str, Tensor]] = []
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        for step in range(steps + 1):
            # The last round only looks: it gives the answer and its losses, and takes no gradient.
            with torch.set_grad_enabled(step < steps):
                joint = self.generate(code, noise)
                terms = self.terms(code, noise, joint)
            rows.append({name: term.detach() for name, term in terms.items()})
            if step in wanted or step == steps:
                kept[step] = probabilities(joint.logits.detach()), joint.image.detach().float()
            if step < steps:
                self._advance(optimiser, leaves, terms["loss"].sum(), (step + 0.5) / steps)
        return _Found(
            probabilities=kept[steps][0],
            reconstruction=kept[steps][1],
            w_plus=self._w_plus(code).detach(),
            trace={name: torch.stack([row[name] for row in rows]) for name in rows[0]},
            snapshots={step: kept[step][0] for step in sorted(wanted)},
            reconstructions={step: kept[step][1] for step in sorted(wanted)},
        )

    @torch.no_grad()
    def start(self) -> Tensor:
        """The first code, in the space that is optimised: the encoder's, or the mean latent without encoder."""
        layers, w_dim = self.generator.layers, self.generator.w_dim
        if self.encoder is None:
            v = self.image.new_zeros(len(self.image), layers, w_dim)
        else:
            with autocast(self.image.device, self.settings.precision):
                v = self.encoder(self.image)
        v = v.float()
        return (v if self.whitened else self.whitening.to_w(v)).clone()

    def generate(self, code: Tensor, noise: Tensor | None) -> JointImage:
        w_plus = self._w_plus(code)
        with autocast(self.image.device, self.settings.precision):
            return self.generator.synthesis(w_plus, noise)

    def terms(self, code: Tensor, noise: Tensor | None, joint: JointImage) -> dict[str, Tensor]:
        """Unweighted terms and their weighted sum ``loss``, float32 ``[batch]``; networks of weight 0 are not run."""
        settings = self.settings
        with autocast(self.image.device, settings.precision):
            features = self.perceptual.features(joint.image)
        terms = {
            "perceptual": self.perceptual.distance(features, self.target_features),
            "pixel": pixel_distance(joint.image, self.image, settings.reduction),
        }
        loss = terms["perceptual"]
        if settings.lambda_pixel:
            loss = loss + settings.lambda_pixel * terms["pixel"]
        if settings.lambda_encoder and self.encoder is not None:
            terms["encoder"] = self._reduced(code - self._encoded(joint.image))
            loss = loss + settings.lambda_encoder * terms["encoder"]
        if settings.lambda_prior:
            v = code if self.whitened else self.whitening.to_v(code)
            terms["prior"] = v.square().mean((1, 2))
            loss = loss + settings.lambda_prior * terms["prior"]
        if noise is not None:
            terms["noise"] = noise_autocorrelation(self.generator.noise_maps(noise))
            loss = loss + settings.noise_regulariser * terms["noise"]
        return {"loss": loss, **terms}

    def _reduced(self, difference: Tensor) -> Tensor:
        squares = difference.square().flatten(1)
        return squares.sum(1) if self.settings.reduction == "sum" else squares.mean(1)

    def _encoded(self, image: Tensor) -> Tensor:
        """E(G(w+)) in the space that is optimised."""
        assert self.encoder is not None
        through = torch.is_grad_enabled() and not self.settings.detach_encoder_term
        with torch.set_grad_enabled(through), autocast(self.image.device, self.settings.precision):
            v = self.encoder(image)
        v = v.float()
        return v if self.whitened else self.whitening.to_w(v)

    def _w_plus(self, code: Tensor) -> Tensor:
        return self.whitening.to_w(code) if self.whitened else code

    def _noise(self) -> Tensor:
        return self.generator.fixed_noise.float().expand(len(self.image), -1).clone()

    def _advance(self, optimiser: torch.optim.Adam, leaves: list[Tensor], loss: Tensor, progress: float) -> None:
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.grad = gradient
        rate = self.settings.learning_rate * learning_rate_share(progress, self.settings)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        if len(leaves) > 1:
            normalise_noise(self.generator.noise_maps(leaves[1].detach()))


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


def _moved(found: _Found, device: torch.device) -> _Found:
    def each(tensors: dict) -> dict:
        return {key: tensor.to(device) for key, tensor in tensors.items()}

    return _Found(
        found.probabilities.to(device),
        found.reconstruction.to(device),
        found.w_plus.to(device),
        each(found.trace),
        each(found.snapshots),
        each(found.reconstructions),
    )


def _joined(parts: list[_Found], steps: int) -> Segmentation:
    def each(name: str, dimension: int = 0) -> dict:
        first = getattr(parts[0], name)
        return {key: torch.cat([getattr(part, name)[key] for part in parts], dimension) for key in first}

    trace = each("trace", 1)
    w_plus = torch.cat([part.w_plus for part in parts])
    finite = trace["loss"][-1].isfinite() & w_plus.isfinite().all(2).all(1)
    if not bool(finite.all()):
        lost = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"The inversion diverged for image {', '.join(map(str, lost[:8]))} of {len(finite)} in this batch; "
            "lower inversion.learning_rate or set inversion.precision=float32."
        )
    found = torch.cat([part.probabilities for part in parts])
    return Segmentation(
        probabilities=found,
        confidence=mean_confidence(found),
        steps=steps,
        reconstruction=torch.cat([part.reconstruction for part in parts]),
        w_plus=w_plus,
        trace=trace,
        snapshots=each("snapshots"),
        reconstructions=each("reconstructions"),
    )
