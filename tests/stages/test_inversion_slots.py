"""Slots: images that stop at different steps, and never learn of one another."""

from __future__ import annotations

import pytest
import torch
from tiny_networks import exact, generated_images, tiny_networks
from torch.testing import assert_close

from semgan.objectives.segmentation import probabilities
from semgan.stages.stage3_inversion import invert
from semgan.stages.stopping import StoppingRule, agreement

CHECKPOINTS = (0, 1, 3, 6)


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


@pytest.fixture(scope="module")
def images(networks):
    return generated_images(networks, 7)


@pytest.fixture(scope="module")
def fixed(networks, images):
    """Every image at every checkpoint, without a rule."""
    return invert(*networks, images, exact(), steps=6, snapshot_steps=CHECKPOINTS)


def agreements(fixed):
    """``[checkpoints, images]`` with the mask of step 0."""
    masks = {step: fixed.snapshots[step].argmax(1).numpy() for step in CHECKPOINTS}
    rows = range(len(masks[0]))
    return torch.tensor([[agreement(masks[step][row], masks[0][row], 2) for row in rows] for step in CHECKPOINTS])


@pytest.fixture(scope="module")
def rule(fixed):
    """A threshold between two values, so that images stop at different steps and no rounding decides."""
    values = agreements(fixed)[1:].flatten().sort().values
    gaps = values.diff()
    place = int(gaps[1:-1].argmax()) + 1
    return StoppingRule(float(values[place : place + 2].mean()), CHECKPOINTS)


def expected_steps(fixed, rule) -> list[int]:
    found = []
    for column in agreements(fixed).T:
        accepted = 0
        for step, value in zip(CHECKPOINTS, column.tolist(), strict=True):
            if value < rule.at_least:
                break
            accepted = step
        found.append(accepted)
    return found


def test_every_image_is_answered_with_the_last_step_before_its_mask_left_the_encoders(networks, images, fixed, rule):
    found = invert(*networks, images, exact(), rule=rule)
    steps = expected_steps(fixed, rule)
    assert found.answered_steps.tolist() == steps and len(set(steps)) > 1
    for row, step in enumerate(steps):
        assert found.steps_of(row) == step
        assert_close(found.probabilities[row], fixed.snapshots[step][row], rtol=0, atol=2e-3)
        assert_close(found.reconstruction[row], fixed.reconstructions[step][row], rtol=0, atol=2e-3)
        assert_close(found.trace["loss"][step, row], fixed.trace["loss"][step, row], rtol=2e-3, atol=1e-5)
        assert found.losses_of(row)["loss"] == float(found.trace["loss"][step, row])
    again = probabilities(networks.generator.synthesis(found.w_plus).logits.detach())
    assert_close(again, found.probabilities, rtol=0, atol=1e-4)  # the codes are those of the answers


@pytest.mark.parametrize("batch", [2, 7])
def test_an_optimised_answer_has_the_rules_share_of_step_0(networks, images, fixed, rule, batch):
    mixed = StoppingRule(rule.at_least, rule.checkpoints, 0.6)
    found = invert(*networks, images, exact(batch=batch), rule=mixed)
    steps = expected_steps(fixed, rule)
    assert found.answered_steps.tolist() == steps and 0 in steps  # the share moves no step
    for row, step in enumerate(steps):
        expected = 0.6 * fixed.snapshots[0][row] + 0.4 * fixed.snapshots[step][row]
        assert_close(found.probabilities[row], expected, rtol=0, atol=2e-3)
        assert_close(found.confidence[row], expected.amax(0).mean(), rtol=0, atol=2e-3)
        assert_close(found.reconstruction[row], fixed.reconstructions[step][row], rtol=0, atol=2e-3)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 64])
def test_the_number_of_slots_changes_no_answer(networks, images, fixed, rule, batch):
    found = invert(*networks, images, exact(batch=batch), rule=rule)
    assert found.answered_steps.tolist() == expected_steps(fixed, rule)
    for row, step in enumerate(found.answered_steps.tolist()):
        assert_close(found.probabilities[row], fixed.snapshots[step][row], rtol=0, atol=2e-3)


