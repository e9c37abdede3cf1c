"""``semgan benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semgan.cli.output import AsJson, Exit, duration, examples, existing, progress_bars, say, verb

if TYPE_CHECKING:
    from semgan.benchmark.run import BenchmarkResult, CellReport

EXAMPLES = examples(
    "semgan benchmark grid.yaml -o results/x --dry-run",
    "semgan benchmark grid.yaml -o results/x   (again: goes on; in several terminals or machines: they share the work)",
    "semgan benchmark grid.yaml -o results/x --only lungs/9 --only skin/*/unet --max-minutes 60",
    "semgan benchmark grid.yaml -o results/x --runs runs/x --sheets private/x",
)


def register(app: typer.Typer) -> None:
    app.command("benchmark", epilog=EXAMPLES)(benchmark)


@verb
def benchmark(
    grid: Annotated[
        Path, typer.Argument(help="Grid file: tasks, methods, label counts, seeds, budget (docs/benchmark.md).")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of cells and tables; shared by all who work on it.")],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK/LABELS/METHOD", help="These cells; * and left out parts match all; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List cells, their state and expected time; do and write nothing.")
    ] = False,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop cleanly after this time.")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Where runs and prepared data go; default: into OUT, hidden from git.")
    ] = None,
    sheets: Annotated[
        Path | None,
        typer.Option(
            help="Draw sheets of test images with every method's mask into this folder. Off by default, and best kept "
            "out of OUT: many data sets may not be published."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: AsJson = False,
) -> Any:
    """Compare methods fairly: train and score every cell of a grid, then write tables. The same command goes on.

    Exit code 2 where cells failed or are damaged (the others are done nevertheless), 1 where the fault is ours.
    """
    existing(grid, "Grid file")
    from semgan.benchmark.run import benchmark as run_benchmark

    with progress_bars() as progress:
        result = run_benchmark(
            grid,
            out,
            only=tuple(only or ()),
            dry_run=dry_run,
            max_minutes=max_minutes,
            runs=runs,
            sheets=sheets,
            device=device,
            progress=progress,
        )
    _tell(result, dry_run)
    # In a dry run, too: what is wrong already is worth a code.
    if any(cell.fault for cell in result.cells):
        raise Exit(1, result)
    if any(cell.problem for cell in result.cells):
        raise Exit(2, result)
    return result


def _tell(result: BenchmarkResult, dry_run: bool) -> None:
    width = max((len(cell.name) for cell in result.cells), default=0)
    for cell in result.cells:
        expected = "unknown" if cell.expected_seconds is None else duration(cell.expected_seconds)
        time = duration(cell.seconds) if cell.status == "done" else f"{duration(cell.seconds)} of {expected}"
        print(f"{cell.name:<{width}}  {cell.status:<9}  {time}")
    problems: dict[str, list[CellReport]] = {}
    for cell in result.cells:
        if cell.problem:
            problems.setdefault(cell.problem, []).append(cell)
    for problem, cells in problems.items():
        others = f" and {len(cells) - 1} others" if len(cells) > 1 else ""
        say(f"{cells[0].status}: {cells[0].name}{others}: {problem}")
    for text in result.unfair:
        say(f"not equal: {text}")
    done = result.count("done")
    print(f"{done} of {len(result.cells)} cells done in {result.out}")
    if dry_run:
        left = "unknown" if result.expected_seconds is None else duration(result.expected_seconds)
        print(f"Expected time of the others, one after the other: {left}. Nothing was done.")
    elif done < len(result.cells):
        print("The same command goes on with the others.")
    for path in result.tables:
        print(f"  {path}")
