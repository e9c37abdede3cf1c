"""What the curves say in plain sentences: what is wrong, and when to stop.

Each check looks at one thing and returns at most a few findings. The thresholds are rules of thumb, stated beside the
check; a finding names the numbers it rests on, so that a reader can disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from semgan.report.history import STAGES, Curve, History, is_distance
from semgan.report.plotting import short_count

Level = Literal["wrong", "stop", "watch", "good"]
ORDER: tuple[Level, ...] = ("wrong", "stop", "watch", "good")
ENOUGH = 6  # values of a curve before anything is said about its course


@dataclass(frozen=True)
class Finding:
    """wrong: act now; stop: training may end; watch: keep an eye on it; good: as it should be."""

    level: Level
    text: str


def findings(history: History) -> list[Finding]:
    """All that the curves give reason to say, the gravest first; one 'watch' finding where there is no data yet."""
    if not history.stages:
        return [Finding("watch", "No metrics yet: nothing can be said about this run.")]
    found: list[Finding] = []
    for check in CHECKS:
        for stage in history.stages:
            found += check(history, stage)
    if not found:
        found = [Finding("watch", "Too few previews yet to judge this run; train on.")]
    return sorted(found, key=lambda finding: ORDER.index(finding.level))


def _name(stage: str) -> str:
    return STAGES.get(stage, stage)


def _at(images: float) -> str:
    return f"{short_count(images)} images"


def _finding(level: Level, stage: str, *text: str) -> Finding:
    return Finding(level, f"{_name(stage)}: {' '.join(text)}")


def check_numbers(history: History, stage: str) -> list[Finding]:
    """Nan and infinity never mend themselves."""
    cure = "Go back to the last checkpoint and train with a lower learning rate or in float32."
    return [
        _finding("wrong", stage, f"'{name}' turned to nan or infinity at {_at(images)}.", cure)
        for (where, name), images in history.broken.items()
        if where == stage
    ]


def check_frechet(history: History, stage: str) -> list[Finding]:
    """The paper trains until the Frechet distance converges: no gain of 3 % over the last third counts as converged."""
    found = []
    for name, curve in history.stages[stage].items():
        if not is_distance(name) or len(curve) < ENOUGH:
            continue
        early, late = curve.part(0, 2 / 3), curve.part(2 / 3, 1)
        if len(early) == 0 or len(late) == 0:
            continue
        best, peak = float(curve.values.min()), _at(curve.images[int(curve.values.argmin())])
        gain = 1 - late.min() / early.min() if early.min() > 0 else 0.0
        if curve.last > 1.3 * best:
            text = f"the Fréchet distance rose from {best:.3g} at {peak} to {curve.last:.3g}:"
            found.append(_finding("stop", stage, text, "the images are getting worse. Stop."))
        elif gain < 0.03:
            text = f"the Fréchet distance has not improved over the last third (best {best:.3g} at {peak}):"
            found.append(_finding("stop", stage, text, "the images will hardly get better. Time to stop."))
        else:
            text = f"the Fréchet distance still fell by {gain:.0%} over the last third (now {curve.last:.3g}):"
            found.append(_finding("good", stage, text, "longer training pays."))
    return found


def check_validation(history: History, stage: str) -> list[Finding]:
    """A peak in the past with a loss of more than 1 point (or 2 %) since: over-fitting to the few labels."""
    found = []
    for metric, curve in history.validation(stage).items():
        if len(curve) < 3:
            continue
        place = int(curve.values.argmax())
        best, peak = float(curve.values[place]), _at(curve.images[place])
        branch = "label branch's " if stage == "gan" else ""
        label = f"the {branch}validation {metric}"
        is_late = place >= len(curve) - 2
        if best - curve.last > max(0.01, 0.02 * abs(best)) and not is_late:
            text = f"{label} peaked at {peak} ({best:.3f}) and is {curve.last:.3f} now."
            found.append(_finding("stop", stage, text, "Longer training fits the few labels too closely; stop."))
        elif is_late and len(curve) >= ENOUGH and best - curve.values[len(curve) // 2] > 0.005:
            found.append(_finding("good", stage, f"{label} is still rising ({curve.last:.3f}): longer training pays."))
        else:
            found.append(_finding("good", stage, f"{label} is {curve.last:.3f}, best {best:.3f} at {peak}."))
    return found


CURES = {
    "image": "Stop, or use augmentation (gan.augment=adaptive), or raise gan.r1_gamma.",
    "pair": "Stop, or give more labels or stronger affine augmentation, or raise gan.pair_r1_gamma.",
}


def check_critics(history: History, stage: str) -> list[Finding]:
    """The gap between real and fake scores: growing means a critic that wins, none means one that sees nothing."""
    found = []
    for kind, saturated in (("image", 6.0), ("pair", 1.9)):
        real, fake = (history.curve(stage, f"score/{kind}_{side}") for side in ("real", "fake"))
        gap = _difference(real, fake)
        if gap is None or len(gap) < ENOUGH:
            continue
        early, late = (float(np.median(gap.part(*part))) for part in ((0.1, 0.45), (2 / 3, 1)))
        if late > saturated and late > 1.3 * max(early, 1e-6):
            text = f"the {kind} critic is winning (real minus fake score {early:.2g} early, {late:.2g} lately);"
            found.append(_finding("wrong", stage, text, "it has learnt its images by heart.", CURES[kind]))
        elif late > saturated:
            text = f"the {kind} critic is far ahead of the generator (real minus fake score {late:.2g}), but steady."
            found.append(_finding("watch", stage, text))
        elif late < 0.02 * saturated:
            text = f"the {kind} critic cannot tell real from fake (scores differ by {late:.2g});"
            found.append(_finding("watch", stage, text, "it teaches nothing at present."))
        else:
            text = f"the {kind} critic and the generator are in balance (real minus fake score {late:.2g})."
            found.append(_finding("good", stage, text))
    return found


def _difference(a: Curve | None, b: Curve | None) -> Curve | None:
    if a is None or b is None:
        return None
    images, in_a, in_b = np.intersect1d(a.images, b.images, return_indices=True)
    return Curve(images, a.values[in_a] - b.values[in_b])


def check_regularisers(history: History, stage: str) -> list[Finding]:
    """R1 ten times above its usual value in the last tenth: divergence ahead."""
    found = []
    for kind, curve in history.named(stage, "r1/").items():
        if len(curve) < 2 * ENOUGH:
            continue
        usual, lately = float(np.median(curve.part(0.2, 0.8))), float(np.median(curve.part(0.9, 1)))
        if lately > 10 * max(usual, 1e-8):
            text = f"R1 of the {kind} critic is exploding ({usual:.2g} before, {lately:.2g} lately):"
            cure = "training is about to diverge. Raise its R1 weight or lower the learning rate."
            found.append(_finding("wrong", stage, text, cure))
    return found


def check_labels(history: History, stage: str) -> list[Finding]:
    """A class with a tenth of its share of the labelled set is missing; thrice or a third is out of proportion."""
    shares = history.class_shares(stage)
    ratios = {
        name: float(np.mean(ours.values[-2:])) / truth.last for name, (ours, truth) in shares.items() if truth.last > 0
    }
    missing = [name for name, ratio in ratios.items() if ratio < 0.1]
    present = {name: ratio for name, ratio in ratios.items() if name not in missing}
    off = [f"{name} ({ratio:.1f} times)" for name, ratio in present.items() if not 1 / 3 < ratio < 3]
    found = []
    if missing:
        text = f"missing in the samples' masks: {', '.join(missing)}."
        found.append(_finding("wrong", stage, text, "The label branch has not learnt this (yet)."))
    if off:
        text = f"classes out of proportion in the samples' masks, next to the labelled set: {', '.join(off)}."
        found.append(_finding("watch", stage, text))
    if ratios and not found:
        text = "the samples' masks hold every class in about the labelled set's proportions."
        found.append(_finding("good", stage, text))
    return found


def check_augmentation(history: History, stage: str) -> list[Finding]:
    """Adaptive augmentation that ends above 0.8 leaks into the samples (Karras et al. 2020, arXiv:2006.06676)."""
    curve = history.curve(stage, "augment_probability")
    if curve is None or len(curve) < ENOUGH or curve.last <= 0.8 or np.ptp(curve.values) == 0:
        return []
    text = f"the augmentation probability rose to {curve.last:.2f}: too few images for such long training."
    cure = "Above 0.8 the augmentations show up in the samples; stop earlier or add images."
    return [_finding("watch", stage, text, cure)]


CHECKS: tuple[Callable[[History, str], list[Finding]], ...] = (
    check_numbers,
    check_frechet,
    check_validation,
    check_critics,
    check_regularisers,
    check_labels,
    check_augmentation,
)
