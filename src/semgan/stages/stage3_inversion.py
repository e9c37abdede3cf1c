"""Stage 3: find the latent code whose image reproduces the input, and read off its label (Eq. 7 and 8 of the paper).

    w+* = argmin_w+  d(G_x(w+), x*) + lambda_3 ||G_x(w+) - x*||^2 + lambda_2 ||w+ - E(G_x(w+))||^2,  from w+ = E(x*)
    segmentation = G_y(w+*)

Norms are sums by default (``reduction = "sum"``), as the text writes norms; the authors' code takes means.
Departure: K classes take the most probable one, where the supplement thresholds at 0.5 (the same thing for two).
Departure: ``space = "whitened"`` optimises the whitened code v (per-w PCA of the mapping network), in which Adam's step
means the same in every direction; the encoder term is then ||v - E_v(G_x(w+))||^2.
Departure: ``lambda_prior * mean(v^2)`` is a Gaussian prior on the whitened code, which keeps it where G was trained.
Departure: a stopping rule learned on validation (`semgan.stages.stopping`) may choose every image's step, 0 included.
Without one the answer is the last iterate, as in the paper, not the one of lowest loss; the trace shows every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from semgan.config import InversionSettings
from semgan.models.encoder import Encoder
from semgan.models.generator import Generator
from semgan.models.perceptual import LPIPS, DiscriminatorDistance
from semgan.models.whitening import Whitening
from semgan.runtime.modes import frozen
from semgan.stages.inversion_objective import Guide, Objective
from semgan.stages.inversion_slots import Found, Walk
from semgan.stages.stopping import StoppingRule
from semgan.types import Segmentation


def mean_confidence(class_probabilities: Tensor) -> Tensor:
    """Mean over pixels of the winning class' probability, ``[batch]`` in [0, 1]."""
    return class_probabilities.amax(1).mean((1, 2))


def invert(
    generator: Generator,
    encoder: Encoder | None,
    whitening: Whitening,
    perceptual: LPIPS | DiscriminatorDistance,
    image: Tensor,
    settings: InversionSettings,
    *,
    steps: int | None = None,
    snapshot_steps: Sequence[int] = (),
    rule: StoppingRule | None = None,
    guide: Guide | None = None,
) -> Segmentation:
    """Segment images by inversion; steps 0 is the encoder's code alone ("NO").

    Without an encoder the search starts at the mean latent and the encoder term is left out. Every image is optimised
    on its own: losses are summed over the batch, never averaged, so that its neighbours do not change its result.
    ``settings.batch`` images are under way at a time, and the next takes the place of one that is done; computation is
    on the generator's device, results on the image's.

    image: ``[batch, channels, size_px, size_px]`` in [-1, 1]
    snapshot_steps: steps whose probabilities and reconstructions are kept (0 = the start). With learning-rate ramps a
        snapshot at step k of n is not what a run of k steps gives.
    rule: chooses the step of every image's answer, instead of ``steps``; with snapshots, images are walked on to the
        last of these, which changes no answer
    guide: another model's answer to these images that their masks are to explain as well
    trace of the result: ``loss`` (weighted sum) and the unweighted terms ``perceptual``, ``pixel``, and where used
        ``encoder``, ``prior``, ``guide``, ``noise``; ``[steps + 1, batch]``, row k measured after k steps, nan where
        an image had stopped before.
    Raises ValueError for snapshots beyond the last step, a guide to other images and a diverged search.
    """
    if rule is None:
        steps = settings.steps if steps is None else steps
    else:
        steps = max((rule.steps, *snapshot_steps))
        if settings.has_ramps:
            raise ValueError("A stopping rule knows no learning-rate ramps; set inversion.ramp_up and ramp_down to 0.")
    wanted = _checked_snapshots(snapshot_steps, steps)
    if image.ndim != 4 or len(image) == 0:
        raise ValueError(f"invert takes images [batch, channels, size_px, size_px]; got {tuple(image.shape)}.")
    if guide is not None and len(guide.probabilities) != len(image):
        raise ValueError(
            f"A guide of {len(guide.probabilities)} answers was given to {len(image)} images; give as many."
        )
    networks = [part for part in (generator, encoder, whitening, perceptual) if part is not None]
    objective = Objective(generator, encoder, whitening, perceptual, settings, 0.0 if guide is None else guide.weight)
    evidence = guide.probabilities if guide is not None and guide.weight else None
    with frozen(*networks), torch.inference_mode(False):
        walk = Walk(objective, image, steps=steps, wanted=wanted, rule=rule, guide=evidence)
        return _segmentation(walk.run(), steps, by_rule=rule is not None)


def _checked_snapshots(snapshot_steps: Iterable[int], steps: int) -> frozenset[int]:
    if steps < 0:
        raise ValueError(f"Inversion takes 0 or more steps (0: encoder only); got {steps}.")
    beyond = sorted(step for step in snapshot_steps if not 0 <= step <= steps)
    if beyond:
        raise ValueError(f"Snapshots were asked for at steps {beyond}, but the inversion runs from 0 to {steps}.")
    return frozenset(snapshot_steps)


def _segmentation(found: Found, steps: int, *, by_rule: bool) -> Segmentation:
    count = len(found.answered)

    def stacked(by_row: dict[int, Tensor]) -> Tensor:
        return torch.stack([by_row[row] for row in range(count)])

    w_plus, device = stacked(found.w_plus), found.w_plus[0].device
    trace = {name: values.to(device) for name, values in found.trace.items()}
    answered = torch.tensor(found.answered, device=device)
    finite = trace["loss"].gather(0, answered[None])[0].isfinite() & w_plus.isfinite().all(2).all(1)
    if not bool(finite.all()):
        lost = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"The inversion diverged for image {', '.join(map(str, lost[:8]))} of {len(finite)} in this batch; "
            "lower inversion.learning_rate or set inversion.precision=float32."
        )
    shown = stacked(found.probabilities)
    return Segmentation(
        probabilities=shown,
        confidence=mean_confidence(shown),
        steps="auto" if by_rule else steps,
        answered_steps=answered if by_rule else None,
        reconstruction=stacked(found.reconstruction),
        w_plus=w_plus,
        trace=trace,
        snapshots={step: stacked(found.snapshots[step]) for step in sorted(found.snapshots)},
        reconstructions={step: stacked(found.reconstructions[step]) for step in sorted(found.reconstructions)},
    )
