"""How often a choice of answers that truly loses is let through, by the number of validation cases: made-up images.

    python results/trust-64/simulate_choices.py > results/trust-64/choices.csv

The other answer gains .015, and ruins 6 % of the images by .3, which no signal foretells; truth: 2,000 new cases. A
choice loses where it is worse than the best fixed answer by more than .002, on images as they are or with copies.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "trust"))
from conftest import made_samples

from semgan.trust import choice
from semgan.trust.samples import FIRST, OWN

SEEDS = range(40)


def ruins_some(signals, own, chance):
    """Scores of the other answer."""
    return np.clip(own + np.where(chance.random(len(own)) < 0.06, -0.3, 0.015), 0, 1)


def main() -> None:
    """A line for every number of cases."""
    print("cases,fits,chose,lost")
    for cases in (8, 16, 32):
        choice.FEWEST_CASES, chose, lost = cases, 0, 0
        for seed in SEEDS:
            learned = choice.learn_choice(made_samples(cases, seed=seed, **{FIRST: ruins_some}), seed=seed)
            if learned.choice.margin is None:
                continue
            new = made_samples(2000, seed=1000 + seed, **{FIRST: ruins_some})
            names = np.array(learned.choice.chosen(new.signals))
            got = np.where(names == OWN, new.scores[OWN], new.scores[FIRST])
            everything = np.ones(len(got), bool)
            best = [max(values[rows].mean() for values in new.scores.values()) for rows in (new.intact, everything)]
            chose += 1
            lost += min(got[new.intact].mean() - best[0], got.mean() - best[1]) < -0.002
        print(f"{cases},{len(SEEDS)},{chose},{lost}", flush=True)


if __name__ == "__main__":
    main()
