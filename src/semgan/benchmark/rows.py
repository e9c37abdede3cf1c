"""A row of the tables: a method, or a named variant of one, with its budget and how its stages divide that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from semgan.config import Frozen
from semgan.methods import METHODS

if TYPE_CHECKING:
    from semgan.benchmark.grid import Grid

# "steps" and "choice" are done after training: the number of inversion steps, or with a student that and its share.
DEFAULT_SHARES = {"gan": 0.45, "encoder": 0.43, "steps": 0.12, "pool": 0.05, "student": 0.5, "choice": 0.12}
SMALLEST = "smallest"


def different(values: Any) -> Any:
    """The values. Raises ValueError where one stands there twice."""
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"'{twice[0]}' is named twice")
    return values


Number = Annotated[int, Field(ge=0)]
Seeds = Annotated[tuple[Number, ...], Field(min_length=1), AfterValidator(different)]
LabelCounts = (
    Annotated[tuple[int, ...], Field(min_length=1)] | Literal["smallest"]
)  # the latter: of every task its own smallest


class Budget(Frozen):
    """What every cell gets: the same number of images seen, the same minutes, or the same minutes of processor time.

    cpu_minutes: of the training process, all threads together; other work on the machine does not count against a cell
    """

    images: int | None = Field(default=None, ge=2)
    minutes: float | None = Field(default=None, gt=0)
    cpu_minutes: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if sum(value is not None for value in (self.images, self.minutes, self.cpu_minutes)) != 1:
            raise ValueError("a budget is images, minutes or cpu_minutes; give one of them")
        return self

    @property
    def time(self) -> float | None:
        """Minutes by the one clock or the other; None for a budget of images."""
        return self.minutes or self.cpu_minutes

    def __str__(self) -> str:
        if self.images is not None:
            return f"{self.images} images"
        return f"{self.time:g} minutes" + ("" if self.cpu_minutes is None else " of processor time")


class Variant(Frozen):
    """How a row differs from the others: what is not given is the grid's. method: None where the row's name is one.

    settings: on top of the grid's for that row, not for its method; budget: rows of another budget than the grid's are
    told apart in the tables, and never the best there; labels: the label counts that the row has cells of
    """

    method: str | None = None
    labels: LabelCounts | None = None
    settings: dict[str, Any] = {}
    budget: Budget | None = None
    shares: dict[str, float] = {}

    @model_validator(mode="after")
    def _has_shares(self) -> Variant:
        check_shares(self.shares)
        return self


def has_count(wanted: LabelCounts | None, labels: int, known: tuple[int, ...]) -> bool:
    """Whether a task's label count, of those that the task has, is wanted; None: all are."""
    return wanted is None or labels in ((min(known),) if wanted == SMALLEST else wanted)


def check_shares(shares: dict[str, float]) -> None:
    """Raises ValueError for stages that there are not, and for shares that are not above 0."""
    if unknown := sorted(set(shares) - set(DEFAULT_SHARES)):
        raise ValueError(f"'shares' names {', '.join(unknown)}; there are {', '.join(DEFAULT_SHARES)}")
    if any(share <= 0 for share in shares.values()):
        raise ValueError("a share of the budget is above 0")


def shares_of(row: str, grid: Grid) -> dict[str, float]:
    """Stage -> its share of the budget, with "steps" or "choice" where a clock counts them; they add up to 1.

    Raises KeyError for an unknown method, ValueError for a stage without a share.
    """
    method, budget = grid.method_of(row), grid.budget_of(row)
    stages = METHODS[method].stages  # also of a program that is not installed here
    weights = DEFAULT_SHARES | grid.shares | grid.variant(row).shares
    if len(stages) == 1:
        return {stages[0]: 1.0}
    if unknown := [stage for stage in stages if stage not in weights]:
        raise ValueError(f"No share of the budget is known for the stage '{unknown[0]}' of method '{method}'.")
    wanted = {stage: weights[stage] for stage in stages}
    if "encoder" in stages and budget is not None and budget.time is not None:
        choice = "choice" if "student" in stages else "steps"
        wanted[choice] = weights[choice]
    return {name: weight / sum(wanted.values()) for name, weight in wanted.items()}


def ends_of(row: str, grid: Grid) -> dict[str, float]:
    """Stage of a method of several -> where it ends, as a share of a budget of minutes."""
    shares, spent, ends = shares_of(row, grid), 0.0, {}
    for stage in METHODS[grid.method_of(row)].stages:
        spent += shares[stage]
        ends[stage] = spent
    return ends
