"""``semgan data unpack``: archives downloaded by hand -> folders for ``semgan data prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, Exit, examples, plain, progress_bars, say, show, verb


def register(app: typer.Typer) -> None:
    """Add the verb to ``semgan data``."""
    app.command(
        "unpack",
        epilog=examples(
            "semgan data unpack CelebAMask-HQ.zip -o raw/celebamask-hq",
            "semgan data unpack Training_Batch1.zip Training_Batch2.zip -o raw/lits17",
        ),
    )(unpack_archives)


@verb
def unpack_archives(
    archives: Annotated[list[Path], typer.Argument(help="zip, tar or tar.gz files, as downloaded.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder; each archive gets a folder of its own in it.")],
    as_json: AsJson = False,
) -> Any:
    """Unpack downloads without trusting them: no path leads outside, no bomb, no link, nothing half-written.

    The same command again goes on with what is missing. Exit 2 where an archive could not be unpacked.
    """
    from semgan.unpack import unpack

    with progress_bars() as progress:
        result = unpack(archives, out, progress=progress)
    for name, reason in result.failed.items():
        say(f"error: {reason}" if name in reason else f"error: {name}: {reason}")
    for folder, count in result.inner.items():
        say(f"warning: {out / folder} holds {count} archive(s) itself; unpack them too, if prepare misses files.")
    counts = {name: f"{count} files" for name, count in result.done.items()}
    show(f"Unpacked into {out}", counts | dict.fromkeys(result.already, "already there"))
    if result.failed:
        raise Exit(2, plain(result) | {"error": f"{len(result.failed)} archive(s) could not be unpacked."})
    return result
