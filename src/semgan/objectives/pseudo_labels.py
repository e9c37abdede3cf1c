"""Predictions as labels of images that have none."""

from __future__ import annotations

from torch import Tensor

from semgan import ranks
from semgan.objectives.segmentation import cross_entropy
from semgan.types import IGNORE


def pseudo_labels(found: Tensor, threshold: float = 0.0) -> Tensor:
    """Most probable class ``[batch, height, width]`` where its probability reaches the threshold, else IGNORE.

    found: class probabilities ``[batch, classes, height, width]``; no gradient goes back to them
    """
    confidence, label_map = found.detach().max(1)
    return label_map.masked_fill(confidence < threshold, IGNORE)


def pseudo_label_loss(logits: Tensor, label_map: Tensor) -> Tensor:
    """Cross-entropy summed over the pixels that have a pseudo-label, divided by the number of all, a scalar.

    So the fewer pixels are sure, the less they weigh (FixMatch, Sohn et al. 2020, eq. 4; UniMatch).
    """
    return cross_entropy(logits, label_map) * ranks.mean((label_map != IGNORE).float().mean())
