"""The posterior of a trained model's codes given an image, and masks drawn from it.

    potential(u) = |u|^2 / 2 + (d(G_x(w+), x*) + lambda_3 ||G_x(w+) - x*||^2) / temperature

in the prior's own coordinates u (`semgan.posterior.prior`), in which it is a standard normal and one step size serves
all directions. The likelihood is Eq. 8; its encoder term is no energy, and the prior stands in its place. The
temperature says how far a reconstruction may be off; it is fitted to the masks of the validation list
(`semgan.posterior.calibration`).

Two cheap stand-ins for chains: a Gaussian of low rank around the optimised code (`semgan.posterior.laplace`), and the
last iterates of the optimisation. The former is not moved to the posterior's mode, which lies elsewhere, without the
encoder term of Eq. 7: that takes eight times the gradients, for masks that are no better in domain, and a little under
shifts (results/posterior-64).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from semgan import seeding
from semgan.config import InversionSettings
from semgan.objectives.reconstruction import pixel_distance
from semgan.objectives.segmentation import probabilities
from semgan.posterior.diagnostics import Diagnosis, diagnose, enough
from semgan.posterior.laplace import fit_laplace
from semgan.posterior.preconditioning import Chains, run_preconditioned
from semgan.posterior.prior import CodePrior, fit_coupling
from semgan.posterior.sampler import Kernel, Progress
from semgan.stages.semantic_gan import SemanticGan

Method = Literal["hmc", "mala", "langevin", "laplace", "iterates"]
KERNELS = {  # reach: preconditioned, the posterior is hardly wider than a standard normal
    "hmc": Kernel(leapfrog_steps=16, accept=0.7, step_size=0.1, reach=math.pi / 2),
    "mala": Kernel(leapfrog_steps=1, accept=0.57, step_size=0.2),
    "langevin": Kernel(leapfrog_steps=2, persistence=0.8, accept=0.8, step_size=0.2),
}
LENGTHS: dict[str, tuple[int, int]] = {
    "hmc": (30, 3),
    "mala": (240, 24),
    "langevin": (120, 12),
}  # warmup, thin: the shorter a move, the more
METHODS: tuple[Method, ...] = ("hmc", "mala", "langevin", "laplace", "iterates")
LAPLACE_RANK = 16  # directions of the Laplace approximation; each takes a gradient


@dataclass(frozen=True)
class Budget:
    """Length of the chains. count: draws of an image in all; chains: of an image; thin: moves between two draws.

    warmup, thin: None: as the method needs (`LENGTHS`). Raises ValueError for counts that cannot be shared out.
    """

    count: int = 32
    chains: int = 4
    warmup: int | None = None
    thin: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.chains < 1 or self.count % self.chains:
            raise ValueError(
                f"The draws of an image are shared out among its chains: {self.count} draws do not go into "
                f"{self.chains} chains; give a multiple."
            )
        if (self.warmup or 0) < 0 or (self.thin is not None and self.thin < 1):
            raise ValueError(f"warmup is 0 or more and thin 1 or more; got {self.warmup} and {self.thin}.")

    def of(self, method: str) -> Budget:
        """With the method's own lengths where none was given; those without chains have none."""
        if method not in LENGTHS:
            return self
        warmup, thin = LENGTHS[method]
        return replace(
            self,
            warmup=warmup if self.warmup is None else self.warmup,
            thin=thin if self.thin is None else self.thin,
        )

    @property
    def per_chain(self) -> int:
        return self.count // self.chains


@dataclass(frozen=True)
class MaskDraws:
    """Draws of one image's masks, at the network's resolution.

    probabilities: float16 ``[draws, classes, height, width]``, chain after chain
    energies:      ``[draws]``, potential of each draw; None for the cheap stand-ins
    acceptance:    mean over the chains; None for the cheap stand-ins
    diagnoses:     "energy" and "area of CLASS" -> `Diagnosis` of all moves after the warm-up; empty for too few moves
    """

    probabilities: Tensor
    energies: np.ndarray | None = None
    acceptance: float | None = None
    diagnoses: dict[str, Diagnosis] | None = None

    @property
    def mean(self) -> Tensor:
        """Mean probability ``[classes, height, width]`` float32."""
        return self.probabilities.float().mean(0)

    @property
    def label_maps(self) -> Tensor:
        """``[draws, height, width]`` uint8."""
        return self.probabilities.argmax(1).byte()

    def shares(self) -> np.ndarray:
        """Share of the pixels that each draw's mask gives to each class, ``[draws, classes]``."""
        return class_shares(self.probabilities).numpy()


