"""Ours-NO and nothing more: the encoder's code and its label, without the losses that step 0 of inversion measures."""

from __future__ import annotations

import torch
from torch import Tensor

from semgan.config import InversionSettings
from semgan.models.encoder import Encoder
from semgan.models.generator import Generator
from semgan.models.whitening import Whitening
from semgan.objectives.segmentation import probabilities
from semgan.runtime.device import autocast
from semgan.runtime.modes import frozen
from semgan.stages.stage3_inversion import mean_confidence
from semgan.types import Segmentation


@torch.no_grad()
def segment_by_encoder(
    generator: Generator, encoder: Encoder, whitening: Whitening, image: Tensor, settings: InversionSettings
) -> Segmentation:
    """The answer of `invert` at steps 0 with an empty trace, for half of its operations (no perceptual distance).

    image: ``[batch, channels, size_px, size_px]`` in [-1, 1]; computation is on the generator's device
    """
    device = next(generator.parameters()).device
    parts = []
    with frozen(generator, encoder, whitening):
        for part in image.split(settings.batch):
            with autocast(device, settings.precision):
                v = encoder(part.to(device).float())
            w_plus = whitening.to_w(v.float())
            with autocast(device, settings.precision):
                joint = generator.synthesis(w_plus, None)
            parts.append((probabilities(joint.logits).to(image.device), joint.image.float().to(image.device), w_plus))
    found, reconstruction, w_plus = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Segmentation(found, mean_confidence(found), reconstruction=reconstruction, w_plus=w_plus.to(image.device))
