import pytest
import torch

from semgan.data.photometric import (
    LUMA_AND_COLOUR,
    NNUNET_CHANCES,
    NNUNET_RANGES,
    ColourRanges,
    PhotometricChances,
    PhotometricRanges,
    colour,
    photometric,
)

OFF = {"noise": 0.0, "brightness": 0.0, "contrast": (1.0, 1.0), "gamma": (1.0, 1.0), "blur_px": (1e-3, 1e-3)}


def pictures(count: int = 6, channels: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, 16, 16, generator=random) * 1.6 - 0.8


def changed(image, index, probability=0.7, **ranges):
    strengths = PhotometricRanges(**(OFF | ranges)) if ranges else PhotometricRanges()
    return photometric(image, seed=3, stream="test", index=index, probability=probability, ranges=strengths)


def test_what_happens_to_an_image_depends_on_its_index_alone():
    image = pictures(channels=3)
    together = changed(image, range(10, 16))
    for i in range(6):
        alone = changed(image[i : i + 1], [10 + i])
        assert torch.allclose(alone[0], together[i], atol=1e-6)
    assert not torch.allclose(changed(image, range(20, 26)), together)


def test_probability_zero_returns_the_image_itself():
    image = pictures()
    assert photometric(image, seed=0, stream="a", index=range(6), probability=0.0) is image


def test_results_stay_in_range_and_inputs_stay_untouched():
    image = pictures()
    before = image.clone()
    result = changed(image, range(6), 1.0)
    assert torch.equal(image, before)
    assert result.shape == image.shape and result.min() >= -1 and result.max() <= 1 and result.isfinite().all()


def test_images_that_are_not_hit_pass_unchanged():
    image = pictures(64)
    result = changed(image, range(64), 0.05)
    same = (result - image).abs().amax((1, 2, 3)) < 1e-6
    assert 0.6 < same.float().mean() < 0.95  # 0.95^5 = 0.77 of the images


def test_gamma_keeps_black_and_white_and_the_order_of_grey_values():
    image = torch.linspace(-1, 1, 256).view(1, 1, 16, 16).repeat(8, 1, 1, 1)
    result = changed(image, range(8), 1.0, gamma=(0.5, 2.0)).flatten(1)
    assert torch.allclose(result[:, 0], torch.tensor(-1.0)) and torch.allclose(result[:, -1], torch.tensor(1.0))
    assert (result.diff(dim=1) >= 0).all() and result[:, 128].std() > 0.1


def test_contrast_scales_about_the_mean_and_brightness_shifts():
    image = pictures(8) * 0.4
    ratio = changed(image, range(8), 1.0, contrast=(0.65, 1.5)).std((1, 2, 3)) / image.std((1, 2, 3))
    assert ratio.min() >= 0.65 - 1e-4 and ratio.max() <= 1.5 + 1e-4 and ratio.std() > 0.1
    shift = changed(image, range(8), 1.0, brightness=0.4) - image
    assert shift.std((1, 2, 3)).max() < 1e-5 and shift.abs().max() <= 0.4 + 1e-5 and shift.mean((1, 2, 3)).std() > 0.1


def test_blur_keeps_the_mean_of_a_plane_and_lowers_its_variation():
    image = pictures(4, channels=2)
    result = changed(image, range(4), 1.0, blur_px=(0.4, 1.0))
    assert (result.std((2, 3)) < image.std((2, 3))).all()
    flat = torch.full((1, 2, 16, 16), 0.3)
    assert torch.allclose(changed(flat, [0], 1.0, blur_px=(0.4, 1.0)), flat, atol=1e-6)


def test_noise_differs_between_channels_and_has_the_drawn_strength():
    image = torch.zeros(8, 2, 16, 16)
    noise = changed(image, range(8), 1.0, noise=0.15)
    assert not torch.allclose(noise[:, 0], noise[:, 1])
    assert noise.std((1, 2, 3)).max() < 0.17 and noise.std((1, 2, 3)).max() > 0.08


def test_grey_values_are_never_inverted():
    image = torch.linspace(-0.9, 0.9, 256).view(1, 1, 16, 16).repeat(64, 1, 1, 1)
    result = changed(image, range(64), 1.0)
    assert (result[:, :, 12:].mean((1, 2, 3)) > result[:, :, :4].mean((1, 2, 3))).all()


def test_an_index_is_needed_for_every_image():
    with pytest.raises(ValueError, match="one index per image"):
        photometric(pictures(), seed=0, stream="a", index=range(5), probability=0.5)


# ---------------------------------------------------------------- what nnU-Net does besides

NEVER = {"noise": 0.0, "blur": 0.0, "brightness": 0.0, "contrast": 0.0, "gamma": 0.0}


def once(image, index=None, ranges=NNUNET_RANGES, **chances):
    numbers = range(len(image)) if index is None else index
    asked = PhotometricChances(**(NEVER | chances))
    return photometric(image, seed=3, stream="test", index=numbers, probability=asked, ranges=ranges)


def test_a_number_stands_for_the_first_five_changes():
    image = pictures(32)
    five = PhotometricChances(0.5, 0.5, 0.5, 0.5, 0.5)
    by_number = photometric(image, seed=3, stream="test", index=range(32), probability=0.5)
    assert torch.equal(by_number, photometric(image, seed=3, stream="test", index=range(32), probability=five))


