"""How a method of several training stages divides a cell's budget among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semgan import methods

if TYPE_CHECKING:
    from semgan.benchmark.grid import Grid

# "steps" and "choice" are done after training: the number of inversion steps, and the student's share in the answer.
DEFAULT_SHARES = {"gan": 0.45, "encoder": 0.43, "steps": 0.12, "pool": 0.05, "student": 0.5, "choice": 0.12}


def shares_of(method: str, grid: Grid) -> dict[str, float]:
    """Stage -> its share of the budget, with "steps" and "choice" where a clock counts them; they add up to 1.

    Raises ValueError for a stage without a share.
    """
    stages = methods.get(method).stages
    weights = DEFAULT_SHARES | grid.shares | grid.shares_of.get(method, {})
    if len(stages) == 1:
        return {stages[0]: 1.0}
    if unknown := [stage for stage in stages if stage not in weights]:
        raise ValueError(f"No share of the budget is known for the stage '{unknown[0]}' of method '{method}'.")
    wanted = {stage: weights[stage] for stage in stages}
    if "encoder" in stages and grid.budget is not None and grid.budget.time is not None:
        wanted["steps"] = weights["steps"]
        if "student" in stages:
            wanted["choice"] = weights["choice"]
    return {name: weight / sum(wanted.values()) for name, weight in wanted.items()}


def ends_of(method: str, grid: Grid) -> dict[str, float]:
    """Stage of a method of several -> where it ends, as a share of a budget of minutes."""
    shares, spent, ends = shares_of(method, grid), 0.0, {}
    for stage in methods.get(method).stages:
        spent += shares[stage]
        ends[stage] = spent
        spent += shares["steps"] if stage == "encoder" else 0.0
    return ends
