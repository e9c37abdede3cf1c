"""``semgan suggest``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, say, show, verb
from semgan.cli.use import Device, Model, Overwrite
from semgan.types import MOST_SEED
from semgan.words import as_typed


class By(StrEnum):
    combined = "combined"
    entropy = "entropy"
    distance = "distance"
    diversity = "diversity"
    reconstruction = "reconstruction"
    disagreement = "disagreement"
    random = "random"


Optimised = Annotated[
    str | None,
    typer.Option(
        "--steps",
        help="Models with a generator: optimisation steps, or auto; default: 0, the encoder alone; for disagreement "
        "the model's own choice, which must be above 0.",
    ),
]
Drawn = Annotated[
    bool,
    typer.Option(
        "--posterior",
        help="Models with a generator: entropy over drawn masks (Laplace), not of one answer. Of a semgan-student "
        "its generator's masks alone.",
    ),
]
EXAMPLES = examples(
    "semgan suggest -m run dataset -n 10 -o next",
    "semgan suggest -m run dataset --labels 9 --split-seed 0 -n 9 --by diversity -o next",
    "semgan suggest -m run dataset -i new_images -n 10 -o next   (images that are in no dataset yet)",
    "semgan suggest -m run dataset -n 10 --posterior -o next   (method semgan: slower)",
)


def register(app: typer.Typer) -> None:
    app.command("suggest", epilog=EXAMPLES)(suggest)


@verb
def suggest(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write; it shows your images.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Images (or volumes) to suggest.")] = 10,
    dataset: Annotated[Path | None, typer.Argument(help="Dataset folder whose labelled list is to grow.")] = None,
    images: Annotated[
        Path | None, typer.Option("-i", "--images", help="Choose among this folder's images, not the dataset's.")
    ] = None,
    by: Annotated[
        By, typer.Option(help="What counts as gain (docs/suggest.md); reconstruction, disagreement: semgan only.")
    ] = By.combined,
    labels: Annotated[
        int | None, typer.Option(min=2, help="Labelled list to add to, as in train; default: the model's own.")
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_SEED, help="Seed of the labelled list; default: the model's own."),
    ] = None,
    steps: Optimised = None,
    posterior: Drawn = False,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the random choice and the drawn masks.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """What to label next: unlabelled images ranked by what the model would gain from their masks."""
    existing(model, "Model")
    from semgan.suggest.run import suggest as run_suggest
    from semgan.types import parse_steps

    with progress_bars() as progress:
        result = run_suggest(
            model,
            out,
            count=count,
            dataset=dataset and existing(dataset, "Dataset folder"),
            images=images and existing(images, "Image or folder"),
            by=by.value,
            labels=labels,
            split_seed=split_seed,
            steps=None if steps is None else parse_steps(steps),
            posterior=posterior,
            seed=seed,
            batch=batch,
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    rows = {f"{row['rank']} {row['stem']}": row["why"] for row in result["suggestions"]}
    show(f"To label next, by {by.value}", rows | {"to look at": out / "sheet.png"})
    _say_what_follows(result["list"], dataset, out)
    return {"out": out, **result}


def _say_what_follows(enlarged: Any, dataset: Path | None, out: Path) -> None:
    """The commands that train on the longer list."""
    if enlarged is None or dataset is None:
        return
    if enlarged["waiting"]:
        say(f"{len(enlarged['waiting'])} of them have no mask in {dataset}: draw them, prepare it with them, and then:")
    say(f"  semgan data split {as_typed(dataset)} --from {as_typed(out / 'splits.json')}")
    say(f"  semgan train {as_typed(dataset)} --labels {enlarged['labels']} --split-seed {enlarged['split_seed']} ...")
