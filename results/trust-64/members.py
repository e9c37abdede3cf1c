"""What is a mean of several networks worth, in and out of domain? On validation images, as they are and shifted.

    python results/trust-64/members.py DATASET RUN... -o results/trust-64/lungs-9/members.csv

Runs of one recipe and labelled list, of other training seeds. Of each number of members: the mean score of all
ensembles of that size, the lowest and the highest (metric of the first run, label maps at the network's size, mean over
images).
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from itertools import combinations
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


def main() -> None:
    """The table: one to all members, on the images as they are, then under mixed shifts."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("dataset", type=Path)
    told.add_argument("runs", type=Path, nargs="+")
    told.add_argument("-o", "--out", type=Path, required=True)
    told.add_argument("--cases", type=int, default=75, help="validation images, the first ones")
    given = told.parse_args()
    torch.set_num_threads(1)
    models = [semgan.load(run, device="cpu") for run in given.runs]
    metric = methods.described(artifacts.find_model(given.runs[0]))["settings"]["metric"]
    data = Dataset.open(given.dataset)
    cases = data.validation_for(models[0].labels, given.cases)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for shift in (NONE, MIXED):
        images, truths = pictures(data, cases, shift, models[0])
        found = [model.segment_batch(images).probabilities.float() for model in models]
        for members in range(1, len(models) + 1):
            means = [torch.stack(chosen).mean(0) for chosen in combinations(found, members)]
            scores = [score(mean, truths, metric) for mean in means]
            numbers = (f"{number:.5f}" for number in (np.mean(scores), min(scores), max(scores)))
            table.writerow([shift, members, len(scores), len(truths), *numbers])
    artifacts.write_text_atomic(given.out, text.getvalue())


if __name__ == "__main__":
    main()
