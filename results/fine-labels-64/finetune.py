"""What masks finer than the network (``data.fine_labels``) are worth: a trained network goes on with each.

    python results/fine-labels-64/finetune.py RUN DATASET -o results/fine-labels-64/scores.csv [--steps 200]

RUN: a network of method unet. Every variant starts at its weights, sees the same images with the same affine changes
(Adam, the recipe's learning rate falling to 0), and is scored on the validation images twice: with masks at their own
size, to which answers are enlarged, and at the network's. Test sets are not opened. Row with 0 steps: the run itself;
``--steps 0``: nothing else. Rows of the same run, steps and variant are replaced.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import torch

from semgan import artifacts, config
from semgan.artifacts import write_text_atomic
from semgan.baselines.segmenter import NetworkSegmenter
from semgan.data.folder import Dataset
from semgan.data.loading import load_label
from semgan.job import TrainingJob, load_pixels
from semgan.metrics.validation import score_cases
from semgan.objectives.segmentation import probabilities, supervised_loss
from semgan.runtime.device import prepare_cpu

COLUMNS = ("run", "metric", "cases", "fine_labels", "steps", "own_size", "network_size")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="CSV that rows are added to")
    parser.add_argument("--steps", type=int, default=200, help="steps of the recipe's batch")
    parser.add_argument("--fine", default="1,2", help="values of data.fine_labels to compare")
    parser.add_argument("--cases", type=int, default=75, help="validation images, at most")
    return parser.parse_args()


class Trial:
    """A run's network, its labelled images, and the validation images."""

    def __init__(self, run: Path, dataset: Dataset, cases: int) -> None:
        self.run, self.dataset = run, dataset
        self.settings = config.load(artifacts.RunFolder(run).config)
        self.known = dataset.validation()[:cases]
        self.truths = [load_label(case, dataset.labels, dataset.ignore) for case in self.known]

    def after(self, fine: int, steps: int) -> dict[str, object]:
        """A row of the table: the network after so many steps with masks of so many times its side."""
        settings = config.override(self.settings, {"data": {"fine_labels": fine}})
        cache, pixels = load_pixels(self.dataset, settings)
        parts = (pixels["labelled"], pixels["unlabelled"], pixels["validation"])
        run, cpu = artifacts.RunFolder(self.run), torch.device("cpu")
        job = TrainingJob(settings, self.dataset.labels, run, cpu, cache.images, *parts)
        network = NetworkSegmenter.load(self.run, "cpu").network.float()
        _train(network, job, steps)
        network.eval()
        shown = job.first_validation(len(self.known))
        scores = [
            score_cases(
                lambda image: probabilities(network(image)),
                shown.images,
                truths,
                settings.metric,
                classes=self.dataset.labels.classes,
            )
            for truths in (self.truths, shown.label_maps)
        ]
        row = (self.run.name, settings.metric, len(self.known), fine, steps, *(f"{score:.4f}" for score in scores))
        return dict(zip(COLUMNS, row, strict=True))


def _train(network: torch.nn.Module, job: TrainingJob, steps: int) -> None:
    own, stream = job.settings.baseline, job.labelled_stream("finetune")
    adam = torch.optim.Adam(network.parameters(), own.learning_rate)
    network.train()
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = own.learning_rate * (1 - step / steps) ** 0.9
        batch = stream.batch(step * own.batch, own.batch)
        loss = torch.stack(list(supervised_loss(network(batch.image), batch.truth).values())).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()


def main() -> None:
    args = arguments()
    prepare_cpu()
    trial = Trial(args.run, Dataset.open(args.dataset), args.cases)
    variants = [(trial.settings.data.fine_labels, 0)]
    variants += [(int(fine), args.steps) for fine in args.fine.split(",") if args.steps]
    rows = list(csv.DictReader(args.out.open())) if args.out.is_file() else []
    for fine, steps in variants:
        row = trial.after(fine, steps)
        print(row, flush=True)
        same = {key: str(row[key]) for key in ("run", "fine_labels", "steps")}
        rows = [old for old in rows if any(old[key] != value for key, value in same.items())] + [row]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomic(args.out, text.getvalue())


if __name__ == "__main__":
    main()
