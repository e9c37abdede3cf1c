"""The stopping rule: what it accepts, and that it is learned so that it is never worse than step 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.metrics import overlap
from semgan.stages.stopping import MOST_LOSS, StoppingRule, agreement, learn_rule

SIDE = 12
CASES = 40


def disc(radius: float, shift: int = 0) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return ((y - SIDE / 2) ** 2 + (x - SIDE / 2 - shift) ** 2 < radius**2).astype(np.uint8)


def walks(helped: int, ruined: int, cases: int = CASES):
    """Masks at steps 0, 5 and 10: of all images, some are helped a little, some lose their mask, others stay."""
    truth = np.stack([disc(4)] * cases)
    start = np.stack([disc(3.4)] * cases)
    late = start.copy()
    late[:helped] = disc(3.8)
    late[helped : helped + ruined] = disc(1, shift=3)
    order = np.random.default_rng(0).permutation(cases)
    return {0: start[order], 5: late[order], 10: late[order]}, truth


def mean_score(masks, truth, metric="dice") -> float:
    counts = overlap.concatenate(overlap.count(mask, true, 2) for mask, true in zip(masks, truth, strict=True))
    return overlap.overall(counts, metric)


def answered(rule: StoppingRule, masks) -> np.ndarray:
    """The answers of a rule, image by image, written out."""
    found = masks[0].copy()
    for row in range(len(found)):
        for step in rule.checkpoints:
            if agreement(masks[step][row], masks[0][row], 2) < rule.at_least:
                break
            found[row] = masks[step][row]
    return found


@pytest.mark.parametrize("metric", ["dice", "jaccard", "miou", "miou-per-case"])
def test_few_ruined_images_are_left_at_the_encoders_mask_and_the_gain_of_the_others_is_kept(metric):
    masks, truth = walks(helped=36, ruined=1)
    learned = learn_rule({0.0: masks}, truth, metric, classes=2)
    assert learned is not None and learned.rule.at_least > agreement(disc(1, shift=3), disc(3.4), 2)
    start, best = mean_score(masks[0], truth, metric), mean_score(answered(learned.rule, masks), truth, metric)
    late = mean_score(masks[5], truth, metric)
    assert best > max(start, late) and learned.rule.steps == 5  # ten steps give no more than five
    assert learned.gain == pytest.approx(learned.score - start) and learned.interval[0] > 0


def test_a_gain_of_all_images_is_taken_as_fixed_steps():
    masks, truth = walks(helped=CASES, ruined=0)
    learned = learn_rule({0.0: masks}, truth, "dice", classes=2)
    assert learned is not None and learned.rule == StoppingRule(0.0, (0, 5))
    assert learned.score == pytest.approx(mean_score(masks[5], truth))


def test_where_nothing_is_gained_all_stay_at_step_0():
    masks, truth = walks(helped=0, ruined=CASES // 2)
    learned = learn_rule({0.0: masks}, truth, "dice", classes=2)
    assert learned is not None and learned.rule == StoppingRule(0.0, (0,))
    assert (learned.gain, learned.interval) == (0.0, (0.0, 0.0))


def test_where_fixed_steps_lose_on_average_no_guard_is_trusted():
    masks, truth = walks(helped=30, ruined=10)
    assert mean_score(masks[5], truth) < mean_score(masks[0], truth)
    learned = learn_rule({0.0: masks}, truth, "dice", classes=2)
    assert learned is not None and learned.rule == StoppingRule(0.0, (0,))


@settings(max_examples=6, deadline=None)
@given(helped=st.integers(20, 38), ruined=st.integers(0, 2), seed=st.integers(0, 99))
def test_a_learned_rule_is_never_worse_than_step_0_within_its_bound(helped, ruined, seed):
    masks, truth = walks(helped, ruined)
    learned = learn_rule({0.0: masks}, truth, "dice", classes=2, seed=seed)
    assert learned is not None and learned.interval[0] >= -MOST_LOSS
    assert mean_score(answered(learned.rule, masks), truth) >= mean_score(masks[0], truth)


def with_copies(plain, copied):
    """Images as they are, and the same cases' copies, as `learn_rule` takes them."""
    (masks, truth), (other, other_truth) = plain, copied
    cases = [str(row) for row in range(len(truth))]
    both = {step: np.concatenate([masks[step], other[step]]) for step in masks}
    facts = {"classes": 2, "groups": cases * 2, "copies": np.repeat([0, 1], len(truth))}
    return both, np.concatenate([truth, other_truth]), facts


def test_copies_that_optimisation_ruins_make_the_rule_careful():
    plain = walks(helped=CASES, ruined=0)
    alone = learn_rule({0.0: plain[0]}, plain[1], "dice", classes=2)
    assert alone is not None and alone.rule == StoppingRule(0.0, (0, 5))
    masks, truth, facts = with_copies(plain, walks(helped=34, ruined=4))
    learned = learn_rule({0.0: masks}, truth, "dice", **facts)
    assert learned is not None and learned.rule.at_least > agreement(disc(1, shift=3), disc(3.4), 2)
    assert learned.score == pytest.approx(mean_score(plain[0][5], plain[1]))  # of the images as they are
    assert learned.gain == pytest.approx(learned.score - mean_score(plain[0][0], plain[1]))


