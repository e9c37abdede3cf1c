"""What a posterior learns from labelled validation images: the coupling of the layers, and the temperature.

slack:        by the likelihood of the images' optimised codes under the prior
temperature:  by the negative log-likelihood of the true masks under the mean of the drawn ones

Both are kept in posterior.json of the model folder.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semgan import artifacts
from semgan.metrics.calibration import CalibrationScores, calibration_scores
from semgan.posterior.latent import Budget, LatentPosterior, Method, check_codes_explain_all
from semgan.posterior.prior import Coupling, fit_coupling
from semgan.posterior.sampler import Progress, told_as_images
from semgan.stages.semantic_gan import SemanticGan

logger = logging.getLogger(__name__)

FILE = "posterior.json"
FORMAT = 3  # 1 had no entry for it; 2 had temperatures for a Laplace approximation around another code
SLACKS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
TEMPERATURES = (3e-3, 1e-3, 3e-4, 1e-4, 3e-5)  # tried first; then on from the best, while it is an end of them
LADDER = (0.3, 0.1, 3e-2, 1e-2, *TEMPERATURES, 1e-5, 3e-6, 1e-6)
BUDGET = Budget(count=16, chains=2)


@dataclass(frozen=True)
class Calibration:
    """slack, temperature: the chosen ones; scores: "optimised", and "0.001" ... -> `CalibrationScores` of the masks;
    method: how these were drawn."""

    slack: float
    temperature: float
    images: int
    scores: dict[str, CalibrationScores]
    method: Method = "hmc"

    def write(self, model: Path) -> None:
        """posterior.json beside the weights."""
        artifacts.write_json(model / FILE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, model: Path) -> Calibration | None:
        """What `write` left; None where nothing was calibrated. Raises ValueError for a damaged or an older file."""
        path = model / FILE
        if not path.is_file():
            return None
        saved: Any = artifacts.read_json(path)
        if isinstance(saved, dict) and saved.pop("format", 1) != FORMAT:
            raise ValueError(
                f"{path} was fitted for another version's sampler, and its temperature and slack do not hold for this "
                "one's; run `semgan calibrate` again, or remove the file."
            )
        try:
            scores = {name: CalibrationScores(**each) for name, each in saved.pop("scores").items()}
            return cls(**saved, scores=scores)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it and calibrate again.") from None


def calibrate(
    model: SemanticGan,
    images: Tensor,
    label_maps: np.ndarray,
    *,
    method: Method = "hmc",
    budget: Budget | None = None,
    temperatures: Sequence[float] | None = None,
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Fit both on images ``[n, channels, size_px, size_px]`` in [-1, 1] and label maps ``[n, size_px, size_px]``.

    budget: of the chains for every temperature, None: `BUDGET`; temperatures: None: `TEMPERATURES`, and those of
    `LADDER` beyond while the best is an end of those tried
    Raises ValueError for models that `LatentPosterior` does not take, and for "iterates", which know no temperature.
    """
    if method == "iterates":
        raise ValueError("The last iterates do not depend on the temperature; calibrate with --method hmc or laplace.")
    check_codes_explain_all(model.settings.inversion)
    budget = budget or BUDGET
    waiting, tried = list(temperatures or TEMPERATURES), list[float]()
    answers = [model.segment_batch(part) for part in images.split(batch)]
    codes = torch.cat([model.whitening.to_v(_code(answer)) for answer in answers])
    scores = {"optimised": calibration_scores(_joined(answer.probabilities for answer in answers), label_maps)}
    coupling = fit_coupling(model.generator, model.whitening, style_mixing=model.settings.gan.style_mixing)
    slack = fit_slack(coupling, codes)
    prior = coupling.prior(slack)
    while waiting:
        temperature, total = waiting.pop(0), (len(tried) + 1 + len(waiting)) * len(images)
        posterior = LatentPosterior(model, temperature=temperature, slack=slack, prior=prior)
        means = []
        for number, part in enumerate(images.split(batch)):
            before = len(tried) * len(images) + number * batch
            told = told_as_images(progress, before, len(part), total, "fitting the temperature")
            drawn = posterior.draw(part, method, budget, seed=seed, first=number * batch, progress=told)
            means += [each.mean[None] for each in drawn]
            if progress is not None:
                progress(before + len(part), total, "fitting the temperature")
        scores[f"{temperature:g}"] = calibration_scores(_joined(means), label_maps)
        tried.append(temperature)
        best = min(tried, key=lambda each: scores[f"{each:g}"].nll)
        if not waiting and temperatures is None:
            waiting = beyond(tried, best)
    if len(tried) > 1 and best in (min(tried), max(tried)):
        ends = (best, ", ".join(f"{each:g}" for each in tried))
        logger.warning("The best temperature, %g, is an end of those tried (%s): credible volumes hang on it.", *ends)
    return Calibration(slack, best, len(images), scores, method)


def beyond(tried: Sequence[float], best: float) -> list[float]:
    """The next temperature of `LADDER` on the side of ``best`` where nothing was tried; none where it lies between
    others, or the ladder ends."""
    if best == max(tried):
        return [each for each in LADDER if each > best][-1:]
    if best == min(tried):
        return [each for each in LADDER if each < best][:1]
    return []


def fit_slack(coupling: Coupling, codes: Tensor) -> float:
    """The slack of the prior under which whitened codes ``[n, layers, w_dim]`` are likeliest."""

    def cost(slack: float) -> float:
        prior = coupling.prior(slack)
        volume = codes.shape[-1] * prior.root.diagonal().log().sum()
        return float(prior.energy(codes).mean() + volume)

    return min(SLACKS, key=cost)


def _code(answer: Any) -> Tensor:
    assert answer.w_plus is not None, "a semantic GAN answers with its code"
    return answer.w_plus


def _joined(parts: Any) -> np.ndarray:
    return torch.cat(list(parts)).float().cpu().numpy()
