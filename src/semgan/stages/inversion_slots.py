"""The walk of the inversion: a batch of slots, each with its own image, step count and Adam moments.

When an image is done, the next one takes its place, so that the batch stays full while images stop at different steps.
No image's arithmetic involves another's: its result does not depend on the batch, the order, or when it was taken up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from semgan.objectives.segmentation import probabilities
from semgan.stages.inversion_objective import LEAVES, Objective, learning_rate_share, normalise_noise
from semgan.stages.stopping import StoppingRule
from semgan.types import JointImage

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's own (Kingma and Ba 2015)


@dataclass
class Found:
    """What a walk gives for its images, row by row, with the fields of `semgan.types.Segmentation`.

    answered: step of every image's answer; trace: nan after the step at which an image stopped
    """

    answered: list[int]
    probabilities: dict[int, Tensor] = field(default_factory=dict)
    reconstruction: dict[int, Tensor] = field(default_factory=dict)
    w_plus: dict[int, Tensor] = field(default_factory=dict)
    snapshots: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    reconstructions: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    trace: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Slots:
    """The images under way. tensors: everything that belongs to a slot, ``[slots, ...]`` each."""

    rows: list[int]
    steps: list[int]
    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, places: Sequence[int]) -> _Slots:
        at = torch.tensor(places, device=next(iter(self.tensors.values())).device, dtype=torch.long)
        return _Slots(
            [self.rows[place] for place in places],
            [self.steps[place] for place in places],
            {name: tensor.detach().index_select(0, at) for name, tensor in self.tensors.items()},
        )

    def beside(self, other: _Slots) -> _Slots:
        tensors = {name: torch.cat([tensor.detach(), other.tensors[name]]) for name, tensor in self.tensors.items()}
        return _Slots(self.rows + other.rows, self.steps + other.steps, tensors)

    def leaves(self) -> list[str]:
        return [name for name in LEAVES if name in self.tensors]

    def target(self) -> list[Tensor]:
        return [self.tensors[name] for name in self.tensors if name.startswith("target_")]


def _mask(shown: Tensor) -> np.ndarray:
    return shown.argmax(0).byte().cpu().numpy()


class Walk:
    """Images through the slots, each ``steps`` long or until its rule stops it.

    wanted: steps whose snapshots are kept; every image is walked that far, whatever the rule says
    rule:   which image is answered with which step; None: each with its last
    guide:  probabilities ``[batch, classes, side, side]`` that the masks explain, too
    """

    def __init__(
        self,
        objective: Objective,
        image: Tensor,
        *,
        steps: int,
        wanted: frozenset[int],
        rule: StoppingRule | None = None,
        guide: Tensor | None = None,
    ) -> None:
        self.guide = guide
        self.objective, self.image, self.steps, self.wanted = objective, image, steps, wanted
        self.rule = rule
        self.last_wanted = max(wanted, default=0)
        self.next_row = 0
        self.open_answers = [True] * len(image)  # whether the rule may still accept a later step
        self.first: dict[int, Tensor] = {}  # probabilities of step 0, until the image's answer is known
        self.found = Found([0] * len(image))

    def run(self) -> Found:
        slots = self._taken_up(self.objective.settings.batch)
        while slots is not None:
            # The last look of a step count gives the answer and its losses, and takes no gradient.
            goes_on = any(step < self.steps for step in slots.steps)
            with torch.set_grad_enabled(goes_on):
                if goes_on:
                    self._leaves(slots)
                joint = self.objective.generate(slots.tensors)
                shown = self.objective.seen(joint, slots.tensors)
                terms = self.objective.terms(slots.tensors, joint, shown, slots.target())
            places = self._looked_at(slots, shown, terms)
            if places:
                self._advance(slots, terms["loss"])
            slots = self._refilled(slots, places)
        return self.found

    # ------------------------------------------------------------ slots

    def _taken_up(self, count: int) -> _Slots | None:
        rows = list(range(self.next_row, min(self.next_row + count, len(self.image))))
        if not rows:
            return None
        self.next_row += len(rows)
        objective = self.objective
        image = self.image[rows[0] : rows[-1] + 1].to(objective.device)
        tensors = {"image": image.float()}
        if self.guide is not None:
            # A copy, as gradients may not be taken past what a caller made in inference mode.
            tensors["guide"] = self.guide[rows[0] : rows[-1] + 1].to(objective.device).float().clone()
        for leaf, value in objective.leaves(image).items():
            zeros = torch.zeros_like(value)
            tensors |= {leaf: value, f"{leaf}_mean": zeros, f"{leaf}_square": zeros.clone()}
        features = objective.target_features(image)
        return _Slots(rows, [0] * len(rows), tensors | {f"target_{i}": level for i, level in enumerate(features)})

    def _refilled(self, slots: _Slots, places: list[int]) -> _Slots | None:
        """The slots that go on, those of finished images given to the next ones."""
        if len(places) == len(slots):
            slots.steps = [step + 1 for step in slots.steps]
            return slots
        new = self._taken_up(self.objective.settings.batch - len(places))
        if not places:
            return new
        kept = slots.only(places)
        kept.steps = [step + 1 for step in kept.steps]
        return kept if new is None else kept.beside(new)

    def _leaves(self, slots: _Slots) -> None:
        for name in slots.leaves():
            slots.tensors[name] = slots.tensors[name].detach().requires_grad_()

    # ------------------------------------------------------------ what is seen at a step

    def _looked_at(self, slots: _Slots, joint: JointImage, terms: dict[str, Tensor]) -> list[int]:
        """Note losses, snapshots and answers; the places of the images that go on."""
        self._note_losses(slots, terms)
        going_on = []
        for place, (row, step) in enumerate(zip(slots.rows, slots.steps, strict=True)):
            is_looked_at = step == self.steps if self.rule is None else step in self.rule.checkpoints
            if not is_looked_at and step not in self.wanted:
                going_on.append(place)
                continue
            shown = probabilities(joint.logits[place : place + 1].detach())[0].to(self.image.device)
            picture = joint.image[place].detach().float().to(self.image.device)
            if step in self.wanted:
                self.found.snapshots.setdefault(step, {})[row] = shown
                self.found.reconstructions.setdefault(step, {})[row] = picture
            if is_looked_at and self.open_answers[row]:
                self._judge(slots, place, shown, picture)
            if step < self.steps and (self.rule is None or self.open_answers[row] or step < self.last_wanted):
                going_on.append(place)
        return going_on

    def _judge(self, slots: _Slots, place: int, shown: Tensor, picture: Tensor) -> None:
        """Take a step for the image's answer, unless its rule forbids; close the answer where no later step may be."""
        row, step = slots.rows[place], slots.steps[place]
        if self.rule is not None:
            first = self.first.setdefault(row, shown)
            is_finite = bool(self.found.trace["loss"][step, row].isfinite())
            accepted = is_finite and self.rule.accepts(_mask(shown), _mask(first), len(shown))
            self.open_answers[row] = accepted and step < self.rule.steps
            if not self.open_answers[row]:
                del self.first[row]
            if not accepted and step > 0:
                return
            shown = shown if step == 0 else torch.lerp(shown, first, self.rule.first_share)
        self.found.answered[row] = step
        self.found.probabilities[row], self.found.reconstruction[row] = shown, picture
        code = slots.tensors["code"][place].detach()
        self.found.w_plus[row] = self.objective.w_plus(code).to(self.image.device)

    def _note_losses(self, slots: _Slots, terms: dict[str, Tensor]) -> None:
        trace = self.found.trace
        at = (torch.tensor(slots.steps), torch.tensor(slots.rows))
        for name, values in terms.items():
            if name not in trace:
                trace[name] = values.new_full((self.steps + 1, len(self.image)), torch.nan)
            trace[name][at] = values.detach()

    # ------------------------------------------------------------ Adam

    def _advance(self, slots: _Slots, loss: Tensor) -> None:
        """One Adam step of every slot, by its own count; slots of finished images take it too and are then given on."""
        names = slots.leaves()
        gradients = torch.autograd.grad(loss.sum(), [slots.tensors[name] for name in names])
        settings = self.objective.settings
        rates, roots = [], []
        for step in slots.steps:
            share = learning_rate_share(min((step + 0.5) / max(self.steps, 1), 1.0), settings)
            rates.append(settings.learning_rate * share / (1 - BETA1 ** (step + 1)))
            roots.append((1 - BETA2 ** (step + 1)) ** 0.5)
        rate, root = (loss.new_tensor(values) for values in (rates, roots))
        with torch.no_grad():
            for name, gradient in zip(names, gradients, strict=True):
                by_slot = (-1, *[1] * (gradient.ndim - 1))
                mean = slots.tensors[f"{name}_mean"].lerp_(gradient, 1 - BETA1)
                square = slots.tensors[f"{name}_square"].mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
                deviation = square.sqrt() / root.view(by_slot) + EPSILON
                slots.tensors[name] = slots.tensors[name].detach() - rate.view(by_slot) * mean / deviation
        if "noise" in slots.tensors:
            normalise_noise(self.objective.generator.noise_maps(slots.tensors["noise"]))
