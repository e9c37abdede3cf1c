"""What a call of `semgan synth` asks for: everything that its pairs depend on, but how many of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from semgan.types import MOST_SEED

FORMATS = ("folder", "nnunet", "coco")


@dataclass(frozen=True)
class Plan:
    """Settings of the label factory.

    format:        how the pairs are laid out, see `semgan.synth.layouts`
    truncation:    1 the model's own distribution; towards 0 ever closer to the mean w
    keep_certain:  share of the drawn pairs with the most certain label maps that pass (1: all)
    keep_real:     share of the drawn pairs that the image critic finds most real that passes (1: all)
    min_share:     class -> least share of the pixels, 0 to 1, that it has in every kept pair
    balance:       thin out pairs that show common classes only, see `semgan.synth.rules`
    restyle:       further appearances drawn of every kept pair, which keep its mask
    restyle_limit: mask movement (1 - mean IoU over classes) beyond which an appearance is dropped
    restyle_from:  first layer of w+ that an appearance replaces; None: the coarsest at which at least half of the
                   appearances stay within the limit
    """

    format: str = "folder"
    seed: int = 0
    truncation: float = 1.0
    keep_certain: float = 0.8
    keep_real: float = 0.9
    min_share: Mapping[str, float] = field(default_factory=dict)
    balance: bool = False
    restyle: int = 0
    restyle_limit: float = 0.1
    restyle_from: int | None = None

    def check(self, classes: Sequence[str], layers: int) -> None:
        """Raises ValueError where a value is out of range or names what the model does not have."""
        if self.format not in FORMATS:
            raise ValueError(f"Unknown format '{self.format}'; choose one of {', '.join(FORMATS)}.")
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"The seed lies from 0 to {MOST_SEED}; got {self.seed}.")
        shares = {"truncation": self.truncation, "keep_certain": self.keep_certain, "keep_real": self.keep_real}
        for name, value in shares.items():
            if not 0 < value <= 1:
                raise ValueError(f"{name.replace('_', '-')} lies above 0 and is at most 1; got {value:g}.")
        for name, share in self.min_share.items():
            if name not in classes:
                raise ValueError(f"The model has no class '{name}'; it has {', '.join(classes)}.")
            if not 0 <= share <= 1:
                raise ValueError(f"The least share of '{name}' lies from 0 to 1; got {share:g}.")
        if sum(self.min_share.values()) > 1:
            raise ValueError(f"The least shares add up to {sum(self.min_share.values()):g} of an image; at most 1.")
        if not 0 <= self.restyle <= 99:
            raise ValueError(f"Each pair gets 0 to 99 further appearances; got {self.restyle}.")
        if not 0 <= self.restyle_limit <= 1:
            raise ValueError(f"The restyle limit lies from 0 to 1; got {self.restyle_limit:g}.")
        if self.restyle_from is not None and not self.restyle:
            raise ValueError("--restyle-from is about further appearances, and none are asked for: add --restyle K.")
        if self.restyle_from is not None and not 0 < self.restyle_from < layers:
            raise ValueError(
                f"Appearances replace the layers of w+ from one of 1 to {layers - 1} on; got {self.restyle_from}."
            )
