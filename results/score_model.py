"""Score a trained model on a folder of images with masks, at several optimisation steps, into a scores.csv.

    python results/score_model.py RUN --images DIR --labels DIR --test-set hannover --task lungs --out results/lungs-64

What is counted and how: `semgan.scoring`; `semgan benchmark` does the same for a whole grid.

Where a test set has other classes than the model, parts of a split file say how they meet, each as FILE.json:KEY:
``--mapping`` (value of a true mask -> class), ``--map-predictions`` (predicted class -> class of the test set),
``--classes`` (names in the test set) and ``--mean-over`` (names that make the mean).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semgan import results
from semgan.benchmark.parts import class_names, part_of_file
from semgan.metrics.intervals import paired_overlap_difference
from semgan.scoring import HeldOut, TrainedModel


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="masks STEM.png of class indices")
    parser.add_argument("--only", type=part_of_file, help="the stems to score; default: all images")
    parser.add_argument("--mapping", type=part_of_file, help="class of every value in the true masks, a list")
    parser.add_argument("--map-predictions", type=part_of_file, help="test set's class of every class of the model")
    parser.add_argument("--classes", type=part_of_file, help="names of the test set's classes; default: the model's")
    parser.add_argument("--mean-over", type=part_of_file, help="classes in the mean; default: all but the first")
    parser.add_argument("--test-set", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--steps", default="0,25,50,100,200")
    parser.add_argument("--out", type=Path, required=True, help="folder of scores.csv")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    model = TrainedModel(args.run)
    held_out = HeldOut(
        args.test_set,
        args.images,
        args.labels,
        only=args.only and tuple(args.only),
        mapping=args.mapping,
        map_predictions=args.map_predictions,
        classes=args.classes and class_names(args.classes),
        mean_over=args.mean_over and tuple(args.mean_over),
    )
    scored = model.score(held_out, [int(step) for step in args.steps.split(",")])
    rows = model.rows(scored, args.task, model.settings["metric"])
    for row in rows:
        if row.class_name == results.MEAN:
            print(f"{row.method} {row.test_set} steps {row.steps}: {row.value:.4f}")
    if model.chosen != 0:
        pair = (scored.counts[step] for step in (model.chosen, 0))
        told = paired_overlap_difference(*pair, model.settings["metric"], scored.over)
        low, high = told.interval
        print(f"chosen ({model.chosen}) against step 0: {told.difference:+.4f}, 95 % from {low:+.4f} to {high:+.4f}")
    results.append_rows(args.out / "scores.csv", rows + model.validation_rows(args.task), replace=True)


if __name__ == "__main__":
    main()
