"""What is a mean of several networks worth, in and out of domain? On validation images, as they are and shifted.

    python results/trust-64/members.py DATASET RUN... -o results/trust-64/lungs-9/members.csv

Runs of one recipe and labelled list, of other training seeds. Of each number of members: the mean score of all
ensembles of that size, the lowest and the highest (metric of the first run, label maps at the network's size, mean over
images). ``--others RUN...``: networks that were trained in another way; then a column says how many of an ensemble's
members are of those.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch

import semgan
from semgan import artifacts, methods
from semgan.data.folder import Dataset
from semgan.data.shifts import MIXED

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, pictures, score

COLUMNS = ("shift", "members", "ensembles", "n", "score", "lowest", "highest")
OTHERS = "others"  # one more, with --others


def main() -> None:
    """The table: one to all members, on the images as they are, then under mixed shifts."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("dataset", type=Path)
    told.add_argument("runs", type=Path, nargs="+")
    told.add_argument("--others", type=Path, nargs="+", default=[])
    told.add_argument("-o", "--out", type=Path, required=True)
    told.add_argument("--cases", type=int, default=75, help="validation images, the first ones")
    given = told.parse_args()
    torch.set_num_threads(1)
    models = [semgan.load(run, device="cpu") for run in (*given.runs, *given.others)]
    metric = methods.described(artifacts.find_model(given.runs[0]))["settings"]["metric"]
    data = Dataset.open(given.dataset)
    cases = data.validation_for(models[0], given.cases)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*COLUMNS, OTHERS) if given.others else COLUMNS)
    for shift in (NONE, MIXED):
        images, truths = pictures(data, cases, shift, models[0])
        found = [model.segment_batch(images).probabilities.float() for model in models]
        own, others = found[: len(given.runs)], found[len(given.runs) :]
        for members, odd in product(range(len(own) + 1), range(len(others) + 1)):
            if members + odd:
                chosen = [one + two for one in combinations(own, members) for two in combinations(others, odd)]
                scores = [score(torch.stack(each).mean(0), truths, metric) for each in chosen]
                numbers = (f"{number:.5f}" for number in (np.mean(scores), min(scores), max(scores)))
                row = (shift, members + odd, len(scores), len(truths), *numbers)
                table.writerow((*row, odd) if given.others else row)
    artifacts.write_text_atomic(given.out, text.getvalue())


if __name__ == "__main__":
    main()
