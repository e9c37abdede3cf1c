"""Many Markov chains at once over a density known by its potential and gradient: generalised Hamiltonian Monte Carlo.

One kernel is three samplers (Horowitz 1991; Neal 2011, "MCMC using Hamiltonian dynamics", sec. 5):

    leapfrog_steps  persistence
    1               0            MALA, the Metropolis-adjusted Langevin algorithm
    n               0            Hamiltonian Monte Carlo
    1 (or n)        > 0          underdamped Langevin dynamics, Metropolis-adjusted

Chains do not know one another: each has its own step size, found in the warm-up, and its own random numbers, so that
a chain's draws do not depend on how many others there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semgan import seeding

Potential = Callable[[Tensor], Tensor]  # [chains, *shape] -> [chains], -log density up to a constant
Visit = Callable[[int, Tensor, Tensor], None]  # number of the move after the warm-up, positions, potentials
Progress = Callable[[int, int, str], None]

JITTER = 0.2  # step sizes vary by so much, so that a trajectory never runs round a period
FORGETTING = 0.6  # exponent of the steps of Robbins and Monro (1951) towards the wanted acceptance
FIRST_MOVE = 1.0


@dataclass(frozen=True)
class Kernel:
    """How a chain moves. persistence in [0, 1): share of the momentum that a step inherits.

    accept: wanted share of accepted proposals; .57 is best for MALA (Roberts and Rosenthal 1998), .65 to .8 for HMC
    reach: a trajectory (steps x step size, before its jitter) never becomes longer, however many proposals are
    accepted; on a standard normal pi / 2 forgets where it began, and twice as much is back there, mirrored (Neal 2011,
    sec. 5.3.2)
    """

    leapfrog_steps: int = 8
    persistence: float = 0.0
    accept: float = 0.7
    step_size: float = 0.05
    reach: float = math.inf

    def __post_init__(self) -> None:
        if self.leapfrog_steps < 1 or not 0 <= self.persistence < 1:
            raise ValueError(
                "A kernel takes leapfrog_steps of 1 or more and persistence in [0, 1); got "
                f"{self.leapfrog_steps} and {self.persistence:g}."
            )
        if not 0 < self.accept < 1 or self.step_size <= 0 or self.reach <= 0:
            raise ValueError(
                "A kernel takes accept in (0, 1), a positive step_size and a positive reach; got "
                f"{self.accept:g}, {self.step_size:g} and {self.reach:g}."
            )


@dataclass
class ChainState:
    """Positions ``[chains, *shape]``, with potential ``[chains]`` and gradient there, momentum and log step size."""

    position: Tensor
    potential: Tensor
    gradient: Tensor
    momentum: Tensor
    log_step: Tensor


@dataclass(frozen=True)
class ChainReport:
    """acceptance: mean acceptance probability after the warm-up ``[chains]``; step_size: as found ``[chains]``.

    position: where the chains ended ``[chains, *shape]``
    """

    acceptance: Tensor
    step_size: Tensor
    position: Tensor


def told_as_images(progress: Progress | None, done: int, block: int, total: int, what: str) -> Progress | None:
    """Progress of the chains of ``block`` images, ``done`` before them, told as images: minutes lie between two."""
    if progress is None:
        return None
    return lambda move, moves, _: progress(done + block * move // moves, total, what)


def run_chains(
    potential: Potential,
    start: Tensor,
    kernel: Kernel,
    *,
    warmup: int,
    draws: int,
    visit: Visit,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    part: str = "",
    step_size: Tensor | None = None,
    progress: Progress | None = None,
) -> ChainReport:
    """Move chains from ``start [chains, *shape]``; ``visit`` is called after each of ``draws`` moves past the warm-up.

    numbers: of the chains, which with ``part`` name their random numbers; default 0, 1, ...
    step_size: of each chain at first ``[chains]``; None: the kernel's
    Raises ValueError where the potential is not finite at the start.
    """
    numbers = range(len(start)) if numbers is None else numbers
    value, gradient = value_and_gradient(potential, start)
    if not bool((value.isfinite() & _finite(gradient)).all()):
        raise ValueError("The potential is not finite at the start of a chain; start elsewhere.")
    first = (torch.full_like(value, kernel.step_size) if step_size is None else step_size).log()
    longest = math.log(kernel.reach / kernel.leapfrog_steps)
    state = ChainState(start.clone(), value, gradient, torch.zeros_like(start), first.clamp(max=longest))
    settled, total = torch.zeros_like(first), torch.zeros_like(first)
    moves = warmup + draws
    for move in range(moves):
        chance = _chance(seed, f"{part}{move}", numbers, start)
        accepted = _move(potential, state, kernel, *chance)
        if move < warmup:
            state.log_step = state.log_step + FIRST_MOVE * (move + 1) ** -FORGETTING * (accepted - kernel.accept)
            state.log_step = state.log_step.clamp(max=longest)
            if 2 * move >= warmup:
                settled = settled + state.log_step / (warmup - (warmup + 1) // 2)
            if move == warmup - 1 and warmup > 1:
                state.log_step = settled  # the mean over the second half of the warm-up (Polyak)
        else:
            total = total + accepted
            visit(move - warmup, state.position, state.potential)
        if progress is not None:
            progress(move + 1, moves, "sampling the posterior")
    return ChainReport(total / max(draws, 1), state.log_step.exp(), state.position)


def _chance(seed: int, move: str, numbers: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Fresh momentum of ``like``'s shape, and two uniform numbers a chain: of acceptance and of the step's jitter."""
    fresh = seeding.normal(seed, f"posterior/momentum/{move}", numbers, tuple(like.shape[1:]))
    uniform = seeding.uniform(seed, f"posterior/uniform/{move}", numbers, (2,))
    return fresh.to(like), uniform.to(like)


