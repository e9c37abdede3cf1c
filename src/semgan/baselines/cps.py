"""Cross pseudo supervision (Chen et al., CVPR 2021, arXiv:2106.01226), with CutMix on the unlabelled images.

Two networks of one form, started differently, are each taught by the other's hard labels. The first one answers.

Departure: the weight of the cross supervision ramps up (``baseline.ramp_up_share``), because our networks start from
noise where the paper's start from ImageNet: their first pseudo-labels are worth nothing. Departure: labelled and mixed
unlabelled images go through a network as one batch, at half the price of two. The cross supervision is on labelled and
unlabelled images, as the paper says; the authors' script with CutMix has it on the unlabelled ones alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from semgan.baselines.stage import BaselineStage
from semgan.data.cutmix import BoxRanges, box_masks, paste
from semgan.objectives.consistency import ramp_up
from semgan.objectives.pseudo_labels import pseudo_labels
from semgan.objectives.segmentation import cross_entropy, probabilities, supervised_loss
from semgan.types import IGNORE, Batch

CUTMIX = BoxRanges(area=(0.25, 0.5), boxes=3, probability=1.0)  # the authors' code
CUTMIX_STREAM = "cps"


class CrossPseudoStage(BaselineStage):
    """Two networks that label for one another."""

    needs_unlabelled = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.both = (self.network, self.add_sibling())

    def loss_terms(self, images_seen: int) -> dict[str, Tensor]:
        """Supervised terms of both networks on the labelled images, and the cross supervision on all."""
        labelled, unlabelled = self.labelled_batch(images_seen), self.unlabelled_batch(images_seen)
        assert labelled.label_map is not None
        inside = self._boxes(unlabelled)
        taught = [paste(self._hard_labels(network, unlabelled.image), inside) for network in self.both]
        image = torch.cat([labelled.image, paste(unlabelled.image, inside)])
        answers = [self.forward(network, image).float() for network in self.both]
        known, mixed = zip(*(one.split([self.own_batch, len(inside)]) for one in answers), strict=True)
        supervised = [supervised_loss(one, labelled.truth) for one in known]
        taught_known = [self._known_labels(one, labelled.label_map) for one in known]
        cross = [cross_entropy(one, other) for one, other in zip(known, reversed(taught_known), strict=True)]
        cross += [cross_entropy(one, other) for one, other in zip(mixed, reversed(taught), strict=True)]
        own = self.settings.baseline
        weight = own.consistency_weight * ramp_up(self.progress(images_seen), own.ramp_up_share)
        return {name: supervised[0][name] + supervised[1][name] for name in supervised[0]} | {
            "cross_pseudo": weight * torch.stack(cross).sum()
        }

    def _boxes(self, unlabelled: Batch) -> Tensor:
        size_px, index = unlabelled.image.shape[-1], unlabelled.index.tolist()
        inside = box_masks(size_px, seed=self.settings.seed, stream=CUTMIX_STREAM, index=index, ranges=CUTMIX)
        return inside.to(self.device)

    @staticmethod
    def _known_labels(logits: Tensor, label_map: Tensor) -> Tensor:
        """What a network says about labelled images, but for the pixels that take part in nothing."""
        return pseudo_labels(probabilities(logits)).masked_fill(label_map == IGNORE, IGNORE)

    def _hard_labels(self, network: nn.Module, image: Tensor) -> Tensor:
        """What a network says about images that are not mixed; in training mode, as the authors do."""
        with torch.no_grad():
            return pseudo_labels(probabilities(self.forward(network, image)))
