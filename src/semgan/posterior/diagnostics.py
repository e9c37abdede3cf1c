"""Are chains to be believed: split R-hat and effective sample size (Vehtari et al. 2021), as ArviZ computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

R_HAT_LIMIT = 1.05  # Vehtari et al. 2021 ask for 1.01 in a final analysis; masks are pictures
FEWEST = 4  # values of a chain that R-hat takes; of a chain alone twice as many, for its halves are compared
FEWEST_FOR_ESS = 12  # with fewer, ArviZ sees too few lags to leave its upper limit, whatever the chains do
UNKNOWN = -1.0


@dataclass(frozen=True)
class Diagnosis:
    """Of one quantity over chains.

    r_hat: near 1 where chains agree, infinite where one is stuck; ess: worth so many independent draws, -1: unknown
    """

    r_hat: float
    ess: float

    @property
    def converged(self) -> bool:
        return self.r_hat <= R_HAT_LIMIT


def enough(chains: int, values: int) -> bool:
    """Whether `diagnose` takes so many values of so many chains."""
    return values >= (FEWEST if chains > 1 else 2 * FEWEST)


def diagnose(values: np.ndarray, *, draws: int | None = None, must_move: bool = False) -> Diagnosis:
    """values ``[chains, moves]`` of one quantity: a mask's area, the potential, ...

    draws:     how many were kept of them, which `Diagnosis.ess` never exceeds; None: all
    must_move: the quantity changes with every accepted move, as the potential does: a chain in which it is constant is
               stuck. Of any other, one value everywhere is no evidence: r_hat 1 and as many draws as there are.

    A chain alone is judged by its two halves. Raises ValueError for fewer than four values a chain, eight of one alone.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not enough(*values.shape):
        raise ValueError(
            f"Diagnostics take values [chains, moves] with {FEWEST} moves or more, {2 * FEWEST} of a chain alone; got "
            f"{values.shape}."
        )
    chains, moves = values.shape
    most = float(values.size if draws is None else draws)
    still = np.ptp(values, axis=1) == 0
    if still.all() and np.ptp(values) == 0 and not must_move:
        return Diagnosis(1.0, most)
    if still.all() or (must_move and still.any()):  # stuck: a chain says as much as one draw, at best
        return Diagnosis(math.inf, min(float(chains), most))
    r_hat, ess = _of_moving_chains(values)
    return Diagnosis(r_hat, UNKNOWN if moves < FEWEST_FOR_ESS else min(ess, most))


def _of_moving_chains(values: np.ndarray) -> tuple[float, float]:
    """R-hat and ESS; where ArviZ finds neither (halves that stand still), infinite and one a chain."""
    from arviz_stats.base.array import array_stats

    half = values.shape[1] // 2
    compared = values if len(values) > 1 else np.concatenate([values[:, :half], values[:, -half:]])
    with np.errstate(divide="ignore", invalid="ignore"):
        r_hat = np.asarray(array_stats.rhat(compared, chain_axis=0, draw_axis=1)).item()
        ess = np.asarray(array_stats.ess(values, chain_axis=0, draw_axis=1)).item()
    return (r_hat if math.isfinite(r_hat) else math.inf), (ess if math.isfinite(ess) else float(len(values)))
