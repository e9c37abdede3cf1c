"""Is the mean of plausible masks better calibrated than one mask, also than one whose probabilities are tempered?

    python results/posterior-64/compare.py RUN DATASET --skip 24 -o results/posterior-64/lungs-9-answers.csv

RUN: after `semgan calibrate -m RUN DATASET --cases SKIP --method METHOD`. Scored on validation images that calibrate
did not see (after the first SKIP), as they are and under mixed synthetic shifts; test images play no part.

"tempered": p^(1 / T) with one T for all pixels, held out by cross-validation over these images
(semgan.trust.temperature). Negative log-likelihood (nats a pixel), Brier score and expected calibration error over all
pixels at the network's size, and the mean over images of the model's metric.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np
import torch

from semgan import artifacts
from semgan.data.folder import Dataset
from semgan.data.shifts import MIXED
from semgan.posterior.calibration import BUDGET, Calibration
from semgan.posterior.latent import METHODS, LatentPosterior, Method
from semgan.posterior.run import load_generative
from semgan.trust.temperature import fit_temperature

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, pictures, score

COLUMNS = ("shift", "answer", "tempered", "temperature", "n", "nll", "brier", "ece", "score")
BATCH = 16


def main() -> None:
    """The table: every answer on the images as they are, then under shifts."""
    given = _arguments()
    torch.set_num_threads(1)
    model, _ = load_generative(given.model, "cpu")
    fitted = Calibration.read(artifacts.find_model(Path(given.model)))
    if fitted is None or fitted.images != given.skip:
        raise SystemExit(f"Run `semgan calibrate -m {given.model} {given.dataset} --cases {given.skip}` first.")
    data = Dataset.open(given.dataset)
    cases = data.validation_for(model, given.skip + given.cases)[given.skip :]
    posterior = LatentPosterior(model, temperature=fitted.temperature, slack=fitted.slack)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for shift in (NONE, MIXED):
        images, truths = pictures(data, cases, shift, model)
        for answer, found in _answers(model, posterior, images, given.method).items():
            for row in _rows(found, truths, [case.stem for case in cases], model.settings.metric):
                table.writerow([shift, answer, *row])
                print(shift, answer, *row, flush=True)
    artifacts.write_text_atomic(given.out, text.getvalue())


def _answers(model, posterior: LatentPosterior, images: torch.Tensor, method: Method) -> dict[str, np.ndarray]:
    """Probabilities ``[n, classes, height, width]`` of the encoder, of the model's own steps and of the mean mask."""
    parts = images.split(BATCH)
    means = [
        drawn.mean[None]
        for number, part in enumerate(parts)
        for drawn in posterior.draw(part, method, BUDGET, first=number * BATCH)
    ]
    single = {
        name: torch.cat([model.segment_batch(part, steps=steps).probabilities for part in parts])
        for name, steps in (("step 0", 0), ("own steps", None))
    }
    return {name: each.float().numpy() for name, each in {**single, f"{method} mean": torch.cat(means)}.items()}


def _rows(found: np.ndarray, truths: np.ndarray, stems: list[str], metric: str) -> list[list]:
    """Plain and tempered: the temperature, images, NLL, Brier, ECE, score."""
    fit = fit_temperature(found, truths, stems)
    return [
        [
            tempered,
            f"{temperature:.3g}",
            len(truths),
            *(f"{x:.5f}" for x in (of.nll, of.brier, of.ece, score(found, truths, metric))),
        ]
        for tempered, temperature, of in ((0, 1.0, fit.before), (1, fit.temperature, fit.after))
    ]


def _arguments() -> argparse.Namespace:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("model", type=Path)
    told.add_argument("dataset", type=Path)
    told.add_argument("-o", "--out", type=Path, required=True)
    told.add_argument("--skip", type=int, default=24, help="images that calibrate saw")
    told.add_argument("--cases", type=int, default=40, help="images to score, after those")
    told.add_argument("--method", default="laplace", choices=METHODS)
    return told.parse_args()


if __name__ == "__main__":
    main()
