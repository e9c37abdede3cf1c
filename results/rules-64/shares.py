"""What is a share of the encoder's answer worth in an optimised one? On validation images, as they are and shifted.

    python results/rules-64/shares.py RUN DATASET -o results/rules-64/skin-40-shares.csv

Every image is optimised for 10, 25 and 50 steps; the answer's probabilities are those of the last step and, to a share,
those of step 0. Scores of all images together (metric of the run, label maps at the network's size) for every share.
Share 1 is step 0 alone, 0 the optimised answer alone. Test images play no part.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

import torch

from semgan import artifacts
from semgan.data.folder import Dataset
from semgan.data.shifts import MIXED
from semgan.generative import load_generative

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, pictures, score

COLUMNS = ("shift", "steps", "share_of_step_0", "n", "score")
STEPS = (10, 25, 50)
SHARES = (0.0, 0.25, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("run", type=Path)
    told.add_argument("dataset", type=Path)
    told.add_argument("--cases", type=int, default=100, help="of the validation list")
    told.add_argument("-o", "--out", type=Path, required=True)
    given = told.parse_args()
    torch.set_num_threads(1)
    model, _ = load_generative(given.run, "cpu")
    data = Dataset.open(given.dataset)
    cases = data.validation_for(model, given.cases)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for shift in (NONE, MIXED):
        images, truths = pictures(data, cases, shift, model)
        parts = [
            model.segment_batch(part, steps=STEPS[-1], snapshot_steps=(0, *STEPS)).snapshots
            for part in images.split(model.settings.inversion.batch)
        ]
        found = {step: torch.cat([part[step] for part in parts]) for step in (0, *STEPS)}
        for step in STEPS:
            for share in SHARES:
                mixed = torch.lerp(found[step], found[0], share)
                row = [shift, step, share, len(cases), f"{score(mixed, truths, model.settings.metric):.5f}"]
                table.writerow(row)
                print(*row, flush=True)
    artifacts.write_text_atomic(given.out, text.getvalue())


if __name__ == "__main__":
    main()
