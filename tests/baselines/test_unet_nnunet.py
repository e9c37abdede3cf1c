"""The U-Net trained in nnU-Net's manner: SGD, clipped gradients, a falling rate, its augmentation and flips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_task import BINARY, SIZE, exact, pictures, stage, train, weights

from semgan import artifacts, config, methods, recipes

GOLDEN = Path(__file__).parents[1] / "golden" / "unet_nnunet.json"
OWN = methods.get("unet-nnunet").changes(config.Settings())["baseline"]


def nnunet(**baseline):
    return stage(labels=BINARY, **(OWN | baseline))


def losses(trained, steps):
    return [found["loss"] for found in train(trained, steps)]


def test_losses_of_ten_steps_equal_the_golden_numbers():
    """After a change that is meant: run this file as a program to write them anew, and say why in the commit."""
    np.testing.assert_allclose(losses(exact(nnunet()), range(10)), json.loads(GOLDEN.read_text()), rtol=5e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_uninterrupted_training_to_the_bit(tmp_path, precision):
    whole = nnunet(precision=precision)
    train(whole, range(3))
    artifacts.save_checkpoint(tmp_path / "c.safetensors", whole.state())
    after = losses(whole, range(3, 6))
    resumed = nnunet(precision=precision)
    resumed.load_state(artifacts.load_checkpoint(tmp_path / "c.safetensors"))
    assert losses(resumed, range(3, 6)) == after
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_it_learns_to_segment_and_does_not_diverge_in_bfloat16():
    trained = nnunet(precision="bfloat16", batch=8, images=8 * 80)
    train(trained, range(80))
    images, truth = pictures(12)
    found = trained.segmenter.segment_batch(torch.from_numpy(images).float() / 127.5 - 1)
    assert (found.label_map.numpy() == truth).mean() > 0.93


def test_the_optimiser_is_nesterov_sgd_whose_rate_falls_as_a_power_of_what_is_left():
    trained = nnunet(images=40)
    (group,) = trained.optimisers["network"].param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.99, 3e-5, True)
    rates = []
    for step in (0, 5, 9):
        train(trained, range(step, step + 1))
        rates.append(group["lr"])
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9, 0.01 * 0.1**0.9])


def test_a_schedule_that_ends_before_the_length_does_is_at_its_end_there():
    trained = nnunet(images=40, schedule_images=32)
    (group,) = trained.optimisers["network"].param_groups
    rates = []
    for step in (0, 4, 8, 9):
        train(trained, range(step, step + 1))
        rates.append(group["lr"])
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9, 0, 0])


def test_gradients_are_clipped_to_the_norm_asked_for():
    norms = {}
    for limit in (None, 1e-3):
        trained = nnunet(clip_norm=limit)
        train(trained, range(1))
        gradients = [w.grad for w in trained.network.parameters() if w.grad is not None]
        norms[limit] = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2) and norms[None] > 0.01


def test_the_answer_is_the_mean_over_the_image_and_its_mirror_image():
    segmenter = nnunet().segmenter
    image = torch.rand(3, 1, SIZE, SIZE) * 2 - 1
    found = segmenter.segment_batch(image).probabilities
    torch.testing.assert_close(segmenter.segment_batch(image.flip(3)).probabilities.flip(3), found)
    plain = stage().segmenter.segment_batch(image).probabilities
    assert not torch.allclose(found, plain, atol=1e-4)


def test_only_nnunets_settings_change_a_recipe():
    recipe = recipes.load("lungs-64")
    found = config.override(recipe, methods.get("unet-nnunet").changes(recipe))
    data = found.data
    assert (data.affine_scale_range, data.affine_rotate_deg, data.affine_probability) == ((0.7, 1.4), 180.0, 0.2)
    assert found.baseline.images == recipe.baseline.images and found.baseline.widths == recipe.baseline.widths
    assert found.gan == recipe.gan and found.encoder == recipe.encoder


if __name__ == "__main__":
    artifacts.write_json(GOLDEN, [round(loss, 6) for loss in losses(exact(nnunet()), range(10))])
