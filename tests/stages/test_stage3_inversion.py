import json
import math
from pathlib import Path

import pytest
import torch
from tiny_networks import W_DIM, exact, generated_images, tiny_networks
from torch.nn import functional as F
from torch.testing import assert_close

from semgan.stages.inversion_objective import Guide, learning_rate_share, noise_autocorrelation, normalise_noise
from semgan.stages.stage3_inversion import invert

GOLDEN = Path(__file__).parents[1] / "golden" / "inversion.json"


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


@pytest.fixture(scope="module")
def images(networks):
    return generated_images(networks, 4)


def count_calls(module, monkeypatch, name="forward"):
    calls = []
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: calls.append(1) or original(*a, **k))
    return calls


# ---------------------------------------------------------------- Eq. 7


def by_hand(networks, image, settings, steps):
    """Eq. 7 for one image in plain torch, with Adam written out (Kingma and Ba 2015, alg. 1)."""
    generator, encoder, whitening, perceptual = networks
    target = [F.normalize(x, dim=1) for x in perceptual.features(image)]
    reduce = torch.sum if settings.reduction == "sum" else torch.mean
    w = whitening.to_w(encoder(image)).detach()
    m, s, losses = torch.zeros_like(w), torch.zeros_like(w), []
    for step in range(steps + 1):
        w.requires_grad_(True)
        made = generator.synthesis(w).image
        back = whitening.to_w(encoder(made))
        loss = sum(
            ((F.normalize(a, dim=1) - b) ** 2).sum(1).mean() / len(target)
            for a, b in zip(perceptual.features(made), target, strict=True)
        )
        loss = loss + settings.lambda_pixel * reduce((made - image) ** 2)
        loss = loss + settings.lambda_encoder * reduce((w - back) ** 2)
        loss = loss + settings.lambda_prior * (whitening.to_v(w) ** 2).mean()
        losses.append(float(loss.detach()))
        if step == steps:
            return w.detach(), losses
        (g,) = torch.autograd.grad(loss, w)
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
        share = math.sqrt(1 - 0.999 ** (step + 1))
        w = (w - settings.learning_rate * (m / (1 - 0.9 ** (step + 1))) / (s.sqrt() / share + 1e-8)).detach()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_every_step_follows_equation_7_and_adam(networks, images, reduction):
    settings = exact(reduction=reduction, lambda_pixel=0.3, lambda_encoder=0.2, lambda_prior=0.1)
    found = invert(*networks, images[:1], settings, steps=4)
    w_plus, losses = by_hand(networks, images[:1], settings, 4)
    assert_close(found.trace["loss"][:, 0], torch.tensor(losses), rtol=1e-3, atol=1e-5)
    assert_close(found.w_plus, w_plus, rtol=0, atol=2e-3)


def test_whitened_space_reaches_generated_images_with_less_loss(networks, images):
    settings = exact(space="whitened", lambda_encoder=0.0, lambda_pixel=1.0)
    found = invert(*networks, images, settings, steps=60)
    assert (found.trace["loss"][-1] < 0.35 * found.trace["loss"][0]).all()
    assert (found.trace["pixel"][-1] < 0.35 * found.trace["pixel"][0]).all()


def golden_traces(networks, images):
    """Mean trace of ten steps; run this file as a program to write it anew after a wanted change."""
    cases = {
        "w_plus": {"learning_rate": 0.01, "lambda_pixel": 0.1},
        "whitened": {"learning_rate": 0.01, "space": "whitened", "lambda_prior": 0.01},
    }
    found = {name: invert(*networks, images[:2], exact(**changes), steps=10) for name, changes in cases.items()}
    return {name: {term: values.mean(1).tolist() for term, values in one.trace.items()} for name, one in found.items()}


def test_ten_steps_give_the_golden_numbers(networks, images):
    expected = json.loads(GOLDEN.read_text())
    for name, terms in golden_traces(networks, images).items():
        assert set(terms) == set(expected[name])
        for term, values in terms.items():
            assert_close(torch.tensor(values), torch.tensor(expected[name][term]), rtol=5e-3, atol=1e-5)


