"""What shrinking costs a perfect answer: true masks, shrunk to a network's side and enlarged again as answers are.

    python results/fine-labels-64/ceiling.py runs/benchmark-64/data/* -o results/fine-labels-64/ceiling.csv

nearest: as masks are shrunk for training; shares: the share of every class in every pixel, what a network could answer
at best where it learns from finer masks. Validation masks; test sets are not opened.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from semgan.artifacts import write_text_atomic
from semgan.data.folder import Dataset
from semgan.data.loading import load_label
from semgan.data.transforms import resize_label
from semgan.metrics.validation import score_cases

METRICS = ("dice", "jaccard", "miou")


def shares(label: np.ndarray, classes: int, size_px: int) -> torch.Tensor:
    """``[classes, size_px, size_px]``, each pixel's mean over what it covers."""
    own = F.one_hot(torch.from_numpy(label.astype(np.int64)), classes).movedim(2, 0).float()
    return F.interpolate(own[None], (size_px, size_px), mode="area")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--cases", type=int, default=75, help="validation masks, at most")
    args = parser.parse_args()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "cases", "size_px", "metric", "nearest", "shares"])
    for path in args.datasets:
        dataset = Dataset.open(path)
        classes = dataset.labels.classes
        truths = [load_label(case, dataset.labels, dataset.ignore) for case in dataset.validation()[: args.cases]]
        shrunk = [resize_label(truth, args.size_px) for truth in truths]
        answers = {
            "nearest": torch.stack([shares(label, classes, args.size_px) for label in shrunk]),
            "shares": torch.stack([shares(truth, classes, args.size_px) for truth in truths]),
        }
        images = np.zeros((len(truths), 1, args.size_px, args.size_px), np.uint8)
        for metric in METRICS:
            found = [
                score_cases(lambda _, answer=answer: answer, images, truths, metric, classes=classes, batch=len(truths))
                for answer in answers.values()
            ]
            writer.writerow([path.name, len(truths), args.size_px, metric, *(f"{score:.4f}" for score in found)])
    write_text_atomic(args.out, text.getvalue())
    print(text.getvalue())


if __name__ == "__main__":
    main()
