"""What holds for every semi-supervised baseline: golden numbers, resuming to the bit, no gradient for the answers of
others, and a clear word where there are no unlabelled images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_task import BINARY, FOUR, exact, settings, stream, train, weights
from toys import differing, semi_supervised

from semgan import artifacts
from semgan.baselines.cps import CrossPseudoStage
from semgan.baselines.gct import GuidedCollaborativeStage
from semgan.baselines.stage import BaselineStage, Streams
from semgan.baselines.unimatch import UniMatchStage
from semgan.methods import METHODS
from semgan.objectives.consistency import ramp_up

GOLDEN = Path(__file__).parents[1] / "golden" / "semi_supervised.json"
KINDS: dict[str, type[BaselineStage]] = {
    "gct": GuidedCollaborativeStage,
    "cps": CrossPseudoStage,
    "unimatch": UniMatchStage,
}
# Nothing is sure after ten steps on a toy: unimatch takes every pixel there.
CHANGES = {name: METHODS[name].changes(settings())["baseline"] for name in KINDS}
CHANGES["unimatch"]["confidence_threshold"] = 0.5
CHANGES["gct"]["network"] = "unet"
every_kind = pytest.mark.parametrize("name", list(KINDS))


def golden_losses(name: str, classes: int) -> list[dict[str, float]]:
    stage = exact(semi_supervised(KINDS[name], BINARY if classes == 2 else FOUR, **CHANGES[name]))
    return [{key: round(value, 6) for key, value in losses.items()} for losses in train(stage, range(10))]


@every_kind
@pytest.mark.parametrize("classes", [2, 4])
def test_losses_of_ten_steps_equal_the_golden_numbers(name, classes):
    """After a change that is meant: run this file as a program to write them anew, and say why in the commit."""
    expected = json.loads(GOLDEN.read_text())[f"{name}, {classes} classes"]
    found = golden_losses(name, classes)
    assert [losses.keys() for losses in found] == [losses.keys() for losses in expected]
    for key in expected[0]:
        np.testing.assert_allclose(
            [losses[key] for losses in found], [losses[key] for losses in expected], rtol=5e-3, atol=1e-4, err_msg=key
        )


@every_kind
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_uninterrupted_training_to_the_bit(tmp_path, name, precision):
    whole, resumed = (semi_supervised(KINDS[name], **CHANGES[name] | {"precision": precision}) for _ in range(2))
    train(whole, range(3))
    artifacts.save_checkpoint(tmp_path / "c.safetensors", whole.state())
    later = train(whole, range(3, 6))
    resumed.load_state(artifacts.load_checkpoint(tmp_path / "c.safetensors"))
    torch.rand(1)  # no random number of theirs is torch's own
    assert train(resumed, range(3, 6)) == later
    assert not differing(weights(whole), weights(resumed))


@every_kind
def test_every_network_and_its_optimiser_learn(name):
    stage = semi_supervised(KINDS[name], **CHANGES[name])
    before = weights(stage)
    train(stage, range(2))
    changed = {key.split(".")[0] for key in differing(before, weights(stage))}
    assert changed == set(stage.networks)
    assert all(optimiser.state_dict()["state"] for optimiser in stage.optimisers.values())


@every_kind
def test_the_first_network_starts_as_the_supervised_baseline_does(name):
    stage, plain = (semi_supervised(kind, **CHANGES[name]) for kind in (KINDS[name], BaselineStage))
    expected = plain.network.state_dict()
    assert not differing(expected, dict(stage.network.state_dict()))
    assert not differing(expected, dict(stage.answering.state_dict()))


@every_kind
def test_without_unlabelled_images_the_method_says_what_to_do(name):
    streams = Streams(stream(2, 4))
    with pytest.raises(ValueError, match="learns from unlabelled images too, and the dataset has none"):
        KINDS[name](settings(**CHANGES[name]), BINARY, streams, torch.device("cpu"))


def test_a_ramp_rises_to_one_and_stays():
    assert ramp_up(0, 0.2) == pytest.approx(np.exp(-5)) and ramp_up(0.1, 0.2) == pytest.approx(np.exp(-1.25))
    assert ramp_up(0.2, 0.2) == ramp_up(0.9, 0.2) == ramp_up(0, 0) == 1


@pytest.mark.parametrize(("name", "term"), [("gct", "consistency"), ("cps", "cross_pseudo")])
def test_the_weight_of_agreement_ramps_up(name, term):
    ramped, full = (
        train(semi_supervised(KINDS[name], **CHANGES[name] | {"ramp_up_share": share}), range(1))[0][term]
        for share in (0.5, 0.0)
    )
    assert full > 0 and ramped == pytest.approx(full * np.exp(-5), rel=1e-4)


if __name__ == "__main__":
    keys = [(name, classes) for name in KINDS for classes in (2, 4)]
    artifacts.write_json(GOLDEN, {f"{name}, {classes} classes": golden_losses(name, classes) for name, classes in keys})