# ---------------------------------------------------------------- where it starts


def test_zero_steps_is_the_encoders_code_alone(networks, images):
    found = invert(*networks, images, exact(), steps=0)
    with torch.no_grad():
        w_plus = networks.whitening.to_w(networks.encoder(images))
        joint = networks.generator.synthesis(w_plus)
    assert_close(found.w_plus, w_plus)
    assert_close(found.reconstruction, joint.image)
    assert_close(found.probabilities[:, 1], joint.logits[:, 0].sigmoid())
    assert found.trace["loss"].shape == (1, 4)


@pytest.mark.parametrize("space", ["w_plus", "whitened"])
def test_without_encoder_the_search_starts_at_the_mean_latent(networks, images, space):
    settings = exact(space=space)
    start = invert(networks.generator, None, networks.whitening, networks.perceptual, images, settings, steps=0)
    assert_close(start.w_plus, networks.whitening.mean.expand_as(start.w_plus))
    found = invert(networks.generator, None, networks.whitening, networks.perceptual, images, settings, steps=10)
    assert "encoder" not in found.trace
    assert (found.trace["loss"][-1] < found.trace["loss"][0]).all()


# ---------------------------------------------------------------- independence of images


@pytest.mark.parametrize("optimise_noise", [False, True])
def test_an_images_result_does_not_depend_on_its_batch(networks, images, optimise_noise):
    settings = exact(lambda_prior=0.1, optimise_noise=optimise_noise, noise_regulariser=10.0)
    # Adam turns noise gradients that are 0 but for rounding into whole steps, whose sign is the batch's affair.
    steps = 2 if optimise_noise else 5
    together = invert(*networks, images, settings, steps=steps)
    for row in range(len(images)):
        alone = invert(*networks, images[row : row + 1], settings, steps=steps)
        assert_close(together.probabilities[row], alone.probabilities[0], rtol=0, atol=2e-3)
        assert_close(together.trace["loss"][:, row], alone.trace["loss"][:, 0], rtol=2e-3, atol=1e-5)


def test_chunks_give_what_one_batch_gives(networks, images):
    whole = invert(*networks, images, exact(), steps=3, snapshot_steps=(1,))
    chunks = invert(*networks, images, exact(batch=3), steps=3, snapshot_steps=(1,))
    assert chunks.trace["loss"].shape == whole.trace["loss"].shape == (4, 4)
    assert_close(chunks.probabilities, whole.probabilities, rtol=0, atol=2e-3)
    assert_close(chunks.snapshots[1], whole.snapshots[1], rtol=0, atol=2e-3)


# ---------------------------------------------------------------- guided


@pytest.mark.parametrize(("label_channels", "classes"), [(1, 2), (4, 4)])
def test_a_guide_is_explained_beside_the_image_each_by_its_own(label_channels, classes):
    """Whatever the batch: three images with two slots, so that the third comes later."""
    networks = tiny_networks(label_channels=label_channels)
    images = generated_images(networks, 3)
    wanted = torch.rand(3, classes, *images.shape[2:], generator=torch.Generator().manual_seed(1)).softmax(1)
    plain = invert(*networks, images, exact(), steps=3)
    found = invert(*networks, images, exact(batch=2), steps=3, guide=Guide(wanted, 10.0))
    by_hand = -(wanted * found.probabilities.log()).sum(1).mean((1, 2))
    assert_close(found.trace["guide"][-1], by_hand, rtol=1e-3, atol=1e-4)
    before = -(wanted * plain.probabilities.log()).sum(1).mean((1, 2))
    assert (by_hand < before).all() and "guide" not in plain.trace
    first = found.trace["perceptual"][0] + 10 * found.trace["guide"][0]
    assert (found.trace["loss"][0] > first).all()  # and the other terms of Eq. 7
    for row in range(3):
        alone = invert(*networks, images[row : row + 1], exact(), steps=3, guide=Guide(wanted[row : row + 1], 10.0))
        assert_close(found.probabilities[row], alone.probabilities[0], rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="A guide of 3 answers was given to 2 images"):
        invert(*networks, images[:2], exact(), steps=1, guide=Guide(wanted, 1.0))


