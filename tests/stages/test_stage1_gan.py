"""Stage 1: who teaches whom, with which weight, how often; golden numbers of the whole step."""

import json
import os
from pathlib import Path

import pytest
import torch
from tiny_stages import BATCH, BINARY, FOUR, tiny_gan, with_changes
from torch.testing import assert_close

from semgan.objectives import adversarial, augmentation
from semgan.objectives.labels import signed_labels, signed_probabilities
from semgan.types import JointImage

GOLDEN = Path(__file__).parents[1] / "golden" / "stage1_gan.json"
INDEX = range(BATCH)


def run(stage, steps):
    return [{name: value.item() for name, value in stage.step(step * BATCH).items()} for step in steps]


def plain(**gan):
    """No augmentation, no penalties: the losses alone."""
    options = {"augment": "none", "pair_augment": "real", "path_length_weight": 0, "r1_every": 10_000} | gan
    return with_changes(gan=options)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def gradients(stage, losses_of):
    """Gradients of the generator's weights, caught before Adam uses them."""
    caught = {}
    update = stage._update

    def catch(adam, loss):
        adam.zero_grad(set_to_none=True)
        loss.backward()
        caught.update({name: weight.grad for name, weight in stage.generator.named_parameters()})

    stage._update = catch
    losses_of()
    stage._update = update
    return caught


# ---------------------------------------------------------------- golden numbers


