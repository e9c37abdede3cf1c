"""The choice of an answer: what can be told is gained, what cannot is left alone, and nobody loses by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import made_samples

from semgan.metrics.intervals import paired_difference
from semgan.stages.stopping import MOST_LOSS
from semgan.trust import choice as module
from semgan.trust.choice import FEWEST_CASES, Choice, best_margin, case_means, learn_choice
from semgan.trust.fit import Trust, fit
from semgan.trust.samples import FIRST, OWN, POSTERIOR, _Answered, _joined


def first_is_better_where_badly_reconstructed(signals, own, chance):
    """Step 0 loses where the reconstruction is good and wins where it is bad."""
    return np.clip(own + np.where(signals["reconstruction"] > 0.4, 0.15, -0.1), 0, 1)


def never_better(signals, own, chance):
    return np.clip(own - 0.05 + chance.normal(0, 0.01, len(own)), 0, 1)


def ruins_some(signals, own, chance):
    """A little better, but for one image of sixteen, which nothing foretells."""
    return np.clip(own + np.where(chance.random(len(own)) < 0.06, -0.3, 0.015), 0, 1)


def better_by_chance(signals, own, chance):
    return np.clip(own + chance.normal(0, 0.2, len(own)), 0, 1)


def test_an_answer_is_left_where_signals_say_that_another_gains():
    samples = made_samples(75, **{FIRST: first_is_better_where_badly_reconstructed, POSTERIOR: never_better})
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
        samples = made_samples(40, **{FIRST: make})
        learned = learn_choice(samples)
        assert learned.choice.margin is None and learned.choice.usual == OWN
        assert set(learned.choice.chosen(samples.signals)) == {OWN} and learned.choice.answers == (OWN,)


@pytest.mark.parametrize("seed", range(3))
def test_new_images_do_not_lose_by_a_choice_that_was_let_through(seed):
    for make in (ruins_some, better_by_chance, first_is_better_where_badly_reconstructed):
        learned = learn_choice(made_samples(FEWEST_CASES, seed=seed, **{FIRST: make}), seed=seed)
        new = made_samples(1000, seed=100 + seed, **{FIRST: make})
        names = np.array(learned.choice.chosen(new.signals))
        got = np.where(names == OWN, new.scores[OWN], new.scores[FIRST])
        for rows in (new.intact, np.ones(len(got), bool)):
            best = max(values[rows].mean() for values in new.scores.values())
            assert learned.choice.margin is None or got[rows].mean() > best - 0.002


def test_the_usual_answer_is_another_than_the_models_own_only_where_it_is_surely_better():
    def little(signals, own, chance):
        return np.clip(own + chance.normal(0.001, 0.2, len(own)), 0, 1)

    def much(signals, own, chance):
        return np.clip(own + chance.normal(0.05, 0.05, len(own)), 0, 1.2)

    samples = made_samples(40, **{FIRST: much, POSTERIOR: little})
    assert learn_choice(samples).choice.usual == FIRST
    assert learn_choice(made_samples(40, seed=3, **{FIRST: little})).choice.usual == OWN


def test_the_answer_of_all_is_held_against_the_best_fixed_one_too():
    """A little better, not by a standard error: the own answer would stay the usual one, and may lose more than the
    bound allows."""

    def a_little_better(signals, own, chance):
        return np.clip(own + chance.normal(0.004, 0.04, len(own)), 0, 1)

    fallen_back = set()
    for seed in range(12):
        samples = made_samples(75, seed=seed, **{FIRST: a_little_better})
        learned = learn_choice(samples, seed=seed)
        table = module._Table(samples.signals, samples.scores, np.array(samples.groups), samples.intact)
        answer, best = learned.choice.usual, table.best_fixed(samples.intact)
        if learned.choice.margin is not None or table.best_fixed(samples.intact | True) != best:
            continue  # where copies say otherwise, no answer for all may keep both bounds
        pair = (table.by_case(name, samples.intact) for name in (answer, best))
        assert paired_difference(*pair, seed=seed).interval[0] >= -MOST_LOSS
        fallen_back.add(answer)
    assert fallen_back == {OWN, FIRST}


def test_a_rule_that_may_lose_more_than_the_bound_is_refused(monkeypatch):
    samples = made_samples(75, **{FIRST: first_is_better_where_badly_reconstructed})
    learned = learn_choice(samples)
    assert learned.choice.margin is not None
    low = min(found["interval"][0] for found in learned.report["gain held out"].values())
    monkeypatch.setattr(module, "MOST_LOSS", -low + 1e-9)
    assert learn_choice(samples).choice.margin is not None
    monkeypatch.setattr(module, "MOST_LOSS", -low - 1e-3)
    refused = learn_choice(samples)
    assert refused.choice.margin is None and not refused.report["is safe"]


def test_no_case_is_answered_by_a_rule_that_has_seen_it(monkeypatch):
    samples = made_samples(75, **{FIRST: first_is_better_where_badly_reconstructed})
    seen, learn = [], module._Table.learn
    monkeypatch.setattr(module._Table, "learn", lambda self, rows, *rest: seen.append(rows) or learn(self, rows, *rest))
    learn_choice(samples)
    whole, *parts = seen
    assert whole.all() and len(parts) == 8 and np.sum([~rows for rows in parts], 0).tolist() == [1] * len(whole)
    groups = np.array(samples.groups)
    assert not any(set(groups[rows]) & set(groups[~rows]) for rows in parts)


def test_few_cases_teach_no_choice():
    samples = made_samples(FEWEST_CASES - 1, **{FIRST: first_is_better_where_badly_reconstructed})
    learned = learn_choice(samples)
    assert learned.choice == Choice(OWN, {}, None) and "there are 31" in learned.report["why not"]
    assert set(learned.choice.chosen(samples.signals)) == {OWN}


def test_the_margin_is_the_surest_and_none_where_nothing_is_gained():
    predicted = np.array([[0.03], [0.03], [0.002], [0.002]] * 5)
    true = np.array([[0.1], [0.12], [-0.2], [-0.2]] * 5)
    cases = [str(number) for number in range(20)]
    assert best_margin(predicted, true, cases) == 0.005
    assert best_margin(predicted, -np.abs(true), cases) is None
    assert case_means(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"]) == pytest.approx([2.5, 2.0])


def test_a_choice_survives_the_file_of_trust(tmp_path):
    trust = fit(made_samples(75, **{FIRST: first_is_better_where_badly_reconstructed}))
    assert trust.choice is not None and trust.choice.margin is not None
    trust = replace(trust, choice=replace(trust.choice, method="laplace", posterior="abc"))
    trust.write(tmp_path)
    again = Trust.read(tmp_path)
    assert again is not None and again.choice == trust.choice and isinstance(again.choice, Choice)


def test_an_answer_that_is_rightly_empty_counts_where_another_one_is_not():
    """Of mIoU per image, whose score of nothing in an empty image is no number."""

    def part(**scores):
        own = {name: np.array(values) for name, values in scores.items()}
        count = len(own[OWN])
        pixels = np.zeros((count, 2, 2, 2), np.float16), np.zeros((count, 2, 2), np.uint8)
        return _Answered({"entropy": torch.arange(count)}, own, list("abc")[:count], True, *pixels)

    joined = _joined([part(**{OWN: [0.5, 0.0, np.nan], FIRST: [0.25, np.nan, np.nan]})], "miou-per-case", 0)
    assert joined.groups == ("a", "b")  # the third has no score by either
    assert joined.scores[OWN].tolist() == [0.5, 0.0] and joined.scores[FIRST].tolist() == [0.25, 1.0]
