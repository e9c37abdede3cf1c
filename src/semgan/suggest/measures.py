"""What a trained model thinks of an image: how unsure it is, how well it knows it, and where it lies among others.

    entropy         mean over pixels of the class probabilities' entropy, as a share of the most there can be
    reconstruction  generators: the loss of Eq. 7 at the answer, high where nothing the generator draws resembles it
    disagreement    generators: share of the pixels whose class the optimisation has changed since the encoder's answer
    features        vectors to tell images apart by: of generators the whitened code, a mean over layers, which is the
                    nearest single w; of networks means and deviations over space of their coarsest feature map
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
from semgan.student import SemganStudent
from semgan.types import Segmentation, Segmenter, Steps

GENERATIVE = ("reconstruction", "disagreement")
DRAWS = Budget(count=16, chains=1)  # of the Laplace approximation, for a mean of probabilities
Measured = dict[str, np.ndarray]


def generative_part(segmenter: Segmenter) -> SemanticGan | None:
    """The semantic GAN of a model, alone or beside a student; None for feed-forward networks."""
    if isinstance(segmenter, SemganStudent):
        return segmenter.model
    return segmenter if isinstance(segmenter, SemanticGan) else None


def measuring(
    segmenter: Segmenter, *, steps: Steps | None, posterior: LatentPosterior | None, seed: int
) -> Callable[[Tensor, int], Measured]:
    """What turns images ``[batch, channels, size_px, size_px]`` in [-1, 1] and the number of their first into measures
    ``[batch]`` and features ``[batch, n]``; the number and seed name the random numbers of the posterior's draws."""
    generator = generative_part(segmenter)
    if generator is None:
        return _NetworkGauge(segmenter)

    def measure(image: Tensor, first: int) -> Measured:
        found = segmenter.segment_batch(image, steps=steps, snapshot_steps=(0,))
        shown = found.probabilities
        if posterior is not None:
            drawn = posterior.draw(image, "laplace", DRAWS, seed=seed, first=first, steps=_fixed(generator, steps))
            shown = torch.stack([each.mean for each in drawn])
        assert found.w_plus is not None
        changed = found.snapshots[0].argmax(1) != found.label_map
        return {
            "entropy": entropy(shown),
            "reconstruction": np.array([found.losses_of(row)["loss"] for row in range(len(image))]),
            "disagreement": changed.float().mean((1, 2)).cpu().numpy(),
            "features": generator.whitening.to_v(found.w_plus.to(generator.device)).mean(1).cpu().numpy(),
        }

    return measure


def _fixed(generator: SemanticGan, steps: Steps | None) -> int | None:
    """Steps before the posterior's draws: a stopping rule's last one, for it picks among the steps it has seen."""
    return steps if steps is None or isinstance(steps, int) else generator.fixed_steps


def entropy(probabilities: Tensor) -> np.ndarray:
    """``[batch, classes, height, width]`` -> mean pixel entropy over log(classes), ``[batch]`` in [0, 1]."""
    kept = probabilities.double().clamp(1e-12, 1)
    return (-(kept * kept.log()).sum(1).mean((1, 2)) / math.log(probabilities.shape[1])).cpu().numpy()


class _NetworkGauge:
    """Entropy and deep features of a feed-forward network, in one pass."""

    def __init__(self, segmenter: Any) -> None:
        self.segmenter, self.network = segmenter, segmenter.network
        self.coarsest: nn.Module | None = None

    def __call__(self, image: Tensor, first: int) -> Measured:
        if self.coarsest is None:
            self.coarsest = self._find(image[:1])
        with _listening(self.coarsest) as heard:
            found: Segmentation = self.segmenter.segment_batch(image)
        maps = torch.cat([output for _, output in heard]).float().flatten(2)
        summary = torch.cat([maps.mean(2), maps.std(2, correction=0)], 1)
        # A network that also answers the mirror image, or one image at a time, has been called several times.
        own = _by_image(summary, [len(output) for _, output in heard], len(image))
        return {"entropy": entropy(found.probabilities), "features": own.cpu().numpy()}

    def _find(self, image: Tensor) -> nn.Module:
        """The last convolution of those with the fewest pixels: the U-Net's deepest, or before a network's head."""
        layers = [layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d)]
        with _listening(*layers) as heard:
            self.segmenter.segment_batch(image)
        fewest = min(output[0, 0].numel() for _, output in heard)
        return [layer for layer, output in heard if output[0, 0].numel() == fewest][-1]


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


def _by_image(summary: Tensor, sizes: list[int], count: int) -> Tensor:
    """The mean over the calls of an image: whole batches again and again, or image by image in turn."""
    if sizes[0] == count:
        return summary.unflatten(0, (-1, count)).mean(0)
    return summary.unflatten(0, (count, -1)).mean(1)
