"""``semgan train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semgan.cli.output import AsJson, duration, examples, existing, is_heard, progress_bars, show, verb
from semgan.words import as_typed

if TYPE_CHECKING:
    from semgan.rehearsal import DryRun
    from semgan.train import TrainResult


class Stage(StrEnum):
    gan = "gan"
    encoder = "encoder"
    pool = "pool"
    student = "student"
    all = "all"


EXAMPLES = examples(
    "semgan train dataset -o run --recipe debug",
    "semgan train dataset -o run --recipe lungs-64 --labels 35 --split-seed 0",
    "semgan train dataset -o run --recipe lungs-64 --max-minutes 60   (the same command goes on)",
    "semgan train dataset -o run --recipe lungs-64 --dry-run",
    "semgan train dataset -o run2 --recipe lungs-64 --method semgan --init-from run --set gan.batch=16",
    "torchrun --nproc-per-node 4 -m semgan train dataset -o run --recipe chest-xray   (docs/distributed.md)",
    "semgan train dataset -o rival --recipe lungs-64 --method unet-strong --labels 35",
)


def register(app: typer.Typer) -> None:
    app.command("train", epilog=EXAMPLES)(train)


@verb
def train(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder made by `semgan data prepare`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Run folder to write, or to go on with.")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a YAML file of settings.")],
    method: Annotated[str | None, typer.Option(help="Method; default: the recipe's, semgan-student or semgan.")] = None,
    labels: Annotated[int | None, typer.Option(min=2, help="Use the list labelled_N of the splits.")] = None,
    split_seed: Annotated[int | None, typer.Option(min=0, help="Which labelled list.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order, augmentation.")] = None,
    stage: Annotated[Stage, typer.Option(help="Which stages of the method.")] = Stage.all,
    init_from: Annotated[Path | None, typer.Option(help="Start from the generator of this run.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop cleanly after this time.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Insist on going on: an error if there is no run yet.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, expected time and memory; train nothing.")
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    as_json: AsJson = False,
) -> Any:
    """Train a method on a dataset. Interrupted or stopped runs go on with the same command."""
    existing(dataset, "Dataset folder")
    from semgan.train import TrainResult
    from semgan.train import train as run_training

    with progress_bars() as progress:
        result = run_training(
            dataset,
            out,
            recipe=recipe,
            method=method,
            labels=labels,
            split_seed=split_seed,
            seed=seed,
            stage=stage.value,
            init_from=init_from,
            max_minutes=max_minutes,
            resume=resume,
            dry_run=dry_run,
            changes=list(changes or []),
            device=device,
            progress=progress,
        )
    if not is_heard():
        return None
    if isinstance(result, TrainResult):
        _tell(result)
    else:
        _tell_plan(result)
    return result


def _tell(result: TrainResult) -> None:
    """What a training did, and what to do next."""
    if result.finished:
        print(f"Finished after {duration(result.seconds)}: {result.run}")
        print(f"Next: semgan segment -m {as_typed(result.run)} -i IMAGES -o MASKS")
    else:
        print(f"Stopped after {duration(result.seconds)}; the same command goes on: {result.run}")
    if result.report:
        print(f"Curves, samples and advice: {result.report}")


def _tell_plan(plan: DryRun) -> None:
    """What a training would do and take."""
    import yaml

    print(yaml.safe_dump(plan.settings, sort_keys=False))
    minutes = {stage: duration(60 * value) for stage, value in plan.expected_minutes.items()}
    facts = {"labelled": plan.labelled, "unlabelled": plan.unlabelled, "validation": plan.validation}
    total = duration(60 * sum(plan.expected_minutes.values()))
    batches = ", ".join(f"{stage} {batch}" for stage, batch in plan.timed_batches.items())
    memory = f"{plan.memory_mb:.0f} MB at the batches timed ({batches})"
    show("Dry run: nothing was trained", {**facts, "expected time": total, **minutes, "memory": memory})
