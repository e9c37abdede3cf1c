"""U-Net baselines: supervised on the labelled images alone [S sec. 5]; the network is MONAI's BasicUNet.

``unet``: cross-entropy + Dice, flips and affine maps of the labelled stream, Adam at a constant learning rate, the
weights with the best validation score are kept. ``unet-strong``: the same, and each image's gamma, contrast,
brightness, noise and blur are changed at random (``baseline.intensity_augment``), the rival to beat out of domain.

Departure: the paper does not name its U-Net. This one has two 3x3 convolutions per level and batch normalisation: of
MONAI's networks it was among the best on the lungs' validation list (64 px, 35 labels, equal CPU time, one seed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from semgan import artifacts, config
from semgan.data.transforms import preprocess, rules_by_modality, to_unit
from semgan.runtime.device import autocast, choose_device
from semgan.runtime.modes import evaluating
from semgan.types import LabelSpace, Segmentation, Segmenter

if TYPE_CHECKING:
    import numpy as np

    from semgan.data.loading import ImageStream

WEIGHTS = "network"  # network.safetensors of the model folder
PHOTOMETRIC_STREAM = "baseline/photometric"
PHOTOMETRIC_PROBABILITY = 0.5  # of each of the five changes, per image


def build_unet(widths: tuple[int, ...], image_channels: int, label_channels: int, seed: int = 0) -> nn.Module:
    """U-Net: images ``[batch, image_channels, R, R]`` -> logits ``[batch, label_channels, R, R]``; R divisible by 16.

    widths: channels at R and R/2 (the same), R/4, R/8 and R/16 px. The weights depend on ``seed`` alone.
    Raises ValueError for another number of widths.
    """
    if len(widths) != 4:
        raise ValueError(
            f"baseline.widths needs four numbers, for the full and half, quarter, eighth and sixteenth of the size; "
            f"got {tuple(widths)}."
        )
    from monai.networks.nets.basic_unet import BasicUNet

    features = (widths[0], *widths, widths[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BasicUNet(2, image_channels, label_channels, features, norm="batch")
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class UNetSegmenter:
    """A trained U-Net that answers as every method does (`semgan.types.Segmenter`); it has no optimisation steps."""

    def __init__(
        self,
        network: nn.Module,
        labels: LabelSpace,
        preprocessing: Mapping[str, config.Preprocessing],
        device: torch.device,
    ) -> None:
        self.network = network
        self.labels = labels
        self.preprocessing = dict(preprocessing)  # modality -> rule; "default" always
        self.device = device

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> UNetSegmenter:
        """From a run or model folder. Raises ValueError where it holds a model of another kind."""
        description, weights = artifacts.read_model(folder)
        if WEIGHTS not in weights:
            raise ValueError(f"{folder} holds a model of method '{description.get('method')}', which is no U-Net.")
        settings = config.override(config.Settings(), description["settings"], f"{folder}/config.json")  # type: ignore[call-arg]
        labels = LabelSpace(tuple(description["classes"]))
        rules = {name: config.Preprocessing(**rule) for name, rule in description["preprocessing"].items()}
        network = build_unet(settings.baseline.widths, rules["default"].channels, labels.channels)
        network.load_state_dict(weights[WEIGHTS])
        place = choose_device(device)
        return cls(network.to(place).eval(), labels, rules, place)

    def preprocess(self, image: np.ndarray, modality: str = "default") -> Tensor:
        """One decoded image -> ``[channels, size_px, size_px]`` in [-1, 1], by the rule of its modality."""
        if modality not in self.preprocessing:
            raise ValueError(f"No preprocessing for modality '{modality}'; the model has {list(self.preprocessing)}.")
        return to_unit(torch.from_numpy(preprocess(image, self.preprocessing[modality])))

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: int | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
    ) -> Segmentation:
        """Segment ``[batch, channels, size_px, size_px]`` in [-1, 1], in float32. Raises ValueError for steps.

        modality: makes no difference after preprocessing
        """
        from semgan.objectives.segmentation import probabilities

        if steps or any(snapshot_steps):
            raise ValueError("A U-Net is not optimised at test time; leave steps out, or give 0.")
        with torch.no_grad(), evaluating(self.network):
            batch = image.to(self.device).contiguous(memory_format=torch.channels_last)
            found = probabilities(self.network(batch)).contiguous()
        confidence = found.amax(1).mean((1, 2))
        return Segmentation(found, confidence, snapshots={step: found for step in snapshot_steps})


class UNetStage:
    """Training of a U-Net, under the same loop as every other method.

    labelled: stream of labelled images (mirror and affine as for the GAN's labelled stream)
    validate: model -> score on the validation list, higher is better; None: the last weights are kept
    """

    name = "baseline"

    def __init__(
        self,
        settings: config.Settings,
        labels: LabelSpace,
        labelled: ImageStream,
        device: torch.device,
        validate: Callable[[Segmenter], float] | None = None,
    ) -> None:
        own = settings.baseline
        self.total_images, self.batch = own.images, own.batch
        self._settings, self._labelled, self._device, self._validate = settings, labelled, device, validate
        channels = settings.preprocessing.channels
        self.network = build_unet(own.widths, channels, labels.channels, settings.seed).to(device)
        self._optimiser = torch.optim.Adam(self.network.parameters(), own.learning_rate)
        self._scaler = torch.amp.GradScaler(device.type, enabled=own.precision == "float16")
        self.segmenter = UNetSegmenter(self.network, labels, rules_by_modality(settings), device)
        self.best_score: float | None = None
        self.best_images_seen = 0
        self._best_weights: dict[str, Tensor] = {}

    def step(self, images_seen: int) -> dict[str, Tensor]:
        """Learn from the next batch of the stream; losses as scalars on the device, not waited for."""
        from semgan.objectives.segmentation import supervised_loss

        batch = self._labelled.batch(images_seen, self.batch)
        if batch.label_map is None:
            raise ValueError("A U-Net learns from labelled images; this stream has no label maps.")
        image, label_map = batch.image.to(self._device), batch.label_map.to(self._device)
        image = self._changed(image, batch.index).contiguous(memory_format=torch.channels_last)
        with autocast(self._device, self._settings.baseline.precision):
            logits = self.network(image)
        losses = supervised_loss(logits.float(), label_map)
        total = torch.stack(list(losses.values())).sum()
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return {"loss": total.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _changed(self, image: Tensor, index: Tensor) -> Tensor:
        if not self._settings.baseline.intensity_augment:
            return image
        from semgan.data.photometric import photometric

        return photometric(
            image,
            seed=self._settings.seed,
            stream=PHOTOMETRIC_STREAM,
            index=index.tolist(),
            probability=PHOTOMETRIC_PROBABILITY,
        )

    def preview(self, images_seen: int) -> dict[str, float]:
        """Score the validation list and keep the weights where they are the best so far."""
        if self._validate is None:
            return {}
        score = float(self._validate(self.segmenter))
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_images_seen = score, images_seen
            self._best_weights = {name: value.detach().cpu().clone() for name, value in self._weights().items()}
        return {f"validation/{self._settings.metric}": score, "validation/best": self.best_score}

    def _weights(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def model_weights(self) -> dict[str, dict[str, Tensor]]:
        """What the model folder holds: the best weights by validation, else the last."""
        return {WEIGHTS: self._best_weights or self._weights()}

    def state(self) -> dict[str, Any]:
        return {
            "network": self._weights(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best": {"score": self.best_score, "images_seen": self.best_images_seen, "weights": self._best_weights},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        best = state["best"]
        self.best_score, self.best_images_seen = best["score"], best["images_seen"]
        self._best_weights = dict(best["weights"])
