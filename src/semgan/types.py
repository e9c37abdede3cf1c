"""The words everybody speaks: images, label maps, batches, segmentations.

Shapes are named once, here:

- image:      ``[batch, channels, height, width]`` float in [-1, 1] (uint8 at the edges: files and caches)
- label map:  ``[batch, height, width]`` int64 class indices; ``IGNORE`` (255) marks pixels that take part in nothing
- logits:     ``[batch, label_channels, height, width]``; ``label_channels`` is 1 for two classes, else the class count
- w:          ``[batch, w_dim]``; w_plus: ``[batch, layers, w_dim]`` with ``layers = 2 log2(size_px) - 2``
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:  # torch takes seconds to import; the command line must answer at once
    import numpy as np
    from torch import Tensor

    from semgan.config import Preprocessing

IGNORE = 255
MOST_SEED = 2**63 - 1  # and the largest index of a random number (`semgan.seeding`)
Metric = Literal["dice", "jaccard", "miou", "miou-per-case"]  # what they mean: semgan.metrics.overlap
METRICS: tuple[str, ...] = get_args(Metric)
Steps = int | Literal["auto"]  # optimisation steps of an answer; auto: each image's own, by the model's stopping rule
AUTO: Literal["auto"] = "auto"


def step_order(steps: Steps) -> float:
    """Sorts steps: by number, "auto" last."""
    return math.inf if steps == AUTO else float(steps)


def parse_steps(text: str) -> Steps:
    """Raises ValueError where a text is neither a number of steps nor "auto"."""
    if text == AUTO:
        return AUTO
    if not text.isdecimal():
        raise ValueError(f"Optimisation steps are a whole number from 0, or auto; got '{text}'.")
    return int(text)


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a task; ``names[0]`` is the background."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) < IGNORE:
            raise ValueError(
                f"A label space has 2 to {IGNORE - 1} classes with background; got {len(self.names)}: {self.names}."
            )

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def channels(self) -> int:
        """Channels of the logits: one for two classes, else one per class."""
        return 1 if self.classes == 2 else self.classes


@dataclass(frozen=True)
class Case:
    """One image of a dataset folder; ``label`` is None where no mask exists or none may be opened."""

    stem: str
    image: Path
    label: Path | None = None
    group: str | None = None


@dataclass(frozen=True)
class Batch:
    """A training batch. ``index`` is the global number of each image in its stream (int64 ``[batch]``).

    label_map: at the image's size; fine: the same masks at a multiple of it (``data.fine_labels``)
    """

    index: Tensor
    image: Tensor
    label_map: Tensor | None = None
    fine: Tensor | None = None

    @property
    def truth(self) -> Tensor:
        """The label maps that losses are to be taken with. Raises ValueError for images without any."""
        found = self.label_map if self.fine is None else self.fine
        if found is None:
            raise ValueError("These images have no label maps; a labelled stream is needed here.")
        return found


@dataclass(frozen=True)
class JointImage:
    """What the generator returns: image in about [-1, 1] and label logits of the same size."""

    image: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Segmentation:
    """The answer for a batch, at the network's resolution.

    probabilities: ``[batch, classes, height, width]`` float32, sums to 1 over classes (two classes: both given)
    confidence:    ``[batch]`` in [0, 1], mean over pixels of the winning class' probability
    reconstruction: ``[batch, channels, height, width]`` in [-1, 1]; None for methods that do not reconstruct
    w_plus:        ``[batch, layers, w_dim]``; None for methods without a latent code
    answered_steps: int64 ``[batch]``, the step of every image's answer, where ``steps`` is "auto"; the model's rule may
                   mix that step's probabilities with those of step 0
    trace:         loss name -> ``[steps + 1, batch]``, nan after an image stopped; empty without optimisation
    snapshots:     step -> probabilities at that step, for the steps asked for
    signals:       name -> ``[batch]``, what a method itself knows of how far to trust its answer
    """

    probabilities: Tensor
    confidence: Tensor
    steps: Steps = 0
    answered_steps: Tensor | None = None
    reconstruction: Tensor | None = None
    w_plus: Tensor | None = None
    trace: dict[str, Tensor] = field(default_factory=dict)
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    reconstructions: dict[int, Tensor] = field(default_factory=dict)
    signals: dict[str, Tensor] = field(default_factory=dict)

    @property
    def label_map(self) -> Tensor:
        """``[batch, height, width]`` int64, the most probable class."""
        return self.probabilities.argmax(1)

    def steps_of(self, row: int) -> int:
        """The step that answers an image of the batch."""
        return int(self.steps if self.answered_steps is None else self.answered_steps[row])

    def losses_of(self, row: int) -> dict[str, float]:
        """Every loss term of an image at the step that answers it."""
        at = -1 if self.answered_steps is None else self.steps_of(row)
        return {name: float(values[at, row]) for name, values in self.trace.items()}


class Segmenter(Protocol):
    """A trained model of any method, as ``semgan.load`` returns it."""

    labels: LabelSpace

    @property
    def rules(self) -> Mapping[str, Preprocessing]:
        """Preprocessing rules by modality, "default" among them."""
        ...

    def segment_batch(
        self, image: Tensor, *, steps: Steps | None = None, snapshot_steps: tuple[int, ...] = ()
    ) -> Segmentation:
        """Segment preprocessed images ``[batch, channels, size_px, size_px]`` in [-1, 1].

        steps: None: the model's own choice, "auto" where it has a stopping rule
        """
        ...

    def preprocess(self, image: np.ndarray) -> Tensor:
        """Decoded image ``[height, width]`` or ``[height, width, channels]`` -> ``[channels, size_px, size_px]``."""
        ...