# ---------------------------------------------------------------- what it returns


def test_snapshots_equal_shorter_runs(networks, images):
    found = invert(*networks, images, exact(), steps=4, snapshot_steps=(0, 2, 4))
    assert sorted(found.snapshots) == sorted(found.reconstructions) == [0, 2, 4]
    for step, kept in found.snapshots.items():
        shorter = invert(*networks, images, exact(), steps=step)
        assert_close(kept, shorter.probabilities)
        assert_close(found.reconstructions[step], shorter.reconstruction)
    assert_close(found.snapshots[4], found.probabilities)


@pytest.mark.parametrize(("image_channels", "label_channels", "classes"), [(3, 1, 2), (2, 4, 4)])
def test_probabilities_sum_to_one_for_binary_and_many_classes(image_channels, label_channels, classes):
    networks = tiny_networks(image_channels=image_channels, label_channels=label_channels)
    images = generated_images(networks, 2)
    found = invert(*networks, images, exact(), steps=2)
    assert found.probabilities.shape == (2, classes, 16, 16)
    assert_close(found.probabilities.sum(1), torch.ones(2, 16, 16))
    assert_close(found.confidence, found.probabilities.max(1).values.mean((1, 2)))
    assert found.reconstruction.shape == images.shape


def test_trace_holds_every_used_term_for_every_step_and_image(networks, images):
    found = invert(*networks, images, exact(lambda_prior=0.5, lambda_pixel=0.25), steps=3)
    assert set(found.trace) == {"loss", "perceptual", "pixel", "encoder", "prior"}
    assert all(values.shape == (4, 4) for values in found.trace.values())
    terms = found.trace
    total = terms["perceptual"] + 0.25 * terms["pixel"] + 0.1 * terms["encoder"] + 0.5 * terms["prior"]
    assert_close(terms["loss"], total)


# ---------------------------------------------------------------- cost and side effects


def test_encoder_runs_once_when_its_term_has_no_weight(networks, images, monkeypatch):
    calls = count_calls(networks.encoder, monkeypatch)
    invert(*networks, images, exact(lambda_encoder=0.0), steps=3)
    assert len(calls) == 1


def test_target_features_are_computed_once(networks, images, monkeypatch):
    calls = count_calls(networks.perceptual, monkeypatch, "features")
    invert(*networks, images, exact(), steps=3)
    assert len(calls) == 1 + 4  # the target, and the reconstruction at steps 0 to 3


def test_detached_encoder_term_sends_no_gradient_through_the_encoder(networks, images, monkeypatch):
    seen = []
    original = networks.encoder.forward

    def watch(image):
        v = original(image)
        seen.append(v.requires_grad)
        return v

    monkeypatch.setattr(networks.encoder, "forward", watch)
    invert(*networks, images, exact(detach_encoder_term=True), steps=2)
    assert not any(seen)
    seen.clear()
    invert(*networks, images, exact(detach_encoder_term=False), steps=2)
    assert seen == [False, True, True, False]  # start, two steps, last look


