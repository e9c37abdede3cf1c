"""``semgan synth``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, show, verb
from semgan.cli.use import Device, Model, Overwrite
from semgan.types import MOST_SEED


class Format(StrEnum):
    folder = "folder"
    nnunet = "nnunet"
    coco = "coco"


EXAMPLES = examples(
    "semgan synth -m run -n 10000 -o synthetic --format nnunet",
    "semgan synth -m run -n 20000 -o synthetic --format nnunet   (the first 10000 stay; more are added)",
    "semgan synth -m run -n 1000 -o eyes --min-share eye=0.004 --balance --truncation 0.8",
    "semgan synth -m run -n 1000 -o styles --restyle 3 --format coco",
)


def register(app: typer.Typer) -> None:
    app.command("synth", epilog=EXAMPLES)(synth)


@verb
def synth(
    model: Model,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Pairs to keep; restyled ones come on top.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    format_: Annotated[
        Format, typer.Option("--format", help="Plain folders, a dataset folder (nnU-Net's layout), or COCO.")
    ] = Format.folder,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Other pairs with every seed.")] = 0,
    truncation: Annotated[float, typer.Option(help="1: as learnt; towards 0: ever closer to the mean.")] = 1.0,
    keep_certain: Annotated[
        float, typer.Option(help="Share of the draws with the lowest label entropy that passes; 1: all.")
    ] = 0.8,
    keep_real: Annotated[
        float, typer.Option(help="Share of the draws with the best score of the image critic that passes; 1: all.")
    ] = 0.9,
    min_share: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=SHARE", help="Least share of an image's pixels, 0 to 1; repeatable."),
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="Thin out pairs that show common classes only (docs/synth.md).")
    ] = False,
    restyle: Annotated[int, typer.Option(min=0, max=99, help="Other appearances of each pair, of the same mask.")] = 0,
    restyle_limit: Annotated[
        float, typer.Option(help="Drop appearances whose own mask moves by more: 1 - mean IoU.")
    ] = 0.1,
    restyle_from: Annotated[
        int | None, typer.Option(min=1, help="First layer of w+ that changes; default: found on trial.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Make labelled synthetic data: images and masks drawn by a generator, the doubtful ones left out.

    The same command goes on after a stop; with a larger -n it adds to what is there.
    """
    existing(model, "Model")
    from semgan.synth.plan import Plan
    from semgan.synth.run import synth as run_synth

    plan = Plan(
        format=format_.value,
        seed=seed,
        truncation=truncation,
        keep_certain=keep_certain,
        keep_real=keep_real,
        min_share=_shares(min_share or []),
        balance=balance,
        restyle=restyle,
        restyle_limit=restyle_limit,
        restyle_from=restyle_from,
    )
    with progress_bars() as progress:
        result = run_synth(model, out, plan, count=count, overwrite=overwrite, device=device, progress=progress)
    rows = {"pairs": result["pairs"], "images": result["images"], "drawn": result["drawn"]}
    rows |= {f"dropped by {reason}": times for reason, times in result["dropped"].items()}
    rows |= {f"appearances dropped by {reason}": times for reason, times in result["styles_dropped"].items()}
    show(f"Synthetic data in {out}", rows)
    return {"out": out, **result}


def _shares(given: list[str]) -> dict[str, float]:
    """``["eye=0.01"]`` -> ``{"eye": 0.01}``."""
    shares: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        if name in shares:
            raise ValueError(f"--min-share names '{name}' twice; give one share for each class.")
        try:
            shares[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"--min-share takes CLASS=SHARE, like eye=0.01; got {text!r}.")
    return shares
