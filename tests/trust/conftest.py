"""Made-up answered images whose scores are known functions of their signals, and a tiny model folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_gan import saved_gan, tiny_gan  # noqa: E402

from semgan.trust.samples import OWN, Samples  # noqa: E402


def made_samples(cases: int = 24, copies: int = 3, *, noise: float = 0.02, seed: int = 0, **others) -> Samples:
    """Images as they are and shifted copies, whose reconstruction is worse and whose score follows it.

    others: answer -> function of the signals and the chance, its scores
    """
    chance = np.random.default_rng(seed)
    count = cases * (copies + 1)
    intact = np.arange(count) < cases
    bad = np.where(intact, chance.uniform(0, 0.2, count), chance.uniform(0, 1, count))
    signals = {
        "entropy": 0.1 + 0.2 * bad + chance.normal(0, 0.05, count),
        "reconstruction": 0.05 + bad + chance.normal(0, noise, count),
        "code_distance": 1 + chance.normal(0, 0.1, count) + 3 * bad,
        "foreground": chance.uniform(0.2, 0.4, count),
    }
    scores = {OWN: np.clip(0.95 - 0.6 * bad + chance.normal(0, noise, count), 0, 1)}
    scores |= {name: make(signals, scores[OWN], chance) for name, make in others.items()}
    label_maps = chance.integers(0, 2, (cases, 8, 8)).astype(np.uint8)
    sure = np.where(chance.random((cases, 8, 8)) < 0.8, label_maps, 1 - label_maps) * 0.98 + 0.01
    return Samples(
        "dice",
        0,
        signals,
        scores,
        tuple(f"case {number % cases}" for number in range(count)),
        intact,
        np.stack([1 - sure, sure], 1).astype(np.float16),
        label_maps,
    )


@pytest.fixture(scope="session")
def gan():
    return tiny_gan()


@pytest.fixture
def gan_folder(gan, tmp_path):
    return saved_gan(gan, tmp_path / "model")
