"""Scores of student, inversion, guided inversion and their means on validation images, as they are and shifted.

    python results/guided-64/compare.py INVERSION_RUN STUDENT_RUN DATASET -o results/guided-64/lungs-9.csv

Both runs must be of one recipe and one labelled list. Test images play no part. Scores: mean over cases of the runs'
metric, of the label maps at the network's size, where a class that is in neither mask is left out.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import semgan
from semgan.data.folder import Dataset
from semgan.stages.inversion_objective import Guide
from semgan.student_answer import mix

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, pictures, score

COLUMNS = ("shift", "guide_weight", "steps", "student_share", "n", "score")


def main() -> None:
    """The table, a line at a time."""
    given = _arguments()
    torch.set_num_threads(1)
    inversion, student = (semgan.load(run, device="cpu") for run in (given.inversion, given.student))
    data = Dataset.open(given.dataset)
    cases = data.validation_for(inversion, given.cases, name=str(given.inversion))
    metric = inversion.settings.metric
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for shift in (NONE, *given.shifts):
            images, truths = pictures(data, cases, shift, inversion)
            for row in _rows(inversion, student, images, given.weights, given.steps):
                weight, steps, share, answer = row
                table.writerow([shift, weight, steps, share, len(truths), f"{score(answer, truths, metric):.5f}"])
                file.flush()


def _rows(inversion, student, images, weights, steps) -> Iterator[tuple[float | str, int | str, float, torch.Tensor]]:
    """The student's answer, and for every weight and number of steps those of the shares of `SHARES`."""
    learnt = student.segment_batch(images).probabilities
    yield "", "", 1.0, learnt
    for weight in weights:
        guide = Guide(learnt, weight)
        found = inversion.segment_batch(images, steps=max(steps), snapshot_steps=tuple(steps), guide=guide)
        for step in steps:
            for share in (0.0, 0.25, 0.5, 0.75):
                yield weight, step, share, mix(found.snapshots[step], learnt, share)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inversion", type=Path, help="run of method semgan")
    parser.add_argument("student", type=Path, help="run of method student")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 1.0, 10.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 10, 25])
    parser.add_argument("--shifts", nargs="+", default=["zoom", "turn", "overlays", "frame", "mixed"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
