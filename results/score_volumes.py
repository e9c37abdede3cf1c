"""Segment volumes with a trained model and score them per patient, into a scores.csv.

    python results/score_volumes.py RUN --volumes raw/MR --labels labels/in --modality mri --masks RUN/masks/mri \
        --test-set phantom-mri-in --task liver --out results/liver-64

Does what `semgan segment --steps N --modality M` and `semgan evaluate --surface` do, for N of 0 (the encoder alone) and
as chosen on validation; models without optimisation have step 0 only. What is counted and how: `semgan.volume_scoring`,
as `semgan benchmark` does. The masks lie in MASKS/steps-N and are not made again by the same model; each patient's Dice
is in MASKS/steps-N/TEST_SET/cases.csv. OUT/RUN_NAME/TEST_SET-steps-N.json keeps what evaluate found: intervals, surface
distances in mm, volume differences.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semgan import artifacts, results
from semgan.evaluate import evaluate
from semgan.scoring import TrainedModel
from semgan.volume_scoring import VolumeSet, score_volumes, segmented


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--volumes", type=Path, required=True, help="NIfTI files or DICOM series, in any tree")
    parser.add_argument("--labels", type=Path, required=True, help="true masks STEM.nii.gz, one per patient")
    parser.add_argument("--modality", required=True)
    parser.add_argument("--masks", type=Path, required=True, help="folder of the masks to make")
    parser.add_argument("--test-set", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of scores.csv")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    model = TrainedModel(args.run)
    held_out = VolumeSet(args.test_set, args.volumes, args.labels, args.modality)
    metric, classes = model.settings["metric"], model.description["classes"]
    for step in model.steps(()):
        masks = segmented(model, held_out, args.masks, step)
        found = evaluate(masks, args.labels, metric=metric, classes=classes, surface=True, out=masks / args.test_set)
        kept = {**found.to_json(), "predictions": masks.name, "labels": args.test_set}
        artifacts.write_json(args.out / args.run.name / f"{args.test_set}-steps-{step}.json", kept)
        print(f"{model.settings['method']} {args.test_set} steps {step}: {found.mean:.4f}")
    rows = model.rows(score_volumes(model, held_out, args.masks), args.task, metric)
    results.append_rows(args.out / "scores.csv", [*rows, *model.validation_rows(args.task)], replace=True)


if __name__ == "__main__":
    main()
