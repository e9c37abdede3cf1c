"""Overlap scores against brute force, MONAI and torchmetrics, and the properties they must have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semgan.metrics import overlap
from semgan.types import IGNORE

CLASSES = 4


@st.composite
def cases(draw, most: int = 6):
    """Pairs of small label maps of differing sizes, truth with ignored pixels, some classes absent."""
    found = []
    for _ in range(draw(st.integers(1, most))):
        shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
        prediction = draw(arrays(np.uint8, shape, elements=st.integers(0, CLASSES - 1)))
        truth = draw(arrays(np.uint8, shape, elements=st.sampled_from([*range(CLASSES), IGNORE])))
        found.append((prediction, truth))
    return found


def counts_of(pairs) -> overlap.Counts:
    return overlap.concatenate(overlap.count(*pair, CLASSES) for pair in pairs)


def sets_of(prediction, truth, class_index) -> tuple[set, set]:
    kept = {place for place, value in np.ndenumerate(truth) if value != IGNORE}
    predicted = {place for place in kept if prediction[place] == class_index}
    return predicted, {place for place in kept if truth[place] == class_index}


@settings(deadline=None)
@given(cases())
def test_scores_equal_brute_force_over_sets_of_pixels(pairs):
    counts = counts_of(pairs)
    scores = {"dice": np.zeros((len(pairs), CLASSES)), "jaccard": np.zeros((len(pairs), CLASSES))}
    total_both, total_any = np.zeros(CLASSES), np.zeros(CLASSES)
    for row, pair in enumerate(pairs):
        for k in range(CLASSES):
            a, b = sets_of(*pair, k)
            scores["dice"][row, k] = 2 * len(a & b) / (len(a) + len(b)) if a or b else 1
            scores["jaccard"][row, k] = len(a & b) / len(a | b) if a or b else 1
            total_both[k] += len(a & b)
            total_any[k] += len(a | b)
    for metric, expected in scores.items():
        np.testing.assert_allclose(overlap.case_scores(counts, metric), expected, rtol=1e-12)
        np.testing.assert_allclose(overlap.class_scores(counts, metric), expected.mean(0), rtol=1e-12)
    pooled = [both / either if either else 1 for both, either in zip(total_both, total_any, strict=True)]
    np.testing.assert_allclose(overlap.class_scores(counts, "miou"), pooled, rtol=1e-12)


@settings(deadline=None)
@given(cases(), st.randoms(use_true_random=False), st.sampled_from(overlap.METRICS))
def test_score_is_independent_of_batch_size_and_order(pairs, random, metric):
    whole = overlap.class_scores(counts_of(pairs), metric)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    cut = random.randint(0, len(pairs))
    parts = [counts_of(part) for part in (shuffled[:cut], shuffled[cut:]) if part]
    np.testing.assert_allclose(overlap.class_scores(overlap.concatenate(parts), metric), whole, rtol=1e-12)


@settings(deadline=None)
@given(cases())
def test_scores_lie_between_0_and_1_and_jaccard_follows_from_dice(pairs):
    counts = counts_of(pairs)
    dice, jaccard = overlap.dice(counts), overlap.jaccard(counts)
    assert ((dice >= 0) & (dice <= 1)).all()
    np.testing.assert_allclose(jaccard, dice / (2 - dice), rtol=1e-12)


@settings(deadline=None)
@given(cases())
def test_what_is_predicted_on_ignored_pixels_changes_nothing(pairs):
    changed = [(np.where(truth == IGNORE, (p + 1) % CLASSES, p), truth) for p, truth in pairs]
    a, b = counts_of(pairs), counts_of(changed)
    np.testing.assert_array_equal(a.intersection, b.intersection)
    np.testing.assert_array_equal(a.prediction, b.prediction)


@settings(deadline=None)
@given(cases(), st.data())
def test_counts_of_a_group_are_those_of_its_images_side_by_side(pairs, data):
    groups = data.draw(st.lists(st.sampled_from("abc"), min_size=len(pairs), max_size=len(pairs)))
    names, pooled = counts_of(pairs).pooled_by(groups)
    assert names == list(dict.fromkeys(groups))
    for row, name in enumerate(names):
        own = [pair for pair, group in zip(pairs, groups, strict=True) if group == name]
        joined = [np.concatenate([part.ravel() for part in side]) for side in zip(*own, strict=True)]
        together = overlap.count(*joined, CLASSES)
        np.testing.assert_array_equal(pooled.intersection[row], together.intersection[0])
        np.testing.assert_array_equal(pooled.union[row], together.union[0])


def full_cases(number: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Maps in which every class occurs in both, where the libraries agree on what a score is."""
    random = np.random.default_rng(3)
    truth = random.integers(0, CLASSES, (number, 12, 12))
    prediction = np.where(random.random(truth.shape) < 0.7, truth, random.integers(0, CLASSES, truth.shape))
    return prediction, truth


def one_hot(label_map: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(label_map), CLASSES).movedim(-1, 1).float()


