"""Choose inversion steps and learn the stopping rule of a finished run anew, on its dataset's validation list.

    python results/learn_rule.py RUN DATASET

For models trained before there were rules, or after a change of the inversion's settings in RUN/config.yaml. Weights
stay as they are; model/config.json, the card, and the line of RUN/metrics.jsonl are written anew. Test sets are not
opened, and scores made before this do not hold for the model's own choice of steps any more.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from semgan import artifacts, config
from semgan.data.folder import Dataset
from semgan.job import TrainingJob, load_pixels, shifted_validation
from semgan.runtime.device import choose_device, prepare_cpu
from semgan.stages.pipeline import StepChoice, choose_steps
from semgan.stages.semantic_gan import SemanticGan, model_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    prepare_cpu()
    run, dataset = artifacts.RunFolder(args.run), Dataset.open(args.dataset)
    settings = config.load(run.config)
    cache, pixels = load_pixels(dataset, settings)
    parts = (pixels["labelled"], pixels["unlabelled"], pixels["validation"])
    job = TrainingJob(
        *(settings, dataset.labels, run, choose_device(args.device), cache.images, *parts),
        read_shifted=functools.partial(shifted_validation, dataset, settings),
    )
    model = SemanticGan.load(run.model, device=args.device)
    model.settings = model.settings.model_copy(update={"inversion": settings.inversion})
    choice = choose_steps(model, job)
    if choice.steps is None:
        raise SystemExit(f"{args.dataset} has no validation list; the recipe's {settings.inversion.steps} steps hold.")
    save(run.model, model, choice)
    print(choice.scores)
    print("no rule: too few validation cases" if choice.rule is None else choice.rule.describe())


def save(folder: Path, model: SemanticGan, choice: StepChoice) -> None:
    """The model folder with another choice of steps, and everything else as it was."""
    described, weights = artifacts.read_model(folder)
    other_scores = {name: value for name, value in described["scores"].items() if not name.startswith("steps_")}
    new, _, card = model_files(
        model.settings,
        generator=model.generator,
        whitening=model.whitening,
        encoder=model.encoder,
        perceptual=model.perceptual,
        chosen_steps=choice.steps,
        rule=choice.rule,
        rules=model.rules,
        training=described.get("training"),
        scores=other_scores | choice.scores,
    )
    kept = {key: new[key] for key in ("inversion", "scores")}
    settings = described["settings"] | {"inversion": new["settings"]["inversion"]}
    artifacts.save_model(folder, described | kept | {"settings": settings}, weights, card)


if __name__ == "__main__":
    main()
