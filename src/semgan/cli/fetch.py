"""``semgan data fetch``: get a published data set, or the steps to it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semgan.cli.output import AsJson, Exit, examples, plain, progress_bars, say, show, verb
from semgan.words import as_typed

if TYPE_CHECKING:
    from semgan.data.sets import DataSet


def register(app: typer.Typer) -> None:
    """Add the verb to ``semgan data``."""
    app.command(
        "fetch",
        epilog=examples(
            "semgan data fetch --list",
            "semgan data fetch chaos -o raw/chaos",
            "semgan data fetch isic2018 -o raw/isic2018 --accept-licence",
            "semgan data fetch jsrt",
        ),
    )(fetch_data)


@verb
def fetch_data(
    name: Annotated[str | None, typer.Argument(help="Data set; --list shows all.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder to make; default: raw/NAME.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Show the data sets, and fetch nothing.")] = False,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read the licence and accept it; do not ask.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show addresses, sizes and terms, and fetch nothing.")
    ] = False,
    as_json: AsJson = False,
) -> Any:
    """Download a published data set, verified and unpacked; for sets behind a form, print the steps and exit with 2.

    The same command goes on after a break.
    """
    from semgan.data.sets import find

    if list_all:
        return _list()
    if name is None:
        raise ValueError("Give the NAME of a data set; semgan data fetch --list shows all.")
    item = find(name)
    folder = out or Path("raw") / item.name
    if dry_run:
        _describe(item)
        _say_steps(item, folder)
        return _facts(item) | {"out": folder}
    if not item.archives:
        _describe(item)
        _say_steps(item, folder)
        raise Exit(2, _facts(item) | {"out": folder, "error": f"{item.name} cannot be fetched; follow the steps."})
    from semgan.fetch import fetch, is_fetched

    if not is_fetched(item, folder):
        _agree(item, accept_licence)
    with progress_bars() as progress:
        result = fetch(item, folder, progress=progress)
    show(f"Data set {item.name}", {"folder": result.path, "files unpacked now": result.files, "layout": item.layout})
    _say_steps(item, folder)
    return result


def _list() -> list[dict[str, Any]]:
    from semgan.data.sets import SETS

    rows = [(item.name, item.task, _size(item), item.access, item.title) for item in SETS.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
    return [_facts(item) for item in SETS.values()]


def _size(item: DataSet) -> str:
    return f"{item.about_gb:g} GB" if item.about_gb else "?"


def _facts(item: DataSet) -> dict[str, Any]:
    return plain(item) | {"access": item.access}


def _describe(item: DataSet) -> None:
    rows = {"page": item.page, "licence": item.licence, "citation": item.citation, "size": _size(item)}
    show(f"{item.name}: {item.title}", rows | {"access": item.access, "layout": item.layout})
    for archive in item.archives:
        size = f"{archive.size:,} bytes" if archive.size else "size not published"
        print(f"  {archive.url}  ({size}, {archive.checksum or 'no published checksum'}) -> {archive.folder}")


def _say_steps(item: DataSet, folder: Path) -> None:
    from semgan.fetch import next_command

    if item.steps:
        print(f"{'Left to do' if item.archives else 'How to get it'}, by hand:")
        for number, step in enumerate(item.steps, start=1):
            print(f"  {number}. {step}")
        print(f"Unpack archives: semgan data unpack ARCHIVE... -o {as_typed(folder)}")
    print(f"Then: {next_command(item, folder)}")


def _agree(item: DataSet, accepted: bool) -> None:
    """Show the licence; raise ValueError where it is not accepted."""
    say(f"{item.name}: {item.title}\n  licence: {item.licence}\n  page: {item.page}\n  cite: {item.citation}")
    if not accepted and sys.stdin.isatty():
        with contextlib.suppress(typer.Abort):
            accepted = typer.confirm("Do you accept this licence?", err=True)
    if not accepted:
        raise ValueError(
            f"The licence of {item.name} was not accepted, so nothing was fetched. Read it on {item.page}; "
            "to accept it, add --accept-licence."
        )
