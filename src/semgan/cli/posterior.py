"""``semgan posterior`` and ``semgan calibrate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, show, verb
from semgan.types import MOST_SEED


class Method(StrEnum):
    hmc = "hmc"
    mala = "mala"
    langevin = "langevin"
    laplace = "laplace"
    iterates = "iterates"


Model = Annotated[Path, typer.Option("-m", "--model", help="Run folder or model folder of method semgan.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the random numbers.")]
Chains = Annotated[int, typer.Option(min=1, help="Markov chains of an image.")]
Warmup = Annotated[
    int | None, typer.Option(min=0, help="Moves of a chain before its first draw; default: 30 of hmc, more of others.")
]
Thin = Annotated[
    int | None, typer.Option(min=1, help="Moves between two draws of a chain; default: 3 of hmc, more of others.")
]
How = Annotated[
    Method,
    typer.Option(help="hmc, mala, langevin: Markov chains; laplace, iterates: cheap, and less to be trusted."),
]


def register(app: typer.Typer) -> None:
    app.command(
        "posterior",
        epilog=examples(
            "semgan posterior -m run -i new_images -o plausible -n 32",
            "semgan posterior -m run -i picture.png -o plausible -n 64 --chains 8 --warmup 200   (slower, surer)",
            "semgan posterior -m run -i new_images -o plausible --method laplace   (cheap)",
        ),
    )(posterior)
    app.command(
        "calibrate",
        epilog=examples("semgan calibrate -m run dataset", "semgan calibrate -m run dataset --cases 40 --json"),
    )(calibrate)


@verb
def posterior(
    model: Model,
    images: Annotated[Path, typer.Option("-i", "--images", help="Image, or folder of images.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    draws: Annotated[int, typer.Option("-n", "--draws", min=1, help="Masks per image; a multiple of --chains.")] = 32,
    method: How = Method.hmc,
    chains: Chains = 4,
    warmup: Warmup = None,
    thin: Thin = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the likelihood; default: as `semgan calibrate` found it.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Optimisation steps before the chains start.")] = None,
    modality: Annotated[str | None, typer.Option(help="Preprocessing rule of the model, where it has several.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time, each with all its chains.")] = 4,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results in OUT.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Plausible masks of images: draws, mean probability, entropy, and the size of every class with its interval."""
    existing(model, "Model")
    existing(images, "Image or folder")
    from semgan.posterior.latent import Budget
    from semgan.posterior.run import draw_posterior

    with progress_bars() as progress:
        rows = draw_posterior(
            model,
            images,
            out,
            method=method.value,
            budget=Budget(draws, chains, warmup, thin),
            temperature=temperature,
            steps=steps,
            modality=modality,
            batch=batch,
            seed=seed,
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    worst = max(row["r_hat"] for row in rows)
    facts = {"images": len(rows), "draws": draws, "mean entropy": sum(row["mean_entropy"] for row in rows) / len(rows)}
    show(f"Plausible masks in {out}", facts | ({"largest R-hat": worst} if worst >= 0 else {}))
    return {"out": out, "rows": rows}


@verb
def calibrate(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder with a validation list.")],
    model: Model,
    cases: Annotated[int, typer.Option(min=2, help="Images of the validation list to use.")] = 24,
    method: How = Method.hmc,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Fit the posterior's temperature to the masks of the validation list; kept beside the weights (posterior.json)."""
    existing(model, "Model")
    existing(dataset, "Dataset folder")
    from dataclasses import asdict

    from semgan.posterior.run import calibrate_model

    with progress_bars() as progress:
        found = calibrate_model(
            model, dataset, cases=cases, method=method.value, seed=seed, device=device, progress=progress
        )
    facts = {f"NLL, {name}": scores.nll for name, scores in found.scores.items()}
    show(f"Calibrated {model}", {"temperature": found.temperature, "slack": found.slack, **facts})
    return asdict(found)
