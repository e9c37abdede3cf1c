import math

import pytest
import torch
import torch.nn.functional as F

from semgan.objectives.reconstruction import pixel_distance
from semgan.objectives.segmentation import cross_entropy, dice_loss, probabilities, supervised_loss
from semgan.types import IGNORE


def random_case(label_channels: int, classes: int):
    random = torch.Generator().manual_seed(label_channels)
    logits = torch.randn(3, label_channels, 8, 8, generator=random)
    label_map = torch.randint(0, classes, (3, 8, 8), generator=random)
    return logits, label_map


def test_one_logit_channel_gives_two_probabilities_that_sum_to_one():
    logits = torch.tensor([0.0, 2.0, -2.0]).view(1, 1, 1, 3)
    answer = probabilities(logits)
    assert answer.shape == (1, 2, 1, 3)
    assert torch.allclose(answer.sum(1), torch.ones(1, 1, 3))
    assert answer[0, 1, 0, 1].item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_probabilities_of_k_channels_are_a_softmax_in_float32():
    logits, _ = random_case(4, 4)
    answer = probabilities(logits.bfloat16())
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, torch.softmax(logits.bfloat16().float(), 1))


def test_cross_entropy_of_one_channel_equals_that_of_two_channels():
    logits, label_map = random_case(1, 2)
    as_two = torch.cat([torch.zeros_like(logits), logits], 1)
    assert torch.allclose(cross_entropy(logits, label_map), cross_entropy(as_two, label_map), atol=1e-6)


def test_cross_entropy_leaves_out_ignored_pixels():
    logits, label_map = random_case(4, 4)
    label_map[:, :3] = IGNORE
    assert torch.allclose(cross_entropy(logits, label_map), F.cross_entropy(logits, label_map, ignore_index=IGNORE))


@pytest.mark.parametrize(("label_channels", "classes"), [(1, 2), (4, 4)])
def test_ignored_pixels_change_neither_loss_nor_gradient(label_channels, classes):
    logits, label_map = random_case(label_channels, classes)
    label_map[:, :, :4] = IGNORE
    changed = logits.clone()
    changed[:, :, :, :4] += 3
    for loss in (cross_entropy, dice_loss):
        assert torch.allclose(loss(logits, label_map), loss(changed, label_map))
        variable = logits.clone().requires_grad_()
        loss(variable, label_map).backward()
        assert variable.grad[:, :, :, :4].abs().max() == 0 and variable.grad[:, :, :, 4:].abs().max() > 0


@pytest.mark.parametrize("loss", [cross_entropy, dice_loss])
@pytest.mark.parametrize(("label_channels", "classes"), [(1, 2), (3, 3)])
def test_a_wholly_ignored_label_map_costs_nothing_and_stays_finite(loss, label_channels, classes):
    logits = torch.randn(2, label_channels, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), IGNORE))
    value.backward()
    assert value.item() == 0 and logits.grad.abs().max() == 0


def test_dice_loss_of_a_worked_example():
    # 4 pixels predicted with certainty, 3 of them right, 5 true: Dice (2*3+1)/(4+5+1)
    logits = torch.full((1, 1, 3, 3), -50.0)
    logits.view(-1)[:4] = 50.0
    label_map = torch.zeros(1, 3, 3, dtype=torch.long)
    label_map.view(-1)[1:6] = 1
    assert dice_loss(logits, label_map).item() == pytest.approx(1 - 7 / 10)


def test_dice_loss_is_zero_for_a_perfect_answer_and_for_a_class_that_is_rightly_absent():
    label_map = torch.zeros(1, 4, 4, dtype=torch.long)
    label_map[:, :2] = 1  # class 2 does not occur
    logits = 50.0 * F.one_hot(label_map, 3).permute(0, 3, 1, 2).float()
    assert dice_loss(logits, label_map).item() == pytest.approx(0, abs=1e-6)


def test_cross_entropy_of_a_batch_is_the_mean_over_its_images():
    logits, label_map = random_case(4, 4)
    singles = torch.stack([cross_entropy(logits[i : i + 1], label_map[i : i + 1]) for i in range(3)])
    assert torch.allclose(cross_entropy(logits, label_map), singles.mean(), atol=1e-6)


def test_dice_loss_of_a_batch_is_that_of_its_images_side_by_side():
    logits, label_map = random_case(4, 4)
    wide_logits = torch.cat(list(logits), dim=2)[None]
    wide_map = torch.cat(list(label_map), dim=1)[None]
    assert torch.allclose(dice_loss(logits, label_map), dice_loss(wide_logits, wide_map), atol=1e-6)


def test_dice_loss_leaves_classes_that_the_batch_does_not_show_to_the_cross_entropy():
    logits, label_map = random_case(4, 4)
    label_map = label_map.where(label_map != 2, 0)
    changed = logits.clone()
    changed[:, 2] -= 50  # class 2 becomes impossible
    others = changed.clone()
    others[:, 2] = -1000
    assert torch.allclose(dice_loss(changed, label_map), dice_loss(others, label_map), atol=1e-6)
    assert dice_loss(logits, torch.zeros_like(label_map)).item() == 0


def test_a_label_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="label map"):
        cross_entropy(torch.zeros(1, 1, 8, 8), torch.zeros(1, 4, 4))


def test_pixel_distance_as_mean_and_as_squared_norm():
    image, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    image[1] = 2.0
    assert pixel_distance(image, target).tolist() == [0.0, 4.0]
    assert pixel_distance(image, target, "sum").tolist() == [0.0, 4.0 * 48]
    with pytest.raises(ValueError, match="equal shapes"):
        pixel_distance(image, target[:, :1])


@pytest.mark.parametrize("channels", [1, 2])
def test_logits_are_enlarged_to_finer_masks_so_that_borders_between_pixels_are_learnt(channels):
    """A border at 5/8 of the width lies within the third of four pixels."""
    fine = (torch.arange(8) >= 5).long().expand(1, 8, 8)
    logits = torch.zeros(1, channels, 4, 4, requires_grad=True)
    adam = torch.optim.Adam([logits], 0.1)
    for _ in range(150):
        adam.zero_grad()
        torch.stack(list(supervised_loss(logits, fine).values())).sum().backward()
        adam.step()
    shown = torch.nn.functional.interpolate(logits.detach(), (8, 8), mode="bilinear", align_corners=False)
    assert torch.equal(probabilities(shown).argmax(1), fine)


def test_masks_that_are_no_multiple_of_the_logits_are_refused():
    for shape in ((1, 6, 8), (1, 2, 2), (2, 8, 8), (8, 8)):
        with pytest.raises(ValueError, match="or a multiple"):
            cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(shape, dtype=torch.long))
