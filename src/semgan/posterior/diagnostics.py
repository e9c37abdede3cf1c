"""Are chains to be believed: split R-hat and effective sample size (Vehtari et al. 2021), as ArviZ computes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

R_HAT_LIMIT = 1.05  # Vehtari et al. 2021 ask for 1.01 in a final analysis; masks are pictures


@dataclass(frozen=True)
class Diagnosis:
    """Of one quantity over chains. r_hat: near 1 where chains agree; ess: worth so many independent draws."""

    r_hat: float
    ess: float

    @property
    def converged(self) -> bool:
        return self.r_hat <= R_HAT_LIMIT


def diagnose(values: np.ndarray) -> Diagnosis:
    """values ``[chains, draws]`` of one quantity: a mask's area, the potential, ...

    A quantity that never changes is no evidence: r_hat 1 and as many draws as there are. Raises ValueError for fewer
    than four draws a chain.
    """
    from arviz_stats.base.array import array_stats

    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] < 4:
        raise ValueError(f"Diagnostics take values [chains, draws] with 4 draws or more; got {values.shape}.")
    if np.ptp(values) == 0:
        return Diagnosis(1.0, float(values.size))
    if not np.ptp(values, axis=1).any():  # no chain ever moved, and they stand apart
        return Diagnosis(float("inf"), float(len(values)))
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that never left one value, beside others that did
        r_hat, ess = (
            np.asarray(found(values, chain_axis=0, draw_axis=1)) for found in (array_stats.rhat, array_stats.ess)
        )
    return Diagnosis(r_hat.item(), ess.item())
