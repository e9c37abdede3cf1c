"""Synthetic shifts: reproducible, of the image's own kind, and geometry moves image and mask alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.data.shifts import MIXED, SHIFTS, shifted

GEOMETRY = ("zoom", "proportions", "turn")
SIDE = 64


def pair(channels: int = 3, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A textured picture with a bright off-centre block that is its mask."""
    label = np.zeros((SIDE, SIDE), np.uint8)
    label[20:40, 14:44] = 1
    values = np.random.default_rng(0).uniform(60, 110, (SIDE, SIDE, channels)) + 120.0 * label[..., None]
    image = values.astype(dtype)
    return (image[..., 0] if channels == 1 else image), label


@pytest.mark.parametrize("name", [*SHIFTS, MIXED])
def test_a_shift_is_a_function_of_seed_and_number_and_changes_the_picture(name):
    image, label = pair()
    first = shifted(image, label, name, seed=1, number=4)
    again = shifted(image, label, name, seed=1, number=4)
    other = shifted(image, label, name, seed=2, number=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], image) and not np.array_equal(first[0], other[0])
    assert np.array_equal(image, pair()[0])  # the input is left alone


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([*SHIFTS, MIXED]),
    st.integers(0, 1000),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
)
def test_shape_type_and_range_stay(name, number, channels, dtype):
    image, label = pair(channels, dtype)
    found, mask = shifted(image, label, name, seed=0, number=number)
    assert found.shape == image.shape and found.dtype == image.dtype
    assert mask.shape == label.shape and mask.dtype == label.dtype and set(np.unique(mask)) <= {0, 1}
    low, high = (0, 255) if dtype is np.uint8 else (image.min(), image.max())
    assert found.min() >= low and found.max() <= high


@pytest.mark.parametrize("name", list(SHIFTS))
def test_only_geometry_moves_the_mask(name):
    image, label = pair()
    masks = [shifted(image, label, name, seed=0, number=number)[1] for number in range(4)]
    assert all(np.array_equal(mask, label) for mask in masks) != (name in GEOMETRY)


@pytest.mark.parametrize("name", GEOMETRY)
def test_the_mask_goes_where_its_picture_goes(name):
    image, label = pair(1)
    for number in range(6):
        found, mask = shifted(image, label, name, seed=3, number=number)
        bright = (found > 145).astype(np.uint8)
        overlap = (bright & mask).sum() / (bright | mask).sum()
        assert overlap > 0.9, (number, overlap)


def test_what_comes_in_from_outside_is_black_and_background():
    image, label = np.full((SIDE, SIDE), 200, np.uint8), np.ones((SIDE, SIDE), np.uint8)
    found, mask = shifted(image, label, "turn", seed=0, number=0)
    assert found[0, 0] == 0 and mask[0, 0] == 0 and found[SIDE // 2, SIDE // 2] == 200 and mask[SIDE // 2, SIDE // 2]


def test_an_empty_picture_is_no_problem():
    image, label = np.zeros((20, 30), np.float32), np.zeros((20, 30), np.uint8)
    for name in SHIFTS:
        assert np.isfinite(shifted(image, label, name, seed=0, number=0)[0]).all(), name


def test_an_unknown_shift_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="Unknown shift 'wind'. There are: zoom,.*mixed"):
        shifted(*pair(), "wind", seed=0, number=0)
