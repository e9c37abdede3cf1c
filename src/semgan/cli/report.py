"""``semgan report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, say, show, verb

EXAMPLES = examples(
    "semgan report run -o report",
    "semgan report run1 run2 masks1 masks2 -o report   (side by side: settings, scores, differences)",
    "semgan report masks -o report --images new_images --labels true_masks",
    "semgan report results/x -o report --no-images --pdf",
)


def register(app: typer.Typer) -> None:
    app.command("report", epilog=EXAMPLES)(report)


@verb
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS...", help="Run folders, outputs of `benchmark` or `evaluate`, results with scores.csv."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    images: Annotated[Path | None, typer.Option(help="Images of the scored predictions, to show the cases.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Their true masks; default: as scored.")] = None,
    with_images: Annotated[
        bool, typer.Option("--with-images/--no-images", help="Without: curves and numbers, but no picture of a case.")
    ] = True,
    most: Annotated[int, typer.Option(min=1, help="Cases with pictures, per set of predictions.")] = 60,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also OUT/report.pdf (needs Chromium or Chrome).")] = False,
    as_json: AsJson = False,
) -> Any:
    """Make one self-contained page of runs and scores: settings, curves, comparisons, cases; and LaTeX tables."""
    from semgan.report.collection import WARNING, write_report

    with progress_bars() as progress:
        result = write_report(
            sources,
            out,
            images=images and existing(images, "Folder of images"),
            labels=labels and existing(labels, "Folder of true masks"),
            with_images=with_images,
            most=most,
            pdf=pdf,
            progress=progress,
        )
    if result["shows_images"]:
        say(f"warning: {WARNING}")
    show(f"Report in {out}", {"files": result["files"]})
    return {"out": out, **result}