def test_the_order_of_the_images_changes_no_answer(networks, images, rule):
    there = invert(*networks, images, exact(batch=3), rule=rule)
    back = invert(*networks, images.flip(0), exact(batch=3), rule=rule)
    assert there.answered_steps.tolist() == back.answered_steps.tolist()[::-1]
    assert_close(there.probabilities, back.probabilities.flip(0), rtol=0, atol=2e-3)


def test_a_slot_is_given_to_the_next_image_at_once(networks, images, fixed, rule, monkeypatch):
    taken = []
    original = networks.generator.synthesis
    monkeypatch.setattr(networks.generator, "synthesis", lambda w, *rest: taken.append(len(w)) or original(w, *rest))
    invert(*networks, images, exact(batch=3), rule=rule)
    walked = [_walked(step, rule) for step in expected_steps(fixed, rule)]
    assert sum(taken) == sum(walked)  # nobody is looked at after the end
    assert taken == sorted(taken, reverse=True)  # full until no image waits, then ever smaller
    assert taken.count(3) >= (sum(walked) - 2 * max(walked)) // 3


def _walked(answered: int, rule: StoppingRule) -> int:
    """Looks at an image, with that of the step that was refused."""
    later = [step for step in rule.checkpoints if step > answered]
    return (later[0] if later else answered) + 1


def test_snapshots_beyond_a_stop_are_given_and_change_no_answer(networks, images, fixed, rule):
    alone = invert(*networks, images, exact(), rule=rule)
    both = invert(*networks, images, exact(), rule=rule, snapshot_steps=(0, 3, 8))
    assert both.answered_steps.tolist() == alone.answered_steps.tolist() and sorted(both.snapshots) == [0, 3, 8]
    assert_close(both.probabilities, alone.probabilities, rtol=0, atol=2e-3)
    assert_close(both.snapshots[3], fixed.snapshots[3], rtol=0, atol=2e-3)
    assert both.trace["loss"].isfinite().all()


def test_a_trace_ends_where_its_image_stopped(networks, images, fixed, rule):
    found = invert(*networks, images, exact(batch=2), rule=rule)
    for row, step in enumerate(expected_steps(fixed, rule)):
        looks = int(found.trace["loss"][:, row].isfinite().sum())
        assert looks == _walked(step, rule) and found.trace["loss"][:looks, row].isfinite().all()


def test_a_search_that_breaks_is_answered_with_the_step_before(networks, images, monkeypatch):
    calls = []
    original = networks.perceptual.distance

    def broken(features, target):
        calls.append(1)
        return original(features, target) * (float("nan") if len(calls) > 2 else 1.0)  # from step 2 on

    monkeypatch.setattr(networks.perceptual, "distance", broken)
    found = invert(*networks, images[:2], exact(), rule=StoppingRule(0.0, (0, 1, 2, 4)))
    assert found.answered_steps.tolist() == [1, 1] and found.probabilities.isfinite().all()


def test_the_rule_of_no_step_is_the_encoder_alone(networks, images):
    found = invert(*networks, images, exact(batch=2), rule=StoppingRule(0.0, (0,)))
    assert found.answered_steps.tolist() == [0] * 7
    assert_close(found.probabilities, invert(*networks, images, exact(), steps=0).probabilities, rtol=0, atol=1e-4)


def test_optimised_noise_and_w_plus_go_through_refilled_slots(networks, images):
    settings = exact(optimise_noise=True, noise_regulariser=10.0, lambda_prior=0.1)
    steps_rule = StoppingRule(0.0, (0, 4))
    whole = invert(*networks, images, settings, steps=4)
    slots = invert(*networks, images, settings.model_copy(update={"batch": 3}), rule=steps_rule)
    assert_close(slots.probabilities, whole.probabilities, rtol=0, atol=2e-3)


def test_a_rule_and_ramps_do_not_go_together(networks, images):
    with pytest.raises(ValueError, match="ramp"):
        invert(*networks, images, exact(ramp_down=0.25), rule=StoppingRule(0.0, (0, 1)))
