"""Which pairs are kept. Limits are fitted once, on `CALIBRATION` draws of their own; then every pair is judged alone.

So neither the number of pairs asked for, nor an interruption, nor a neighbour changes a decision. In this order:

- *entropy*  the label map's mean entropy is above the limit that ``keep_certain`` of the calibration's pairs meet;
- *critic*   the image critic's score is below the limit that ``keep_real`` of them meet;
- *share*    a class has less than its ``min_share`` of the pixels;
- *balance*  by chance: a pair is kept with probability max over the classes it shows of f_min / f_c, where f_c is the
  share of the calibration's passing pairs that show class c (at least `PRESENT` of the pixels; "nothing" counts as a
  class of pairs without foreground) and f_min that of the rarest, at least `FLOOR`. Pairs with the rarest class are all
  kept, pairs with common ones only are thinned out.

The calibration's pairs are never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from semgan import seeding
from semgan.synth.factory import BLOCK, DRAWS, Drawn, Factory, Restyled
from semgan.synth.plan import Plan

CALIBRATION = 256  # pairs that limits are fitted to
STREAM = f"{DRAWS}/calibration"
PRESENT = 0.001  # share of the pixels from which on a class counts as shown
FLOOR = 0.05  # no pair's chance falls below this
NOTHING = "nothing"
KEPT = ""


@dataclass(frozen=True)
class Rules:
    """What decides, as rules.json holds it; None: this rule is not in force.

    classes:   names, background first
    deviation: the critic's minibatch statistic
    frequency: class (or "nothing") -> share of passing pairs that show it
    kept:      share of the calibration's pairs that all rules together keep
    """

    classes: tuple[str, ...]
    most_entropy: float | None = None
    least_critic: float | None = None
    deviation: float | None = None
    min_share: dict[str, float] = field(default_factory=dict)
    frequency: dict[str, float] | None = None
    style_layer: int | None = None
    style_limit: float | None = None
    kept: float = 1.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Rules:
        known: dict[str, Any] = {**content, "classes": tuple(content["classes"])}
        return cls(**known)

    def judge(self, drawn: Drawn, seed: int, *, stream: str = DRAWS) -> list[str]:
        """For each pair `KEPT`, or the name of the first rule that drops it."""
        chances = seeding.uniform(seed, f"{stream}/balance", drawn.numbers, ()).numpy()
        return [
            self._reason(drawn.entropy[row], None if drawn.critic is None else drawn.critic[row])
            or self._share_reason(drawn.shares[row], float(chances[row]))
            for row in range(len(drawn.numbers))
        ]

    def judge_styles(self, styles: Restyled) -> list[str]:
        """The same for other appearances: whether the mask still belongs to them, and whether they look real."""
        assert self.style_limit is not None
        return [
            "moved"
            if moved > self.style_limit
            else self._reason(None, None if styles.critic is None else styles.critic[row])
            for row, moved in enumerate(styles.moved)
        ]

    def _reason(self, entropy: float | None, critic: float | None) -> str:
        """Written so that what is no number is not kept either."""
        if self.most_entropy is not None and entropy is not None and not entropy <= self.most_entropy:
            return "entropy"
        if self.least_critic is not None and critic is not None and not critic >= self.least_critic:
            return "critic"
        return KEPT

    def _share_reason(self, shares: np.ndarray, chance: float) -> str:
        if any(shares[self.classes.index(name)] < least for name, least in self.min_share.items()):
            return "share"
        return "balance" if chance >= self.keep_chance(shares) else KEPT

    def keep_chance(self, shares: np.ndarray) -> float:
        """With which probability the balance keeps a pair of these class shares."""
        if self.frequency is None:
            return 1.0
        known = {name: value for name, value in self.frequency.items() if value > 0}
        rarest = max(min(known.values()), FLOOR)
        # A class that no pair of the calibration shows is rarer than the rarest.
        return max(min(1.0, rarest / known.get(name, rarest)) for name in shown(shares, self.classes))


def shown(shares: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The foreground classes with at least `PRESENT` of the pixels, or "nothing"."""
    found = [name for name, share in zip(classes[1:], shares[1:], strict=True) if share >= PRESENT]
    return found or [NOTHING]


