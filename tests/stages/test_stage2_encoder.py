import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import SIZE_PX, W_DIM, WIDTHS

from semgan import seeding
from semgan.artifacts import load_checkpoint, save_checkpoint
from semgan.config import GeneratorSettings, Settings, override
from semgan.data.loading import ImageStream
from semgan.models.discriminators import ImageCritic
from semgan.models.generator import Generator
from semgan.models.perceptual import DiscriminatorDistance
from semgan.models.whitening import fit_whitening
from semgan.stages.stage2_encoder import EncoderStage, build_encoder, build_ranger, learning_rate_share

GOLDEN = Path(__file__).parents[1] / "golden" / "encoder_stage.json"
BATCH = 4


def settings_with(**encoder) -> Settings:
    defaults = {
        "trunk": "narrow",
        "lateral_width": 16,
        "batch": BATCH,
        "images": 40,
        "precision": "float32",
        "generated_weight": 0.5,
        "photometric_augment": 0.3,
    }
    return override(
        Settings(), {"preprocessing": {"size_px": SIZE_PX, "channels": 1}, "encoder": defaults | encoder}, "the test"
    )


def stream(name: str, labelled: bool, cases: int = 6) -> ImageStream:
    random = np.random.default_rng(len(name))
    coarse = random.integers(0, 256, (cases, 1, 4, 4), dtype=np.uint8)
    images = coarse.repeat(4, 2).repeat(4, 3)
    label_maps = (images[:, 0] > 128).astype(np.uint8) if labelled else None
    return ImageStream(images, label_maps, seed=0, stream_name=name, mirror=True)


def tiny_stage(settings: Settings | None = None, *, labelled=True, unlabelled=True, **more) -> EncoderStage:
    settings = settings or settings_with()
    torch.manual_seed(0)
    generator_settings = GeneratorSettings(w_dim=W_DIM, mapping_layers=2, widths=WIDTHS)
    generator = Generator(generator_settings, size_px=SIZE_PX, image_channels=1, label_channels=1)
    critic = ImageCritic(WIDTHS, channels=1)
    return EncoderStage(
        settings,
        generator=generator,
        whitening=fit_whitening(generator, samples=500),
        perceptual=DiscriminatorDistance(critic),
        encoder=build_encoder(settings, generator),
        labelled=stream("labelled", True) if labelled else None,
        unlabelled=stream("unlabelled", False) if unlabelled else None,
        device=torch.device("cpu"),
        **more,
    )


def run(stage: EncoderStage, first: int, last: int) -> list[dict[str, float]]:
    """Steps ``first`` to ``last - 1``; their numbers."""
    lines = []
    for step in range(first, last):
        losses = stage.step(step * BATCH)
        lines.append({name: float(value) for name, value in losses.items()})
    return lines


