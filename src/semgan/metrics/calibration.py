"""Are probabilities true: negative log-likelihood, Brier score and expected calibration error of pixels.

Definitions: Brier 1950 (multi-class form, 0 to 2), Guo et al. 2017 (ECE of the winning class, equal bins, L1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semgan.types import IGNORE

BINS = 15  # Guo et al. 2017
SMALLEST = 1e-4  # probabilities are kept from 0, so that one sure and wrong pixel does not decide everything


@dataclass(frozen=True)
class CalibrationScores:
    """nll: nats per pixel; brier: in [0, 2]; ece: in [0, 1]; pixels: how many counted."""

    nll: float
    brier: float
    ece: float
    pixels: int


def calibration_scores(probabilities: np.ndarray, label_map: np.ndarray, ignore: int = IGNORE) -> CalibrationScores:
    """Scores of class probabilities ``[..., classes, height, width]`` against labels ``[..., height, width]``.

    All pixels are pooled; those labelled ``ignore`` do not count. Raises ValueError for shapes that do not belong
    together, labels beyond the classes, and where no pixel counts.
    """
    classes = probabilities.shape[-3]
    expected = (*probabilities.shape[:-3], *probabilities.shape[-2:])
    if label_map.shape != expected:
        raise ValueError(f"Labels of shape {expected} belong to these probabilities; got {label_map.shape}.")
    counted = label_map != ignore
    truth = label_map[counted].astype(np.int64)
    if not len(truth):
        raise ValueError("No pixel counts: all are labelled 'ignore'.")
    if truth.min() < 0 or truth.max() >= classes:
        raise ValueError(f"Labels must be 0 to {classes - 1}; got {truth.min()} to {truth.max()}.")
    found = np.moveaxis(probabilities, -3, -1)[counted].astype(np.float64)
    of_truth = found[np.arange(len(truth)), truth]
    nll = -np.log(np.clip(of_truth, SMALLEST, 1)).mean()
    brier = (found**2).sum(1).mean() - 2 * of_truth.mean() + 1
    return CalibrationScores(float(nll), float(brier), _ece(found, truth), len(truth))


def _ece(found: np.ndarray, truth: np.ndarray) -> float:
    confidence, right = found.max(1), found.argmax(1) == truth
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)  # bins are open on the left
    gaps = np.bincount(place, right - confidence, BINS)
    return float(np.abs(gaps).sum() / len(truth))
