"""How the programs of this folder write what they measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from semgan.artifacts import write_text_atomic


def write_tables(
    out: Path, title: str, rows: Sequence[Mapping[str, object]], note: str, more: Sequence[str] = ()
) -> None:
    """OUT.csv and OUT.md (``out`` without ending): the note, the rows as a table, and ``more`` lines below."""
    out.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(out.with_name(f"{out.name}.csv"), text.getvalue())
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    write_text_atomic(out.with_name(f"{out.name}.md"), f"# {title}\n\n{note}\n\n" + "\n".join([*lines, *more]) + "\n")
