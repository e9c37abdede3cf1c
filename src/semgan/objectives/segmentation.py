"""Losses between label logits and label maps, and the logits' meaning.

Logits are ``[batch, label_channels, height, width]``: one channel means two classes (the logit of class 1), K channels
mean K classes. Label maps are ``[batch, height, width]`` class indices; pixels of value ``ignore`` take no part.
They may be a multiple of the logits' size: then these are enlarged (bilinear), as answers are to a mask's own size.
Everything is computed in float32, also under autocast. Sums over pixels are those of the whole batch, of all processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semgan import ranks
from semgan.types import IGNORE

DICE_SMOOTHING_PX = 1.0  # keeps the gradient finite for classes of a few pixels


def probabilities(logits: Tensor) -> Tensor:
    """Class probabilities ``[batch, classes, height, width]`` float32; one logit channel becomes two classes."""
    logits = logits.float()
    if logits.shape[1] == 1:
        foreground = torch.sigmoid(logits)
        return torch.cat([1 - foreground, foreground], 1)
    return torch.softmax(logits, 1)


def entropy_share(probabilities: Tensor) -> Tensor:
    """Entropy of ``[batch, classes, height, width]`` over its most, log(classes): ``[batch, height, width]``."""
    return (-torch.xlogy(probabilities, probabilities).sum(1) / math.log(probabilities.shape[1])).clamp(0, 1)


def disagreement(answers: Sequence[Tensor]) -> Tensor:
    """How far the members of an ensemble disagree, ``[batch]`` in [0, 1], from probabilities as `entropy_share` takes.

    The mutual information of answer and member: entropy of the mean less the members' mean entropy, over log(classes).
    """
    of_members = torch.stack([entropy_share(answer) for answer in answers]).mean(0)
    return (entropy_share(torch.stack(list(answers)).mean(0)) - of_members).clamp_min(0).mean((1, 2))


def cross_entropy(logits: Tensor, label_map: Tensor, ignore: int = IGNORE) -> Tensor:
    """Mean cross-entropy over the pixels that count, a scalar; 0 where no pixel counts."""
    logits = _of_size(logits, label_map)
    counted = label_map != ignore
    target = label_map.where(counted, 0).long()
    if logits.shape[1] == 1:
        per_pixel = F.binary_cross_entropy_with_logits(logits[:, 0].float(), target.float(), reduction="none")
    else:
        per_pixel = F.cross_entropy(logits.float(), target, reduction="none")
    return ranks.total((per_pixel * counted).sum()) / ranks.total(counted.sum()).clamp_min(1)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of every pixel, ``[batch, height, width]``, against probabilities ``[batch, classes, ...]``."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0].float(), target[:, 1].float(), reduction="none")
    return F.cross_entropy(logits.float(), target.float(), reduction="none")


def dice_loss(logits: Tensor, label_map: Tensor, ignore: int = IGNORE) -> Tensor:
    """1 - soft Dice, mean over the foreground classes that the batch shows, a scalar in [0, 1]; 0 where it shows none.

    Pixels are pooled over the batch, as nnU-Net's batch Dice does, and absent classes are left to the cross-entropy:
    per image, a class that is often absent (ears under hair) would cost nearly 1 for a few soft pixels, and is then
    never predicted at all. Own lines because MONAI's DiceLoss has no ignored pixels.
    """
    logits = _of_size(logits, label_map)
    counted = (label_map != ignore).unsqueeze(1)
    predicted = probabilities(logits)[:, 1:] * counted
    classes = torch.arange(1, predicted.shape[1] + 1, device=logits.device)[None, :, None, None]
    truth = ((label_map.unsqueeze(1) == classes) & counted).float()
    pooled = [part.sum((0, 2, 3)) for part in (predicted * truth, truth, predicted)]
    overlap, truth_px, predicted_px = ranks.total(torch.stack(pooled))
    loss = 1 - (2 * overlap + DICE_SMOOTHING_PX) / (truth_px + predicted_px + DICE_SMOOTHING_PX)
    shown = (truth_px > 0).float()
    return (loss * shown).sum() / shown.sum().clamp_min(1)


def supervised_loss(logits: Tensor, label_map: Tensor, ignore: int = IGNORE) -> dict[str, Tensor]:
    """The two terms of L_s (supplement, sec. 2), both of weight 1: ``{"cross_entropy": ..., "dice_loss": ...}``."""
    logits = _of_size(logits, label_map)
    return {
        "cross_entropy": cross_entropy(logits, label_map, ignore),
        "dice_loss": dice_loss(logits, label_map, ignore),
    }


def _of_size(logits: Tensor, label_map: Tensor) -> Tensor:
    """The logits at the label map's size, float32 where that is another. ValueError where it is no multiple."""
    own, wanted = tuple(logits.shape[2:]), tuple(label_map.shape[1:])
    alike = logits.ndim == 4 and label_map.ndim == 3 and len(logits) == len(label_map)
    if not alike or any(side % px for side, px in zip(wanted, own, strict=True)):
        raise ValueError(
            "Logits must be [batch, label_channels, height, width] and the label map [batch, height, width], of that "
            f"size or a multiple; got {tuple(logits.shape)} and {tuple(label_map.shape)}."
        )
    return logits if own == wanted else F.interpolate(logits.float(), wanted, mode="bilinear", align_corners=False)
