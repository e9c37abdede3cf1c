"""The command line: ``semgan VERB``. Heavy modules are imported inside the verbs, so that ``--help`` answers at once.

Exit codes: 0 done, 1 a fault of ours (with traceback), 2 a user's error (one message), 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from semgan.cli import (
    benchmark,
    data,
    figures,
    posterior,
    report,
    robustness,
    segment,
    suggest,
    synth,
    train,
    trust,
    use,
)
from semgan.cli.output import examples, is_heard, say

app = typer.Typer(
    name="semgan",
    help="Semantic segmentation with generative models: few labels, many unlabelled images, unseen domains.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "semgan demo",
        "semgan data prepare folder --images images --labels masks --unlabelled more -o dataset",
        "semgan train dataset -o run --recipe debug",
        "semgan segment -m run -i new_images -o masks",
        "semgan evaluate masks true_masks --metric dice",
    ),
)
app.add_typer(data.app, name="data")
app.add_typer(trust.app, name="trust")
train.register(app)
benchmark.register(app)
segment.register(app)
use.register(app)
figures.register(app)
synth.register(app)
posterior.register(app)
suggest.register(app)
report.register(app)
robustness.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"semgan {version('semgan')}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; leaves by SystemExit with the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if "--json" in words:
        sys.exit(_run_for_programs(words))
    app(words, prog_name="semgan")


def _run_for_programs(words: list[str]) -> int:
    """As `app` alone, but that a mistake in the command itself has its JSON document, too."""
    try:
        return app(words, prog_name="semgan", standalone_mode=False) or 0
    except Exception as error:
        message = getattr(error, "format_message", None)  # of Click's errors, whose classes Typer keeps to itself
        if message is None:
            raise
        if is_heard():
            say(f"Error: {message().rstrip('.')}. See --help.")
            print(json.dumps({"error": message()}))
        return getattr(error, "exit_code", 2)
