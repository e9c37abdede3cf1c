"""Colours of classes: distinct, stable, shared by all pictures."""

from __future__ import annotations

import numpy as np
import pytest

from semgan.report.colours import BACKGROUND, IGNORED, as_rgb, class_colours, colourise, hex_colour, overlay


@pytest.mark.parametrize("classes", [2, 8, 19, 40])
def test_every_class_has_its_own_colour(classes: int) -> None:
    table = class_colours(classes)[:classes]
    assert len({tuple(colour) for colour in table}) == classes


def test_first_seven_classes_stay_apart_without_red_green_or_blue_cones() -> None:
    """Dichromats see a projection of colour; the palette must not collapse in any (matrices: Vienot et al. 1999)."""
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    linear = (class_colours(8)[:8] / 255.0) ** 2.2
    for seen_by in (np.eye(3), deutan, protan):
        seen = np.clip(linear @ seen_by.T, 0, 1) ** (1 / 2.2) * 255
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=2)[~np.eye(8, dtype=bool)]
        assert gaps.min() > 35


def test_a_class_keeps_its_colour_whatever_the_number_of_classes() -> None:
    assert (class_colours(3)[1] == class_colours(20)[1]).all()
    assert hex_colour(1, 3) == "#e69f00"


def test_background_is_dark_and_ignored_pixels_are_grey() -> None:
    picture = colourise(np.array([[0, 1], [255, 7]]), classes=3)
    assert tuple(picture[0, 0]) == BACKGROUND
    assert tuple(picture[1, 0]) == IGNORED
    assert tuple(picture[1, 1]) == IGNORED  # 7 is no class of three
    assert picture.dtype == np.uint8


def test_overlay_leaves_background_and_ignored_pixels_as_they_are() -> None:
    image = np.full((8, 8), 100, np.uint8)
    label = np.zeros((8, 8), np.uint8)
    label[:, 5:] = 1
    label[0] = 255
    drawn = overlay(image, label, classes=2)
    assert drawn.shape == (8, 8, 3)
    assert (drawn[2:, :5] == 100).all()
    assert (drawn[0, 7] == 100).all() or label[1, 7] == 1  # a border pixel may be marked
    assert not (drawn[4, 7] == 100).all()


def test_overlay_refuses_a_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match="one size"):
        overlay(np.zeros((4, 4), np.uint8), np.zeros((5, 4), np.uint8), classes=2)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1), (6, 7, 3), (6, 7, 4), (1, 6, 7), (3, 6, 7), (6, 7, 5)])
def test_any_image_can_be_shown_as_rgb(shape: tuple[int, ...]) -> None:
    assert as_rgb(np.zeros(shape, np.uint8)).shape == (6, 7, 3)


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 to 255"):
        class_colours(1)
