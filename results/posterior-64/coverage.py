"""How often does the true size of a class lie in the interval that `semgan posterior` gives for it?

    python results/posterior-64/coverage.py FOLDER MASKS --classes background,lesion -o skin-40-ph2-coverage.csv

FOLDER: of `semgan posterior`, whose posterior.csv has each image's median size and the ends of its central 95 %
interval in pixels of the image; MASKS: the true masks of the same stems. Of n draws the interval is meant to hold less
than 95 % (`semgan.posterior.run.coverage`: 16 draws 84 %), which is the number to compare with.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from semgan import artifacts
from semgan.masks import MaskReader
from semgan.posterior.run import coverage

COLUMNS = ("class", "images", "draws", "meant", "inside", "inside_low", "inside_high", "below", "above")
COLUMNS += ("median_width", "relative_error_of_median")


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("folder", type=Path)
    told.add_argument("masks", type=Path)
    told.add_argument("--classes", required=True, help="comma list of names, background first")
    told.add_argument("-o", "--out", type=Path, required=True)
    given = told.parse_args()
    with open(given.folder / "posterior.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    names, reader = given.classes.split(","), MaskReader("label", None, ())
    truths = [reader.read(given.masks / f"{row['stem']}.png", names) for row in rows]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for index, name in list(enumerate(names))[1:]:
        true = np.array([(truth == index).sum() for truth in truths])
        low, middle, high = (np.array([float(row[f"{name}_px{end}"]) for row in rows]) for end in ("_low", "", "_high"))
        inside = (low <= true) & (true <= high)
        chance = np.random.default_rng(0).binomial(len(rows), inside.mean(), 10_000) / len(rows)  # parametric bootstrap
        draws = int(rows[0]["draws"])
        spread = np.median((high - low)[middle > 0] / middle[middle > 0])
        error = np.median(np.abs(middle - true)[true > 0] / true[true > 0])
        missed = [(true < low).mean(), (true > high).mean()]
        numbers = [inside.mean(), *np.quantile(chance, [0.025, 0.975]), *missed, spread]
        line = [name, len(rows), draws, *(f"{number:.4f}" for number in (coverage(draws), *numbers, error))]
        table.writerow(line)
        print(*line, flush=True)
    artifacts.write_text_atomic(given.out, text.getvalue())


if __name__ == "__main__":
    main()
