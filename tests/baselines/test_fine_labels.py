"""Every method of labelled pairs learns from masks finer than its network (``data.fine_labels``)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toy_task import BINARY, pictures, settings
from toys import unlabelled_stream

from semgan.baselines.advssl import AdversarialStage
from semgan.baselines.cps import CrossPseudoStage
from semgan.baselines.gct import GuidedCollaborativeStage
from semgan.baselines.mean_teacher import MeanTeacherStage
from semgan.baselines.stage import BaselineStage, Streams
from semgan.baselines.unimatch import UniMatchStage
from semgan.config import override
from semgan.data.loading import ImageStream

KINDS = (BaselineStage, MeanTeacherStage, AdversarialStage, GuidedCollaborativeStage, CrossPseudoStage, UniMatchStage)


def losses(kind: type[BaselineStage], shift_px: int | None) -> dict[str, float]:
    """Of a first step; fine masks are the others at twice the side, shifted to the right by so many of their pixels."""
    images, label_maps = pictures(4)
    fine = None if shift_px is None else np.roll(label_maps.repeat(2, 1).repeat(2, 2), shift_px, 2)
    labelled = ImageStream(images, label_maps, fine_maps=fine, seed=5, stream_name="labelled", mirror=True)
    torch.manual_seed(0)
    chosen = override(
        settings(unlabelled_batch=2, discriminator_width=8, confidence_threshold=0),
        {"data": {"fine_labels": 1 if fine is None else 2}},
    )
    stage = kind(chosen, BINARY, Streams(labelled, unlabelled_stream(2)), torch.device("cpu"), None)
    return {name: float(value) for name, value in stage.step(0).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_finer_masks_change_the_supervised_terms_and_no_others(kind):
    """But for UniMatch, whose own labels of unlabelled images are as fine."""
    plain, fine, shifted = losses(kind, None), losses(kind, 0), losses(kind, 6)
    supervised, own = {"cross_entropy", "dice_loss"}, {"strong_views", "perturbed_features"}
    assert supervised < fine.keys() == plain.keys()
    for name in plain:
        assert math.isfinite(fine[name])
        if name in supervised:
            assert fine[name] != plain[name] and fine[name] == pytest.approx(plain[name], rel=0.1)
            assert abs(shifted[name] - fine[name]) > 1e-3
        elif name in own:
            assert 0 < fine[name] != plain[name] and fine[name] == pytest.approx(plain[name], rel=0.1)
        elif name != "loss":
            assert fine[name] == pytest.approx(plain[name], rel=1e-3, abs=1e-6), name