def copied_weights(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


# ---------------------------------------------------------------- the step


def test_ten_steps_give_the_golden_numbers():
    found = run(tiny_stage(), 0, 10)
    if os.environ.get("SEMGAN_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps([{k: float(f"{v:.7g}") for k, v in line.items()} for line in found], indent=1))
    expected = json.loads(GOLDEN.read_text())
    assert len(expected) == 10
    for line, golden in zip(found, expected, strict=True):
        norms = [numbers.pop("gradient_norm") for numbers in (line, golden)]  # differs more between kinds of CPU
        assert norms[0] == pytest.approx(norms[1], rel=2e-2)
        assert line == pytest.approx(golden, rel=1e-3)


def test_the_losses_sum_up_with_the_weights_of_the_settings():
    settings = settings_with(lambda_pixel=0.1, supervised_weight=2.0, perceptual_weight=3.0, generated_weight=0.5)
    losses = run(tiny_stage(settings), 0, 1)[0]
    expected = 2 * (losses["loss/cross_entropy"] + losses["loss/dice"]) + 3 * losses["loss/perceptual"]
    expected += 0.1 * losses["loss/pixel"] + 0.5 * losses["loss/generated_code"]
    assert losses["loss/encoder"] == pytest.approx(expected, rel=1e-5)
    losses = run(tiny_stage(settings_with(lambda_prior=2.0, generated_weight=0.0)), 0, 6)[-1]
    expected = losses["loss/cross_entropy"] + losses["loss/dice"] + losses["loss/perceptual"]
    expected += 0.1 * losses["loss/pixel"] + 2 * losses["loss/prior"]
    assert losses["loss/prior"] > 0 and losses["loss/encoder"] == pytest.approx(expected, rel=1e-5)
    assert "loss/prior" not in run(tiny_stage(settings_with(generated_weight=0.0)), 0, 1)[0]


def test_a_prior_keeps_the_codes_of_real_images_where_the_generators_lie():
    """Without it the encoder may answer with codes that the generator never saw in training."""
    only_prior = {"perceptual_weight": 0.0, "lambda_pixel": 0.0, "supervised_weight": 0.0, "photometric_augment": 0.0}
    stage = tiny_stage(settings_with(**only_prior, generated_weight=0.0, lambda_prior=1.0, learning_rate=0.005))
    with torch.no_grad():
        for heads in stage.encoder.heads:
            if hasattr(heads, "weight"):
                heads.weight.mul_(1500)
    errors = [float(stage.step(0)["loss/prior"]) for _ in range(40)]
    assert errors[-1] < 0.5 * errors[0]


def test_the_generator_is_frozen_and_the_encoder_really_trains():
    stage = tiny_stage()
    stage.generator.train()
    stage.encoder.eval()
    generator, critic = copied_weights(stage.generator), copied_weights(stage.perceptual)
    encoder = copied_weights(stage.encoder)
    run(stage, 0, 3)
    assert same(generator, stage.generator.state_dict()) and same(critic, stage.perceptual.state_dict())
    assert all(weight.grad is None for weight in stage.generator.parameters())
    assert stage.generator.training and all(weight.requires_grad for weight in stage.generator.parameters())
    assert stage.encoder.training
    unmoved = [name for name, value in stage.encoder.state_dict().items() if torch.equal(value, encoder[name])]
    # weights and batch-norm statistics alike; at 16 px no style layer reads the finest map
    assert [name for name in unmoved if not name.startswith(("pyramid.lateral.0", "pyramid.smooth.0"))] == []


def test_training_brings_reconstructions_and_labels_closer():
    settings = settings_with(images=4 * 60, generated_weight=0.0, photometric_augment=0.0, learning_rate=0.005)
    lines = run(tiny_stage(settings), 0, 60)
    for name in ("loss/encoder", "loss/pixel", "loss/cross_entropy"):
        start, end = (np.mean([line[name] for line in part]) for part in (lines[:10], lines[-10:]))
        assert end < 0.9 * start, name


def test_generated_images_come_with_their_known_codes():
    stage = tiny_stage()
    known_v, image = stage._generated(8)
    w_plus = stage.whitening.to_w(known_v)
    index = range(4, 6)  # two generated images for every four real ones
    noise = seeding.normal(0, "encoder/noise", index, (stage.generator.noise_size,))
    assert torch.allclose(stage.generator.synthesis(w_plus, noise).image, image, atol=1e-4)
    many = tiny_stage(settings_with(batch=128))._generated(0)[0]
    assert many.square().mean().item() == pytest.approx(1.0, abs=0.15)  # whitened codes have unit variance
    mixed = (many != many[:, :1]).any(2).any(1)
    assert 0.75 < mixed.float().mean() < 1.0  # style mixing, with the GAN's probability of 0.9


def test_the_encoder_learns_known_codes():
    only_codes = {"perceptual_weight": 0.0, "lambda_pixel": 0.0, "supervised_weight": 0.0, "photometric_augment": 0.0}
    stage = tiny_stage(settings_with(**only_codes, generated_weight=1.0, learning_rate=0.005))
    errors = [float(stage.step(0)["loss/generated_code"]) for _ in range(60)]  # the same images again and again
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("missing", ["labelled", "unlabelled"])
def test_one_stream_alone_fills_the_batch(missing, monkeypatch):
    stage = tiny_stage(**{missing: False})
    counts = []
    left = stage.unlabelled if missing == "labelled" else stage.labelled
    original = left.batch
    monkeypatch.setattr(left, "batch", lambda first, count: counts.append((first, count)) or original(first, count))
    losses = run(stage, 0, 2)[1]
    assert counts == [(0, BATCH), (BATCH, BATCH)]
    assert ("loss/dice" in losses) == (missing == "unlabelled")


def test_half_of_the_batch_is_labelled_and_streams_advance_without_gaps(monkeypatch):
    stage = tiny_stage()
    asked = {"labelled": [], "unlabelled": []}
    for name, calls in asked.items():
        source = getattr(stage, name)
        original = source.batch
        monkeypatch.setattr(
            source,
            "batch",
            lambda first, count, calls=calls, f=original: calls.append((first, count)) or f(first, count),
        )
    run(stage, 0, 3)
    assert asked == {"labelled": [(0, 2), (2, 2), (4, 2)], "unlabelled": [(0, 2), (2, 2), (4, 2)]}


def test_no_images_at_all_is_an_error():
    with pytest.raises(ValueError, match="labelled or unlabelled"):
        tiny_stage(labelled=False, unlabelled=False)


def test_photometric_changes_reach_the_encoders_input_but_not_its_targets(monkeypatch):
    seen, targets = [], []
    stage = tiny_stage(settings_with(photometric_augment=1.0, generated_weight=0.0))
    forward, features = stage.encoder.forward, stage.perceptual.features
    monkeypatch.setattr(stage.encoder, "forward", lambda x: seen.append(x) or forward(x))
    monkeypatch.setattr(stage.perceptual, "features", lambda x: targets.append(x) or features(x))
    stage.step(0)
    plain = torch.cat([stage.labelled.batch(0, 2).image, stage.unlabelled.batch(0, 2).image])
    assert torch.equal(targets[0], plain)
    assert not torch.allclose(seen[0], plain, atol=0.01)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_steps_are_close_to_float32(precision):
    exact = run(tiny_stage(), 0, 1)[0]
    rough = run(tiny_stage(settings_with(precision=precision)), 0, 1)[0]
    for name in ("loss/perceptual", "loss/pixel", "loss/cross_entropy", "loss/dice"):
        assert rough[name] == pytest.approx(exact[name], rel=0.05)


# ---------------------------------------------------------------- previews and resume


def test_small_gradients_survive_float16():
    """In backward, float16 sees the gradients of the loss times a scale, and the encoder those of the loss."""
    stage = tiny_stage(settings_with(precision="float16"))
    weight = next(stage.encoder.parameters())
    stage._backward_in_float16(weight.half().float().sum() * 1e-9)  # below float16's smallest number
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 1e-9), rtol=1e-2, atol=0)