def class_shares(probabilities: Tensor) -> Tensor:
    """``[n, classes, height, width]`` -> share of the pixels whose likeliest class it is, ``[n, classes]`` float32."""
    maps = probabilities.argmax(1).flatten(1)
    return torch.stack([(maps == index).float().mean(1) for index in range(probabilities.shape[1])], 1)


def check_codes_explain_all(settings: InversionSettings) -> None:
    """Raises ValueError for an inversion that optimises more than codes: the posterior would explain otherwise."""
    more = {
        "lambda_pose=null": settings.lambda_pose is not None,
        "lambda_tone=null": settings.lambda_tone is not None,
        "optimise_noise=false": settings.optimise_noise,
    }
    if any(more.values()):
        off = [f"--set inversion.{name}" for name, asked in more.items() if asked]
        raise ValueError(
            "The posterior is one of codes alone, and this model's inversion explains an image by its pose, tone or "
            f"noise, too: their masks would not match. Train a model with {' '.join(off)}, or set the same in "
            "config.json of a copy of the model folder."
        )


class LatentPosterior:
    """p(u | image) of a model. temperature: of the likelihood; slack: of the prior (`Coupling.prior`).

    Raises ValueError for a temperature that is not positive, and for models whose inversion optimises more than codes.
    """

    def __init__(self, model: SemanticGan, *, temperature: float, slack: float = 0.6, prior: CodePrior | None = None):
        if not temperature > 0:
            raise ValueError(f"The temperature of a posterior is positive; got {temperature:g}.")
        check_codes_explain_all(model.settings.inversion)
        self.model, self.temperature, self.slack = model, temperature, slack
        if prior is None:
            mixing = model.settings.gan.style_mixing
            prior = fit_coupling(model.generator, model.whitening, style_mixing=mixing).prior(slack)
        self.prior = prior

    def draw(
        self,
        image: Tensor,
        method: Method = "hmc",
        budget: Budget = Budget(),  # noqa: B008
        *,
        seed: int = 0,
        first: int = 0,
        steps: int | None = None,
        modality: str = "default",
        progress: Progress | None = None,
    ) -> list[MaskDraws]:
        """Masks of each image of ``[batch, channels, size_px, size_px]`` in [-1, 1].

        first: number of the first image, which with the seed names its random numbers; steps: of the optimisation that
        the chains start from. "iterates" keeps the last ``budget.count`` of them and takes twice as many steps at
        least, whatever ``steps`` says. An image's draws do not depend on the others of its batch, but for rounding,
        which chains and the search for their coordinates amplify.
        """
        if method == "iterates":
            return self._iterates(image, budget.count, steps, modality)
        found = self.model.segment_batch(image, steps=steps, modality=modality)
        assert found.w_plus is not None
        start = self.prior.to_u(self.model.whitening.to_v(found.w_plus.to(self.model.device)))
        if method == "laplace":
            return self._laplace(image, start, budget.count, seed, first, modality)
        return self._chains(image, start, KERNELS[method], budget.of(method), seed, first, modality, progress)

    def _chains(
        self,
        image: Tensor,
        start: Tensor,
        kernel: Kernel,
        budget: Budget,
        seed: int,
        first: int,
        modality: str,
        progress: Progress | None,
    ) -> list[MaskDraws]:
        size, warmup, thin = budget.chains, budget.warmup or 0, budget.thin or 1
        kept: list[Tensor] = []
        energies: list[Tensor] = []
        shares: list[Tensor] = []

        def visit(number: int, position: Tensor, potential: Tensor) -> None:
            masks = self.masks(position).half()
            energies.append(potential)
            shares.append(class_shares(masks))
            if (number + 1) % thin == 0:
                kept.append(masks.cpu())

        report = run_preconditioned(
            Energy(self, image, modality),
            Energy(self, image.repeat_interleave(size, 0), modality),
            start,
            kernel,
            Chains(size, warmup, budget.per_chain * thin, seed, first),
            visit,
            progress,
        )
        masks, acceptance = torch.stack(kept, 1), report.acceptance.cpu()
        series = torch.stack(energies, 1).cpu().double().numpy(), torch.stack(shares, 1).cpu().numpy()
        return [
            self._draws(masks[own], series[0][own], series[1][own], float(acceptance[own].mean()), budget)
            for own in (slice(row * size, (row + 1) * size) for row in range(len(image)))
        ]

    def _draws(
        self, masks: Tensor, energies: np.ndarray, shares: np.ndarray, acceptance: float, budget: Budget
    ) -> MaskDraws:
        """Of one image: masks ``[chains, per chain, classes, h, w]``; after every move energies ``[chains, moves]`` and
        shares ``[chains, moves, classes]``."""
        diagnoses: dict[str, Diagnosis] = {}
        thin = budget.thin or 1
        if enough(*energies.shape):
            names = self.model.labels.names
            diagnoses = {"energy": diagnose(energies, draws=budget.count, must_move=True)} | {
                f"area of {names[index]}": diagnose(shares[..., index], draws=budget.count)
                for index in range(1, len(names))
            }
        own = energies[:, thin - 1 :: thin].reshape(-1)
        return MaskDraws(masks.flatten(0, 1), own, acceptance, diagnoses)

    def _laplace(
        self, image: Tensor, start: Tensor, count: int, seed: int, first: int, modality: str
    ) -> list[MaskDraws]:
        numbers = range(first, first + len(image))
        found = fit_laplace(Energy(self, image, modality), start, rank=LAPLACE_RANK, seed=seed, numbers=numbers)
        draws = []
        for row in range(len(image)):
            numbers = range((first + row) * count, (first + row + 1) * count)
            chance = seeding.normal(seed, "posterior/laplace", numbers, tuple(start.shape[1:])).to(start)
            masks = [self.masks(part).half().cpu() for part in found.draw(row, chance).split(64)]
            draws.append(MaskDraws(torch.cat(masks)))
        return draws

    def _iterates(self, image: Tensor, count: int, steps: int | None, modality: str) -> list[MaskDraws]:
        last = max(self.model.settings.inversion.steps if steps is None else steps, 2 * count)
        wanted = tuple(range(last - count + 1, last + 1))
        found = self.model.segment_batch(image, steps=last, snapshot_steps=wanted, modality=modality)
        kept = torch.stack([found.snapshots[step] for step in wanted], 1).half().cpu()
        return [MaskDraws(own) for own in kept]

    @torch.no_grad()
    def masks(self, u: Tensor) -> Tensor:
        """Class probabilities ``[batch, classes, size_px, size_px]`` of the codes' label outputs."""
        w_plus = self.model.whitening.to_w(self.prior.to_v(u))
        return probabilities(self.model.generator.synthesis(w_plus).logits)


class Energy:
    """The potential of every row of u, each with its own image ``[rows, channels, size_px, size_px]``; float32."""

    def __init__(self, posterior: LatentPosterior, image: Tensor, modality: str):
        self.posterior, model = posterior, posterior.model
        self.image = image.to(model.device).float()
        self.settings = model.inversion_settings(modality)
        with torch.no_grad():
            self.target = model.perceptual.features(self.image)

    def __call__(self, u: Tensor) -> Tensor:
        model = self.posterior.model
        image = model.generator.synthesis(model.whitening.to_w(self.posterior.prior.to_v(u))).image
        loss = model.perceptual.distance(model.perceptual.features(image), self.target)
        if self.settings.lambda_pixel:
            loss = loss + self.settings.lambda_pixel * pixel_distance(image, self.image, self.settings.reduction)
        return 0.5 * u.square().sum((1, 2)) + loss / self.posterior.temperature
