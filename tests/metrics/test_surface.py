"""Surface distances and size differences against brute force and MONAI, and what empty masks mean."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semgan.metrics.surface import (
    measures,
    relative_difference,
    summarise,
    surface_distances,
    volume_difference_ml,
)
from semgan.types import IGNORE

spacings = st.floats(0.1, 5, allow_subnormal=False)


@st.composite
def pairs(draw, least_side: int = 1, axes=st.integers(1, 3)):
    """Two masks of one shape with something in each, and the spacing of their axes."""
    shape = tuple(draw(st.lists(st.integers(least_side, 5), min_size=(n := draw(axes)), max_size=n)))
    masks = []
    for _ in range(2):
        mask = draw(arrays(np.bool_, shape))
        mask[tuple(draw(st.integers(0, side - 1)) for side in shape)] = True
        masks.append(mask)
    return (*masks, draw(st.lists(spacings, min_size=len(shape), max_size=len(shape))))


def brute_surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Elements with a face neighbour that is outside the mask or the array, along axes longer than 1."""
    inside = {place for place, value in np.ndenumerate(mask) if value}
    found = []
    for place in sorted(inside):
        steps = [
            tuple(index + (step if axis == own else 0) for own, index in enumerate(place))
            for axis, step in itertools.product(range(mask.ndim), (-1, 1))
            if mask.shape[axis] > 1
        ]
        if not steps or any(step not in inside for step in steps):
            found.append(place)
    return found


def brute_distances(a: np.ndarray, b: np.ndarray, spacing) -> list[float]:
    scaled = [np.array(brute_surface(mask)) * np.array(spacing) for mask in (a, b)]
    return [min(float(np.linalg.norm(one - other)) for other in scaled[1]) for one in scaled[0]]