def test_networks_are_given_back_as_they_were_taken(images):
    networks = tiny_networks()
    networks.encoder.train()
    before = {name: value.clone() for net in networks for name, value in net.state_dict().items()}
    invert(*networks, images, exact(optimise_noise=True), steps=2)
    assert networks.encoder.training and networks.generator.training
    assert all(weight.requires_grad and weight.grad is None for weight in networks.generator.parameters())
    after = {name: value for net in networks for name, value in net.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_gradient_mode_does_not_matter(networks, images, mode, guided):
    def answer():
        wanted = torch.full((len(images), 2, *images.shape[2:]), 0.5)
        guide = Guide(wanted, 1.0) if guided else None
        return invert(*networks, images.clone(), exact(), steps=2, guide=guide).probabilities

    with mode():
        inside = answer()
    assert_close(inside, answer())


def test_bfloat16_ends_near_float32(networks, images):
    exactly = invert(*networks, images, exact(learning_rate=0.01), steps=5)
    roughly = invert(*networks, images, exact(learning_rate=0.01, precision="bfloat16"), steps=5)
    assert roughly.w_plus.dtype == roughly.probabilities.dtype == roughly.trace["loss"].dtype == torch.float32
    assert_close(roughly.trace["loss"], exactly.trace["loss"], rtol=0.1, atol=0.01)


# ---------------------------------------------------------------- noise maps


def test_optimised_noise_lowers_the_pixel_distance_and_leaves_the_model_alone(networks, images):
    fixed = networks.generator.fixed_noise.clone()
    settings = {"lambda_pixel": 10.0, "lambda_encoder": 0.0, "noise_regulariser": 1.0}
    with_noise = invert(*networks, images, exact(**settings, optimise_noise=True), steps=20)
    without = invert(*networks, images, exact(**settings), steps=20)
    assert with_noise.trace["pixel"][-1].mean() < without.trace["pixel"][-1].mean()
    assert torch.equal(networks.generator.fixed_noise, fixed)


def test_noise_penalty_tells_white_noise_from_structure():
    white = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    stripes = torch.ones(2, 1, 32, 32)
    stripes[..., ::2] = -1
    assert (noise_autocorrelation([white]) < 0.05).all()
    assert_close(noise_autocorrelation([stripes]), torch.full((2,), 2.0))  # -1 along rows, +1 along columns, squared


def test_normalised_noise_has_mean_0_and_variance_1_per_image():
    level = 3 + 5 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    normalise_noise([level])
    assert_close(level.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    assert_close(level.square().mean((1, 2, 3)), torch.ones(2))


# ---------------------------------------------------------------- learning rate, errors


def test_learning_rate_rises_and_falls_as_in_the_projector():
    ramps = exact(ramp_up=0.05, ramp_down=0.25)
    shares = [learning_rate_share((step + 0.5) / 100, ramps) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[5] == shares[74] == 1.0
    assert shares[99] < 0.01 and shares == shares[:75] + sorted(shares[75:], reverse=True)
    assert {learning_rate_share(step / 100, exact()) for step in range(100)} == {1.0}


def test_ramps_slow_the_first_step_down(networks, images):
    start = invert(*networks, images, exact(), steps=0).w_plus
    full = invert(*networks, images, exact(), steps=1).w_plus
    slow = invert(*networks, images, exact(ramp_up=1.0), steps=1).w_plus
    assert_close((slow - start) * 2, full - start, rtol=0, atol=1e-5)


def test_impossible_requests_say_what_is_wrong(networks, images):
    with pytest.raises(ValueError, match=r"steps \[9\].*0 to 3"):
        invert(*networks, images, exact(), steps=3, snapshot_steps=(1, 9))
    with pytest.raises(ValueError, match="0 or more steps"):
        invert(*networks, images, exact(), steps=-1)
    with pytest.raises(ValueError, match=r"\[batch, channels"):
        invert(*networks, images[0], exact(), steps=1)


def test_a_diverged_search_names_the_images(networks, images):
    broken = images.clone()
    broken[2] = float("nan")
    with pytest.raises(ValueError, match="diverged for image 2 of 4.*learning_rate"):
        invert(*networks, broken, exact(lambda_encoder=0.0), steps=2)


def test_w_plus_has_one_vector_per_layer(networks, images):
    assert invert(*networks, images, exact(), steps=1).w_plus.shape == (4, 6, W_DIM)


if __name__ == "__main__":
    tiny = tiny_networks()
    GOLDEN.write_text(json.dumps(golden_traces(tiny, generated_images(tiny, 4)), indent=1) + "\n")
