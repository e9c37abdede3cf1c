"""What the critics see: one geometry for image and mask, off at probability 0, differentiable, steered by ADA."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from semgan.objectives.augmentation import (
    ADAPTIVE_LIMIT,
    DRAWS,
    AugmentationRange,
    adapted_probability,
    affine_matrices,
    augment_image,
    augment_pair,
    change_intensity,
    warp,
)

WIDE = AugmentationRange(scale=0.3, translate=0.2, rotate_deg=40)
NO_INTENSITY = AugmentationRange(scale=0.3, translate=0.2, rotate_deg=40, brightness=0, contrast=0, saturation=0)


def draws(count, seed=0):
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def blobs(count=4, side=24):
    """An off-centre spot of its own for every image, -1 around it."""
    place = torch.arange(side).float()
    rows, columns = (torch.rand(count, generator=torch.Generator().manual_seed(s)) * 8 + 8 for s in (1, 2))
    distance = (place[None, :, None] - rows[:, None, None]) ** 2 + (place[None, None] - columns[:, None, None]) ** 2
    return (2 * torch.exp(-distance / 12) - 1)[:, None]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_a_label_painted_into_the_image_stays_aligned(seed, mirror):
    """Also where the intensity changes, which must leave the label as it is."""
    spot = blobs()
    image, label = augment_pair(spot, spot, draws(4, seed), 1.0, NO_INTENSITY, mirror=mirror)
    assert_close(image, label)
    changed, same_label = augment_pair(spot, spot, draws(4, seed), 1.0, WIDE, mirror=mirror)
    assert_close(same_label, label)
    pairs = zip(changed.flatten(1), label.flatten(1), strict=True)
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
    assert (correlation > 0.9999).all()


def test_at_probability_one_every_image_is_moved_and_changed():
    spot = blobs(16)
    moved = augment_image(spot, draws(16), 1.0, NO_INTENSITY)
    assert ((moved - spot).abs().amax((1, 2, 3)) > 0.05).all()
    brighter = change_intensity(spot, draws(16), 1.0, WIDE)
    assert ((brighter - spot).abs().amax((1, 2, 3)) > 0.005).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_probability_zero_is_the_identity(channels):
    image, label = torch.randn(3, channels, 16, 16), torch.randn(3, 2, 16, 16)
    assert_close(augment_image(image, draws(3), 0.0, WIDE), image, atol=1e-5, rtol=1e-5)
    same_image, same_label = augment_pair(image, label, draws(3), torch.tensor(0.0), WIDE)
    assert_close(same_image, image, atol=1e-5, rtol=1e-5)
    assert_close(same_label, label, atol=1e-5, rtol=1e-5)


def test_mirroring_flips_half_of_the_images_in_any_case():
    spot = blobs(64)
    chance = draws(64)
    image, label = augment_pair(spot, spot, chance, 0.0, WIDE, mirror=True)
    flipped = chance[:, 7] < 0.5
    assert 16 < int(flipped.sum()) < 48
    assert_close(image, torch.where(flipped[:, None, None, None], spot.flip(3), spot), atol=1e-5, rtol=1e-5)
    assert_close(label, image)


def test_how_many_images_are_changed_follows_the_probability():
    image = torch.zeros(4000, 1, 2, 2)
    changed = change_intensity(image, draws(4000), 0.3, AugmentationRange(contrast=0))
    assert (changed != 0).any(3).any(2).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_changes_stay_within_their_range():
    matrices = affine_matrices(draws(2000), 1.0, WIDE)
    scale = matrices[:, :, 0].norm(dim=1).reciprocal()
    angle = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert 1.2 < scale.max() <= 1.3001 and 1 / 1.3001 <= scale.min() < 0.83
    assert 35 < angle.abs().max() <= 40.001
    assert 0.35 < matrices[:, :, 2].abs().max() <= 0.4  # a share of the side, which is 2 long here
    bright = change_intensity(torch.zeros(2000, 1, 1, 1), draws(2000), 1.0, AugmentationRange(contrast=0))
    assert 0.18 < bright.abs().max() <= 0.2


def test_warping_by_a_quarter_turn_is_exact():
    image = torch.randn(1, 2, 8, 8)
    matrix = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    assert_close(warp(image, matrix), image.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)


def test_grey_pictures_keep_their_saturation_and_colours_their_mean():
    limits = AugmentationRange(brightness=0, contrast=0, saturation=1.0)
    grey = torch.randn(8, 1, 4, 4).expand(-1, 3, -1, -1)
    assert_close(change_intensity(grey, draws(8), 1.0, limits), grey)
    colour = torch.randn(8, 3, 4, 4)
    changed = change_intensity(colour, draws(8), 1.0, limits)
    assert_close(changed.mean(1), colour.mean(1))
    assert ((changed - colour).abs().amax((1, 2, 3)) > 1e-3).all()


def test_augmentation_differentiates_twice():
    image = torch.randn(2, 3, 8, 8, requires_grad=True)
    seen = augment_image(image, draws(2), 1.0, WIDE)
    (gradient,) = torch.autograd.grad(seen.square().sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert image.grad.abs().sum() > 0 and torch.isfinite(image.grad).all()


def probability_after(scores, probability=0.4, **changes):
    options = {"target": 0.6, "images": 100, "speed_images": 1000} | changes
    return adapted_probability(torch.tensor(probability), torch.tensor(scores), **options).item()


def test_ada_augments_more_where_the_critic_is_too_sure_of_real_images():
    assert probability_after([1.0, 2.0, 0.1, 3.0]) == pytest.approx(0.5)  # mean sign 1 > 0.6
    assert probability_after([1.0, 2.0, -0.1, -3.0]) == pytest.approx(0.3)  # mean sign 0
    assert probability_after([9.0, 9.0, 9.0, -0.1]) == pytest.approx(0.3)  # mean sign 0.5, however large the scores
    assert probability_after([1.0, -1.0], target=0.0) == pytest.approx(0.4)


def test_ada_stays_between_nothing_and_the_limit_of_leaking():
    assert probability_after([-1.0], probability=0.05) == 0.0
    assert probability_after([1.0], probability=ADAPTIVE_LIMIT) == pytest.approx(ADAPTIVE_LIMIT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_keep_their_precision_under_autocast(dtype):
    image = torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    matrices = affine_matrices(draws(2), 1.0, WIDE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = warp(image, matrices)
    assert_close(found.float(), warp(image.float(), matrices), atol=4e-3, rtol=4e-3)
