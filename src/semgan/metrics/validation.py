"""One number for model selection during training: the task's metric of a model on validation images.

Used alike by the GAN, the encoder and every baseline, so that they are selected by the same rule. The reported numbers
come from `semgan segment` and `semgan evaluate` at the images' own size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from semgan.metrics import overlap

if TYPE_CHECKING:
    from torch import Tensor


def score_cases(
    probabilities: Callable[[Tensor], Tensor],
    images: np.ndarray,
    truths: Sequence[np.ndarray] | np.ndarray,
    metric: str,
    *,
    classes: int,
    device: str | object = "cpu",
    batch: int = 64,
    groups: Sequence[str] | None = None,
) -> float:
    """Mean over the foreground classes of the metric; every image is a case, mIoU pools all of them.

    probabilities: images ``[batch, channels, size_px, size_px]`` in [-1, 1] -> ``[batch, classes, size_px, size_px]``
    images:        uint8 ``[cases, channels, size_px, size_px]``
    truths:        one label map per case, ``[cases, size_px, size_px]`` or each at its own size: then the probabilities
                   are resized to it (bilinear) before the most probable class is taken
    groups:        the patient of every image, where a patient is a case (slices of volumes); None: every image is one
    Raises ValueError for no case, unequal numbers and values outside the classes.
    """
    import torch

    if len(images) != len(truths):
        raise ValueError(f"Every validation image needs one label map; got {len(images)} images, {len(truths)} maps.")

    def label_maps() -> Iterator[np.ndarray]:
        for first in range(0, len(images), batch):
            block = torch.from_numpy(np.array(images[first : first + batch])).to(device)  # type: ignore[arg-type]
            found = probabilities(block.float() / 127.5 - 1)
            for truth, own in zip(truths[first : first + batch], found, strict=True):
                yield _label_map(own, np.asarray(truth).shape)

    with torch.no_grad():
        return score_label_maps(label_maps(), truths, metric, classes=classes, groups=groups)


def score_label_maps(
    label_maps: Iterable[np.ndarray],
    truths: Sequence[np.ndarray] | np.ndarray,
    metric: str,
    *,
    classes: int,
    groups: Sequence[str] | None = None,
) -> float:
    """As `score_cases`, of masks that are there already, one for each of the truths and of its size."""
    counts = overlap.concatenate(
        overlap.count(found, truth, classes) for found, truth in zip(label_maps, truths, strict=True)
    )
    return overlap.overall(counts if groups is None else counts.pooled_by(groups)[1], metric)


def _label_map(probabilities: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """``[classes, height, width]`` probabilities -> label map of the wanted (height, width)."""
    from torch.nn.functional import interpolate

    if tuple(probabilities.shape[1:]) != tuple(shape):
        probabilities = interpolate(probabilities[None].float(), size=shape, mode="bilinear", antialias=True)[0]
    return probabilities.argmax(0).cpu().numpy()
