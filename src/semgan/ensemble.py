"""Several models that answer as one: the mean of their probabilities, and how far they disagree.

Deep ensembles (Lakshminarayanan et al. 2017, arXiv:1612.01474) are trained models of other seeds, here of several
folders; those of one are `semgan.baselines.committee`. Monte Carlo dropout is one model thinned in several ways
(`semgan.baselines.dropout`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from semgan.baselines.dropout import ThinnedSegmenter
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.objectives.segmentation import disagreement
from semgan.student_answer import gan_of
from semgan.types import Segmentation, Segmenter, Steps

if TYPE_CHECKING:
    import numpy as np

    from semgan.config import Preprocessing


def _plain(rules: Mapping[str, Preprocessing]) -> dict[str, Any]:
    """Settings of all modalities by name, "default size_px" -> 64."""
    return {f"{name} {key}": value for name, rule in rules.items() for key, value in rule.model_dump().items()}


class Ensemble:
    """Models of one task as a `semgan.types.Segmenter`; each may be of another method.

    Raises ValueError for fewer than two, and for models of other classes or preprocessing.
    """

    def __init__(self, members: Sequence[Segmenter]) -> None:
        if len(members) < 2:
            raise ValueError(f"An ensemble has two or more models; got {len(members)}.")
        first = members[0]
        for number, other in enumerate(members[1:], start=2):
            for what, theirs, ours in (
                ("classes", {"names": other.labels.names}, {"names": first.labels.names}),
                ("preprocessing", _plain(other.rules), _plain(first.rules)),
            ):
                if theirs != ours:
                    unlike = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
                    told = "; ".join(f"{key} {theirs.get(key)} instead of {ours.get(key)}" for key in unlike)
                    raise ValueError(
                        f"The models of an ensemble see the same images and know the same classes; model {number} "
                        f"differs from the first in {what}: {told}."
                    )
        self.members, self.labels, self.rules = tuple(members), first.labels, first.rules

    def preprocess(self, image: np.ndarray, modality: str = "default") -> Tensor:
        """As the first member's, which is as every member's."""
        if modality == "default":
            return self.members[0].preprocess(image)
        return self.members[0].preprocess(image, modality=modality)  # type: ignore[call-arg]

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
    ) -> Segmentation:
        """The members' mean, with the signal ``disagreement``. Raises ValueError for steps where none optimises.

        steps, snapshot_steps: of the members that optimise, the others' answers are the same at every step; the
        answer's steps are those of the first member that optimises
        """
        optimises = [gan_of(member) is not None for member in self.members]
        if steps and not any(optimises):
            raise ValueError("No model of this ensemble is optimised at test time; leave steps out, or give 0.")
        options = {} if modality == "default" else {"modality": modality}
        answers = [
            member.segment_batch(
                image, steps=steps if own else None, snapshot_steps=snapshot_steps if own else (), **options
            )
            for member, own in zip(self.members, optimises, strict=True)
        ]
        members = [answer.probabilities.to(answers[0].probabilities.device) for answer in answers]
        found = _mean(members)
        leading = answers[optimises.index(True) if any(optimises) else 0]
        return Segmentation(
            found,
            found.amax(1).mean((1, 2)),
            steps=leading.steps,
            answered_steps=leading.answered_steps,
            snapshots={
                step: _mean([answer.snapshots.get(step, answer.probabilities) for answer in answers])
                for step in snapshot_steps
            },
            signals={"disagreement": disagreement(members)},
        )


def dropout_ensemble(model: Segmenter, passes: int) -> Ensemble:
    """A model as the ensemble of its thinned versions. Raises ValueError where it has no dropout, or for one pass."""
    if not isinstance(model, NetworkSegmenter):
        raise ValueError(
            "Monte Carlo dropout is for feed-forward networks that were trained with dropout; this model is of "
            "another kind. `semgan posterior` tells how far a semgan model's answers may differ."
        )
    return Ensemble([ThinnedSegmenter(model, number) for number in range(passes)])


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.to(parts[0].device) for part in parts]).mean(0)