def test_ten_steps_give_the_golden_numbers():
    """After a change that is meant: run with SEMGAN_WRITE_GOLDEN=1 to write them anew, and say why in the commit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = run(tiny_gan(), range(10))
    finally:
        torch.set_num_threads(threads)
    if os.environ.get("SEMGAN_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps([{k: float(f"{v:.7g}") for k, v in line.items()} for line in found], indent=1))
    expected = json.loads(GOLDEN.read_text())
    assert len(expected) == 10
    for line, golden in zip(found, expected, strict=True):
        assert line == pytest.approx(golden, rel=1e-3, abs=1e-4)


# ---------------------------------------------------------------- who teaches whom


def test_the_pair_critic_never_teaches_the_image_branch(monkeypatch):
    """Its loss reaches the trunk and the label heads; the image heads get gradients from the image critic alone."""
    stage = tiny_gan(plain(feature_matching=2.0))
    monkeypatch.setattr(adversarial, "logistic_generator_loss", lambda score: 0 * score.sum())
    pair = stage.labelled.batch(0, BATCH)
    found = gradients(stage, lambda: stage.update_generator(pair, stage.generate(INDEX), INDEX))
    for name, gradient in found.items():
        if ".image_weight" in name or ".image_style" in name:
            assert gradient is None or not gradient.any(), name
    assert all(found[f"heads.{level}.label_weight"].abs().sum() > 0 for level in range(3))
    assert found["convolutions.0.weight"].abs().sum() > 0 and found["mapping.layers.0.weight"].abs().sum() > 0
    assert not found["heads.0.bias"][0].any() and found["heads.0.bias"][1].any()


def test_the_pair_critic_judges_labels_together_with_images_it_cannot_change(monkeypatch):
    stage = tiny_gan(plain())
    shown = []
    forward = stage.pair_critic.forward
    monkeypatch.setattr(
        stage.pair_critic, "forward", lambda image, label: shown.append((image, label)) or forward(image, label)
    )
    pair, fake = stage.labelled.batch(0, BATCH), stage.generate(INDEX)
    stage.update_generator(pair, fake, INDEX)
    (image, label), (real, real_label) = shown
    assert not image.requires_grad and label.requires_grad
    assert_close(image, fake.image)
    assert_close(label, signed_probabilities(fake.logits))
    assert_close(real, pair.image)
    assert_close(real_label, signed_labels(pair.label_map, 1))


def test_the_image_critic_teaches_nothing_about_labels(monkeypatch):
    stage = tiny_gan(plain(feature_matching=0.0))
    monkeypatch.setattr(adversarial, "hinge_generator_loss", lambda scores: 0 * scores[0].sum())
    pair = stage.labelled.batch(0, BATCH)
    found = gradients(stage, lambda: stage.update_generator(pair, stage.generate(INDEX), INDEX))
    assert all(not found[f"heads.{level}.label_weight"].any() for level in range(3))
    assert all(found[f"heads.{level}.image_weight"].any() for level in range(3))


def test_every_update_changes_its_own_network_alone():
    stage = tiny_gan(plain())
    networks = {"generator": stage.generator, "image": stage.image_critic, "pair": stage.pair_critic}
    pair, fake = stage.labelled.batch(0, BATCH), stage.generate(INDEX)
    real = stage.real_images.batch(0, BATCH).image
    updates = {
        "image": lambda: stage.update_image_critic(real, fake.image.detach(), INDEX),
        "pair": lambda: stage.update_pair_critic(pair, fake, INDEX),
        "generator": lambda: stage.update_generator(pair, fake, INDEX),
    }
    for name, update in updates.items():
        before = {key: {k: v.clone() for k, v in network.named_parameters()} for key, network in networks.items()}
        update()
        moved = {
            key
            for key, network in networks.items()
            if any(not torch.equal(weight, before[key][k]) for k, weight in network.named_parameters())
        }
        assert moved == {name}
    assert all(
        weight.requires_grad for critic in (stage.image_critic, stage.pair_critic) for weight in critic.parameters()
    )


def test_real_and_generated_images_never_share_a_minibatch_deviation():
    """Else the critic could not tell varied images from images that are all alike."""
    stage = tiny_gan(plain())
    real, fake = torch.randn(BATCH, 1, 16, 16), torch.zeros(BATCH, 1, 16, 16)
    expected = [stage.image_critic(part).mean().item() for part in (real, fake)]
    losses = stage.update_image_critic(real, fake, INDEX)
    found = [losses["score/image_real"].item(), losses["score/image_fake"].item()]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_critics_learn_to_tell_real_from_generated():
    stage = tiny_gan(plain())
    fake = JointImage(torch.full((BATCH, 1, 16, 16), 0.3), torch.full((BATCH, 1, 16, 16), -1.0))
    for step in range(40):
        pair = stage.labelled.batch(step * BATCH, BATCH)
        image = stage.update_image_critic(pair.image, fake.image, INDEX)
        both = stage.update_pair_critic(pair, fake, INDEX)
    assert image["score/image_real"] > 1 > -1 > image["score/image_fake"]
    assert both["score/pair_real"] > 0.5 > -0.5 > both["score/pair_fake"]


def test_feature_matching_has_the_weight_of_the_settings(monkeypatch):
    totals = []
    for weight in (0.0, 2.0):
        stage = tiny_gan(plain(feature_matching=weight))
        monkeypatch.setattr(stage, "_update", lambda adam, loss: totals.append(loss.item()))
        pair = stage.labelled.batch(0, BATCH)
        losses = stage.update_generator(pair, stage.generate(INDEX), INDEX)
        assert ("loss/feature_matching" in losses) == (weight > 0)
    assert totals[1] - totals[0] == pytest.approx(2.0 * losses["loss/feature_matching"].item(), rel=1e-4)


# ---------------------------------------------------------------- regularisers


def test_penalties_come_when_due():
    stage = tiny_gan(with_changes(gan={"r1_every": 4, "path_length_every": 3}))
    lines = run(stage, range(9))
    assert [step for step, line in enumerate(lines) if "r1/image" in line] == [0, 4, 8]
    assert [step for step, line in enumerate(lines) if "r1/pair" in line] == [0, 4, 8]
    assert [step for step, line in enumerate(lines) if "path_length" in line] == [0, 3, 6]


def test_rare_penalties_weigh_more(monkeypatch):
    gan = {"r1_gamma": 3.0, "pair_r1_gamma": 5.0, "r1_every": 4, "path_length_weight": 2.0, "path_length_every": 8}
    stage = tiny_gan(with_changes(gan=gan | {"augment": "none"}))
    totals = []
    monkeypatch.setattr(stage, "_update", lambda adam, loss: totals.append(loss.item()))
    real, pair = stage.real_images.batch(0, BATCH), stage.labelled.batch(0, BATCH)
    r1 = stage.regularise_image_critic(real, INDEX)["r1/image"].item()
    pair_r1 = stage.regularise_pair_critic(pair, INDEX)["r1/pair"].item()
    assert totals == pytest.approx([r1 * 1.5 * 4, pair_r1 * 2.5 * 4], rel=1e-5)
    image = real.image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(stage.image_critic(image).sum(), image)
    assert r1 == pytest.approx(gradient.square().sum((1, 2, 3)).mean().item(), rel=1e-4)


def test_path_lengths_are_pulled_towards_their_running_mean(monkeypatch):
    stage = tiny_gan(with_changes(gan={"path_length_weight": 2.0, "path_length_every": 3}))
    totals = []
    monkeypatch.setattr(stage, "_update", lambda adam, loss: totals.append(loss.item()))
    asked = []
    codes = stage.w_plus
    monkeypatch.setattr(stage, "w_plus", lambda index, name: asked.append(len(index)) or codes(index, name))
    first = stage.regularise_path_length(INDEX)["path_length"].item()
    assert asked == [BATCH // 2]
    assert stage.mean_path_length.item() == pytest.approx(0.01 * first, rel=1e-5)
    stage.mean_path_length = torch.tensor(1e4)  # far away from every length
    stage.regularise_path_length(INDEX)
    mean = stage.mean_path_length.item()
    assert totals[1] == pytest.approx(6 * (mean - first) ** 2, rel=1e-3)


def test_adam_is_corrected_for_steps_that_are_skipped():
    """StyleGAN2: learning rate and betas to the power of every / (every + 1)."""
    stage = tiny_gan(with_changes(gan={"r1_every": 15, "path_length_every": 3, "beta1": 0.5}))
    group = stage.image_adam.param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 15 / 16)
    assert group["betas"] == pytest.approx((0.5 ** (15 / 16), 0.99 ** (15 / 16)))
    assert stage.generator_adam.param_groups[0]["lr"] == pytest.approx(0.002 * 3 / 4)
    unpenalised = tiny_gan(with_changes(gan={"path_length_weight": 0}))
    assert unpenalised.generator_adam.param_groups[0]["lr"] == 0.002
    assert unpenalised.generator_adam.param_groups[0]["betas"] == (0.0, 0.99)


# ---------------------------------------------------------------- latents, augmentation, average


def test_style_mixing_takes_a_second_latent_from_a_random_layer_on():
    stage = tiny_gan()
    index = range(400)
    w_plus = stage.w_plus(index, "gan")
    is_first = (w_plus == w_plus[:, :1]).all(2)
    assert (is_first.long().diff(dim=1) <= 0).all()  # first latent, then second, never back
    mixed = ~is_first.all(1)
    assert mixed.float().mean().item() == pytest.approx(0.9, abs=0.05)
    crossovers = is_first[mixed].sum(1).bincount(minlength=7)[1:6]
    assert crossovers.sum() == mixed.sum() and (crossovers > 0.12 * mixed.sum()).all()  # layers 1 to 5, evenly
    unmixed = tiny_gan(with_changes(gan={"style_mixing": 0.0})).w_plus(index, "gan")
    assert torch.equal(unmixed, unmixed[:, :1].expand_as(unmixed))


def test_generated_images_depend_on_their_index_alone():
    stage = tiny_gan()
    together, later = stage.generate(range(8)), stage.generate(range(4, 8))
    assert_close(together.image[4:], later.image, rtol=1e-4, atol=1e-5)
    assert_close(together.logits[4:], later.logits, rtol=1e-4, atol=1e-5)


def test_the_critics_see_what_the_settings_say(monkeypatch):
    image, label = torch.randn(BATCH, 1, 16, 16), torch.randn(BATCH, 1, 16, 16)
    bare = tiny_gan(plain())
    assert bare._seen_by_image_critic(image, INDEX, "r1") is image
    assert bare._seen_by_pair_critic(image, label, INDEX, "r1") == (image, label)
    both = tiny_gan(with_changes(gan={"augment": "fixed", "augment_probability": 1.0}))
    assert not torch.allclose(both._seen_by_image_critic(image, INDEX, "r1"), image, atol=0.1)
    seen_image, seen_label = both._seen_by_pair_critic(image, label, INDEX, "real")
    assert not torch.allclose(seen_image, image, atol=0.1) and not torch.allclose(seen_label, label, atol=0.1)
    limits = both.pair_limits
    assert (limits.scale, limits.translate, limits.rotate_deg) == (0.1, 0.15, 15.0)  # those of the labelled stream


@pytest.mark.parametrize("data", [{"affine_scale_range": (0.7, 1.4)}, {"affine_probability": 0.2}])
def test_changes_of_pairs_that_the_critic_would_not_see_are_refused(data):
    with pytest.raises(ValueError, match="gan.pair_augment=both moves every pair by data.affine_scale; leave"):
        tiny_gan(with_changes(gan={"pair_augment": "both"}, data=data))
    tiny_gan(with_changes(gan={"pair_augment": "real"}, data=data))


@pytest.mark.parametrize(("kind", "moves"), [("adaptive", True), ("fixed", False)])
def test_only_the_adaptive_augmentation_moves_its_probability(monkeypatch, kind, moves):
    stage = tiny_gan(with_changes(gan={"augment": kind, "augment_probability": 0.3}))
    monkeypatch.setattr(
        augmentation, "adapted_probability", lambda *_, **options: torch.tensor(options["images"] / 100)
    )
    run(stage, range(1))
    assert stage.probability.item() == pytest.approx(BATCH / 100 if moves else 0.3)


def test_the_average_follows_with_its_half_life():
    stage = tiny_gan(with_changes(gan={"ema_half_life_images": 8}))
    before = weights(stage.average)
    with torch.no_grad():
        for weight in stage.generator.parameters():
            weight.add_(1.0)
    for _ in range(2):  # 8 images: half of the way
        stage.update_average(1000)
    for name, value in stage.average.named_parameters():
        assert_close(value, before[name] + 0.5, rtol=1e-4, atol=1e-4)
    assert not any(weight.requires_grad for weight in stage.average.parameters())


def test_young_averages_follow_faster():
    """At image 8 the half-life is a batch, 4 images, and then a tenth of the images seen, whatever the settings say."""
    stage = tiny_gan(with_changes(gan={"ema_half_life_images": 10_000}))
    before = weights(stage.average)["constant"]
    with torch.no_grad():
        stage.generator.constant.add_(1.0)
    stage.update_average(8)
    assert_close(stage.average.constant, before + 0.5, rtol=1e-4, atol=1e-4)
    stage.update_average(400)  # half-life 40
    assert_close(stage.average.constant, before + 1 - 0.5 * 0.5**0.1, rtol=1e-4, atol=1e-4)


def test_samples_come_from_the_average_one_per_seed():
    stage = tiny_gan()
    with torch.no_grad():
        stage.generator.constant.fill_(0)
    many, one = stage.sample(range(6)), stage.sample(range(5, 6))
    assert many.image.shape == many.logits.shape == (6, 1, 16, 16)
    assert_close(many.image[5:], one.image, rtol=1e-4, atol=1e-5)
    assert (many.image[0] - many.image[1]).abs().max() > 1e-3


# ---------------------------------------------------------------- kinds of data, precision


@pytest.mark.parametrize(("channels", "labels"), [(3, FOUR), (2, BINARY)])
def test_colour_many_channels_and_many_classes_train(channels, labels):
    stage = tiny_gan(with_changes(preprocessing={"channels": channels}), labels)
    before = weights(stage.generator)
    (line,) = run(stage, range(1))
    assert all(torch.isfinite(torch.tensor(value)) for value in line.values())
    assert {"constant", "heads.2.image_weight", "heads.2.label_weight"} <= changed(stage.generator, before)
    assert stage.generate(INDEX).logits.shape[1] == labels.channels


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_steps_are_close_to_float32(precision):
    """One step: later ones drift apart, as every GAN's do."""
    exact = run(tiny_gan(plain(r1_every=1)), range(1))[0]
    rough = run(tiny_gan(plain(r1_every=1, precision=precision)), range(1))[0]
    for name, value in exact.items():
        assert rough[name] == pytest.approx(value, rel=0.1, abs=0.02), name


