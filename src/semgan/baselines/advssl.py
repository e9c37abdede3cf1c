"""Adversarial semi-supervised segmentation (Hung et al. 2018, arXiv:1802.07934).

A fully convolutional discriminator tells, pixel by pixel, maps of class probabilities from one-hot label maps. The
segmentation network learns from the labels, from fooling the discriminator, and from its own answers on unlabelled
images wherever the discriminator takes them for labels.

Departures: the discriminator has fewer strides below 256 px, where five would leave nothing of a map. Pixels without a
label are blank in both of the maps that it compares. Labelled and unlabelled images pass the network together.

Where paper and authors' code differ, this is the paper: unlabelled images join after 5,000 steps altogether (the code
fools the discriminator with them from the first step), and the discriminator learns from labelled images alone (the
code shows it predictions of unlabelled ones too).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semgan.baselines.networks import seeded
from semgan.baselines.segmenter import WEIGHTS
from semgan.baselines.stage import BaselineStage
from semgan.objectives.adversarial import logistic_critic_loss, logistic_generator_loss
from semgan.objectives.segmentation import cross_entropy, probabilities, supervised_loss
from semgan.runtime.modes import without_weight_gradients
from semgan.types import IGNORE

if TYPE_CHECKING:
    from semgan.config import Settings

# The paper's sec. 3.3 and 4 (table 6 for the threshold).
LAMBDA_ADVERSARIAL = 0.01  # on labelled images
LAMBDA_ADVERSARIAL_UNLABELLED = 0.001
LAMBDA_SELF_TRAINING = 0.1
TRUST_THRESHOLD = 0.2  # T_semi: answers that the discriminator rates higher are learnt from
SEMI_SUPERVISED_FROM = 0.25  # share of the training on labelled images alone: 5,000 of 20,000 steps
DISCRIMINATOR_LEARNING_RATE = 1e-4
DISCRIMINATOR_BETAS = (0.9, 0.99)
DISCRIMINATOR_LAYERS = 5
SMALLEST_MAP_PX = 8  # about what five strides leave of the paper's crops of 321 px
DISCRIMINATOR = "discriminator"


class MapDiscriminator(nn.Module):
    """Is this pixel's label given or predicted? ``[batch, classes, R, R]`` in [0, 1] -> logits ``[batch, 1, R, R]``.

    Five convolutions, ``width`` to 8 ``width`` channels and one, without normalisation; as many of them halve the side
    (4x4, stride 2) as leave maps of 8 px, the others keep it (3x3).
    """

    def __init__(self, classes: int, width: int, size_px: int) -> None:
        super().__init__()
        strides = min(DISCRIMINATOR_LAYERS, max(1, round(math.log2(size_px / SMALLEST_MAP_PX))))
        widths = (classes, *(width * 2**layer for layer in range(DISCRIMINATOR_LAYERS - 1)), 1)
        self.convolutions = nn.ModuleList()
        for layer in range(DISCRIMINATOR_LAYERS):
            kernel, stride = (4, 2) if layer < strides else (3, 1)
            self.convolutions.append(nn.Conv2d(widths[layer], widths[layer + 1], kernel, stride=stride, padding=1))

    def forward(self, label_probabilities: Tensor) -> Tensor:
        x = self.convolutions[0](label_probabilities)
        for convolution in self.convolutions[1:]:
            x = convolution(F.leaky_relu(x, 0.2))
        return F.interpolate(x, size=label_probabilities.shape[2:], mode="bilinear", align_corners=False)


class AdversarialStage(BaselineStage):
    """State and step of adversarial semi-supervised learning."""

    needs_unlabelled = True

    def __init__(self, settings: Settings, *args: Any, **options: Any) -> None:
        super().__init__(settings, *args, **options)
        with seeded(settings.seed):
            width, size_px = settings.baseline.discriminator_width, settings.preprocessing.size_px
            discriminator = MapDiscriminator(self.labels.classes, width, size_px)
        self.discriminator = discriminator.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks[DISCRIMINATOR] = self.discriminator
        self.optimisers[DISCRIMINATOR] = torch.optim.Adam(
            self.discriminator.parameters(), DISCRIMINATOR_LEARNING_RATE, betas=DISCRIMINATOR_BETAS
        )

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """One step of the segmentation network against the discriminator as it is, then one of the discriminator."""
        labelled = self.labelled_batch(images_seen)
        assert labelled.label_map is not None
        image = labelled.image
        if self.progress(images_seen) >= SEMI_SUPERVISED_FROM:
            image = self._layout(torch.cat([image, self.unlabelled_batch(images_seen).image]))
        logits = self.forward(self.network, image).float()
        terms = supervised_loss(logits[: len(labelled.image)], labelled.truth)
        terms |= self.adversarial_terms(logits, len(labelled.image))
        total = torch.stack(list(terms.values())).sum()
        self.update(total, images_seen, WEIGHTS)
        critic = self.discriminator_loss(logits[: len(labelled.image)].detach(), labelled.label_map)
        self.update(critic, images_seen, DISCRIMINATOR)
        return {name: value.detach() for name, value in {"loss": total, **terms, DISCRIMINATOR: critic}.items()}

    def adversarial_terms(self, logits: Tensor, labelled: int) -> dict[str, Tensor]:
        """What the discriminator teaches (eq. 4 and 5), weighted; the first ``labelled`` images have labels."""
        with without_weight_gradients(self.discriminator):
            score = self.scores(probabilities(logits))
        terms = {"adversarial": LAMBDA_ADVERSARIAL * logistic_generator_loss(score[:labelled])}
        if len(logits) == labelled:
            return terms
        own, score = logits[labelled:], score[labelled:]
        return terms | {
            "adversarial_unlabelled": LAMBDA_ADVERSARIAL_UNLABELLED * logistic_generator_loss(score),
            "self_training": LAMBDA_SELF_TRAINING * cross_entropy(own, trusted_labels(own, score)),
        }

    def discriminator_loss(self, logits: Tensor, label_map: Tensor) -> Tensor:
        """Telling given labels from predictions of the same images (eq. 2); the mean over pixels."""
        counted = (label_map != IGNORE)[:, None]
        classes = torch.arange(self.labels.classes, device=label_map.device)[None, :, None, None]
        given = ((label_map[:, None] == classes) & counted).float()
        predicted = probabilities(logits) * counted
        return logistic_critic_loss(self.scores(given), self.scores(predicted))

    def scores(self, label_probabilities: Tensor) -> Tensor:
        """The discriminator's logits ``[batch, 1, R, R]``, float32."""
        return self.forward(self.discriminator, self._layout(label_probabilities)).float()


def trusted_labels(logits: Tensor, score: Tensor) -> Tensor:
    """The most probable classes ``[batch, R, R]`` where the discriminator trusts them, else "ignore"; no gradient.

    score: the discriminator's logits ``[batch, 1, R, R]``
    """
    trusted = torch.sigmoid(score.detach())[:, 0] > TRUST_THRESHOLD
    return probabilities(logits.detach()).argmax(1).where(trusted, IGNORE)
