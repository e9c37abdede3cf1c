"""Cases of a dataset as a model sees them, as they are or under a synthetic shift; for the programs in results/*/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semgan.data.folder import Case, Dataset
from semgan.data.loading import load_label
from semgan.data.readers import read_image_files
from semgan.data.shifts import shifted
from semgan.data.transforms import resize_label
from semgan.metrics import overlap

NONE = "none"  # the shift that is none


def pictures(data: Dataset, cases: Sequence[Case], shift: str, model: Any) -> tuple[torch.Tensor, np.ndarray]:
    """Images as the model's `segment_batch` takes them, and label maps of their size.

    shift: `NONE`, or one of `semgan.data.shifts` with seed 0 and the case's place as its number
    """
    images, truths = [], []
    for number, case in enumerate(cases):
        pair = read_image_files(case.image), load_label(case, data.labels, data.ignore)
        image, truth = pair if shift == NONE else shifted(*pair, shift, seed=0, number=number)
        images.append(model.preprocess(image))
        truths.append(resize_label(truth, images[-1].shape[-1]))
    return torch.stack(images), np.stack(truths)


def score(probabilities: torch.Tensor | np.ndarray, truths: np.ndarray, metric: str) -> float:
    """Mean over the cases of the masks ``[n, classes, height, width]``."""
    return overlap.overall(counted(probabilities, truths), metric)


def counted(probabilities: torch.Tensor | np.ndarray, truths: np.ndarray) -> overlap.Counts:
    """What the masks and the label maps have in common, case by case."""
    found = np.asarray(probabilities)
    return overlap.concatenate(
        overlap.count(one.argmax(0), truth, found.shape[1]) for one, truth in zip(found, truths, strict=True)
    )
