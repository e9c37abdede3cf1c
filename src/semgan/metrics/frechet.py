"""Frechet distance between Gaussians fitted to features of real and generated images.

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)            (Dowson and Landau 1982; Heusel et al. 2017)

Over any features; whoever reports it names them. It is the FID only over the Inception network's. It falls with the
number of images (biased upwards for few): compare equal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class FeatureStatistics:
    """Mean and covariance of features, gathered batch by batch in float64 (Chan, Golub and LeVeque 1979)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(size)
        self._scatter: NDArray[np.float64] = np.zeros((size, size))

    def update(self, features: NDArray | Tensor) -> None:
        """Add features ``[batch, size]``."""
        if not isinstance(features, np.ndarray):
            features = features.detach().cpu().double().numpy()
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise ValueError(f"Features of shape [batch, {len(self.mean)}] are expected; got {list(rows.shape)}.")
        if not len(rows):
            return
        other = FeatureStatistics(len(self.mean))
        other.count = len(rows)
        other.mean = rows.mean(axis=0)
        centred = rows - other.mean
        other._scatter = centred.T @ centred
        self.merge(other)

    def merge(self, other: FeatureStatistics) -> None:
        """Add what another accumulator has seen, for example another process."""
        total = self.count + other.count
        if not other.count:
            return
        shift = other.mean - self.mean
        self._scatter = self._scatter + other._scatter + np.outer(shift, shift) * (self.count * other.count / total)
        self.mean = self.mean + shift * (other.count / total)
        self.count = total

    @property
    def covariance(self) -> NDArray[np.float64]:
        """``[size, size]``, divided by count - 1. Raises ValueError for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"A covariance needs the features of at least 2 images; got {self.count}.")
        return self._scatter / (self.count - 1)


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Squared Frechet distance, >= 0, as FID is reported.

    tr (C1 C2)^1/2 is the sum of the roots of the eigenvalues of the symmetric C1^1/2 C2 C1^1/2: two `eigh` in float64
    instead of one `sqrtm` of an unsymmetric product (seconds instead of most of a minute at 2048 features).
    Features that are not finite are at distance NaN.
    """
    if not all(np.isfinite(part).all() for each in (first, second) for part in (each.mean, each.covariance)):
        return float("nan")
    root = _root(first.covariance)
    inner = root @ second.covariance @ root
    cross = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None)).sum()
    shift = first.mean - second.mean
    value = shift @ shift + np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross
    return float(max(value, 0.0))


def pooled_features(features: Sequence[Tensor] | Tensor) -> Tensor:
    """Feature maps ``[batch, channels, height, width]`` each -> pixel means, side by side: ``[batch, features]``."""
    import torch

    maps: list[Tensor] = [features] if isinstance(features, torch.Tensor) else list(features)
    return torch.cat([part.flatten(2).float().mean(2) if part.ndim > 2 else part.float() for part in maps], dim=1)


def feature_statistics(
    images: Iterable[Tensor], features: Callable[[Tensor], Sequence[Tensor] | Tensor]
) -> FeatureStatistics:
    """Statistics of the pooled features of image batches ``[batch, channels, height, width]`` in [-1, 1]."""
    import torch

    statistics: FeatureStatistics | None = None
    with torch.no_grad():
        for batch in images:
            rows = pooled_features(features(batch))
            statistics = statistics or FeatureStatistics(rows.shape[1])
            statistics.update(rows)
    if statistics is None:
        raise ValueError("A Frechet distance needs images; got no batch.")
    return statistics