# ---------------------------------------------------------------- fitting


def fit_rules(factory: Factory, plan: Plan) -> Rules:
    """Fit the limits to the calibration's pairs. Raises ValueError where the rules would keep none of them."""
    firsts = range(0, CALIBRATION, BLOCK)
    factory.fit_deviation(firsts[:2], stream=STREAM)
    blocks = [factory.draw(first, stream=STREAM) for first in firsts]
    _refuse_no_numbers(blocks)
    rules = Rules(
        classes=factory.model.labels.names,
        most_entropy=_entropy_limit(blocks, plan.keep_certain),
        least_critic=_critic_limit(blocks, plan.keep_real),
        deviation=factory.deviation,
        min_share=dict(plan.min_share),
    )
    if plan.balance:
        rules = replace(rules, frequency=_frequencies(rules, blocks, plan))
    reasons = [reason for block in blocks for reason in rules.judge(block, plan.seed, stream=STREAM)]
    kept = reasons.count(KEPT) / len(reasons)
    if not kept:
        raise ValueError(_nothing_left(reasons, blocks, rules))
    style = _style_layer(factory, rules, blocks, plan) if plan.restyle else None
    limit = plan.restyle_limit if plan.restyle else None
    return replace(rules, kept=kept, style_layer=style, style_limit=limit)


def _refuse_no_numbers(blocks: Sequence[Drawn]) -> None:
    """A network that broke down in training gives masks that look like any other."""
    scores = [values for block in blocks for values in (block.entropy, block.critic) if values is not None]
    if not np.isfinite(np.concatenate(scores)).all():
        raise ValueError(
            "The model draws pairs that are no numbers (nan): its training broke down, or its files are damaged. Train "
            "it anew, or take an earlier model."
        )


def _entropy_limit(blocks: Sequence[Drawn], share: float) -> float | None:
    values = np.concatenate([block.entropy for block in blocks])
    return None if share == 1 else float(np.quantile(values, share, method="higher"))


def _critic_limit(blocks: Sequence[Drawn], share: float) -> float | None:
    values = [block.critic for block in blocks if block.critic is not None]
    return None if share == 1 or not values else float(np.quantile(np.concatenate(values), 1 - share, method="lower"))


def _frequencies(rules: Rules, blocks: Sequence[Drawn], plan: Plan) -> dict[str, float]:
    passing = [
        shown(block.shares[row], rules.classes)
        for block in blocks
        for row, reason in enumerate(rules.judge(block, plan.seed, stream=STREAM))
        if reason == KEPT
    ]
    if not passing:
        raise ValueError(_nothing_left(["share"] * CALIBRATION, blocks, rules))
    return {name: sum(name in each for each in passing) / len(passing) for name in (*rules.classes[1:], NOTHING)}


def _nothing_left(reasons: Sequence[str], blocks: Sequence[Drawn], rules: Rules) -> str:
    counts = ", ".join(f"{reason}: {reasons.count(reason)}" for reason in dict.fromkeys(reasons))
    largest = np.concatenate([block.shares for block in blocks]).max(0)
    shares = ", ".join(f"{name} {largest[rules.classes.index(name)]:.3f}" for name in rules.min_share)
    hint = f" The largest shares among them are: {shares}." if shares else ""
    return (
        f"The rules keep none of {len(reasons)} pairs drawn on trial (dropped by {counts}).{hint} Lower --min-share, "
        "or raise --keep-certain and --keep-real."
    )


def _style_layer(factory: Factory, rules: Rules, blocks: Sequence[Drawn], plan: Plan) -> int:
    """The coarsest layer from which on another style leaves at least half of the masks within the limit."""
    if plan.restyle_from is not None:
        return plan.restyle_from
    tried = blocks[: max(1, len(blocks) // 4)]
    for layer in range(1, factory.layers):
        moved = [factory.restyle(block, range(BLOCK), 1, layer, stream=STREAM).moved for block in tried]
        if np.median(np.concatenate(moved)) <= plan.restyle_limit:
            return layer
    raise ValueError(
        f"With every choice of layers, most masks move by more than {plan.restyle_limit:g}; raise --restyle-limit, or "
        "leave --restyle out."
    )
