"""A clock ends training at an image count that nobody knew before: by then, what rises and falls must have done so."""

from __future__ import annotations

import pytest
import torch
from toy_task import settings
from toys import semi_supervised

from semgan.baselines.advssl import AdversarialStage
from semgan.baselines.cps import CrossPseudoStage
from semgan.baselines.gct import GuidedCollaborativeStage
from semgan.baselines.mean_teacher import MeanTeacherStage
from semgan.baselines.stage import BaselineStage
from semgan.baselines.unimatch import UniMatchStage
from semgan.benchmark.training import HEADROOM, schedules_of
from semgan.methods import METHODS

NEVER = 4_000_000  # images, of a length that no clock waits for
KINDS: dict[str, tuple[type[BaselineStage], str]] = {
    "mean-teacher": (MeanTeacherStage, "consistency"),
    "advssl": (AdversarialStage, "self_training"),
    "gct": (GuidedCollaborativeStage, "consistency"),
    "cps": (CrossPseudoStage, "cross_pseudo"),
    "unimatch": (UniMatchStage, "strong_views"),
}
IN_TIME = 40  # images that the clock leaves time for


def first_step(name: str, at: int, **changes) -> dict[str, float]:
    """The losses of fresh networks that begin at an image of a long training which the clock ends early."""
    own = METHODS[name].changes(settings())["baseline"] | {"network": "unet", "images": NEVER}
    own |= {"schedule_images": IN_TIME} | ({"confidence_threshold": 0.5} if name == "unimatch" else {})
    stage = semi_supervised(KINDS[name][0], **own | changes)
    return {key: float(value) for key, value in stage.step(at).items()}


@pytest.mark.parametrize("name", KINDS)
def test_what_the_unlabelled_images_teach_has_its_whole_weight_before_the_clock_ends(name):
    term = KINDS[name][1]
    at = IN_TIME // 2
    found, at_once = (first_step(name, at, **changes)[term] for changes in ({}, {"ramp_up_share": 0.0}))
    assert found > 0 and found == pytest.approx(at_once)
    if name in ("mean-teacher", "gct", "cps"):  # by the length alone it would not have begun
        assert first_step(name, at, schedule_images=None)[term] < 0.01 * found
    if name == "advssl":
        assert term not in first_step(name, at, schedule_images=None)


@pytest.mark.parametrize("name", sorted({*KINDS, "unet-nnunet", "deeplabv2"}))
def test_falling_rates_are_at_their_end_when_the_clock_is(name):
    kind = KINDS[name][0] if name in KINDS else BaselineStage
    own = METHODS[name].changes(settings())["baseline"] | {"network": "unet", "images": NEVER}
    stage = semi_supervised(kind, **own | {"schedule_images": IN_TIME})
    stage.step(0)
    first = {key: made.param_groups[0]["lr"] for key, made in stage.optimisers.items()}
    stage.step(IN_TIME - stage.batch)
    last = {key: made.param_groups[0]["lr"] for key, made in stage.optimisers.items()}
    is_constant = stage.settings.baseline.schedule == "constant"
    for key, rate in last.items():
        assert rate == first[key] if is_constant else 0 < rate < 0.2 * first[key]
    stage.step(IN_TIME + 10 * stage.batch)  # a moment longer than expected: nothing rises again, or breaks
    assert all(torch.isfinite(value).all() for value in stage.network.state_dict().values())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_stage_that_has_a_schedule_gets_its_end_from_the_clock(name):
    found = schedules_of(dict.fromkeys(METHODS[name].stages, round(HEADROOM * IN_TIME)))
    wanted = {"encoder": "encoder", "baseline": "baseline", "student": "baseline"}
    expected = {f"{wanted[stage]}.schedule_images" for stage in METHODS[name].stages if stage in wanted}
    assert set(found) == expected and set(found.values()) == {IN_TIME}
