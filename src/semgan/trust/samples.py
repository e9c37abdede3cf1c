"""Validation images, and shifted copies of them, answered and scored: what trust is learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semgan.metrics import overlap
from semgan.trust.severities import SEVERITIES, shifted
from semgan.trust.signals import answering_steps, measure
from semgan.types import Segmentation, Segmenter, Steps

OWN = "own"  # the model's own answer
FIRST = "step 0"
POSTERIOR = "posterior mean"
PER_IMAGE = {"miou": "miou-per-case"}  # pooled pixels say nothing of single images
LARGEST_PX = 64  # side of the probabilities that are kept for the temperature: more pixels do not change it
Progress = Callable[[int, int, str], Any]
Mean = Callable[[Tensor], Tensor]  # images -> mean probabilities of the posterior, of the answer's shape


@dataclass(frozen=True)
class Samples:
    """Answered images; shifted copies of an image share its group.

    signals:       name -> ``[images]``
    scores:        answer -> ``[images]`` in [0, 1], of each image alone: the model's own, and others that it could give
    groups:        the case of every image
    intact:        ``[images]`` bool, images that were not shifted
    probabilities: of the intact images, ``[intact, classes, side, side]`` float16; truths: their label maps
    """

    metric: str
    steps: Steps
    signals: dict[str, NDArray[np.float64]]
    scores: dict[str, NDArray[np.float64]]
    groups: tuple[str, ...]
    intact: NDArray[np.bool_]
    probabilities: NDArray[np.float16]
    truths: NDArray[np.uint8]


def answered(
    segmenter: Segmenter,
    images: Tensor,
    label_maps: NDArray[np.uint8],
    groups: Sequence[str],
    metric: str,
    *,
    steps: Steps | None = None,
    with_first: bool = False,
    posterior_mean: Mean | None = None,
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Samples:
    """Answer images ``[n, channels, size_px, size_px]`` in [-1, 1] as they are and at every severity of `severities`.

    metric: of the task; pooled ones are taken per image. with_first: score the mask of step 0 as well;
    posterior_mean: score these answers, too. Images without score (no class in either mask) are left out.
    """
    metric = PER_IMAGE.get(metric, metric)
    rows: list[_Answered] = []
    kinds = [None, *SEVERITIES]
    total = len(kinds) * len(images)
    for place, severity in enumerate(kinds):
        for start in range(0, len(images), batch):
            numbers = range(start, min(start + batch, len(images)))
            own = slice(numbers.start, numbers.stop)
            image, truth = images[own], torch.from_numpy(label_maps[own])
            if severity is not None:
                image, truth = shifted(image, truth, severity, seed=seed, name=str(place), numbers=numbers)
            answer = segmenter.segment_batch(image, steps=steps, snapshot_steps=(0,))
            maps = {OWN: answer.label_map}
            if with_first:
                maps[FIRST] = answer.snapshots[0].argmax(1)
            if posterior_mean is not None:
                maps[POSTERIOR] = posterior_mean(image).argmax(1)
            scores = {name: _scores(found, truth, segmenter.labels.classes, metric) for name, found in maps.items()}
            signals = measure(segmenter, image, answer)
            rows.append(_Answered(signals, scores, list(groups[own]), severity is None, *_kept(answer, truth)))
            if progress is not None:
                progress(place * len(images) + numbers.stop, total, "answering validation images and shifted copies")
    return _joined(rows, metric, answering_steps(segmenter, steps))


@dataclass(frozen=True)
class _Answered:
    signals: dict[str, Tensor]
    scores: dict[str, NDArray[np.float64]]
    groups: list[str]
    is_intact: bool
    probabilities: NDArray[np.float16]
    truths: NDArray[np.uint8]


def _joined(parts: Sequence[_Answered], metric: str, steps: Steps) -> Samples:
    scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
    counts = np.asarray(~np.isnan(np.stack(list(scores.values()))).all(axis=0))
    # No score and counted: this answer is rightly empty, and another one is not.
    scores = {name: np.nan_to_num(values, nan=1.0) for name, values in scores.items()}
    if not counts.any():
        raise ValueError("No validation image has a score: none of the classes is in any mask.")
    signals = {name: torch.cat([part.signals[name] for part in parts]).numpy() for name in parts[0].signals}
    groups = [group for part in parts for group in part.groups]
    intact = np.concatenate([np.full(len(part.groups), part.is_intact) for part in parts])
    plain = [part for part in parts if part.is_intact]
    return Samples(
        metric,
        steps,
        {name: values[counts] for name, values in signals.items()},
        {name: values[counts] for name, values in scores.items()},
        tuple(group for group, is_counted in zip(groups, counts, strict=True) if is_counted),
        intact[counts],
        np.concatenate([part.probabilities for part in plain])[counts[intact]],
        np.concatenate([part.truths for part in plain])[counts[intact]],
    )


def _scores(found: Tensor, truth: Tensor, classes: int, metric: str) -> NDArray[np.float64]:
    pairs = zip(found.cpu().numpy(), truth.numpy(), strict=True)
    return overlap.case_means(overlap.concatenate(overlap.count(*pair, classes) for pair in pairs), metric)


def _kept(answer: Segmentation, truth: Tensor) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Every k-th pixel of probabilities and truth, so that the side is at most `LARGEST_PX`."""
    every = -(-truth.shape[-1] // LARGEST_PX)
    found = answer.probabilities[..., ::every, ::every].half().cpu().numpy()
    return found, truth[..., ::every, ::every].numpy().astype(np.uint8)
