"""Probabilities made true: one temperature for all pixels, by the likelihood of validation masks (Guo et al. 2017).

    p' ~ p^(1 / T)

Masks stay as they are. What is told of it is held out: every image's probabilities are tempered by a T that was fitted
to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semgan.metrics.calibration import CalibrationScores, calibration_scores
from semgan.trust.ridge import folds
from semgan.types import IGNORE

TEMPERATURES = tuple(sorted({1.0, *(float(value) for value in np.geomspace(0.3, 8.0, 34))}))
LEAST = 1e-7  # about the smallest number of the half precision that probabilities are kept in while a T is fitted


@dataclass(frozen=True)
class Tempered:
    """temperature: of all images; before, after: pixels of validation, ``after`` held out."""

    temperature: float
    before: CalibrationScores
    after: CalibrationScores


def tempered(probabilities: NDArray, temperature: float, axis: int = 0) -> NDArray[np.float32]:
    """p^(1 / temperature), summing to 1 along the classes' axis; the most probable class stays the same."""
    logs = np.log(np.clip(probabilities.astype(np.float32), LEAST, 1)) / np.float32(temperature)
    powers = np.exp(logs - logs.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def fit_temperature(probabilities: NDArray, label_maps: NDArray, groups: Sequence[str], *, seed: int = 0) -> Tempered:
    """Fit to ``[images, classes, height, width]`` and labels ``[images, height, width]`` (255: does not count)."""
    counted = (label_maps != IGNORE).reshape(len(label_maps), -1).sum(1)
    # Negative log-likelihood of every image, in nats, at every temperature.
    losses = np.array([_losses(probabilities, label_maps, counted, each) for each in TEMPERATURES])
    held_out = np.empty(probabilities.shape, np.float32)
    for inside in folds(groups, seed):
        held_out[inside] = tempered(probabilities[inside], _best(losses[:, ~inside]), axis=1)
    before, after = (calibration_scores(each, label_maps) for each in (probabilities, held_out))
    return Tempered(_best(losses), before, after)


def _best(losses: NDArray) -> float:
    return TEMPERATURES[int(losses.sum(1).argmin())]


def _losses(probabilities: NDArray, label_maps: NDArray, counted: NDArray, temperature: float) -> list[float]:
    sharpened = tempered(probabilities, temperature, axis=1)
    return [
        calibration_scores(own, truth).nll * pixels if pixels else 0.0
        for own, truth, pixels in zip(sharpened, label_maps, counted, strict=True)
    ]
