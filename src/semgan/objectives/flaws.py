"""Flaw maps: where a prediction is wrong, known on labelled images and guessed elsewhere (Ke et al., ECCV 2020, GCT).

Flaw maps are ``[batch, 1, height, width]``, 0 = right, 1 = wrong; probabilities ``[batch, classes, height, width]``.
The sizes of all filters are the authors' shares of the image's side (PixelSSL, ssl_gct).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from semgan.types import IGNORE

CHANNEL_FACTOR = 0.5  # mu: differences are summed over classes, and a wrong pixel counts in two of them
DILATIONS = 1  # nu
DILATION_PX = 3
BLUR_SHARE, BLUR_AGAIN_SHARE = 1 / 8, 1 / 4  # kernel by side, before and after dilation
GUESS_BLUR_SHARE = 1 / 16
CLEAN_BELOW = 0.1  # a guessed map that nowhere exceeds it shows no flaw


def flaw_target(found: Tensor, label_map: Tensor) -> Tensor:
    """What the flaw detector should say: |truth - prediction|, spread by blur and dilation, each image's 0 to 1.

    Pixels of value IGNORE count as right. No gradient goes back to ``found``.
    """
    counted = (label_map != IGNORE)[:, None]
    truth = F.one_hot(label_map.masked_fill(~counted[:, 0], 0), found.shape[1]).movedim(3, 1)
    difference = (truth - found.detach()).abs().sum(1, keepdim=True) * CHANNEL_FACTOR * counted
    spread = _blur(difference, BLUR_SHARE)
    for _ in range(DILATIONS):
        spread = F.max_pool2d(spread, DILATION_PX, stride=1, padding=DILATION_PX // 2)
        spread = _blur(spread, BLUR_AGAIN_SHARE)
    return _stretched(spread)


def cleaned_flaws(guessed: Tensor) -> Tensor:
    """A detector's output made comparable between two predictions: positive, smooth, 0 to 1. No gradient."""
    smooth = _blur(guessed.detach().clamp_min(0), GUESS_BLUR_SHARE)
    return _stretched(smooth) * (smooth.amax((1, 2, 3), keepdim=True) > CLEAN_BELOW)


def learn_from_the_better(
    found: tuple[Tensor, Tensor], flaws: tuple[Tensor, Tensor], threshold: float
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Targets of two predictions with known flaws, and where both are flawed (bool, shaped as the flaw maps).

    Each pixel's target is the prediction with the smaller flaw (eq. 5 and 6); flaws over the threshold count as equally
    bad, and there each prediction is its own target.
    """
    first, second = (one.detach() for one in found)
    first_flaws, second_flaws = (torch.where(one > threshold, 1.0, one) for one in flaws)
    targets = (
        torch.where(second_flaws < first_flaws, second, first),
        torch.where(first_flaws < second_flaws, first, second),
    )
    return targets, (flaws[0] > threshold) & (flaws[1] > threshold)


def _stretched(flaws: Tensor) -> Tensor:
    """Each image's lowest value to 0, its highest to 1; constant maps to 0."""
    low, high = flaws.amin((1, 2, 3), keepdim=True), flaws.amax((1, 2, 3), keepdim=True)
    return (flaws - low) / (high - low).clamp_min(1e-9)


def _blur(flaws: Tensor, share: float) -> Tensor:
    """Gaussian blur with a kernel of the given share of the side, odd; outside lies the reflected map."""
    size = int(flaws.shape[-1] * share) // 2 * 2 + 1
    deviation = 0.3 * ((size - 1) / 2 - 1) + 0.8  # OpenCV's rule for a kernel's size
    offsets = torch.arange(size, device=flaws.device, dtype=flaws.dtype) - size // 2
    kernel = torch.exp(-0.5 * (offsets / deviation).square())
    kernel = (kernel / kernel.sum())[None, None, None]
    padded = F.pad(flaws, (size // 2,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))
