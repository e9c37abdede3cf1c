import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from semgan import recipes
from semgan.config import Preprocessing, Settings, override
from semgan.data.transforms import preprocess, resize_label, rules_by_modality, to_unit

PLAIN = Preprocessing(size_px=16)


def test_a_picture_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    assert np.array_equal(preprocess(image, PLAIN)[0], image)
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(preprocess(colour, Preprocessing(size_px=16, channels=3)), np.moveaxis(colour, -1, 0))


@settings(deadline=None, max_examples=40)
@given(data=st.data(), channels=st.sampled_from([1, 3]), equalise=st.booleans(), gamma=st.sampled_from([0.5, 1.0, 2.0]))
def test_any_grey_or_colour_picture_becomes_a_uint8_square(data, channels, equalise, gamma):
    kind = data.draw(st.sampled_from([np.uint8, np.uint16]))
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    shape = data.draw(st.sampled_from([size, (*size, 3)]))
    image = data.draw(arrays.arrays(kind, shape))
    rule = Preprocessing(size_px=16, channels=channels, equalise_histogram=equalise, gamma=gamma)
    result = preprocess(image, rule)
    assert result.shape == (channels, 16, 16) and result.dtype == np.uint8
    assert np.array_equal(result, preprocess(image.copy(), rule))


def test_equalisation_follows_the_classical_formula():
    image = np.random.default_rng(1).normal(90, 20, (16, 16)).clip(0, 255).astype(np.uint8)
    result = preprocess(image, Preprocessing(size_px=16, equalise_histogram=True))[0]
    cdf = np.array([(image <= level).sum() for level in range(256)])
    lowest = cdf[image.min()]
    expected = np.rint((cdf[image] - lowest) / (image.size - lowest) * 255)
    assert np.array_equal(result, expected)


def test_equalised_pictures_do_not_depend_on_exposure():
    image = np.random.default_rng(2).integers(0, 60, (40, 30), dtype=np.uint8)
    rule = Preprocessing(size_px=16, equalise_histogram=True, gamma=0.5)
    assert np.array_equal(preprocess(image, rule), preprocess(image * 3 + 20, rule))
    deep = image.astype(np.uint16) * 700
    assert np.abs(preprocess(image, rule).astype(int) - preprocess(deep, rule)).max() <= 1


def test_gamma_half_brightens_after_equalisation():
    image = np.random.default_rng(3).integers(0, 256, (16, 16), dtype=np.uint8)
    equalised = preprocess(image, Preprocessing(size_px=16, equalise_histogram=True))[0]
    both = preprocess(image, Preprocessing(size_px=16, equalise_histogram=True, gamma=0.5))[0]
    # Away from black, where the slope of the root turns the rounding of the first result into levels.
    bright = equalised > 20
    assert np.abs(both - np.sqrt(equalised / 255) * 255)[bright].max() <= 2
    assert both.mean() > equalised.mean()


@pytest.mark.parametrize("image", [np.full((9, 9), 7, np.uint8), np.full((9, 9), 700, np.uint16)])
def test_a_picture_of_one_level_survives_equalisation(image):
    result = preprocess(image, Preprocessing(size_px=16, equalise_histogram=True, gamma=0.5))
    assert len(np.unique(result)) == 1


def test_deep_pictures_are_stretched_each_by_its_own_range():
    image = np.arange(256, dtype=np.uint16).reshape(16, 16) * 13 + 500
    assert preprocess(image, PLAIN)[0].ravel().tolist() == list(range(256))
    assert np.array_equal(preprocess(image, PLAIN), preprocess(image.astype(np.float32), PLAIN))
    with pytest.raises(ValueError, match="NaN"):
        preprocess(np.full((4, 4), np.nan, np.float32), PLAIN)


def test_colour_and_grey_are_turned_into_one_another_and_nothing_else_is():
    grey = np.random.default_rng(4).integers(0, 256, (16, 16), dtype=np.uint8)
    assert np.array_equal(preprocess(np.dstack([grey] * 3), PLAIN)[0], grey)
    assert np.array_equal(preprocess(grey, Preprocessing(size_px=16, channels=3)), np.stack([grey] * 3))
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert preprocess(red, PLAIN)[0, 0, 0] == round(0.299 * 200)
    with pytest.raises(ValueError, match="2 channels.*expects 3"):
        preprocess(np.zeros((4, 4, 2), np.uint8), Preprocessing(size_px=16, channels=3))


def test_channels_beyond_colour_are_kept_apart():
    image = np.random.default_rng(5).integers(0, 256, (20, 24, 5), dtype=np.uint8)
    rule = Preprocessing(size_px=16, channels=5, equalise_histogram=True)
    together = preprocess(image, rule)
    alone = [preprocess(image[..., c], Preprocessing(size_px=16, equalise_histogram=True))[0] for c in range(5)]
    assert np.array_equal(together, np.stack(alone))


