"""The choice of an answer: what can be told is gained, what cannot is left alone, and nobody loses by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import made_samples

from semgan.trust.choice import Choice, best_margin, case_means, learn_choice
from semgan.trust.fit import Trust, fit
from semgan.trust.samples import FIRST, OWN, POSTERIOR


def first_is_better_where_badly_reconstructed(signals, own, chance):
    """Step 0 loses a little where the reconstruction is good and wins much where it is bad."""
    return np.clip(own + np.where(signals["reconstruction"] > 0.4, 0.15, -0.03), 0, 1)


def never_better(signals, own, chance):
    return np.clip(own - 0.05 + chance.normal(0, 0.01, len(own)), 0, 1)


def better_by_chance(signals, own, chance):
    return np.clip(own + chance.normal(0, 0.2, len(own)), 0, 1)


def test_an_answer_is_left_where_signals_say_that_another_gains():
    samples = made_samples(**{FIRST: first_is_better_where_badly_reconstructed, POSTERIOR: never_better})
    learned = learn_choice(samples)
    assert learned.choice.usual == OWN and learned.report["is safe"]
    gain = learned.report["gain held out"]["with shifted copies"]
    assert gain["difference"] > 0.02 and gain["interval"][0] > 0
    new = made_samples(seed=5, **{FIRST: first_is_better_where_badly_reconstructed, POSTERIOR: never_better})
    names = np.array(learned.choice.chosen(new.signals))
    bad = new.signals["reconstruction"] > 0.5
    assert (names[bad] == FIRST).mean() > 0.9 and (names[new.intact] == OWN).mean() > 0.8 and POSTERIOR not in names


def test_where_nothing_can_be_told_everybody_gets_the_usual_answer():
    for make in (never_better, better_by_chance):
        samples = made_samples(**{FIRST: make})
        learned = learn_choice(samples)
        low = min(found["interval"][0] for found in learned.report["gain held out"].values())
        if learned.choice.margin is None:
            assert set(learned.choice.chosen(samples.signals)) == {learned.choice.usual}
            assert learned.choice.answers == (learned.choice.usual,)
        else:
            assert low >= -0.002
    assert learn_choice(made_samples(**{FIRST: never_better})).choice.margin is None


@pytest.mark.parametrize("seed", range(2))
def test_the_bound_against_the_best_fixed_answer_holds_or_there_is_no_choice(seed):
    samples = made_samples(seed=seed, **{FIRST: better_by_chance, POSTERIOR: better_by_chance})
    learned = learn_choice(samples, seed=seed)
    lows = [found["interval"][0] for found in learned.report["gain held out"].values()]
    assert learned.choice.margin is None or min(lows) >= -0.002
    means = learned.report["mean score of each for all"]
    assert learned.choice.usual == max(means, key=lambda name: means[name])


def test_the_margin_is_the_surest_and_none_where_nothing_is_gained():
    predicted = np.array([[0.03], [0.03], [0.002], [0.002]] * 5)
    true = np.array([[0.1], [0.12], [-0.2], [-0.2]] * 5)
    cases = [str(number) for number in range(20)]
    assert best_margin(predicted, true, cases) == 0.005
    assert best_margin(predicted, -np.abs(true), cases) is None
    assert case_means(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"]) == pytest.approx([2.5, 2.0])


def test_a_choice_survives_the_file_of_trust(tmp_path):
    trust = fit(made_samples(**{FIRST: first_is_better_where_badly_reconstructed}))
    assert trust.choice is not None and trust.choice.margin is not None
    trust = replace(trust, choice=replace(trust.choice, method="laplace"))
    trust.write(tmp_path)
    again = Trust.read(tmp_path)
    assert again is not None and again.choice == trust.choice and isinstance(again.choice, Choice)