def test_what_copies_gain_makes_good_no_loss_of_the_images_themselves():
    masks, truth, facts = with_copies(walks(helped=0, ruined=0), walks(helped=CASES, ruined=0))
    worse = disc(3.4)
    worse[tuple(np.argwhere(worse)[:4].T)] = 0  # nearer to the encoder's mask than those that are better
    assert agreement(worse, disc(3.4), 2) > agreement(disc(3.8), disc(3.4), 2)
    masks[5][:10] = masks[10][:10] = worse
    learned = learn_rule({0.0: masks}, truth, "dice", **facts)
    assert mean_score(masks[5], truth) > mean_score(masks[0], truth) + MOST_LOSS
    assert learned is not None and learned.rule == StoppingRule(0.0, (0,))


def test_the_order_of_the_images_changes_no_rule():
    masks, truth = walks(helped=36, ruined=1)
    back = {step: kept[::-1] for step, kept in masks.items()}
    first, second = (learn_rule({0.0: each}, truth, "dice", classes=2) for each in (masks, back))
    assert first is not None and second is not None and first.rule == second.rule


def test_a_share_of_step_0_is_learned_where_only_the_mean_of_both_is_better():
    """Step 0 is too small, step 5 lies beside it, both together are right; half of the images stay as they are."""
    masks, truth = walks(helped=0, ruined=CASES // 2)
    mean = masks[5].copy()
    mean[(masks[5] != masks[0]).any((1, 2))] = disc(3.8)
    by_share = {0.0: masks, 0.5: {0: masks[0], 5: mean, 10: mean}, 0.75: {0: masks[0], 5: mean, 10: mean}}
    learned = learn_rule(by_share, truth, "dice", classes=2)
    assert learned is not None and learned.rule == StoppingRule(0.0, (0, 5), 0.5)  # the smaller of equal shares
    assert learned.score == pytest.approx(mean_score(mean, truth)) and learned.interval[0] > 0
    assert learned.gain == pytest.approx(learned.score - mean_score(masks[0], truth))


def test_a_share_that_gives_no_more_is_not_taken():
    masks, truth = walks(helped=CASES, ruined=0)
    learned = learn_rule({0.0: masks, 0.5: masks}, truth, "dice", classes=2)
    assert learned is not None and learned.rule == StoppingRule(0.0, (0, 5))


def test_slices_of_one_patient_are_one_case():
    masks, truth = walks(helped=36, ruined=1)
    assert learn_rule({0.0: masks}, truth, "dice", classes=2, groups=[str(row // 4) for row in range(CASES)]) is None
    by_pairs = learn_rule({0.0: masks}, truth, "dice", classes=2, groups=[str(row // 2) for row in range(CASES)])
    assert by_pairs is not None and by_pairs.gain > 0


def test_fewer_than_16_cases_tell_no_rule():
    masks, truth = walks(helped=10, ruined=0, cases=15)
    assert learn_rule({0.0: masks}, truth, "dice", classes=2) is None


def test_agreement_is_the_mean_overlap_of_classes_that_either_mask_shows():
    first = np.array([[0, 1, 1, 2]])
    assert agreement(first, first, 4) == 1.0
    assert agreement(np.array([[0, 1, 2, 2]]), first, 4) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert agreement(np.array([[3, 1, 1, 2]]), first, 4) == pytest.approx((1 + 1 + 0) / 3)
    empty = np.zeros((1, 4), np.uint8)
    assert agreement(empty, empty, 4) == 1.0 and agreement(empty, first, 4) == 0.0


def test_a_rule_survives_its_file_and_says_what_it_does():
    rule = StoppingRule(0.85, (0, 5, 10))
    assert StoppingRule.from_json(rule.to_json()) == rule
    assert "5, 10 steps" in rule.describe() and "0.85" in rule.describe()
    mixed = StoppingRule(0.85, (0, 5, 10), 0.6)
    assert StoppingRule.from_json(mixed.to_json()) == mixed and "share of 0.6" in mixed.describe()
    before = {name: value for name, value in rule.to_json().items() if name != "first_share"}
    assert StoppingRule.from_json(before) == rule  # of a model that was trained when there were no shares
    assert "no image is optimised" in StoppingRule(0.0, (0,)).describe()
    assert "every image is optimised for 25 steps" in StoppingRule(0.0, (0, 25)).describe()


@pytest.mark.parametrize(("at_least", "checkpoints"), [(0.5, ()), (0.5, (5, 10)), (0.5, (0, 10, 10)), (1.5, (0, 5))])
def test_impossible_rules_are_refused(at_least, checkpoints):
    with pytest.raises(ValueError, match="rise from 0"):
        StoppingRule(at_least, checkpoints)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match="share of step 0"):
        StoppingRule(0.5, (0, 5), share)
