"""``semgan robustness``: models under synthetic shifts of the validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, show, verb
from semgan.cli.use import Device, Out, Overwrite
from semgan.types import MOST_SEED, parse_steps


def register(app: typer.Typer) -> None:
    app.command(
        "robustness",
        epilog=examples(
            "semgan robustness -m run dataset -o robust",
            "semgan robustness -m run -m runs/unet -m runs/unet-strong dataset -o robust",
            "semgan robustness -m run dataset -o robust --shifts mixed --cases 32 --steps 0",
        ),
    )(robustness)


@verb
def robustness(
    models: Annotated[
        list[Path],
        typer.Option("-m", "--model", help="Run or model folder; repeatable. Scores: the first one's metric."),
    ],
    dataset: Annotated[Path, typer.Argument(help="Dataset folder with a validation list.")],
    out: Out,
    shifts: Annotated[
        str | None, typer.Option(metavar="LIST", help="Comma list of shifts, or mixed; default: each one by itself.")
    ] = None,
    cases: Annotated[int | None, typer.Option(min=1, help="The first so many validation images; default: all.")] = None,
    steps: Annotated[
        Any,
        typer.Option(
            parser=parse_steps,
            metavar="N|auto",
            help="Optimisation steps of the models with a generator (feed-forward networks pass them over), or auto; "
            "0: encoder only; default: each model's own choice.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the shifts.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images given to a model at a time; does not change results.")] = 64,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """How much do models lose where images look as from another source? Validation images under synthetic shifts.

    Geometry (zoom, proportions, turn), exposure (shading, vignette, tone-curve, tint, local-contrast), clutter (frame,
    overlays) and quality (coarse, compressed). No test image is read.
    """
    for model in models:
        existing(model, "Model")
    existing(dataset, "Dataset")
    from semgan.data.shifts import SHIFTS
    from semgan.robustness import means
    from semgan.robustness import robustness as run

    with progress_bars() as progress:
        rows = run(
            models,
            dataset,
            out,
            shifts=tuple(SHIFTS) if shifts is None else tuple(name.strip() for name in shifts.split(",")),
            cases=cases,
            steps=steps,
            seed=seed,
            batch=batch,
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    found = means(rows)
    if not as_json:
        for name, scores in found.items():
            show(name, {key: f"{value:.4f}" for key, value in scores.items()})
    return {"out": out, "means": found, "rows": rows}
