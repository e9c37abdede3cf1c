"""Markov chains in coordinates in which no direction of the posterior is much stiffer than another.

A leapfrog step is as long as the stiffest direction allows, and the others are crossed at its pace. So the chains of
an image move in z, in which a Laplace approximation of low rank is a standard normal (Martin et al. 2012, "A stochastic
Newton MCMC method for large-scale statistical inverse problems"):

    u = mode + (I + U L U')^(-1/2) z

The chains begin at draws of the approximation at the mode. Where the generator bends, other directions are stiff
elsewhere. Half-way through the warm-up the curvatures are measured anew where each chain has come to, and the mean over
an image's chains is kept from then on: a metric that still changed with the chains would bend their distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from semgan import seeding
from semgan.posterior.laplace import LowRankGaussian, fit_at_mode, fit_laplace
from semgan.posterior.sampler import ChainReport, Kernel, Potential, Progress, Visit, run_chains

RANK = 32  # directions that are measured at a place; each takes a gradient


@dataclass(frozen=True)
class Chains:
    """The chains of a batch of images: ``size`` of each, one image after the other.

    first: number of the batch's first image, which with the seed names the random numbers
    """

    size: int
    warmup: int
    draws: int
    seed: int = 0
    first: int = 0


def run_preconditioned(
    potential_of_images: Potential,
    potential: Potential,
    start: Tensor,
    kernel: Kernel,
    chains: Chains,
    visit: Visit,
    progress: Progress | None = None,
) -> ChainReport:
    """Move the chains of images from ``start [images, *shape]``; ``visit`` sees positions in the prior's coordinates.

    potential_of_images takes a row an image, potential a row a chain. Raises what `run_chains` raises.
    """
    size, half, moves = chains.size, chains.warmup // 2, chains.warmup + chains.draws
    images = range(chains.first, chains.first + len(start))
    numbers = range(chains.first * size, (chains.first + len(start)) * size)
    frame = fit_at_mode(potential_of_images, start, rank=RANK, seed=chains.seed, numbers=images).repeated(size)
    chance = seeding.normal(chains.seed, "posterior/start", numbers, tuple(start.shape[1:]))
    position = frame.to_u(chance.to(start))  # R-hat sees only what chains that began apart have not forgotten
    step_size = None
    if half:
        began = run_chains(
            _seen_from(frame, potential),
            frame.to_z(position),
            kernel,
            warmup=half,
            draws=0,
            visit=lambda *_: None,
            seed=chains.seed,
            numbers=numbers,
            part="first/",
            progress=_shifted(progress, 0, moves),
        )
        position, step_size = frame.to_u(began.position), began.step_size
        frame = fit_laplace(potential, position, rank=RANK, seed=chains.seed, numbers=numbers).pooled(size)
    return run_chains(
        _seen_from(frame, potential),
        frame.to_z(position),
        kernel,
        warmup=chains.warmup - half,
        draws=chains.draws,
        visit=lambda move, z, energy: visit(move, frame.to_u(z), energy),
        seed=chains.seed,
        numbers=numbers,
        step_size=step_size,
        progress=_shifted(progress, half, moves),
    )


def _seen_from(frame: LowRankGaussian, potential: Potential) -> Callable[[Tensor], Tensor]:
    """The potential as a function of z; the map is linear, so that its volume is a constant."""
    return lambda z: potential(frame.to_u(z))


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda move, _, what: progress(before + move, total, what)
