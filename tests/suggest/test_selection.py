"""Greedy picking: its laws, for any points, values and groups."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.suggest.selection import TWINS, nearest_distances, pick, rank_share, standardised


@st.composite
def problems(draw):
    """Candidates in the plane (twins among them), labelled images, values and groups."""
    count = draw(st.integers(1, 12))
    points = draw(st.lists(st.tuples(*[st.integers(-3, 3)] * 2), min_size=count, max_size=count))
    centres = draw(st.lists(st.tuples(*[st.integers(-3, 3)] * 2), min_size=1, max_size=3))
    values = draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=count, max_size=count))
    groups = draw(st.lists(st.sampled_from("abcd"), min_size=count, max_size=count))
    names = draw(st.permutations([f"case_{number:02d}" for number in range(count)]))
    labelled = draw(st.lists(st.sampled_from("abcde"), max_size=3))
    return {
        "names": names,
        "features": np.array(points, np.float32),
        "centres": np.array(centres, np.float32),
        "value": np.array(values),
        "spread": draw(st.booleans()),
        "groups": groups,
        "labelled_groups": labelled,
    }


def names_of(problem, count):
    return [problem["names"][found.index] for found in pick(**problem, count=count)]


@settings(deadline=None, max_examples=60)
@given(problems())
def test_nobody_is_picked_twice_and_shorter_lists_begin_longer_ones(problem):
    everyone = names_of(problem, len(problem["names"]))
    assert sorted(everyone) == sorted(problem["names"])
    for count in range(1, len(everyone)):
        assert names_of(problem, count) == everyone[:count]


@settings(deadline=None, max_examples=60)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_nothing(problem, chance):
    order = list(range(len(problem["names"])))
    chance.shuffle(order)
    shuffled = problem | {name: [problem[name][at] for at in order] for name in ("names", "groups")}
    shuffled |= {name: problem[name][order] for name in ("features", "value")}
    count = len(order)
    assert names_of(shuffled, count) == names_of(problem, count)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_a_group_is_used_again_only_when_no_fresher_one_is_left(problem):
    taken, left = Counter(problem["labelled_groups"]), set(range(len(problem["names"])))
    chosen = [problem["centres"][place] for place in range(len(problem["centres"]))]
    for found in pick(**problem, count=len(left)):
        near = nearest_distances(problem["features"], np.stack(chosen))
        repeats = {at: taken[problem["groups"][at]] + int(near[at] <= TWINS) for at in left}
        assert found.repeats == repeats[found.index] == min(repeats.values())
        assert found.nearest == near[found.index]
        gains = problem["value"] * (near if problem["spread"] else 1)
        assert found.gain == pytest.approx(max(gains[at] for at in left if repeats[at] == found.repeats))
        left.remove(found.index)
        taken[problem["groups"][found.index]] += 1
        chosen.append(problem["features"][found.index])


def test_diversity_goes_to_the_far_cluster_first_and_takes_one_of_its_twins():
    features = np.array([[0, 0.1], [0.1, 0], [5, 5], [5, 5], [-2, 0]], np.float32)
    found = pick(
        list("abcde"), features, np.zeros((1, 2), np.float32), 4, np.ones(5), spread=True, groups=list("abcde")
    )
    assert [each.index for each in found[:2]] == [2, 4] and 3 not in [each.index for each in found]


def test_what_lies_at_a_mean_of_no_image_is_no_twin():
    features = np.array([[0, 0], [0, 0], [5, 0]], np.float32)
    place = {"count": 3, "value": np.array([1.0, 1.0, 0.5]), "spread": False, "groups": list("abc")}
    found = pick(list("abc"), features, np.zeros((1, 2), np.float32), centres_are_images=False, **place)
    assert [(each.index, each.repeats) for each in found] == [(0, 0), (2, 0), (1, 1)]
    labelled = pick(list("abc"), features, np.zeros((1, 2), np.float32), **place)
    assert [(each.index, each.repeats) for each in labelled] == [(2, 0), (0, 1), (1, 1)]


def test_standardised_features_ignore_units_and_what_does_not_vary():
    chance = np.random.default_rng(0)
    values = chance.standard_normal((50, 3))
    dressed = np.concatenate([values * [1, 100, 1e-6] + [0, 7, 0], np.full((50, 1), 1e4) + 1e-3 * values[:, :1]], 1)
    assert standardised(dressed) == pytest.approx(standardised(values), abs=1e-4)
    assert standardised(np.ones((4, 2))).shape == (4, 1) and not standardised(np.ones((4, 2))).any()


def test_rank_shares_are_above_zero_and_ties_share_theirs():
    assert rank_share(np.array([0.3, 0.1, 0.3, 9.0])) == pytest.approx([0.625, 0.25, 0.625, 1.0])
