"""Several networks of one form, trained side by side, whose mean answers: a deep ensemble in one model.

Lakshminarayanan et al. 2017 (arXiv:1612.01474): members differ by their initial weights and by the order and the
changes of what they see, and their mean is better, above all on images unlike the training ones. Each is trained as if
it were alone, so a step costs as many times as much as there are members. Departure: the best weights by validation
are those of the committee, not of every member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semgan.baselines.networks import Committee
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.baselines.stage import BaselineStage, Validate, ValidatedStage
from semgan.config import Settings, override
from semgan.types import MOST_SEED

MEMBER_SEED = 7_000_003  # from one member's seed to the next: far from those that people choose


def member_settings(settings: Settings, number: int) -> Settings:
    """What member ``number`` is trained with; the first has the seed of the settings."""
    seed = (settings.seed + number * MEMBER_SEED) % (MOST_SEED + 1)
    return override(settings, {"seed": seed, "baseline": {"members": 1}})


class CommitteeStage(ValidatedStage):
    """``baseline.members`` stages that take every step together. build: settings of one member -> its stage."""

    def __init__(self, settings: Settings, build: Callable[[Settings], BaselineStage], validate: Validate | None):
        super().__init__(settings, validate)
        count = settings.baseline.members
        self.members = [build(member_settings(settings, number)) for number in range(count)]
        self.name, self.needs_unlabelled = self.members[0].name, self.members[0].needs_unlabelled
        self._committee = Committee([member.answering for member in self.members])

    @property
    def answering(self) -> nn.Module:
        return self._committee

    @property
    def segmenter(self) -> NetworkSegmenter:
        one = self.members[0].segmenter
        return NetworkSegmenter(self._committee, one.labels, one.rules, one.device, flips=one.flips)

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """A step of every member; the means of their losses."""
        found = [member.step(images_seen) for member in self.members]
        return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}

    def state(self) -> dict[str, Any]:
        return {"members": [member.state() for member in self.members], "best": self.best_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        found: Sequence[Mapping[str, Any]] = state["members"]
        for member, own in zip(self.members, found, strict=True):
            member.load_state(own)
        self.load_best_state(state["best"])