def test_dice_and_jaccard_agree_with_monai():
    from monai.metrics.meandice import compute_dice
    from monai.metrics.meaniou import compute_iou

    prediction, truth = full_cases()
    counts = counts_of(zip(prediction, truth, strict=True))
    hot = one_hot(prediction), one_hot(truth)
    np.testing.assert_allclose(overlap.dice(counts), compute_dice(*hot, include_background=True), rtol=1e-6)
    np.testing.assert_allclose(overlap.jaccard(counts), compute_iou(*hot, include_background=True), rtol=1e-6)


def test_miou_agrees_with_torchmetrics_over_all_pixels():
    from torchmetrics.functional.classification import multiclass_jaccard_index

    prediction, truth = full_cases()
    counts = counts_of(zip(prediction, truth, strict=True))
    expected = multiclass_jaccard_index(
        torch.from_numpy(prediction), torch.from_numpy(truth), num_classes=CLASSES, average="none"
    )
    scores = overlap.class_scores(counts, "miou")
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)
    assert overlap.mean_score(scores) == pytest.approx(float(expected[1:].mean()), rel=1e-6)


def test_miou_is_the_ratio_of_sums_and_not_the_mean_of_ratios():
    small = np.array([[1]]), np.array([[1]])  # IoU 1 on one pixel
    large = np.array([[1, 1, 1]]), np.array([[1, 0, 0]])  # IoU 1/3 on three
    counts = overlap.concatenate(overlap.count(*pair, 2) for pair in (small, large))
    assert overlap.class_scores(counts, "miou")[1] == pytest.approx(2 / 4)
    assert overlap.class_scores(counts, "jaccard")[1] == pytest.approx((1 + 1 / 3) / 2)


def test_miou_per_case_agrees_with_monai_where_classes_are_absent():
    from monai.metrics.meaniou import MeanIoU

    prediction, truth = full_cases()
    for case, absent in enumerate((1, 2, 3, 1)):  # in neither map of these four cases
        prediction[case][prediction[case] == absent] = 0
        truth[case][truth[case] == absent] = 0
    reference = MeanIoU(include_background=False, reduction="mean")  # over classes, then cases, nan left out
    reference(one_hot(prediction), one_hot(truth))
    found = overlap.overall(counts_of(zip(prediction, truth, strict=True)), "miou-per-case")
    assert found == pytest.approx(reference.aggregate().item(), rel=1e-6)


@settings(deadline=None)
@given(cases(), st.sampled_from([None, (0, 2), (3,)]))
def test_miou_per_case_equals_brute_force_and_leaves_out_what_is_absent(pairs, over):
    means = []
    for pair in pairs:
        found = [sets_of(*pair, k) for k in over or range(1, CLASSES)]
        ratios = [len(a & b) / len(a | b) for a, b in found if a or b]
        means += [sum(ratios) / len(ratios)] if ratios else []
    expected = sum(means) / len(means) if means else 1
    assert overlap.overall(counts_of(pairs), "miou-per-case", over) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(cases(), st.sampled_from(["dice", "jaccard", "miou"]))
def test_one_number_is_the_mean_of_the_classes_for_the_other_metrics(pairs, metric):
    counts = counts_of(pairs)
    assert overlap.overall(counts, metric) == overlap.mean_score(overlap.class_scores(counts, metric))


def test_empty_against_empty_is_1_and_against_something_0():
    empty, something = np.zeros((2, 2), int), np.array([[0, 1], [0, 0]])
    for metric in overlap.METRICS:
        assert overlap.class_scores(overlap.count(empty, empty, 2), metric)[1] == 1
        assert overlap.class_scores(overlap.count(something, empty, 2), metric)[1] == 0
        assert overlap.class_scores(overlap.count(empty, something, 2), metric)[1] == 0


def test_mean_leaves_out_the_background_unless_told():
    scores = np.array([1.0, 0.2, 0.6])
    assert overlap.mean_score(scores) == pytest.approx(0.4)
    assert overlap.mean_score(scores[:2]) == pytest.approx(0.2)
    assert overlap.mean_score(scores, [0, 2]) == pytest.approx(0.8)


def test_values_outside_the_classes_and_unequal_sizes_are_refused():
    with pytest.raises(ValueError, match=r"prediction has values \[7\].*0 to 3"):
        overlap.count(np.array([7]), np.array([0]), CLASSES)
    with pytest.raises(ValueError, match=r"prediction has values \[255\]"):
        overlap.count(np.array([255]), np.array([0]), CLASSES)
    with pytest.raises(ValueError, match=r"truth has values \[-1\]"):
        overlap.count(np.array([0]), np.array([-1]), CLASSES)
    with pytest.raises(ValueError, match="differ in size"):
        overlap.count(np.zeros((2, 2)), np.zeros((2, 3)), CLASSES)
    with pytest.raises(ValueError, match="Unknown metric 'f1'"):
        overlap.class_scores(overlap.count(np.array([0]), np.array([0]), 2), "f1")
    with pytest.raises(ValueError, match="no case"):
        overlap.concatenate([])


@pytest.mark.parametrize("value", [0.9999, np.nan])
def test_values_between_two_classes_are_refused_and_not_cut_off(value):
    whole, broken = np.ones((2, 2)), np.array([[1, 1], [1, value]])
    assert overlap.count(whole, whole, 2).intersection.tolist() == [[0, 4]]
    for pair in ((broken, whole), (whole, broken)):
        with pytest.raises(ValueError, match="fractions"):
            overlap.count(*pair, 2)
