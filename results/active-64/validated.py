"""The models of a simulation on validation images, as they are and shifted: by this a default may be chosen.

    python results/active-64/validated.py DATASET --task lungs --work runs/active-64 -o results/active-64/validated.csv

Rows as in scores.csv, of three sets: the validation images as they are, all synthetic shifts of `semgan.data.shifts` in
the mean, and mixed ones (metric of the models, label maps at their size). Prints the table of simulate.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch

from semgan import results
from semgan.data.folder import Dataset
from semgan.data.shifts import MIXED, SHIFTS
from semgan.scoring import TrainedModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, pictures, score
from simulate import table

FIRST = "start"  # folder of the common first model


def main() -> None:
    """The rows, and the table of means over seeds."""
    given = _arguments()
    torch.set_num_threads(1)
    runs = sorted(given.work.glob("seed*/*/run-*"))
    models = [TrainedModel(run, device="cpu") for run in runs]
    first, metric = models[0].segmenter, models[0].settings["metric"]
    data = Dataset.open(given.dataset)
    cases = data.validation_for(first, given.cases)
    scores: list[dict[str, float]] = [{} for _ in runs]
    for shift in (NONE, *SHIFTS, MIXED):
        images, truths = pictures(data, cases, shift, first)
        for model, found in zip(models, scores, strict=True):
            found[shift] = score(model.segmenter.segment_batch(images).probabilities.float(), truths, metric)
        print(f"{shift}: done", file=sys.stderr, flush=True)
    rows = []
    for run, model, found in zip(runs, models, scores, strict=True):
        shifted = statistics.mean(found[shift] for shift in SHIFTS)
        by = run.parent.name
        for name, value in (("as they are", found[NONE]), ("mean of shifts", shifted), ("mixed", found[MIXED])):
            row = model.row(given.task, metric, name, results.MEAN, 0, len(cases), value)
            rows.append(row if by == FIRST else replace(row, method=f"{row.method}+{by}"))
    results.write_rows(given.out, rows)
    print(table(rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the simulation's runs")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=75, help="validation images, the first ones")
    return parser.parse_args()


if __name__ == "__main__":
    main()
