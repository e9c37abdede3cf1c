"""UniMatch: an average that labels, sure pixels alone, and features with channels left out."""

from __future__ import annotations

import pytest
import torch
from toy_task import BINARY, FOUR, train
from toy_task import weights as all_weights
from toys import differing, semi_supervised, unlabelled_stream, weights

from semgan.baselines.unimatch import UniMatchStage, decode, encode
from semgan.methods import METHODS
from semgan.objectives.segmentation import probabilities


def test_a_decoder_on_its_encoders_features_is_the_network():
    network = semi_supervised(UniMatchStage).network.eval()
    image = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(decode(network, encode(network, image)), network(image))


def test_channels_are_left_out_by_image_number_and_keep_the_mean():
    stage = semi_supervised(UniMatchStage)
    levels = stage._kept_channels([400, 600], torch.arange(4))
    assert [tuple(level.shape) for level in levels] == [(4, 400, 1, 1), (4, 600, 1, 1)]
    every = torch.cat(levels, 1)
    assert set(every.unique().tolist()) == {0.0, 2.0} and 0.95 < every.mean() < 1.05
    (again, _) = stage._kept_channels([400, 600], torch.tensor([2]))
    assert torch.equal(again[0], levels[0][2])


@pytest.mark.parametrize("labels", [BINARY, FOUR])
def test_where_no_pixel_is_sure_nothing_is_learnt_from_unlabelled_images(labels):
    for threshold, taught in ((1.0, False), (0.0, True)):
        terms = semi_supervised(UniMatchStage, labels, confidence_threshold=threshold).loss_terms(0)
        assert all((float(terms[name].detach()) > 0) == taught for name in ("strong_views", "perturbed_features"))
        assert float(terms["cross_entropy"].detach()) > 0


@pytest.mark.parametrize("term", ["strong_views", "perturbed_features"])
def test_unlabelled_images_teach_the_network_and_never_the_average(term):
    stage = semi_supervised(UniMatchStage, confidence_threshold=0.0)
    stage.loss_terms(0)[term].backward()
    assert all(weight.grad is not None for weight in stage.network.parameters())
    assert any(weight.grad.abs().sum() > 0 for weight in stage.network.conv_0.parameters())
    assert all(weight.grad is None for weight in stage.average.parameters())


def test_losses_of_both_halves_weigh_the_same():
    """Where all views say the same, the unlabelled half is the mean of its three parts, as 1/4, 1/4 and 1/2 give."""
    stage = semi_supervised(UniMatchStage, confidence_threshold=0.0)
    for network in stage.networks.values():
        torch.nn.init.zeros_(network.final_conv.weight)  # says 1/2 everywhere, whatever it sees
        torch.nn.init.zeros_(network.final_conv.bias)
    terms = {name: float(value.detach()) for name, value in stage.loss_terms(0).items()}
    half = pytest.approx(0.5 * 0.6931, rel=1e-3)
    assert terms["cross_entropy"] == half and terms["strong_views"] + terms["perturbed_features"] == half
    assert terms["strong_views"] == pytest.approx(terms["perturbed_features"])


def test_the_average_follows_the_network_ever_more_slowly():
    stage = semi_supervised(UniMatchStage, ema_decay=0.6)
    train(stage, range(1))
    assert not differing(weights(stage.network), weights(stage.average))  # all of the first step
    for step, decay in ((1, 0.5), (2, 0.6), (9, 0.6)):
        before = weights(stage.average)
        train(stage, range(step, step + 1))
        for name, now in weights(stage.network).items():
            expected = decay * before[name] + (1 - decay) * now if now.is_floating_point() else now
            torch.testing.assert_close(stage.average.state_dict()[name], expected)


def test_the_average_answers_in_eval_mode():
    stage = semi_supervised(UniMatchStage)
    train(stage, range(3))
    assert stage.answering is stage.average and not stage.average.training and stage.network.training
    assert not differing(stage.model_weights()["network"], weights(stage.average))


def test_the_two_strong_views_differ_from_one_another_and_from_the_weak_one():
    stage = semi_supervised(UniMatchStage)
    weak = stage.unlabelled_batch(0)
    label_map = (weak.image[:, 0] > 0).long()
    (first, labels), (second, others) = (stage._strong(weak, label_map, stream) for stream in ("a", "b"))
    assert not torch.equal(labels, others) and labels.shape == label_map.shape
    assert not torch.equal(first, second) and not torch.equal(first, weak.image)
    assert first.shape == weak.image.shape and -1 <= first.min() and first.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_strong_views_of_colour_images_change_their_colours(channels):
    image, views = torch.rand(8, channels, 16, 16) - 0.5, []
    for colour_changes in (False, True):
        stage = semi_supervised(UniMatchStage, colour_changes=colour_changes)
        views.append(stage._changed(image, "a", list(range(8))))
    assert torch.equal(*views) == (channels == 1)
    assert METHODS["unimatch"].changes(stage.settings)["baseline"]["colour_changes"]


def test_unlabelled_images_make_answers_stand_up_to_strong_changes():

    def distance(threshold: float) -> float:
        """Mean squared difference of the answers to strong and to weak views."""
        chosen = {"confidence_threshold": threshold, "unlabelled_batch": 4, "ema_decay": 0.9}
        stage = semi_supervised(UniMatchStage, FOUR, labelled=2, **chosen)
        train(stage, range(60))
        weak = unlabelled_stream(4, seed=12).batch(0, 20)
        strong = stage._changed(weak.image, "test", weak.index.tolist())
        with torch.no_grad():
            network = stage.network.eval()
            answers = [probabilities(network(image)) for image in (weak.image, strong)]
        return float((answers[0] - answers[1]).square().mean())

    assert distance(0.7) < 0.8 * distance(1.0)


def test_other_unlabelled_images_teach_something_else():
    first, other = (semi_supervised(UniMatchStage, unlabelled_seed=seed) for seed in (12, 13))
    train(first, range(2)), train(other, range(2))
    assert differing(all_weights(first), all_weights(other))


def test_a_network_without_such_features_is_refused():
    with pytest.raises(ValueError, match="features of a U-Net; got baseline.network=deeplabv2"):
        semi_supervised(UniMatchStage, network="deeplabv2")
