"""Numbers of an answer that need no label: how sure is the network, how well is the image explained, does it waver.

For every method: entropy of the probabilities, the overlap that the probabilities themselves expect, the share of
foreground, whether the mirror image gets the mirrored mask. Where a code was found, too: perceptual distance of the
reconstruction (at step 0 and at the answer) and its pixels', the gap between the code and what the encoder sees in the
code's own image, how far the code lies from the prior (mean squared whitened coordinate, 1 for the generator's own) and
its layers from one another (0 for an image of one w, W+ against W), whether the mask left that of step 0. A method's
own signals (`Segmentation.signals`, for example the disagreement of an ensemble) come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semgan.objectives.segmentation import entropy_share
from semgan.runtime.modes import frozen
from semgan.stages.semantic_gan import SemanticGan
from semgan.stages.stopping import agreement
from semgan.student_answer import gan_of
from semgan.types import Segmentation, Segmenter, Steps


@dataclass(frozen=True)
class Signal:
    """meaning: for people; surer: 1 where a high number says that the answer is good, -1 where it says the opposite,
    0 where it says neither alone; domain: whether it is measured on the image rather than on the answer."""

    meaning: str
    surer: int
    domain: bool = False


SIGNALS = {
    "entropy": Signal("mean entropy of the pixels' probabilities, 0 to 1", -1),
    "expected_overlap": Signal("Dice that the probabilities expect of the mask", 1),
    "foreground": Signal("share of the pixels that are not background", 0),
    "mirror_agreement": Signal("IoU of step 0's mask and of the mirror image's, mirrored back", 1),
    "disagreement": Signal("of an ensemble: entropy of the mean less mean entropy, 0 to 1", -1),
    "first_agreement": Signal("IoU of the mask and of step 0's", 1),
    "reconstruction": Signal("perceptual distance of the answer's reconstruction", -1, domain=True),
    "first_reconstruction": Signal("perceptual distance of the encoder's reconstruction", -1, domain=True),
    "pixel_distance": Signal("mean squared pixel difference of the answer's reconstruction", -1, domain=True),
    "encoder_gap": Signal("code against the encoder's code of its image, share of W's variance", -1, domain=True),
    "code_distance": Signal("mean squared whitened code, 1 under the prior", -1, domain=True),
    "code_spread": Signal("variance of the whitened code over layers, 0 for one w", -1, domain=True),
}


def answering_steps(segmenter: Segmenter, steps: Steps | None) -> Steps:
    """The optimisation steps of the answers that a request for ``steps`` gets; 0 for feed-forward methods."""
    gan = gan_of(segmenter)
    if gan is None:
        return 0
    return gan.steps if steps is None else steps


@torch.no_grad()
def measure(
    segmenter: Segmenter, image: Tensor, answer: Segmentation, modality: str | None = None
) -> dict[str, Tensor]:
    """Every signal of the answers for ``image [batch, channels, size_px, size_px]``, float64 ``[batch]`` on the CPU.

    The answer must hold the snapshot of step 0. Costs one more pass without optimisation, of the mirror image.
    """
    first = answer.snapshots[0].argmax(1)
    mirrored = _first_masks(segmenter, image.flip(3), modality).flip(2)
    found = {
        "entropy": entropy_share(answer.probabilities).mean((1, 2)),
        "expected_overlap": expected_overlap(answer.probabilities),
        "foreground": (answer.label_map > 0).double().mean((1, 2)),
        "mirror_agreement": _agreements(first, mirrored, answer.probabilities.shape[1]),
    }
    gan = gan_of(segmenter)
    if gan is not None:
        found["first_agreement"] = _agreements(answer.label_map, first, answer.probabilities.shape[1])
        found |= code_signals(gan, image, answer)
    return {name: values.detach().double().cpu() for name, values in {**found, **answer.signals}.items()}


def _first_masks(segmenter: Segmenter, image: Tensor, modality: str | None) -> Tensor:
    """Masks of step 0, ``[batch, height, width]``."""
    if isinstance(segmenter, SemanticGan) and segmenter.encoder is not None:
        return segmenter.masks_only(image).label_map  # the same masks at half the price: nobody reads their losses
    options: dict[str, Any] = {} if modality is None else {"modality": modality}
    return segmenter.segment_batch(image, steps=0, **options).label_map


def code_signals(gan: SemanticGan, image: Tensor, answer: Segmentation) -> dict[str, Tensor]:
    """What the reconstruction and the code of an answer by inversion say of the image, ``[batch]`` each."""
    assert answer.w_plus is not None and answer.reconstruction is not None
    perceptual = answer.trace["perceptual"]
    rows = torch.arange(len(image))
    at = torch.tensor([answer.steps_of(row) for row in range(len(image))])
    v = gan.whitening.to_v(answer.w_plus.to(gan.device))
    found = {
        "reconstruction": perceptual.cpu()[at, rows],
        "first_reconstruction": perceptual[0],
        "pixel_distance": (answer.reconstruction - image.to(answer.reconstruction)).square().mean((1, 2, 3)),
        "code_distance": v.square().mean((1, 2)),
        "code_spread": v.var(1, unbiased=False).mean(1),
    }
    if gan.encoder is not None:
        with frozen(gan.encoder):
            seen = gan.encoder(answer.reconstruction.to(gan.device).float()).float()
        gap = (v - seen) @ gan.whitening.colour
        found["encoder_gap"] = gap.square().sum(-1).mean(1) / gan.whitening.colour.square().sum()
    return found


def expected_overlap(probabilities: Tensor) -> Tensor:
    """2 sum(p m) / (sum p + sum m) of the mask m that ``[batch, classes, height, width]`` gives, ``[batch]`` in [0, 1].

    Mean over the classes but the background. One pixel is added above and below, so that a class that is nowhere, and
    expected nowhere, counts 1.
    """
    classes = probabilities.shape[1]
    mask = torch.nn.functional.one_hot(probabilities.argmax(1), classes).movedim(3, 1)[:, 1:]
    found = probabilities[:, 1:].double()
    both, either = (found * mask).sum((2, 3)), (found + mask).sum((2, 3))
    return ((2 * both + 1) / (either + 1)).mean(1)


def _agreements(one: Tensor, other: Tensor, classes: int) -> Tensor:
    pairs = zip(one.cpu().numpy(), other.cpu().numpy(), strict=True)
    return torch.tensor([agreement(*pair, classes) for pair in pairs], dtype=torch.float64)


def doubts(signals: Mapping[str, float]) -> dict[str, float]:
    """Signals turned so that high means doubtful; those that say neither alone are left out."""
    known = {name: SIGNALS[name].surer for name in signals if name in SIGNALS}
    return {name: -sign * signals[name] for name, sign in known.items() if sign}