def test_a_resumed_run_keeps_the_whitening_that_it_began_with():
    """An eigenvector that is found elsewhere may point the other way."""
    stage, other = tiny_stage(), tiny_stage()
    stage.step(0)
    other.whitening.load_state_dict({name: -value for name, value in other.whitening.state_dict().items()})
    other.load_state(copy.deepcopy(stage.state()))
    for name, value in stage.whitening.state_dict().items():
        torch.testing.assert_close(other.whitening.state_dict()[name], value)


def test_previews_run_in_eval_mode_and_give_the_modes_back():
    modes = []
    stage = tiny_stage(validation=lambda: modes.append(stage.encoder.training) or {"validation/dice": 0.5})
    run(stage, 0, 1)
    before = copied_weights(stage.encoder)
    assert stage.preview(4) == {"validation/dice": 0.5}
    joint = stage.predict(torch.zeros(2, 1, SIZE_PX, SIZE_PX))
    assert joint.image.shape == joint.logits.shape == (2, 1, SIZE_PX, SIZE_PX)
    assert modes == [False] and stage.encoder.training and same(before, stage.encoder.state_dict())
    assert tiny_stage().preview(0) == {}


def test_a_run_resumed_from_a_checkpoint_equals_an_uninterrupted_one(tmp_path):
    whole = tiny_stage()
    lines = run(whole, 0, 9)
    first = tiny_stage()
    run(first, 0, 5)
    save_checkpoint(tmp_path / "encoder.safetensors", first.state())
    resumed = tiny_stage()
    resumed.load_state(load_checkpoint(tmp_path / "encoder.safetensors"))
    assert run(resumed, 5, 9) == lines[5:]
    assert same(whole.encoder.state_dict(), resumed.encoder.state_dict())