def _move(potential: Potential, state: ChainState, kernel: Kernel, fresh: Tensor, uniform: Tensor) -> Tensor:
    """One transition of every chain, in place; returns acceptance probabilities ``[chains]``."""
    keep = kernel.persistence
    momentum = keep * state.momentum + (1 - keep**2) ** 0.5 * fresh
    step = as_column(state.log_step.exp() * (1 + JITTER * (2 * uniform[:, 1] - 1)), momentum)
    before = state.potential + _kinetic(momentum)
    position, gradient, value = state.position, state.gradient, state.potential
    moved = momentum
    for _ in range(kernel.leapfrog_steps):
        moved = moved - 0.5 * step * gradient
        position = position + step * moved
        value, gradient = value_and_gradient(potential, position)
        moved = moved - 0.5 * step * gradient
    gain = before - value - _kinetic(moved)
    sound = gain.isfinite() & _finite(gradient) & _finite(position)
    chance = torch.where(sound, gain.clamp(max=0).exp(), torch.zeros_like(gain))
    taken = uniform[:, 0] < chance
    state.position = torch.where(as_column(taken, position), position, state.position)
    state.gradient = torch.where(as_column(taken, position), gradient, state.gradient)
    state.potential = torch.where(taken, value, state.potential)
    state.momentum = torch.where(as_column(taken, position), moved, -momentum)  # turned round where refused
    return chance


def value_and_gradient(potential: Potential, position: Tensor) -> tuple[Tensor, Tensor]:
    """The potential ``[chains]`` and its gradient, of the position's shape."""
    leaf = position.detach().requires_grad_()
    with torch.enable_grad():
        value = potential(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().flatten(1).sum(1)


def _finite(x: Tensor) -> Tensor:
    return x.flatten(1).isfinite().all(1)


def as_column(x: Tensor, like: Tensor) -> Tensor:
    """A value a row, to be multiplied with ``like [rows, *shape]``."""
    return x.reshape(-1, *[1] * (like.ndim - 1))