def test_shrinking_averages_instead_of_picking():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert np.abs(preprocess(stripes, PLAIN)[0, 4:-4, 4:-4].astype(int) - 127.5).max() < 3


def test_units_are_minus_one_to_one_for_arrays_and_tensors():
    levels = np.array([0, 255, 51], np.uint8)
    for result in (to_unit(levels), to_unit(torch.from_numpy(levels)).numpy()):
        assert result.dtype == np.float32 and np.allclose(result, [-1, 1, -0.6])


def test_labels_and_images_are_resized_onto_each_other():
    """A picture that is its own mask: after the resize both agree on where the disc is."""
    y, x = np.mgrid[:100, :73]
    disc = ((y - 40) ** 2 + (x - 45) ** 2 < 20**2).astype(np.uint8)
    label, image = resize_label(disc, 32), preprocess(disc * 255, Preprocessing(size_px=32))[0] / 255
    assert label.shape == (32, 32)
    rows, columns = np.mgrid[:32, :32]
    for axis in (rows, columns):
        assert abs((axis * label).sum() / label.sum() - (axis * image).sum() / image.sum()) < 0.15
    assert np.array_equal(resize_label(disc[:32, :32], 32), disc[:32, :32])


# ---------------------------------------------------------------- CT and MRI

CT, MRI = Preprocessing(size_px=16, clip=(-200, 400)), Preprocessing(size_px=16, clip_percentiles=(0.1, 99.9))
VALUES = st.floats(-3000, 3000, width=32, allow_subnormal=False)


def test_ct_is_clipped_to_its_window_and_stretched_slice_by_slice():
    wide = np.linspace(-1024, 3000, 256, dtype=np.float32).reshape(16, 16).astype(np.int16)
    expected = np.rint((np.clip(wide.astype(float), -200, 400) + 200) / 600 * 255)
    assert np.abs(preprocess(wide, CT)[0] - expected).max() <= 1
    soft = np.arange(256, dtype=np.int16).reshape(16, 16) // 4 + 20  # 20 to 83 HU: the slice's own range counts
    assert preprocess(soft, CT).min() == 0 and preprocess(soft, CT).max() == 255


def test_mri_outliers_do_not_set_the_range():
    image = np.random.default_rng(6).integers(100, 400, (64, 64)).astype(np.uint16)
    image[0, 0], image[0, 1] = 60000, 0
    low, high = np.percentile(image, (0.1, 99.9))
    expected = np.rint(np.rint((np.clip(image, low, high) - low) / (high - low) * 65535) / 65535 * 255)
    same_size = Preprocessing(size_px=64, clip_percentiles=(0.1, 99.9))
    assert np.abs(preprocess(image, same_size)[0] - expected).max() <= 1
    assert preprocess(image, PLAIN).mean() < 5 < 100 < preprocess(image, MRI).mean()


def test_clipped_eight_bit_pictures_are_stretched_too():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16) // 4 + 50
    assert preprocess(image, PLAIN).max() == 113 and preprocess(image, MRI).max() == 255


@settings(deadline=None, max_examples=30)
@given(arrays.arrays(np.float32, (12, 9), elements=VALUES), st.floats(0.5, 3, allow_subnormal=False))
def test_mri_does_not_depend_on_gain_and_ct_not_on_what_lies_outside_the_window(image, gain):
    brighter = image.astype(np.float64) * gain  # in single precision the smallest number has no half
    assert np.abs(preprocess(image, MRI).astype(int) - preprocess(brighter, MRI)).max() <= 1
    assert np.array_equal(preprocess(image, CT), preprocess(np.clip(image, -200, 400), CT))


@pytest.mark.parametrize("rule", [CT, MRI])
def test_clipping_does_not_hide_values_that_are_not_finite(rule):
    image = np.zeros((4, 4), np.float32)
    image[0, 0] = -np.inf
    with pytest.raises(ValueError, match="not finite"):
        preprocess(image, rule)


@pytest.mark.parametrize("change", [{"clip": [400, -200]}, {"clip_percentiles": [1, 101]}])
def test_bounds_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match="must rise"):
        override(Settings(), {"preprocessing": change})


def test_a_model_carries_the_rules_of_its_modalities():
    rules = rules_by_modality(recipes.load("liver-ct"))
    assert list(rules) == ["default", "ct", "mri"] and rules["default"] == rules["ct"]
    assert rules["ct"].clip == (-200, 400) and rules["mri"].clip is None
    assert rules["mri"].clip_percentiles == (0.1, 99.9) and rules["mri"].size_px == rules["ct"].size_px
    assert list(rules_by_modality(recipes.load("skin"))) == ["default"]
