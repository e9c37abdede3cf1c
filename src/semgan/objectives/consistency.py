"""Agreement of two predictions for the same unlabelled pixels, and how its weight rises."""

from __future__ import annotations

import math

RAMP_STEEPNESS = 5.0  # Laine and Aila 2017 (arXiv:1610.02242), sec. 2.1; Tarvainen and Valpola 2017, sec. 3


def ramp_up(progress: float, share: float) -> float:
    """exp(-5 (1 - t)^2), where t goes from 0 to 1 over the first ``share`` of the training; 1 from there on."""
    t = min(progress / share, 1.0) if share > 0 else 1.0
    return math.exp(-RAMP_STEEPNESS * (1 - t) ** 2)
