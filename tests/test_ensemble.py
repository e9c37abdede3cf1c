"""Several models as one: means, disagreement, refusals; and one network thinned by dropout as several."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "baselines"))
from tiny_gan import tiny_gan
from toy_task import BINARY, assert_resumed_equals_uninterrupted, pictures, settings, stage, train

from semgan.baselines.advssl import AdversarialStage
from semgan.baselines.dropout import ThinnedSegmenter, dropout_layers
from semgan.baselines.networks import build_network
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.ensemble import Ensemble, dropout_ensemble
from semgan.types import LabelSpace, Segmentation


class Told:
    """Answers with a given probability of the foreground."""

    labels, rules = BINARY, {}

    def __init__(self, foreground, labels=BINARY):
        self.foreground, self.labels = foreground, labels

    def preprocess(self, image, modality="default"):
        return torch.zeros(1, 4, 4)

    def segment_batch(self, image, *, steps=None, snapshot_steps=()):
        found = torch.stack([1 - self.foreground, self.foreground]).expand(len(image), 2, 4, 4).clone()
        return Segmentation(found, found.amax(1).mean((1, 2)), snapshots=dict.fromkeys(snapshot_steps, found))


def plain(value):
    return Told(torch.full((4, 4), value))


IMAGE = torch.zeros(3, 1, 4, 4)


def test_members_that_agree_do_not_disagree_and_sure_opposites_disagree_wholly():
    for values, mean, disagreement in (((0.3, 0.3), 0.3, 0.0), ((0.0, 1.0), 0.5, 1.0), ((0.0, 1.0, 0.5), 0.5, 2 / 3)):
        answer = Ensemble([plain(value) for value in values]).segment_batch(IMAGE, snapshot_steps=(0,))
        assert answer.probabilities[:, 1] == pytest.approx(torch.full((3, 4, 4), mean))
        assert answer.signals["disagreement"].tolist() == pytest.approx([disagreement] * 3, abs=1e-6)
        assert torch.equal(answer.snapshots[0], answer.probabilities) and answer.steps == 0
        assert answer.confidence.tolist() == pytest.approx([max(mean, 1 - mean)] * 3)


def test_models_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="two or more models; got 1"):
        Ensemble([plain(0.3)])
    other = Told(torch.zeros(4, 4), LabelSpace(("background", "heart")))
    with pytest.raises(ValueError, match="model 2 differs from the first in classes: names"):
        Ensemble([plain(0.3), other])
    with pytest.raises(ValueError, match="No model of this ensemble is optimised"):
        Ensemble([plain(0.3), plain(0.4)]).segment_batch(IMAGE, steps=5)


def test_a_member_that_optimises_does_and_the_others_are_left_alone():
    gan = tiny_gan()

    class Still(Told):
        rules = gan.rules

        def segment_batch(self, image, *, steps=None, snapshot_steps=()):
            assert steps is None
            found = torch.full((len(image), 2, 16, 16), 0.5)
            return Segmentation(found, torch.ones(len(image)), snapshots=dict.fromkeys(snapshot_steps, found))

    image = gan.generate([0, 1]).image
    answer = Ensemble([Still(torch.zeros(4, 4), gan.labels), gan]).segment_batch(image, steps=3)
    alone = gan.segment_batch(image, steps=3).probabilities
    assert answer.steps == 3 and torch.allclose(answer.probabilities, (alone + 0.5) / 2)


def test_beside_a_network_the_optimised_member_has_its_snapshots():
    gan, image = tiny_gan(), tiny_gan().generate([0, 1]).image
    network = build_network(gan.settings, gan.labels.channels).eval()
    still = NetworkSegmenter(network, gan.labels, gan.rules, torch.device("cpu"))
    found = Ensemble([still, gan]).segment_batch(image, steps=3, snapshot_steps=(0, 3))
    own, constant = gan.segment_batch(image, steps=3, snapshot_steps=(0, 3)), still.segment_batch(image)
    for step in (0, 3):
        assert torch.allclose(found.snapshots[step], (own.snapshots[step] + constant.probabilities) / 2)


# ---------------------------------------------------------------- dropout


def image_of(number):
    return torch.from_numpy(pictures(number)[0]).float() / 127.5 - 1


@pytest.fixture(scope="module")
def trained():
    with_dropout = stage(batch=8, learning_rate=0.01, dropout=0.3)
    train(with_dropout, range(60))
    return with_dropout


def test_no_dropout_is_no_dropout_at_all():
    without, with_dropout = (dropout_layers(build_network(settings(dropout=share), 1)) for share in (0.0, 0.1))
    assert not without and with_dropout


def test_a_network_learns_with_dropout_and_answers_without(trained):
    image, truth = image_of(8), pictures(8)[1]
    once, again = (trained.segmenter.segment_batch(image).probabilities for _ in range(2))
    assert torch.equal(once, again) and (once.argmax(1).numpy() == truth).mean() > 0.9


def test_resumed_training_with_dropout_equals_uninterrupted_training_to_the_bit(tmp_path):
    torch.manual_seed(3)
    assert_resumed_equals_uninterrupted(lambda: stage(lambda segmenter: 0.5, dropout=0.2), tmp_path / "c.safetensors")


def test_dropout_changes_what_is_learnt_and_leaves_torchs_own_numbers_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    losses = [train(stage(dropout=share), range(2)) for share in (0.0, 0.3, 0.3)]
    assert losses[0] != losses[1] == losses[2]
    assert torch.equal(state, torch.get_rng_state())


def test_passes_differ_and_no_answer_depends_on_its_neighbours(trained):
    image = image_of(6)
    whole = trained.segmenter
    before = whole.segment_batch(image).probabilities
    first, second = (ThinnedSegmenter(whole, number).segment_batch(image).probabilities for number in (0, 1))
    assert not torch.allclose(first, second)
    alone = ThinnedSegmenter(whole, 0).segment_batch(image[4:5]).probabilities
    assert torch.allclose(first[4:5], alone, atol=1e-5)
    assert torch.equal(whole.segment_batch(image).probabilities, before)  # nothing stays behind


def test_the_mean_of_passes_doubts_noise_more_than_pictures(trained):
    model = dropout_ensemble(trained.segmenter, 8)
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (6, 1, 16, 16)).astype(np.float32))
    known, unknown = (model.segment_batch(image).signals["disagreement"].mean() for image in (image_of(6), noise))
    assert 0 < known < unknown


def test_what_has_no_dropout_has_no_passes():
    with pytest.raises(ValueError, match="has no dropout.*baseline.dropout=0.2"):
        dropout_ensemble(stage().segmenter, 4)
    with pytest.raises(ValueError, match="feed-forward networks.*semgan posterior"):
        dropout_ensemble(tiny_gan(), 4)
    with pytest.raises(ValueError, match="network deeplabv2 has none"):
        build_network(settings(dropout=0.1, network="deeplabv2", trunk="narrow"), 1)
    with pytest.raises(ValueError, match="does not train with dropout"):
        stage(kind=AdversarialStage, dropout=0.1)
