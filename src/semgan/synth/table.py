"""synth.csv: a row for every pair drawn, kept or not, and for every other appearance of a kept one.

    index         the pair's number; with the seed it names the pair
    style         0 the pair itself, 1, 2, ... its other appearances
    entropy       nats per pixel; critic_score: logit (empty: the model keeps no critic); moved: of appearances
    kept, reason  1, or 0 and the rule that dropped it (`semgan.synth.rules`)
    share_CLASS   share of the mask's pixels

The table grows while work goes on: its whole lines say how far it came.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semgan import artifacts
from semgan.synth.layouts import Member

TABLE = "synth.csv"
FIXED = ("index", "seed", "style", "entropy", "critic_score", "moved", "kept", "reason")


@dataclass(frozen=True)
class Row:
    """A line of synth.csv; numbers as they are written, so that a row read back is the row written."""

    index: int
    seed: int
    style: int
    entropy: str
    critic_score: str
    moved: str
    kept: bool
    reason: str
    shares: tuple[str, ...]

    @property
    def member(self) -> Member:
        stem = f"{self.index:06d}"
        return Member(f"{stem}_s{self.style:02d}" if self.style else stem, stem)

    def line(self) -> str:
        text = io.StringIO()
        fixed = [self.index, self.seed, self.style, self.entropy, self.critic_score, self.moved, int(self.kept)]
        csv.writer(text, lineterminator="\n").writerow([*fixed, self.reason, *self.shares])
        return text.getvalue()


def number(value: float | None) -> str:
    """How the table writes a measured value."""
    return "" if value is None else f"{value:.6g}"


def header(classes: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*FIXED, *(f"share_{name}" for name in classes)])
    return text.getvalue()


def read_table(path: Path) -> list[Row]:
    """The whole rows of a table; a last line that a kill or a full disk cut off is left out."""
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole = content[: content.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(whole)))[1:]
    return [
        Row(int(index), int(seed), int(style), entropy, critic, moved, kept == "1", reason, tuple(shares))
        for index, seed, style, entropy, critic, moved, kept, reason, *shares in lines
    ]


def write_table(path: Path, classes: Sequence[str], rows: Sequence[Row]) -> None:
    artifacts.write_text_atomic(path, header(classes) + "".join(row.line() for row in rows))


def whole_pairs(rows: Sequence[Row], styles: int, count: int) -> list[Row]:
    """The rows up to the ``count``-th kept pair, and of pairs with all their appearances only."""
    found: list[Row] = []
    kept = 0
    place = 0
    while place < len(rows) and kept < count:
        length = 1 + styles if rows[place].kept else 1
        if place + length > len(rows):
            break
        found += rows[place : place + length]
        kept += rows[place].kept
        place += length
    return found


def kept_pairs(rows: Sequence[Row]) -> int:
    return sum(row.kept and not row.style for row in rows)
