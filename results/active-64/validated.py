"""The models of a simulation on validation images, as they are and shifted: by this a default may be chosen.

    python results/active-64/validated.py DATASET --work runs/active-64 -o results/active-64/validated.csv

A line a model: seed, how its last list was chosen, labels, the mean score of the validation images as they are, the
mean over all synthetic shifts of `semgan.data.shifts`, and under mixed ones (metric of the models, label maps at their
size). Prints, as a table, means over seeds and the differences from random choice with the same seed.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from pathlib import Path

import torch

import semgan
from semgan import artifacts, methods
from semgan.data.folder import Dataset
from semgan.data.shifts import MIXED, SHIFTS

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, pictures, score

COLUMNS = ("seed", "by", "labels", "n", "as_they_are", "mean_of_shifts", "mixed")
FIRST, RANDOM = "start", "random"


def main() -> None:
    """Both tables."""
    given = _arguments()
    torch.set_num_threads(1)
    runs = sorted(given.work.glob("seed*/*/run-*"))
    models = [semgan.load(run, device="cpu") for run in runs]
    metric = methods.described(artifacts.find_model(runs[0]))["settings"]["metric"]
    data = Dataset.open(given.dataset)
    cases = data.validation_for(models[0].labels, given.cases)
    scores: list[dict[str, float]] = [{} for _ in runs]
    for shift in (NONE, *SHIFTS, MIXED):
        images, truths = pictures(data, cases, shift, models[0])
        for model, found in zip(models, scores, strict=True):
            found[shift] = score(model.segment_batch(images).probabilities.float(), truths, metric)
        print(f"{shift}: done", file=sys.stderr, flush=True)
    rows = []
    for run, found in zip(runs, scores, strict=True):
        numbers = found[NONE], statistics.mean(found[shift] for shift in SHIFTS), found[MIXED]
        head = int(run.parts[-3].removeprefix("seed")), run.parts[-2], int(run.name.removeprefix("run-"))
        rows.append((*head, len(cases), *numbers))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([*row[:4], *(f"{number:.5f}" for number in row[4:])] for row in rows)
    artifacts.write_text_atomic(given.out, text.getvalue())
    print(told(rows))


def told(rows: list[tuple]) -> str:
    """Means over seeds; in brackets the mean difference from random choice, and its deviation."""
    lines = ["| labels | chosen by | seeds | " + " | ".join(COLUMNS[4:]) + " |", "|---" * 6 + "|"]
    for size, by in sorted({(row[2], row[1]) for row in rows}):
        own = [row for row in rows if (row[2], row[1]) == (size, by)]
        cells = []
        for place in (4, 5, 6):
            chance = {row[0]: row[place] for row in rows if (row[2], row[1]) == (size, RANDOM)}
            gains = [row[place] - chance[row[0]] for row in own if by != RANDOM and row[0] in chance]
            more = f" ({statistics.mean(gains):+.4f} ± {statistics.stdev(gains):.4f})" if len(gains) > 1 else ""
            cells.append(f"{statistics.mean(row[place] for row in own):.4f}{more}")
        lines.append(f"| {size} | {'the given list' if by == FIRST else by} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the simulation's runs")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=75, help="validation images, the first ones")
    return parser.parse_args()


if __name__ == "__main__":
    main()
