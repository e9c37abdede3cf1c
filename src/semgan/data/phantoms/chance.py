"""Repeatable random numbers."""

from __future__ import annotations

import math

import numpy as np


class Chance:
    """Random numbers that are a function of the key alone, on every machine and with every NumPy release.

    Only the raw bits of Philox and SeedSequence are used: NumPy promises to keep these, and not the methods of
    ``Generator`` that make distributions from them.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.Philox(np.random.SeedSequence(key))

    def uniforms(self, *shape: int) -> np.ndarray:
        """Numbers in [0, 1), float64."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def normals(self, *shape: int) -> np.ndarray:
        """Nearly normal numbers, float32: the standardised sum of four 16-bit uniforms, within 3.5 deviations."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        parts = [(raw >> np.uint64(bits)) & np.uint64(0xFFFF) for bits in (0, 16, 32, 48)]
        total = parts[0] + parts[1] + parts[2] + parts[3]
        return ((total.astype(np.float64) - 131070.0) * (math.sqrt(3.0) / 65536.0)).astype(np.float32).reshape(shape)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.uniforms(1)[0])

    def around(self, centre: float, spread: float) -> float:
        """A number in centre +- spread, more often near the centre."""
        first, second = self.uniforms(2)
        return centre + spread * float(first + second - 1.0)

    def happens(self, probability: float) -> bool:
        return float(self.uniforms(1)[0]) < probability

    def choose(self, weights: dict[str, float]) -> str:
        """One of the names, as often as its weight says."""
        names, shares = list(weights), np.cumsum(list(weights.values()))
        position = int(np.searchsorted(shares, self.between(0.0, float(shares[-1])), side="right"))
        return names[min(position, len(names) - 1)]