# ---------------------------------------------------------------- starting from another run's networks


def test_a_warm_start_takes_every_network_and_no_optimiser():
    old = tiny_gan()
    run(old, range(2))
    new = tiny_gan()
    new.load_networks(old.state())
    for name in ("generator", "average", "image_critic", "pair_critic"):
        assert not changed(getattr(new, name), weights(getattr(old, name))), name
    assert not new.generator_adam.state
    assert new.mean_path_length == old.mean_path_length != 0


def test_a_warm_start_with_other_classes_keeps_the_images_and_starts_labels_anew():
    old = tiny_gan()
    run(old, range(2))
    new = tiny_gan(labels=FOUR)
    fresh = weights(new.generator), weights(new.pair_critic)
    new.load_networks(old.state())
    index = range(40, 44)
    assert_close(new.generate(index).image, old.generate(index).image)
    assert torch.equal(new.generator.heads[1].label_weight, fresh[0]["heads.1.label_weight"])
    assert not changed(new.pair_critic, fresh[1])
    run(new, range(1))


@pytest.mark.parametrize(
    "changes", [{"generator": {"widths": [8, 8, 4]}}, {"generator": {"w_dim": 12}}, {"preprocessing": {"channels": 3}}]
)
def test_a_warm_start_from_networks_of_another_shape_is_refused(changes):
    with pytest.raises(RuntimeError, match="size mismatch"):
        tiny_gan(with_changes(**changes)).load_networks(tiny_gan().state())


def test_what_follows_an_update_meets_the_new_weights_under_autocast():
    """Autocast keeps bfloat16 copies of weights; R1 comes after the pair critic's own update, in the same step."""
    stage = tiny_gan(with_changes(gan={"precision": "bfloat16"}))
    stage.pair_critic.eval()  # spectral norm's power iteration would move at every call
    image, label = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = stage.pair_critic(image, label)[0].score
        stage._update(stage.pair_adam, before.square().mean())
        found = stage.pair_critic(image, label)[0].score
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(found, stage.pair_critic(image, label)[0].score)
    assert not torch.equal(found, before)
