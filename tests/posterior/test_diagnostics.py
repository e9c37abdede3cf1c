"""Chains that agree, drift, stand apart or stand still, told apart; also at the length of the default budget."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semgan.posterior.diagnostics import Diagnosis, diagnose
from semgan.posterior.latent import Budget

DEFAULT = Budget().of("hmc")
SHAPE = (DEFAULT.chains, DEFAULT.per_chain * (DEFAULT.thin or 1))


def iid(chance):
    return chance.normal(size=SHAPE)


def walk(chance):
    return np.cumsum(chance.normal(size=SHAPE), axis=1)


def apart(chance):
    return chance.normal(size=SHAPE) + 3 * np.arange(DEFAULT.chains)[:, None]


def test_long_chains_that_agree_are_told_from_those_that_do_not():
    chance = np.random.default_rng(0)
    same = chance.normal(size=(4, 200))
    good, off = diagnose(same), diagnose(same + np.arange(4)[:, None])
    assert good.converged and good.r_hat < 1.02 and good.ess > 500
    assert not off.converged and off.r_hat > 1.3 and off.ess < 50
    assert diagnose(np.cumsum(chance.normal(size=(4, 200)), axis=1)).ess < 40


@pytest.mark.parametrize("kind", [iid, walk, apart])
def test_the_default_budget_tells_good_chains_from_bad_ones(kind):
    found = [diagnose(kind(np.random.default_rng(seed)), draws=DEFAULT.count) for seed in range(30)]
    ess, r_hat = np.array([each.ess for each in found]), np.array([each.r_hat for each in found])
    assert (ess <= DEFAULT.count).all()  # never worth more than there are
    if kind is iid:
        assert (ess > 20).all() and np.median(r_hat) < 1.05
    else:
        assert (ess < 20).all() and (r_hat > 1.2).all()
    if kind is apart:
        assert (r_hat > 2).all() and (ess < 8).all()


def test_ess_follows_the_correlation_of_the_moves():
    def correlated(share):
        def chains(seed):
            fresh = np.random.default_rng(seed).normal(size=SHAPE)
            for move in range(1, SHAPE[1]):
                fresh[:, move] = share * fresh[:, move - 1] + (1 - share**2) ** 0.5 * fresh[:, move]
            return fresh

        return np.median([diagnose(chains(seed)).ess for seed in range(30)])

    assert correlated(0.0) > 2 * correlated(0.5) > 4 * correlated(0.8)


@pytest.mark.parametrize("moves", [4, 8, 11])
def test_short_chains_have_no_ess(moves):
    values = np.random.default_rng(0).normal(size=(4, moves))
    found = diagnose(values)
    assert found.ess == -1 and 0.8 < found.r_hat < 2
    assert diagnose(np.random.default_rng(0).normal(size=(4, 12))).ess > 0


def test_a_stuck_chain_is_never_believed():
    moving = np.random.default_rng(0).normal(size=SHAPE)
    stuck = Diagnosis(math.inf, 4.0)
    assert diagnose(np.ones(SHAPE), must_move=True) == stuck and not stuck.converged
    for still in ([0], [0, 1, 2], [0, 1, 2, 3]):  # one, all but one, all: each at its own place
        values = moving.copy()
        values[still] = values[still, :1]
        assert diagnose(values, draws=32, must_move=True) == stuck
    assert diagnose(moving, draws=32, must_move=True).converged
    assert diagnose(np.ones(SHAPE)[:1], must_move=True) == Diagnosis(math.inf, 1.0)


def test_an_area_that_is_the_same_everywhere_is_no_evidence_but_areas_that_stand_apart_are():
    assert diagnose(np.ones(SHAPE), draws=32) == Diagnosis(1.0, 32.0)
    assert diagnose(np.arange(4)[:, None] * np.ones(SHAPE), draws=32) == Diagnosis(math.inf, 4.0)
    one_moves = np.zeros(SHAPE)
    one_moves[0] = np.random.default_rng(0).normal(size=SHAPE[1])
    found = diagnose(one_moves, draws=32)
    assert math.isfinite(found.r_hat) and 0 < found.ess <= 32
    blip = np.zeros((4, 25))
    blip[0, 12] = 1  # the middle of an odd series lies in neither half
    assert diagnose(blip).r_hat == math.inf and diagnose(blip).ess > 0


def test_a_chain_alone_is_judged_by_its_halves():
    chance = np.random.default_rng(0)
    values = chance.normal(size=(1, 96))
    drifting = values + np.linspace(0, 6, 96)
    assert diagnose(values).converged and diagnose(values).ess > 40
    assert diagnose(drifting).r_hat > 1.5 and not diagnose(drifting).converged


@pytest.mark.parametrize("shape", [(3, 3), (1, 7), (12,)])
def test_too_few_values_are_refused(shape):
    with pytest.raises(ValueError, match="4 moves or more, 8 of a chain alone"):
        diagnose(np.ones(shape))
