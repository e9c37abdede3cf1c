"""What a trained model thinks of an image: how unsure it is, how well it knows it, and where it lies among others.

entropy         mean over pixels of the class probabilities' entropy, as a share of the most there can be
reconstruction  generators: the loss of Eq. 7 at the answer, high where nothing the generator draws resembles it
disagreement    generators: share of the pixels whose class the optimisation has changed since the encoder's answer,
                of the generator's own masks also beside a student; where a stopping rule chooses the answer, at
                its last step whatever it answers (it falls back to the encoder just where the mask changes much)
features        vectors to tell images apart by: of generators the whitened code, a mean over layers, which is the
                nearest single w; of networks means and deviations over space of feature maps of every size
                (of the coarsest alone they tell strange pictures from others less well: tried on phantoms)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semgan.posterior.latent import Budget, LatentPosterior
from semgan.stages.semantic_gan import SemanticGan
from semgan.student_answer import SemganStudent, gan_of, mix
from semgan.types import AUTO, Segmentation, Segmenter, Steps

GENERATIVE = ("reconstruction", "disagreement")
DRAWS = Budget(count=16, chains=1)  # of the Laplace approximation, for a mean of probabilities
Measured = dict[str, np.ndarray]


def measuring(
    segmenter: Segmenter, *, steps: Steps | None, posterior: LatentPosterior | None, seed: int
) -> Callable[[Tensor, int], Measured]:
    """What turns images ``[batch, channels, size_px, size_px]`` in [-1, 1] and the number of their first into measures
    ``[batch]`` and features ``[batch, n]``; the number and seed name the random numbers of the posterior's draws."""
    generator = gan_of(segmenter)
    if generator is None:
        return _NetworkGauge(segmenter)
    student = segmenter if isinstance(segmenter, SemganStudent) else None
    last = last_step(generator, steps)

    def measure(image: Tensor, first: int) -> Measured:
        found, shown = _answered(generator, student, image, steps, (0, last))
        if posterior is not None:
            drawn = posterior.draw(image, "laplace", DRAWS, seed=seed, first=first, steps=_fixed(generator, steps))
            shown = torch.stack([each.mean for each in drawn])
        assert found.w_plus is not None
        changed = found.snapshots[0].argmax(1) != found.snapshots[last].argmax(1)
        return {
            "entropy": entropy(shown),
            "reconstruction": np.array([found.losses_of(row)["loss"] for row in range(len(image))]),
            "disagreement": changed.float().mean((1, 2)).cpu().numpy(),
            "features": generator.whitening.to_v(found.w_plus.to(generator.device)).mean(1).cpu().numpy(),
        }

    return measure


def last_step(generator: SemanticGan, steps: Steps | None) -> int:
    """The most steps that an image may be optimised for; None: as the model chooses. Raises ValueError for "auto"
    without a stopping rule."""
    chosen = generator.steps if steps is None else steps
    if chosen != AUTO:
        return chosen
    if generator.rule is None:
        raise ValueError("The model has no stopping rule for --steps auto; give a number, for example --steps 25.")
    return generator.rule.steps


def _answered(
    generator: SemanticGan, student: SemganStudent | None, image: Tensor, steps: Steps | None, kept: tuple[int, int]
) -> tuple[Segmentation, Tensor]:
    """The generator's own answer, snapshots at the steps ``kept``, and the whole model's probabilities
    ``[batch, classes, size_px, size_px]``: beside a student as `SemganStudent.segment_batch` gives them."""
    if student is None:
        found = generator.segment_batch(image, steps=steps, snapshot_steps=kept)
        return found, found.probabilities
    found, learnt = student.inverted(image, steps=steps, snapshot_steps=kept)
    return found, mix(found.probabilities, learnt, student.share)


def _fixed(generator: SemanticGan, steps: Steps | None) -> int | None:
    """Steps before the posterior's draws: a stopping rule's last one, for it picks among the steps it has seen."""
    return steps if steps is None or isinstance(steps, int) else generator.fixed_steps


def entropy(probabilities: Tensor) -> np.ndarray:
    """``[batch, classes, height, width]`` -> mean pixel entropy over log(classes), ``[batch]`` in [0, 1]."""
    kept = probabilities.double().clamp(1e-12, 1)
    return (-(kept * kept.log()).sum(1).mean((1, 2)) / math.log(probabilities.shape[1])).cpu().numpy()


class _NetworkGauge:
    """Entropy and features of a feed-forward network, in one pass."""

    def __init__(self, segmenter: Any) -> None:
        self.segmenter = segmenter
        self.layers: list[nn.Module] = []

    def __call__(self, image: Tensor, first: int) -> Measured:
        self.layers = self.layers or self._widest(image[:1])
        with _listening(*self.layers) as heard:
            found: Segmentation = self.segmenter.segment_batch(image)
        own = [_summary([output for each, output in heard if each is layer], len(image)) for layer in self.layers]
        return {"entropy": entropy(found.probabilities), "features": torch.cat(own, 1).cpu().numpy()}

    def _widest(self, image: Tensor) -> list[nn.Module]:
        """For every size of feature maps the convolution of most channels, the last of equals."""
        convolutions = [layer for layer in self.segmenter.network.modules() if isinstance(layer, nn.Conv2d)]
        with _listening(*convolutions) as heard:
            self.segmenter.segment_batch(image)
        widest: dict[tuple[int, ...], tuple[int, nn.Module]] = {}
        for layer, output in heard:
            size, channels = tuple(output.shape[2:]), output.shape[1]
            if channels >= widest.get(size, (0, layer))[0]:
                widest[size] = channels, layer
        return [layer for _, layer in widest.values()]


def _summary(outputs: list[Tensor], count: int) -> Tensor:
    """Mean and deviation over space ``[count, 2 channels]`` of a layer's maps, over all calls of an image: a network
    may also answer the mirror images, or one image at a time."""
    maps = torch.cat(outputs).float().flatten(2)
    summary = torch.cat([maps.mean(2), maps.std(2, correction=0)], 1)
    if len(outputs[0]) == count:
        return summary.unflatten(0, (-1, count)).mean(0)
    return summary.unflatten(0, (count, -1)).mean(1)


@contextlib.contextmanager
def _listening(*layers: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Outputs of layers in the order of their calls, while the block runs."""
    heard: list[tuple[nn.Module, Tensor]] = []
    hooks = [layer.register_forward_hook(lambda *call: heard.append((call[0], call[2].detach()))) for layer in layers]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