def test_the_state_holds_only_tensors_and_plain_values():
    stage = tiny_stage()
    run(stage, 0, 2)

    def kinds(value):
        if isinstance(value, dict):
            return {kind for part in value.values() for kind in kinds(part)}
        if isinstance(value, list | tuple):
            return {kind for part in value for kind in kinds(part)}
        return {type(value)}

    allowed = {torch.Tensor, int, float, bool, str, type(None)}
    assert kinds({name: dict(part) for name, part in stage.state().items()}) <= allowed


def test_encoder_weights_follow_from_the_seed_and_leave_torchs_generator_alone():
    generator = tiny_stage().generator
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build_encoder(settings_with(), generator)
    assert torch.equal(torch.rand(1), expected)
    assert same(first.state_dict(), build_encoder(settings_with(), generator).state_dict())


# ---------------------------------------------------------------- Ranger and its schedule


def test_ranger_is_radam_with_lookahead():
    torch.manual_seed(0)
    target = torch.randn(5, 3)
    ours = torch.nn.Parameter(torch.zeros(5, 3))
    fast = torch.nn.Parameter(torch.zeros(5, 3))
    slow = fast.detach().clone()
    ranger = build_ranger([ours], 0.05)
    radam = torch.optim.RAdam([fast], lr=0.05, betas=(0.95, 0.999), eps=1e-5)
    for step in range(1, 40):
        for weight, optimiser in ((ours, ranger), (fast, radam)):
            optimiser.zero_grad()
            (weight - target).square().sum().backward()
            optimiser.step()
        if step % 6 == 0:  # Zhang et al. 2019: every k steps, half-way from the slow weights to the fast ones
            with torch.no_grad():
                slow += 0.5 * (fast - slow)
                fast.copy_(slow)
        assert torch.allclose(ours, fast, rtol=1e-3, atol=1e-4), step


def test_ranger_walks_down_from_the_first_step():
    weight = torch.nn.Parameter(torch.ones(3))
    ranger = build_ranger([weight], 0.1)
    weight.sum().backward()
    ranger.step()
    assert (weight < 1).all()


def test_learning_rate_is_constant_and_then_falls_to_zero_as_a_cosine():
    shares = [learning_rate_share(progress, 0.5) for progress in (0.0, 0.5, 0.75, 1.0)]
    assert shares == pytest.approx([1.0, 1.0, 0.5, 0.0], abs=1e-12)
    assert learning_rate_share(1.0, 1.0) == 1.0


def test_a_schedule_that_ends_before_the_length_leaves_no_rate():
    stage, rates = tiny_stage(settings_with(schedule_images=2 * BATCH)), []
    for step in range(4):
        run(stage, step, step + 1)
        rates.append(stage.ranger.param_groups[0]["lr"])
    assert rates[:2] == [rates[0]] * 2 and rates[0] > 0 and rates[2:] == pytest.approx([0, 0])


def test_gradients_are_clipped_at_the_norm_of_the_settings(monkeypatch):
    norms = []
    stage = tiny_stage(settings_with(clip_norm=0.01))
    original = stage.ranger.step

    def step():
        gradients = [weight.grad for weight in stage.encoder.parameters() if weight.grad is not None]
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        return original()

    monkeypatch.setattr(stage.ranger, "step", step)
    reported = run(stage, 0, 1)[0]["gradient_norm"]
    assert norms[0] == pytest.approx(0.01, rel=1e-3) and reported > 0.01
