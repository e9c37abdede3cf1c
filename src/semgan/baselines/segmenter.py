"""A trained network of any baseline, which answers as every method does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from semgan import artifacts, config
from semgan.baselines.networks import Committee, build_network
from semgan.data.transforms import network_input
from semgan.objectives.segmentation import disagreement, probabilities
from semgan.runtime.device import choose_device
from semgan.runtime.modes import evaluating
from semgan.types import LabelSpace, Segmentation, Steps

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "network"  # network.safetensors of the model folder


class NetworkSegmenter:
    """A network from images to logits, as a `semgan.types.Segmenter`; it has no optimisation steps.

    A `Committee` answers with the mean of its members' probabilities, and tells their ``disagreement``.

    flips: answer with the mean over the image and its mirror image (left-right)
    """

    def __init__(
        self,
        network: nn.Module,
        labels: LabelSpace,
        rules: Mapping[str, config.Preprocessing],
        device: torch.device,
        *,
        flips: bool = False,
    ) -> None:
        self.network = network
        self.labels = labels
        self.rules = dict(rules)  # modality -> rule; "default" always
        self.device = device
        self.flips = flips

    @classmethod
    def load(cls, folder: Path, device: str = "auto", weights_name: str = WEIGHTS) -> NetworkSegmenter:
        """From a run or model folder. Raises ValueError where it holds a model of another kind."""
        description, weights = artifacts.read_model(folder)
        if weights_name not in weights:
            raise ValueError(f"{folder} holds a model of method '{description.get('method')}', which is no baseline.")
        settings = config.override(config.Settings(), description["settings"], f"{folder}/config.json")  # type: ignore[call-arg]
        # The folder holds every weight: the file that training started from may be gone.
        settings = config.override(settings, {"baseline": {"trunk_weights": None}})
        labels = LabelSpace(tuple(description["classes"]))
        rules = {name: config.Preprocessing(**rule) for name, rule in description["preprocessing"].items()}
        network = build_network(settings, labels.channels)
        network.load_state_dict(weights[weights_name])
        place = choose_device(device)
        return cls(network.to(place).eval(), labels, rules, place, flips=settings.baseline.test_time_flips)

    def preprocess(self, image: np.ndarray, modality: str = "default") -> Tensor:
        """One decoded image -> ``[channels, size_px, size_px]`` in [-1, 1], by the rule of its modality."""
        return network_input(image, self.rules, modality)

    def segment_batch(
        self,
        image: Tensor,
        *,
        steps: Steps | None = None,
        snapshot_steps: tuple[int, ...] = (),
        modality: str = "default",
    ) -> Segmentation:
        """Segment ``[batch, channels, size_px, size_px]`` in [-1, 1], in float32. Raises ValueError for steps.

        modality: makes no difference after preprocessing
        """
        if steps or any(snapshot_steps):
            raise ValueError("A baseline is not optimised at test time; leave steps out, or give 0.")
        with torch.no_grad(), evaluating(self.network):
            batch = image.to(self.device).contiguous(memory_format=torch.channels_last)
            answers = [self._probabilities(network, batch) for network in self.members]
        found = torch.stack(answers).mean(0) if len(answers) > 1 else answers[0]
        return Segmentation(
            found,
            found.amax(1).mean((1, 2)),
            snapshots={step: found for step in snapshot_steps},
            signals={"disagreement": disagreement(answers)} if len(answers) > 1 else {},
        )

    @property
    def members(self) -> tuple[nn.Module, ...]:
        """The networks that answer: one, or those of a committee."""
        return tuple(self.network) if isinstance(self.network, Committee) else (self.network,)

    def _probabilities(self, network: nn.Module, image: Tensor) -> Tensor:
        found = probabilities(network(image)).contiguous()
        if self.flips:
            found = (found + probabilities(network(image.flip(3))).flip(3)) / 2
        return found
