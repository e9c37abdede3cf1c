"""AdvSSL: the discriminator's form, who learns from what, which answers are trusted, when unlabelled images join."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_task import (
    BINARY,
    DEEPLAB,
    FOUR,
    SIZE,
    assert_golden,
    assert_resumed_equals_uninterrupted,
    assert_same,
    differ,
    exact,
    kept_weights,
    settings,
    stage,
    stream,
    train,
    unlabelled_stream,
    weights,
    write_golden,
)

from semgan.baselines.advssl import (
    LAMBDA_ADVERSARIAL,
    LAMBDA_ADVERSARIAL_UNLABELLED,
    LAMBDA_SELF_TRAINING,
    AdversarialStage,
    MapDiscriminator,
    trusted_labels,
)
from semgan.baselines.stage import Streams
from semgan.types import IGNORE

BOTH = pytest.mark.parametrize("labels", [BINARY, FOUR])
LABELLED_ONLY = {"loss", "cross_entropy", "dice_loss", "adversarial", "discriminator"}


def adversarial_stage(validate: Any = None, **options: Any) -> AdversarialStage:
    made = stage(
        validate, kind=AdversarialStage, **({"unlabelled_batch": 6, "discriminator_width": 4} | DEEPLAB | options)
    )
    assert isinstance(made, AdversarialStage)
    return made


def cases() -> dict[str, AdversarialStage]:
    return {
        "deeplabv2": adversarial_stage(),
        "unet": adversarial_stage(network="unet"),
        "four_classes": adversarial_stage(labels=FOUR),
    }


@pytest.mark.parametrize("case", ["deeplabv2", "unet", "four_classes"])
def test_losses_of_ten_steps_equal_the_golden_numbers(case):
    assert_golden("advssl", case, train(exact(cases()[case]), range(10)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_uninterrupted_training_to_the_bit(tmp_path, precision):
    """Stopped on labelled images alone, resumed where unlabelled ones join."""

    def made() -> AdversarialStage:
        return adversarial_stage(lambda segmenter: 0.5, precision=precision)

    assert_resumed_equals_uninterrupted(made, tmp_path / "c.safetensors", stop=2, end=5)


# ---------------------------------------------------------------- the discriminator


def test_the_discriminator_has_the_papers_layers_at_256_px():
    with torch.device("meta"):
        network = MapDiscriminator(8, 64, 256)
        assert network(torch.zeros(1, 8, 256, 256)).shape == (1, 1, 256, 256)
    shapes = [tuple(layer.weight.shape) for layer in network.convolutions]
    assert shapes == [(64, 8, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 512, 4, 4)]
    assert all(layer.stride == (2, 2) for layer in network.convolutions)


@pytest.mark.parametrize(("size_px", "strides"), [(16, 1), (32, 2), (64, 3), (128, 4), (256, 5), (512, 5)])
def test_small_maps_are_halved_until_eight_pixels_are_left(size_px, strides):
    network = MapDiscriminator(2, 2, size_px)
    assert [layer.stride[0] for layer in network.convolutions] == [2] * strides + [1] * (5 - strides)
    x = torch.rand(1, 2, size_px, size_px)
    for layer in network.convolutions:
        x = layer(x)
    assert x.shape[-1] == size_px // 2**strides


@BOTH
def test_the_discriminator_learns_to_tell_labels_from_predictions(labels):
    trained = adversarial_stage(labels=labels, network="unet")
    batch = trained.labelled_batch(0)
    assert batch.label_map is not None
    logits = trained.network(batch.image).detach()
    trained.optimisers["discriminator"].param_groups[0]["lr"] = 0.01
    losses = []
    for _ in range(25):
        loss = trained.discriminator_loss(logits, batch.label_map)
        trained.update(loss, 0, "discriminator")
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2 * np.log(2), rel=0.1) and losses[-1] < 0.5


def test_pixels_without_a_label_tell_the_discriminator_nothing():
    trained = adversarial_stage(labels=FOUR)
    seen: list[Tensor] = []
    trained.scores = lambda x: seen.append(x) or torch.zeros(1)  # type: ignore[method-assign]
    label_map = torch.full((1, SIZE, SIZE), 2)
    label_map[:, :, 8:] = IGNORE
    trained.discriminator_loss(torch.randn(1, 4, SIZE, SIZE), label_map)
    given, predicted = seen
    assert not given[..., 8:].any() and not predicted[..., 8:].any()
    assert given[0, :, 0, 0].tolist() == [0, 0, 1, 0]
    torch.testing.assert_close(predicted[..., :8].sum(1), torch.ones(1, SIZE, 8))


def test_the_optimiser_of_the_discriminator_is_the_papers_and_follows_the_poly_rule():
    trained = adversarial_stage()
    (group,) = trained.optimisers["discriminator"].param_groups
    assert (group["lr"], group["betas"]) == (1e-4, (0.9, 0.99))
    train(trained, range(5, 6))
    assert group["lr"] == pytest.approx(1e-4 * 0.5**0.9)


# ---------------------------------------------------------------- what the segmentation network learns from


def test_unlabelled_images_join_after_a_quarter_of_the_training():
    trained = adversarial_stage(network="unet")  # ten steps
    for step, line in enumerate(train(trained, range(5))):
        joined = {"adversarial_unlabelled", "self_training"} if step >= 3 else set()
        assert line.keys() == LABELLED_ONLY | joined


@BOTH
def test_only_answers_that_look_like_labels_are_learnt_from(labels):
    logits = torch.randn(2, labels.channels, 4, 4)
    score = torch.linspace(-4, 4, 32).reshape(2, 1, 4, 4)
    found = trusted_labels(logits, score)
    answer = (logits[:, 0] > 0).long() if labels.channels == 1 else logits.argmax(1)
    trusted = 1 / (1 + torch.exp(-score[:, 0])) > 0.2
    assert trusted.any() and not trusted.all()
    assert torch.equal(found, torch.where(trusted, answer, torch.tensor(IGNORE)))


def with_scores(trained: AdversarialStage, value: float) -> AdversarialStage:
    """Every pixel of every map gets this score, whatever it shows."""
    trained.scores = lambda x: torch.full_like(x[:, :1], value) + 0 * x[:, :1]  # type: ignore[method-assign]
    return trained


@BOTH
def test_terms_are_the_papers_with_the_papers_weights(labels):
    logits = torch.randn(5, labels.channels, SIZE, SIZE)
    terms = with_scores(adversarial_stage(labels=labels), 0.7).adversarial_terms(logits, 2)
    fooled = np.log1p(np.exp(-0.7))  # -log D
    assert terms["adversarial"].item() == pytest.approx(LAMBDA_ADVERSARIAL * fooled, rel=1e-4)
    assert terms["adversarial_unlabelled"].item() == pytest.approx(LAMBDA_ADVERSARIAL_UNLABELLED * fooled, rel=1e-4)
    two = torch.cat([torch.zeros_like(logits), logits], 1) if labels.channels == 1 else logits
    surprise = -two[2:].log_softmax(1).amax(1).mean()  # of its own answers
    torch.testing.assert_close(terms["self_training"], LAMBDA_SELF_TRAINING * surprise)


def test_nothing_is_learnt_from_answers_that_nobody_trusts():
    logits = torch.randn(5, 1, SIZE, SIZE, requires_grad=True)
    self_training = with_scores(adversarial_stage(), -3.0).adversarial_terms(logits, 2)["self_training"]
    self_training.backward()
    assert self_training == 0 and logits.grad is not None and not logits.grad.any()


@BOTH
@pytest.mark.parametrize("term", ["adversarial_unlabelled", "self_training"])
def test_gradients_from_unlabelled_images_reach_the_network_and_not_the_discriminator(labels, term):
    trained = adversarial_stage(labels=labels, network="unet")
    image = trained.unlabelled_batch(0).image.requires_grad_()
    logits = trained.network(torch.cat([trained.labelled_batch(0).image, image]))
    trained.adversarial_terms(logits, 4)[term].backward()
    assert image.grad is not None and (image.grad.abs().amax((1, 2, 3)) > 0).all()
    assert any(bool(value.grad.any()) for value in trained.network.parameters() if value.grad is not None)
    assert all(value.grad is None and value.requires_grad for value in trained.discriminator.parameters())


def test_self_training_makes_trusted_answers_surer_and_fooling_moves_them_to_what_scores_high():
    trained = adversarial_stage(network="unet", learning_rate=0.01)
    trained.scores = lambda x: 8 * x[:, 1:] - 1  # type: ignore[method-assign]  # this one likes foreground
    image = trained.unlabelled_batch(0).image

    def learn(term: str) -> tuple[Tensor, Tensor]:
        answers = []
        for _ in range(6):
            logits = trained.network(image)
            answers.append(torch.sigmoid(logits.detach()))
            trained.update(trained.adversarial_terms(logits, 0)[term], 0, "network")
        return answers[0], answers[-1]

    before, after = learn("adversarial_unlabelled")
    assert after.mean() > before.mean() + 0.02
    before, after = learn("self_training")
    assert (after - 0.5).abs().mean() > (before - 0.5).abs().mean()


def test_what_the_unlabelled_images_show_makes_a_difference_and_only_once_they_join():
    same = AdversarialStage(
        settings(unlabelled_batch=6, discriminator_width=4, network="unet"),
        BINARY,
        Streams(stream(2, 40), unlabelled_stream(2, seed=77)),
        torch.device("cpu"),
    )
    trained = adversarial_stage(network="unet", schedule="constant")
    for made in (trained, same):
        train(made, range(3))
    assert_same(weights(trained), weights(same))
    for made in (trained, same):
        train(made, range(3, 5))
    assert differ(weights(trained), weights(same))


def test_the_segmentation_network_is_kept_without_the_discriminator():
    trained = adversarial_stage(network="unet")
    train(trained, range(1))
    assert_same(
        kept_weights(trained), {f"network.{name}": value for name, value in trained.network.state_dict().items()}
    )
    assert trained.state()["networks"].keys() == {"network", "discriminator"}


def test_without_unlabelled_images_it_says_what_to_do():
    with pytest.raises(ValueError, match="learns from unlabelled images too, and the dataset has none"):
        AdversarialStage(settings(), BINARY, Streams(stream(2, 8)), torch.device("cpu"))


if __name__ == "__main__":
    write_golden("advssl", {name: train(exact(made), range(10)) for name, made in cases().items()})
