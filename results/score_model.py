"""Score a trained model on a folder of images with masks, at several optimisation steps, into a scores.csv.

    python results/score_model.py RUN --images DIR --labels DIR --test-set hannover --task lungs --out results/lungs-64

Images are segmented once, with the masks kept at every step asked for; scores are at the images' own size. The step
that was chosen on validation (model/config.json) is marked ``chosen``. Models without optimisation have step 0 only.

Where a test set has other classes than the model, parts of a split file say how they meet, each as FILE.json:KEY:
``--mapping`` (value of a true mask -> class), ``--map-predictions`` (predicted class -> class of the test set),
``--classes`` (names in the test set) and ``--mean-over`` (names that make the mean).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import semgan
from semgan import artifacts, results
from semgan.data.readers import read_label
from semgan.data.whole_images import find_inputs, segment_images
from semgan.metrics import overlap
from semgan.runtime.device import prepare_cpu


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="masks STEM.png of class indices")
    parser.add_argument("--only", type=part, help="the stems to score; default: all images")
    parser.add_argument("--mapping", type=part, help="class of every value in the true masks, a list")
    parser.add_argument("--map-predictions", type=part, help="test set's class of every class of the model, a list")
    parser.add_argument("--classes", type=part, help="names of the test set's classes; default: the model's")
    parser.add_argument("--mean-over", type=part, help="names of the classes in the mean; default: all but the first")
    parser.add_argument("--test-set", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--steps", default="0,25,50,100,200")
    parser.add_argument("--out", type=Path, required=True, help="folder of scores.csv")
    return parser.parse_args()


def part(text: str) -> Any:
    """What FILE.json holds under KEY, from "FILE.json:KEY"."""
    file, _, key = text.rpartition(":")
    return json.loads(Path(file).read_text())[key]


def main() -> None:
    args = arguments()
    prepare_cpu()
    description, _ = artifacts.read_model(args.run)
    settings = description["settings"]
    chosen = chosen_steps(description)
    optimises = "inversion" in description
    steps = sorted({int(step) for step in args.steps.split(",")} | ({chosen} - {None})) if optimises else [0]
    model = semgan.load(args.run)
    inputs, _ = find_inputs(args.images, settings["preprocessing"]["channels"])
    if args.only:
        inputs = [item for item in inputs if item.stem in set(args.only)]
    classes = list(args.classes.values()) if isinstance(args.classes, dict) else args.classes or description["classes"]
    over = [classes.index(name) for name in args.mean_over] if args.mean_over else None
    of_true, of_predicted = (table and np.array(table) for table in (args.mapping, args.map_predictions))
    counts: dict[int, list[overlap.Counts]] = {step: [] for step in steps}
    answers = segment_images(model, inputs, steps=max(steps) if optimises else None, snapshot_steps=tuple(steps))
    for item, answer in zip(inputs, answers, strict=True):
        truth = read_label(args.labels / f"{item.stem}.png")
        truth = truth if of_true is None else of_true[truth]
        for step in steps:
            predicted = answer.snapshots[step]
            predicted = predicted if of_predicted is None else of_predicted[predicted]
            counts[step].append(overlap.count(predicted, truth, len(classes)))
    row, rows = rows_of(args.run, args.task), []
    for step in steps:
        cases = overlap.concatenate(counts[step])
        named = dict(zip(classes, overlap.class_scores(cases, settings["metric"]), strict=True))
        named.pop(classes[0])
        named[results.MEAN] = overlap.overall(cases, settings["metric"], over)
        for name, value in named.items():
            rows.append(row(args.test_set, name, step, int(step == chosen), len(inputs), value))
            if name == results.MEAN:
                print(f"{settings['method']} {args.test_set} steps {step}: {value:.4f}")
    rows += validation_rows(args.run, args.task)
    results.append_rows(args.out / "scores.csv", rows, replace=True)


def chosen_steps(description: dict[str, Any]) -> int | None:
    """Optimisation steps that validation chose for a model; 0 for methods without optimisation."""
    return (description.get("inversion") or {"chosen_steps": 0})["chosen_steps"]


def rows_of(run: Path, task: str) -> Callable[..., results.ScoreRow]:
    """What makes a row about a run from test set, class, steps, whether chosen, cases and value."""
    settings = artifacts.read_model(run)[0]["settings"]
    commit = artifacts.read_json(artifacts.RunFolder(run).environment)["commit"]

    def row(test_set: str, name: str, step: int, chosen: int, count: int, value: float) -> results.ScoreRow:
        return results.ScoreRow(
            task=task,
            metric=settings["metric"],
            resolution=settings["preprocessing"]["size_px"],
            labels=settings["labels"] or 0,
            split_seed=settings["split_seed"],
            seed=settings["seed"],
            method=settings["method"],
            test_set=test_set,
            class_name=name,
            steps=step,
            chosen=chosen,
            n=count,
            value=round(float(value), 5),
            commit=commit,
        )

    return row


def validation_rows(run: Path, task: str) -> list[results.ScoreRow]:
    """The validation list's scores of every step."""
    description, _ = artifacts.read_model(run)
    row, chosen = rows_of(run, task), chosen_steps(description)
    scores = validation_scores(run, description["settings"]["metric"])
    return [row("validation", results.MEAN, step, int(step == chosen), count, value) for step, count, value in scores]


def validation_scores(run: Path, metric: str) -> list[tuple[int, int, float]]:
    """(steps, cases, score) on the validation list at the network's resolution, as training noted them."""
    found = {}
    for line in artifacts.read_metrics(artifacts.RunFolder(run).metrics):
        if line["stage"] == "inversion":
            for name, value in line.items():
                if name.startswith(f"validation/{metric}/steps_"):
                    found[int(name.rpartition("_")[2])] = (line["images_seen"], value)
        elif line["stage"] == "baseline" and "validation/best" in line:
            found[0] = (settings_cases(run), line["validation/best"])
    return [(step, count, value) for step, (count, value) in sorted(found.items())]


def settings_cases(run: Path) -> int:
    """Validation cases that training scored."""
    description, _ = artifacts.read_model(run)
    return min(int(description["training"]["validation images"]), description["settings"]["run"]["validation_cases"])


if __name__ == "__main__":
    main()
