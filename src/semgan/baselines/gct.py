"""Guided collaborative training (Ke et al., ECCV 2020, arXiv:2008.05258): two networks and a judge of their flaws.

The flaw detector sees an image and its class probabilities and says where they are wrong; it learns that on labelled
images. Pixel by pixel, the network with more flaws learns from the other (dynamic consistency); where both are flawed,
both are changed until the detector sees fewer flaws (flaw correction). The first network answers.

Constants are those of the authors' toolbox, PixelSSL, for segmentation with DeepLabV2, which the supplement used at its
defaults [S sec. 5]. Departure: the supervised term is the one of all our baselines, cross-entropy + Dice. Departure:
the detector's depth follows the size of the image, since the authors' 32-fold reduction of 321 px would leave a map of
2 x 2 at 64 px; its inner layers keep the size. Departure: the networks see each batch once, not twice (before and while
they learn), and the detector learns from labelled images as a batch of their own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semgan.baselines.networks import seeded
from semgan.baselines.stage import BaselineStage
from semgan.models.batch_norm import with_whole_batch_norm
from semgan.objectives.consistency import ramp_up
from semgan.objectives.flaws import cleaned_flaws, flaw_target, learn_from_the_better
from semgan.objectives.segmentation import probabilities, supervised_loss
from semgan.runtime.modes import without_weight_gradients
from semgan.types import Batch

DETECTOR = "flaw_detector"
DETECTOR_LEARNING_RATE, DETECTOR_BETAS = 0.0001, (0.9, 0.99)
DETECTOR_WEIGHT = 10.0
DETECTOR_WIDEST = 8  # times baseline.discriminator_width (64 in the toolbox), which doubles with every halving
DETECTOR_MAP_PX = 8  # as many halvings as leave a map of this size, two to five of them (five: the authors')
CORRECTION_WEIGHT = 1.0
FLAW_THRESHOLD = 0.6  # xi: flaws above it are not worth comparing


class GuidedCollaborativeStage(BaselineStage):
    """Two task models and a flaw detector, which take turns."""

    needs_unlabelled = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        own = self.settings
        self.both = (self.network, self.add_sibling())
        channels = own.preprocessing.channels + self.labels.classes
        width, size_px = own.baseline.discriminator_width, own.preprocessing.size_px
        self.detector = with_whole_batch_norm(build_flaw_detector(channels, width, size_px, own.seed)).to(self.device)
        self.networks[DETECTOR] = self.detector
        self.optimisers[DETECTOR] = torch.optim.Adam(
            self.detector.parameters(), DETECTOR_LEARNING_RATE, betas=DETECTOR_BETAS
        )

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """First both networks learn, then the detector, from what they answered before."""
        labelled, unlabelled = self.labelled_batch(images_seen), self.unlabelled_batch(images_seen)
        image = torch.cat([labelled.image, unlabelled.image])
        logits = [self.forward(network, image).float() for network in self.both]
        found = [probabilities(one) for one in logits]
        terms = self._supervised(logits, labelled) | self._unsupervised(found, image, self.progress(images_seen))
        total = torch.stack(list(terms.values())).sum()
        self.update(total, images_seen, *self.learners)
        detector_loss = self._detector_loss([one[: self.own_batch].detach() for one in found], labelled)
        self.update(detector_loss, images_seen, DETECTOR)
        losses = {"loss": total, **terms, DETECTOR: detector_loss}
        return {name: value.detach() for name, value in losses.items()}

    def _supervised(self, logits: list[Tensor], labelled: Batch) -> dict[str, Tensor]:
        first, second = (supervised_loss(one[: self.own_batch], labelled.truth) for one in logits)
        return {name: first[name] + second[name] for name in first}

    def _unsupervised(self, found: list[Tensor], image: Tensor, progress: float) -> dict[str, Tensor]:
        """Dynamic consistency (eq. 7) and flaw correction (eq. 4) of both networks, on all images."""
        with without_weight_gradients(self.detector):
            guessed = [self._guess(image, one) for one in found]
        flaws = (cleaned_flaws(guessed[0]), cleaned_flaws(guessed[1]))
        targets, hopeless = learn_from_the_better((found[0], found[1]), flaws, FLAW_THRESHOLD)
        consistency = F.mse_loss(found[0], targets[0]) + F.mse_loss(found[1], targets[1])
        correction = (guessed[0].square() * hopeless).mean() + (guessed[1].square() * hopeless).mean()
        own = self.settings.baseline
        weight = own.consistency_weight * ramp_up(progress, own.ramp_up_share)
        return {"consistency": weight * consistency, "flaw_correction": CORRECTION_WEIGHT * correction}

    def _detector_loss(self, found: list[Tensor], labelled: Batch) -> Tensor:
        """Distance of guessed flaws from the known ones, mean of both networks (eq. 2)."""
        assert labelled.label_map is not None
        losses = [F.mse_loss(self._guess(labelled.image, one), flaw_target(one, labelled.label_map)) for one in found]
        return DETECTOR_WEIGHT * torch.stack(losses).mean()

    def _guess(self, image: Tensor, found: Tensor) -> Tensor:
        """The detector's map ``[batch, 1, height, width]``, float32."""
        flaws = self.forward(self.detector, torch.cat([image, found], 1)).float()
        return F.interpolate(flaws, image.shape[2:], mode="bilinear", align_corners=True)


class HalfBatchHalfInstanceNorm(nn.Module):
    """Batch normalisation of the first half of the channels, instance normalisation of the others (IBN, as in GCT)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.by_batch = nn.BatchNorm2d(channels // 2)
        self.by_image = nn.InstanceNorm2d(channels - channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.split([self.by_batch.num_features, self.by_image.num_features], 1)
        return torch.cat([self.by_batch(first), self.by_image(second)], 1)


def build_flaw_detector(channels: int, first_width: int, size_px: int, seed: int) -> nn.Module:
    """``[batch, channels, size_px, size_px]`` -> a flaw map of 8 px or more (4 at 16 px), not squashed to [0, 1].

    The weights depend on ``seed`` alone.
    """
    halvings = min(max(int(math.log2(size_px / DETECTOR_MAP_PX)), 2), 5)
    layers: list[nn.Module] = []
    with seeded(seed):
        for level in range(halvings - 1):
            width = first_width * min(2**level, DETECTOR_WIDEST)
            layers += _layer(nn.Conv2d(channels, width, 4, stride=2, padding=1))
            if level > 0:
                layers += _layer(nn.Conv2d(width, width, 3, padding=1))
            channels = width
        layers.append(nn.Conv2d(channels, 1, 4, stride=2, padding=1))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _layer(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, HalfBatchHalfInstanceNorm(convolution.out_channels), nn.LeakyReLU(0.2)]
