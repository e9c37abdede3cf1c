"""Where a network is wrong, does a generator beside it disagree? On validation images, as they are and shifted.

    python results/trust-64/voices.py GENERATOR NETWORK DATASET --limit .85 -o results/trust-64/lungs-9/voices.csv

NETWORK: a run of several networks (baseline.members), or of one. The mask is its own; its scores are those of the label
maps at the network's size. Signals, none of which sees a label:

entropy         of the network's probabilities (of several: of their mean), mean over pixels
members         how far the networks of a committee disagree
encoder         how far the network and the generator's encoder (no steps) disagree
inversion       ... and the optimised code of the image, by the paper's objective
guided          ... and the optimised code that was guided by the network's mask, as semgan-student does
reconstruction  perceptual distance of the guided code's image
all             mean of the ranks of entropy, members (where there are some) and encoder

auroc: chance that an image whose score is below --limit has more of it than another (with a 95 % bootstrap interval);
ranks: Spearman's correlation with 1 - score; aurc: area under the risk-coverage curve, lower is better. Shift "all":
the images as they are and all shifts together.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np
import torch

import semgan
from semgan import artifacts
from semgan.data.folder import Dataset
from semgan.metrics import overlap, selective
from semgan.objectives.segmentation import disagreement, entropy_share
from semgan.stages.inversion_objective import Guide

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, counted, pictures

COLUMNS = ("shift", "n", "score", "failures", "signal", "auroc", "auroc_low", "auroc_high", "ranks", "aurc")
STEPS, GUIDE_WEIGHT = 25, 1.0  # of semgan-student


def main() -> None:
    """The table, one line a shift and signal."""
    given = _arguments()
    torch.set_num_threads(1)
    generator, network = (semgan.load(run, device="cpu") for run in (given.generator, given.network))
    data = Dataset.open(given.dataset)
    cases = data.validation_for(generator, given.cases, name=str(given.generator))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    gathered = []
    for shift in (NONE, *given.shifts):
        images, truths = pictures(data, cases, shift, generator)
        gathered.append(_measured(generator, network, images, truths))
        table.writerows(_rows(shift, *gathered[-1], given.limit))
        print(f"{shift}: done", flush=True)
    scores = np.concatenate([scores for scores, _ in gathered])
    signals = {name: np.concatenate([found[name] for _, found in gathered]) for name in gathered[0][1]}
    table.writerows(_rows("all", scores, signals, given.limit))
    artifacts.write_text_atomic(given.out, text.getvalue())


def _measured(generator, network, images, truths) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores of the network's masks, and every signal, ``[n]`` each."""
    learnt = network.segment_batch(images)
    mine = learnt.probabilities
    guided = generator.segment_batch(images, steps=STEPS, snapshot_steps=(0,), guide=Guide(mine, GUIDE_WEIGHT))
    alone = generator.segment_batch(images, steps=STEPS)
    rows = torch.arange(len(images))
    last = torch.tensor([guided.steps_of(row) for row in range(len(images))])
    found = {
        "entropy": entropy_share(mine).mean((1, 2)),
        **({"members": learnt.signals["disagreement"]} if learnt.signals else {}),
        "encoder": disagreement([mine, guided.snapshots[0]]),
        "inversion": disagreement([mine, alone.probabilities]),
        "guided": disagreement([mine, guided.probabilities]),
        "reconstruction": guided.trace["perceptual"].cpu()[last, rows],
    }
    scores = overlap.case_means(counted(mine, truths), generator.settings.metric)
    return scores, {name: value.double().numpy() for name, value in found.items()}


def _rows(shift: str, scores: np.ndarray, signals: dict[str, np.ndarray], limit: float) -> list[list[str]]:
    failed = scores < limit
    together = [selective.mid_ranks(signals[name]) for name in ("entropy", "members", "encoder") if name in signals]
    told = []
    for name, doubt in {**signals, "all": np.mean(together, 0)}.items():
        numbers = (
            selective.auroc(doubt, failed),
            *selective.auroc_interval(doubt, failed),
            selective.rank_correlation(doubt, 1 - scores),
            selective.risk_coverage(-doubt, 1 - scores).area,
        )
        head = [shift, str(len(scores)), f"{scores.mean():.4f}", str(int(failed.sum())), name]
        told.append([*head, *(f"{number:.4f}" for number in numbers)])
    return told


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path, help="run of method semgan")
    parser.add_argument("network", type=Path, help="run of a feed-forward method on the same labelled list")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True, help="scores below are failures")
    parser.add_argument("--cases", type=int, default=75, help="validation images, the first ones")
    parser.add_argument("--shifts", nargs="+", default=["mixed", "overlays", "zoom", "shading"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