def brute_percentile(values: list[float], share: float) -> float:
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_distances_equal_brute_force_over_all_pairs_of_surface_elements(pair):
    prediction, truth, spacing = pair
    found = surface_distances(prediction, truth, spacing)
    there, back = brute_distances(prediction, truth, spacing), brute_distances(truth, prediction, spacing)
    np.testing.assert_allclose(np.sort(found.to_truth), np.sort(there), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.sort(found.to_prediction), np.sort(back), rtol=1e-9, atol=1e-12)
    expected = max(brute_percentile(part, 0.95) for part in (there, back))
    assert found.hd95 == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.average == pytest.approx(sum(there + back) / len(there + back), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(pairs(least_side=2, axes=st.integers(2, 3)))
def test_distances_agree_with_monai(pair):
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    prediction, truth, spacing = pair
    found = surface_distances(prediction, truth, spacing)
    one_hot = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": spacing}
    hd95 = compute_hausdorff_distance(*one_hot, percentile=95, **options)
    assert found.hd95 == pytest.approx(hd95.item(), rel=1e-5, abs=1e-6)
    average = compute_average_surface_distance(*one_hot, symmetric=True, **options)
    assert found.average == pytest.approx(average.item(), rel=1e-5, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(pairs(), st.randoms(use_true_random=False), spacings)
def test_distances_are_symmetric_scale_with_the_spacing_and_ignore_where_the_masks_lie(pair, random, factor):
    prediction, truth, spacing = pair
    found = surface_distances(prediction, truth, spacing)
    swapped = surface_distances(truth, prediction, spacing)
    assert (swapped.hd95, swapped.average) == pytest.approx((found.hd95, found.average))
    larger = surface_distances(prediction, truth, [factor * value for value in spacing])
    assert (larger.hd95, larger.average) == pytest.approx((factor * found.hd95, factor * found.average))
    order = random.sample(range(prediction.ndim), prediction.ndim)
    turned = surface_distances(prediction.transpose(order), truth.transpose(order), [spacing[i] for i in order])
    assert (turned.hd95, turned.average) == pytest.approx((found.hd95, found.average))
    margins = [(2, 3) if side > 1 else (0, 0) for side in prediction.shape]
    moved = surface_distances(np.pad(prediction, margins), np.pad(truth, margins), spacing)
    assert (moved.hd95, moved.average) == pytest.approx((found.hd95, found.average))
    assert surface_distances(truth, truth, spacing).hd95 == 0


def test_a_volume_of_one_slice_is_measured_like_its_image():
    prediction, truth = np.zeros((2, 9, 9), bool)
    prediction[1:8, 1:8], truth[2:7, 2:7] = True, True
    image = surface_distances(prediction, truth, (0.5, 2))
    for axis in range(3):
        spacing = [0.5, 2.0]
        spacing.insert(axis, 7.0)
        volume = surface_distances(np.expand_dims(prediction, axis), np.expand_dims(truth, axis), spacing)
        assert (volume.hd95, volume.average) == (image.hd95, image.average)


def test_known_distances_along_axes_of_uneven_spacing():
    prediction, truth = np.zeros((2, 4, 6, 6), bool)
    prediction[0, 0, 0] = truth[2, 0, 0] = True
    assert surface_distances(prediction, truth, (5, 0.7, 0.7)).hd95 == 10
    truth[2, 0, 0], truth[0, 3, 4] = False, True
    assert surface_distances(prediction, truth, (5, 1, 1)).average == 5


@pytest.mark.parametrize("shape", [(5,), (4, 4), (2, 3, 4)])
def test_empty_against_empty_is_0_and_against_something_not_defined(shape):
    empty, something = np.zeros(shape, bool), np.ones(shape, bool)
    spacing = [1.0] * len(shape)
    both = surface_distances(empty, empty, spacing)
    assert (both.hd95, both.average, relative_difference(empty, empty)) == (0, 0, 0)
    for pair in ((empty, something), (something, empty)):
        distances = surface_distances(*pair, spacing)
        assert math.isnan(distances.hd95) and math.isnan(distances.average)
    assert math.isnan(relative_difference(something, empty))
    assert relative_difference(empty, something) == 1


def test_volume_difference_in_ml_is_signed_and_its_share_is_not():
    truth = np.zeros((10, 10, 10), bool)
    truth[:2] = True
    prediction = truth & (np.arange(10) < 5)
    assert volume_difference_ml(prediction, truth, (5, 2, 1)) == pytest.approx(-100 * 10 / 1000)
    assert volume_difference_ml(truth, prediction, (5, 2, 1)) == pytest.approx(1)
    assert relative_difference(prediction, truth) == 0.5
    assert relative_difference(truth, prediction) == 1
    with pytest.raises(ValueError, match="three axes; got 2"):
        volume_difference_ml(truth[0], truth[0], (1, 1))


@pytest.mark.parametrize("spacing", [(), (1, 2, 3), (1, 0), (1, -1), (1, math.nan), (math.inf,)])
def test_a_spacing_that_does_not_fit_is_refused(spacing):
    mask = np.ones((2, 2), bool)
    with pytest.raises(ValueError, match="2 axes; give one positive number, or one per axis"):
        surface_distances(mask, mask, spacing)


def test_masks_of_unequal_shape_are_refused_and_not_broadcast():
    for other in ((4, 5), (1, 4), (1, 4, 4)):
        with pytest.raises(ValueError, match="differ in size"):
            surface_distances(np.ones((4, 4)), np.ones(other), (1, 1))


# ---------------------------------------------------------------- label maps


def test_measures_are_named_by_their_unit_and_given_per_class():
    truth = np.zeros((1, 8, 8), np.uint8)
    truth[0, 2:6, 2:6] = 1  # 16 px
    prediction = truth | np.roll(truth, 1, axis=2)  # 20 px
    image = measures(prediction[0], truth[0], 3, (2.0, 0.5))
    assert list(image) == ["hd95_mm", "assd_mm", "area_difference_mm2", "area_difference_relative"]
    np.testing.assert_allclose(image["area_difference_mm2"], [-4, 4, 0])
    np.testing.assert_allclose(image["area_difference_relative"], [4 / 48, 4 / 16, 0])
    pixels = measures(prediction[0], truth[0], 3, None)
    assert list(pixels) == ["hd95_px", "assd_px", "area_difference_px", "area_difference_relative"]
    np.testing.assert_allclose(pixels["hd95_px"], [1, 1, 0])
    np.testing.assert_allclose(image["hd95_mm"], [0.5, 0.5, 0])
    volume = measures(prediction, truth, 3, (3.0, 2.0, 0.5))
    assert list(volume) == ["hd95_mm", "assd_mm", "volume_difference_ml", "volume_difference_relative"]
    np.testing.assert_allclose(volume["volume_difference_ml"], [-4 * 3 / 1000, 4 * 3 / 1000, 0])
    one_sided = measures(truth[0] * 0, truth[0], 3, None)
    np.testing.assert_allclose(one_sided["assd_px"][1:], [math.nan, 0])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_what_was_predicted_where_the_truth_is_ignored_changes_nothing(data):
    truth = data.draw(arrays(np.uint8, (4, 4), elements=st.sampled_from([0, 1, IGNORE])))
    predictions = [data.draw(arrays(np.uint8, (4, 4), elements=st.integers(0, 1))) for _ in range(2)]
    predictions[1] = np.where(truth == IGNORE, predictions[1], predictions[0])
    one, other = (measures(prediction, truth, 2, None) for prediction in predictions)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_volumes_need_their_spacing():
    with pytest.raises(ValueError, match="3 axes without spacing"):
        measures(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), 2, None)


# ---------------------------------------------------------------- over cases

NAMES, NAN = ("background", "left", "right"), math.nan
VALUES = np.array([[9, 1, 3], [9, NAN, 5], [9, NAN, NAN], [9, 2, NAN]], float)


def test_undefined_values_are_left_out_of_the_mean_and_counted():
    summary = summarise(VALUES, NAMES, (1, 2))
    assert summary.mean == pytest.approx((2 + 5 + 2) / 3)
    assert summary.n == 3
    assert summary.classes == {"background": 9, "left": 1.5, "right": 4}
    assert summary.undefined == {"background": 0, "left": 2, "right": 2}
    assert summary.interval is not None and 2 <= summary.interval[0] < summary.mean < summary.interval[1] <= 5


def test_images_of_a_group_are_averaged_before_the_groups():
    summary = summarise(VALUES, NAMES, (1,), ["ann", "ann", "bob", "ann"])
    assert (summary.mean, summary.n, summary.interval) == (1.5, 1, None)
    assert summary.undefined["left"] == 2  # images, not groups


def test_nothing_defined_is_none_and_not_a_number():
    summary = summarise(np.full((2, 2), NAN), NAMES[:2], (1,))
    assert (summary.mean, summary.interval, summary.n) == (None, None, 0)
    assert summary.classes["left"] is None and summary.undefined == {"background": 2, "left": 2}