def test_nnunets_changes_depend_on_the_index_alone_and_stay_in_range():
    image = pictures(40, channels=3)
    options = {"seed": 3, "stream": "test", "probability": NNUNET_CHANCES, "ranges": NNUNET_RANGES}
    together = photometric(image, index=range(40), **options)
    for i in (0, 7, 39):
        assert torch.allclose(photometric(image[i : i + 1], index=[i], **options)[0], together[i], atol=1e-5)
    assert together.min() >= -1 and together.max() <= 1 and together.isfinite().all()
    same = (together - image).abs().amax((1, 2, 3)) < 1e-5
    assert 4 <= int(same.sum()) <= 24  # 0.85^5 0.8 0.75 = 0.27 of the images stay as they are


def test_inverted_gamma_keeps_black_and_white_and_bends_the_other_way():
    ramp = torch.linspace(-1, 1, 256).view(1, 1, 16, 16).repeat(16, 1, 1, 1)
    ranges = PhotometricRanges(gamma=(1.5, 2.0))
    bent, inverted = once(ramp, gamma=1.0, ranges=ranges), once(ramp, inverted_gamma=1.0, ranges=ranges)
    for result in (bent, inverted):
        flat = result.flatten(1)
        assert torch.allclose(flat[:, 0], torch.tensor(-1.0)) and torch.allclose(flat[:, -1], torch.tensor(1.0))
        assert (flat.diff(dim=1) >= 0).all()
    middle = (slice(None), 0, 8, 0)
    assert (bent[middle] < ramp[middle]).all() and (inverted[middle] > ramp[middle]).all()


def test_low_resolution_loses_detail_and_keeps_what_is_smooth():
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 1.6 - 0.8
    smooth = torch.linspace(-0.8, 0.8, 16)[:, None].expand(16, 16)
    ranges = PhotometricRanges(low_resolution=(2.0, 2.0))
    for picture, loses in ((checkers, True), (smooth, False)):
        image = picture[None, None].repeat(4, 1, 1, 1)
        result = once(image, low_resolution=1.0, ranges=ranges)
        lost = float((result - image).abs().mean())
        assert lost > 0.5 if loses else lost < 0.15
    unchanged = once(pictures(), low_resolution=1.0, ranges=PhotometricRanges(low_resolution=(1.0, 1.0)))
    assert torch.allclose(unchanged, pictures(), atol=1e-5)


def recoloured(image, index, **ranges):
    return colour(image, seed=3, stream="test", index=index, ranges=ColourRanges(**ranges))


def luma(image):
    return torch.einsum("c,nchw->nhw", torch.tensor(LUMA_AND_COLOUR[0]), image)


def saturation(image):
    """Mean distance from grey, of every image."""
    axes = torch.einsum("dc,nchw->ndhw", torch.tensor(LUMA_AND_COLOUR[1:]), image)
    return axes.norm(dim=1).mean((1, 2))


def test_colours_change_and_luma_stays():
    image = pictures(32, channels=3) * 0.3
    result = recoloured(image, range(32), grey=0.0, probability=1.0)
    assert torch.allclose(luma(result), luma(image), atol=1e-3)
    assert (result - image).abs().amax((1, 2, 3)).min() > 0.01
    factor = saturation(result) / saturation(image)
    assert 0.5 < factor.min() < 0.7 and 1.3 < factor.max() < 1.5


def test_hue_turns_by_a_quarter_circle_at_most_and_keeps_saturation():
    red = torch.tensor([0.3, -0.2, -0.2]).view(1, 3, 1, 1).repeat(64, 1, 4, 4)
    result = recoloured(red, range(64), saturation=0.0, grey=0.0, probability=1.0)
    assert torch.allclose(saturation(result), saturation(red), rtol=1e-3)
    along = torch.einsum("dc,nchw->ndhw", torch.tensor(LUMA_AND_COLOUR[1:]), torch.cat([red, result]))[:, :, 0, 0]
    angle = torch.atan2(along[:, 1], along[:, 0])
    turned = torch.remainder(angle[64:] - angle[:64] + torch.pi, 2 * torch.pi) - torch.pi
    assert -torch.pi / 2 <= turned.min() < -1 and 1 < turned.max() <= torch.pi / 2


def test_a_fifth_of_the_images_turns_grey_and_a_sixth_stays_as_it_is():
    image = pictures(400, channels=3) * 0.3
    result = recoloured(image, range(400))
    assert 0.15 < (saturation(result) < 1e-3).float().mean() < 0.25
    assert 0.11 < ((result - image).abs().amax((1, 2, 3)) < 1e-5).float().mean() < 0.21  # .2 of .8


def test_new_colours_depend_on_the_index_alone_and_stay_in_range():
    image = pictures(channels=3)
    together = recoloured(image, range(10, 16))
    for i in range(6):
        assert torch.allclose(recoloured(image[i : i + 1], [10 + i])[0], together[i], atol=1e-6)
    assert -1 <= together.min() and together.max() <= 1
    greys = image.mean(1, keepdim=True).repeat(1, 3, 1, 1)
    assert recoloured(greys, range(6)).std(1).max() < 1e-3


def test_grey_images_have_no_colours_to_change():
    with pytest.raises(ValueError, match="3 channels; got 1"):
        recoloured(pictures(), range(6))
