"""Label maps, logits and the signed labels that the pair critic sees (interfaces: one-hot in [-1, 1])."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from semgan import ranks
from semgan.types import IGNORE


def signed_labels(label_map: Tensor, channels: int) -> Tensor:
    """Label map ``[batch, R, R]`` -> ``[batch, channels, R, R]`` in {-1, 1}; ignored pixels are 0 in every channel."""
    valid = label_map != IGNORE
    index = torch.where(valid, label_map, torch.zeros_like(label_map)).long()
    if channels == 1:
        signed = index[:, None].float() * 2 - 1
    else:
        signed = F.one_hot(index, channels).permute(0, 3, 1, 2).float() * 2 - 1
    return signed * valid[:, None]


def signed_probabilities(logits: Tensor) -> Tensor:
    """Logits ``[batch, L, R, R]`` -> 2 softmax - 1, or 2 sigmoid - 1 for one channel.

    Departure: the authors' code shows the pair critic the label branch's raw output, which is drawn to -1 and 1; the
    text has probabilities. Ours cannot leave [-1, 1], and passes on little gradient where it is saturated.
    """
    positive = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
    return positive * 2 - 1


def class_share_loss(logits: Tensor, label_map: Tensor) -> Tensor:
    """Divergence of the classes' shares of pixels: KL(shares of a label map || mean probabilities of logits), a scalar.

    Departure: where the foreground is a few percent of the pixels, the label branch may answer "background" everywhere
    before the pair critic has taught it anything, and saturated probabilities pass on almost no gradient. This term
    does: a class that vanishes costs without bound. Logits and label map need not belong together.
    """
    logits = logits.float()
    positive = torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
    mean = torch.cat([1 - positive, positive], 1) if logits.shape[1] == 1 else positive
    found = ranks.mean(mean.mean((0, 2, 3))).clamp_min(torch.finfo(torch.float32).tiny)
    counted = label_map[label_map != IGNORE].long()
    shown = ranks.total(torch.bincount(counted, minlength=len(found)))
    wanted = shown.float() / shown.sum().clamp_min(1)
    return torch.special.xlogy(wanted, wanted).sum() - (wanted * found.log()).sum()
