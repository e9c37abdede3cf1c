"""Ridge regression on signals: it finds what is there, and stays calm where it was never fitted."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from semgan.trust.ridge import Ridge, cross_validated, fit_ridge, folds


def table(count=200, seed=0):
    chance = np.random.default_rng(seed)
    signals = {"one": chance.normal(5, 3, count), "other": chance.normal(size=count), "same": np.ones(count)}
    return signals, 0.5 + 0.1 * (signals["one"] - 5) - 0.2 * signals["other"]


def test_a_linear_score_is_found_and_a_constant_signal_does_no_harm():
    signals, target = table()
    ridge = fit_ridge(signals, target, 1e-6)
    inside = (np.abs(signals["one"] - 5) < 5) & (np.abs(signals["other"]) < 1.8)
    assert np.abs(ridge.predict(signals) - target)[inside].max() < 0.02
    assert ridge.weights[ridge.names.index("same")] == 0


def test_what_was_never_seen_counts_as_the_wildest_and_what_is_no_number_as_the_middle():
    signals, target = table()
    ridge = fit_ridge(signals, target, 1.0)
    wild = ridge.predict({"one": [1e9, np.inf, 14], "other": [0, 0, 0], "same": [1, 1, 1]})
    assert wild[0] == wild[1] and abs(wild[0] - wild[2]) < 0.1
    unknown = ridge.predict({"one": [np.nan], "other": [0.0], "same": [np.nan]})
    assert unknown == pytest.approx(ridge.predict({"one": [5.0], "other": [0.0], "same": [1.0]}), abs=0.05)


def test_what_is_constant_but_for_rounding_says_nothing():
    signals, target = table()
    signals["same"] = 0.9 + 1e-9 * np.sign(target - 0.5)
    ridge = fit_ridge(signals, target, 1.0)
    few = {name: values[:2] for name, values in signals.items()}
    moved = ridge.predict(few | {"same": np.array([0.5, 1.0])})
    assert moved == pytest.approx(ridge.predict(few), abs=1e-9)
    json.dumps(asdict(ridge), allow_nan=False)


def test_an_infinite_signal_is_the_wildest_while_fitting_too():
    signals, target = table()
    plain = fit_ridge(signals, target, 1.0)
    signals["one"] = np.where(signals["one"] > 12, np.inf, signals["one"])
    assert fit_ridge(signals, target, 1.0).weights[0] == pytest.approx(plain.weights[0], rel=0.1)


def test_it_survives_its_json_and_names_missing_signals():
    signals, target = table()
    ridge = fit_ridge(signals, target, 1.0)
    assert Ridge.from_json(json.loads(json.dumps(asdict(ridge)))) == ridge
    with pytest.raises(ValueError, match="signals other, same were not measured"):
        ridge.predict({"one": [1.0]})


def test_held_out_predictions_never_saw_their_group():
    """A target that only the group tells cannot be predicted held out, though it could be learnt by heart."""
    chance = np.random.default_rng(0)
    of_group = chance.normal(size=24)
    groups = [str(number // 4) for number in range(96)]
    target = np.repeat(of_group, 4)
    signals = {f"is {number}": (np.arange(96) // 4 == number).astype(float) for number in range(24)}
    _, predicted = cross_validated(signals, target, groups)
    assert ((predicted - target) ** 2).mean() > 0.9 * target.var()
    real, wanted = table(96)
    strength, predicted = cross_validated(real, wanted, groups)
    assert ((predicted - wanted) ** 2).mean() < 0.1 * wanted.var() and strength <= 3


def test_folds_hold_out_every_image_once_and_groups_together():
    groups = [f"patient {number % 5}" for number in range(23)]
    inside = folds(groups)
    assert len(inside) == 5 and (np.sum(inside, 0) == 1).all()
    assert all(len({groups[row] for row in np.flatnonzero(rows)}) == 1 for rows in inside)
    with pytest.raises(ValueError, match="two or more cases; got 1"):
        folds(["only"] * 4)
