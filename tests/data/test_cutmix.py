"""Boxes for CutMix: their size, place and number, and that they depend on the image number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semgan.data.cutmix import BoxRanges, box_masks, paste

ALWAYS = BoxRanges(probability=1.0)


@given(st.integers(0, 2**40), st.integers(8, 70))
def test_a_box_is_one_rectangle_of_the_asked_area_and_shape(index, size_px):
    (mask,) = box_masks(size_px, seed=0, stream="s", index=[index], ranges=ALWAYS).numpy()
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    assert mask.sum() == len(rows) * len(columns)
    if len(rows):
        assert len(rows) == np.ptp(rows) + 1 and len(columns) == np.ptp(columns) + 1
    rounding = 2.0 / size_px
    assert mask.mean() <= 0.4 + rounding
    assert min(len(rows), len(columns)) + 1 >= 0.3 * (max(len(rows), len(columns)) - 1) * 0.9


def test_boxes_lie_everywhere_and_half_of_the_images_have_one():
    masks = box_masks(32, seed=0, stream="s", index=range(2000)).float()
    assert 0.45 < masks.amax((1, 2)).mean() < 0.55
    often = masks.mean(0)
    assert often.min() > 0.001 and 0.08 < often.mean() < 0.13
    torch.testing.assert_close(often, often.flip(0), atol=0.05, rtol=0)


@pytest.mark.parametrize(("boxes", "area"), [(1, (0.3, 0.3)), (3, (0.25, 0.5))])
def test_several_boxes_share_the_area(boxes, area):
    ranges = BoxRanges(area=area, boxes=boxes, probability=1.0)
    share = box_masks(64, seed=1, stream="s", index=range(500), ranges=ranges).float().mean((1, 2))
    assert share.max() <= area[1] + 0.05
    assert (area[0] - 0.02 if boxes == 1 else 0.2) < share.mean() < area[1]


def test_a_box_depends_on_seed_stream_and_image_number_alone():
    masks = box_masks(32, seed=1, stream="s", index=[5, 9, 7], ranges=ALWAYS)
    assert torch.equal(masks[2:], box_masks(32, seed=1, stream="s", index=[7], ranges=ALWAYS))
    for seed, stream in ((2, "s"), (1, "t")):
        assert not torch.equal(masks, box_masks(32, seed=seed, stream=stream, index=[5, 9, 7], ranges=ALWAYS))


def test_image_and_label_map_are_mixed_alike():
    label_map = torch.arange(4)[:, None, None].expand(4, 8, 8)
    image = label_map[:, None].float().expand(4, 3, 8, 8)
    inside = torch.zeros(4, 8, 8, dtype=torch.bool)
    inside[:, 2:5, 1:3] = True
    mixed = paste(label_map, inside)
    assert (mixed[0, 2:5, 1:3] == 3).all() and (mixed[1, 2:5, 1:3] == 0).all() and (mixed[1, 0] == 1).all()
    assert torch.equal(paste(image, inside), mixed[:, None].float().expand(4, 3, 8, 8))
