"""UniMatch (Yang et al., CVPR 2023, arXiv:2208.09910): one weak view labels two strong views and perturbed features.

Departure: the labels come from an average of the network's weights, which also answers, as in UniMatch V2 (Yang et al.
2024, arXiv:2410.10777); it is steadier than a network in the middle of a short training. Images of one batch are mixed
with one another, as there, so no further batch is needed. Departure: the strong views change gamma and noise, too, and
hue and saturation in images of three channels only, as grey ones have none.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from semgan import seeding
from semgan.baselines.mean_teacher import average_decay
from semgan.baselines.stage import BaselineStage
from semgan.data.cutmix import box_masks, paste
from semgan.data.photometric import PhotometricRanges, colour, photometric
from semgan.data.transforms import enlarged
from semgan.objectives.pseudo_labels import pseudo_label_loss, pseudo_labels
from semgan.objectives.segmentation import probabilities, supervised_loss
from semgan.runtime.device import autocast
from semgan.types import Batch

STRONG = PhotometricRanges(blur_px=(0.1, 2.0), brightness=0.5, contrast=(0.5, 1.5))  # the authors' code; ours else
STRONG_PROBABILITY = 0.8  # of each change, per image; the authors' for colours
STRONG_STREAMS = ("unimatch/strong1", "unimatch/strong2")
FEATURE_STREAM = "unimatch/features"
FEATURE_DROPOUT = 0.5  # of channels, sec. 3.2
STRONG_WEIGHT = 0.25  # of each strong view, eq. 6: mu = lambda / 2
FEATURE_WEIGHT = 0.5  # lambda, eq. 6
HALF = 0.5  # labelled and unlabelled images weigh the same


class UniMatchStage(BaselineStage):
    """A network that agrees with its average under strong changes of image and features."""

    needs_unlabelled = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.settings.baseline.network != "unet":
            raise ValueError(
                f"UniMatch perturbs the features of a U-Net; got baseline.network={self.settings.baseline.network}. "
                "Use --set baseline.network=unet."
            )
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.networks["average"] = self.average

    @property
    def answering(self) -> nn.Module:
        return self.average

    def loss_terms(self, images_seen: int) -> dict[str, Tensor]:
        """Half of what the labelled images say, half of what the average's sure pixels of the unlabelled ones say."""
        labelled, weak = self.labelled_batch(images_seen), self.unlabelled_batch(images_seen)
        with torch.no_grad():
            found = probabilities(self.forward(self.average, weak.image))
            if (times := self.settings.data.fine_labels) > 1:
                found = functional.interpolate(found, scale_factor=times, mode="bilinear", align_corners=False)
        label_map = pseudo_labels(found, self.settings.baseline.confidence_threshold)
        views, labels = zip(*(self._strong(weak, label_map, stream) for stream in STRONG_STREAMS), strict=True)
        known, perturbed = self._known_and_perturbed(labelled, weak)
        answers = self.forward(self.network, torch.cat(views)).float().chunk(len(views))
        strong_loss = sum(pseudo_label_loss(one, label) for one, label in zip(answers, labels, strict=True))
        supervised = supervised_loss(known, labelled.truth)
        return {name: HALF * value for name, value in supervised.items()} | {
            "strong_views": HALF * STRONG_WEIGHT * strong_loss,
            "perturbed_features": HALF * FEATURE_WEIGHT * pseudo_label_loss(perturbed, label_map),
        }

    def _known_and_perturbed(self, labelled: Batch, weak: Batch) -> tuple[Tensor, Tensor]:
        """Logits of the labelled images, and of the weak views with channels of their features left out."""
        with autocast(self.device, self.settings.baseline.precision):
            features = encode(self.network, torch.cat([labelled.image, weak.image]))
            kept = self._kept_channels([level.shape[1] for level in features], weak.index)
            features = [
                torch.cat([level[: self.own_batch], level[self.own_batch :] * factor])
                for level, factor in zip(features, kept, strict=True)
            ]
            logits = decode(self.network, features).float()
        return logits[: self.own_batch], logits[self.own_batch :]

    def _kept_channels(self, channels: list[int], index: Tensor) -> list[Tensor]:
        """Factors ``[batch, channels, 1, 1]`` for each level: 0 for a dropped channel, else what keeps the mean."""
        draws = seeding.uniform(self.settings.seed, FEATURE_STREAM, index.tolist(), (sum(channels), 1, 1))
        factor = (draws >= FEATURE_DROPOUT).to(self.device, torch.float32) / (1 - FEATURE_DROPOUT)
        return list(factor.split(channels, 1))

    def _strong(self, weak: Batch, label_map: Tensor, stream: str) -> tuple[Tensor, Tensor]:
        """A strong view of the images and the label map it should get."""
        index = weak.index.tolist()
        image, label_map = self.moved(weak.image, label_map, stream, index)
        inside = box_masks(image.shape[-1], seed=self.settings.seed, stream=stream, index=index).to(self.device)
        changed = paste(self._changed(image, stream, index), inside)
        inside = enlarged(inside, self.settings.data.fine_labels)
        return changed.contiguous(memory_format=torch.channels_last), paste(label_map, inside)

    def _changed(self, image: Tensor, stream: str, index: list[int]) -> Tensor:
        seed = self.settings.seed
        if self.settings.baseline.colour_changes and image.shape[1] == 3:
            image = colour(image, seed=seed, stream=stream, index=index)
        return photometric(image, seed=seed, stream=stream, index=index, probability=STRONG_PROBABILITY, ranges=STRONG)

    def moved(self, image: Tensor, label_map: Tensor, stream: str, index: list[int]) -> tuple[Tensor, Tensor]:
        """Images and label maps of a strong view where they are to lie; UniMatch leaves them where they are."""
        return image, label_map

    def after_step(self, images_seen: int) -> None:
        """Weights and statistics of the average move towards the network's."""
        decay = average_decay(images_seen // self.batch, self.settings.baseline.ema_decay)
        fresh = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(fresh[name], 1 - decay)
            else:  # batches counted
                value.copy_(fresh[name])


def encode(unet: Any, image: Tensor) -> list[Tensor]:
    """Features of MONAI's BasicUNet from the image's size to its sixteenth; `decode` of them is its output."""
    features = [unet.conv_0(image)]
    for down in (unet.down_1, unet.down_2, unet.down_3, unet.down_4):
        features.append(down(features[-1]))
    return features


def decode(unet: Any, features: list[Tensor]) -> Tensor:
    """Logits from the features of `encode`."""
    *skips, found = features
    for up, skip in zip((unet.upcat_4, unet.upcat_3, unet.upcat_2, unet.upcat_1), reversed(skips), strict=True):
        found = up(found, skip)
    return unet.final_conv(found)
