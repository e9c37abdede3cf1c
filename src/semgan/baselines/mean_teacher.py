"""Mean Teacher (Tarvainen and Valpola 2017, arXiv:1703.01780), for segmentation as Perone and Cohen-Adad 2018.

The student learns from labels and from the teacher, which is the running average of the student and sees the same
pictures under other noise. The teacher is validated and kept.

The teacher's batch statistics are its own: it runs in training mode, as in the authors' code, so its running means
come from its own weights' activations instead of being averaged or copied from the student.

Departures: Gaussian noise on the input is the only perturbation (pictures keep their geometry, so pixels stay
comparable; the networks have no dropout). The average has one decay, not a shorter one during the ramp-up. The weight
of the consistency is 1, not the 100 of the authors' classifiers: with 100 and a ramp of 15 % validation was worse
(docs/baselines.md). PixelSSL has 1 for DeepLabV2 too, but between logits, where it weighs more.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from semgan import seeding
from semgan.baselines.stage import BaselineStage
from semgan.types import Batch

if TYPE_CHECKING:
    from semgan.config import Settings

# Of the Gaussian noise on the input. The paper has 0.15 on images of deviation 1; ours, in [-1, 1], have about 0.6.
NOISE_DEVIATION = 0.1
TEACHER = "teacher"


class MeanTeacherStage(BaselineStage):
    """State and step of Mean Teacher."""

    needs_unlabelled = True

    def __init__(self, settings: Settings, *args: Any, **options: Any) -> None:
        super().__init__(settings, *args, **options)
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        self.networks[TEACHER] = self.teacher

    @property
    def answering(self) -> nn.Module:
        return self.teacher

    def loss_terms(self, images_seen: int) -> dict[str, Tensor]:
        """Cross-entropy + Dice on the labelled images, and agreement with the teacher on all images."""
        from semgan.objectives.consistency import ramp_up, squared_distance
        from semgan.objectives.segmentation import supervised_loss

        labelled, unlabelled = self.labelled_batch(images_seen), self.unlabelled_batch(images_seen)
        logits = self.forward(self.network, self._noisy(labelled, unlabelled, "student")).float()
        with torch.no_grad():
            target = self.forward(self.teacher, self._noisy(labelled, unlabelled, TEACHER))
        terms = supervised_loss(logits[: len(labelled.image)], labelled.truth)
        own = self.settings.baseline
        weight = own.consistency_weight * ramp_up(self.progress(images_seen), own.ramp_up_share)
        return terms | {"consistency": weight * squared_distance(logits, target)}

    def after_step(self, images_seen: int) -> None:
        decay = average_decay(images_seen // self.batch, self.settings.baseline.ema_decay)
        move_average(self.teacher, self.network, decay)

    def _noisy(self, labelled: Batch, unlabelled: Batch, player: str) -> Tensor:
        """All images of a step in one batch, each with this player's own noise; labelled ones first."""
        noisy = []
        for batch, kind in ((labelled, "labelled"), (unlabelled, "unlabelled")):
            stream = f"mean-teacher/{player}/{kind}"
            noise = seeding.normal(self.settings.seed, stream, batch.index.tolist(), tuple(batch.image.shape[1:]))
            noisy.append(batch.image + NOISE_DEVIATION * noise.to(self.device))
        return self._layout(torch.cat(noisy))


def average_decay(step: int, longest: float) -> float:
    """min(1 - 1 / (step + 1), longest): a true mean of the first weights, then a running one."""
    return min(1 - 1 / (step + 1), longest)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network, weight by weight; statistics stay the average's own."""
    for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
