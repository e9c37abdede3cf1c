"""Self-contained pages: what a page can hold, and the one template that both the run's and the demo's report use.

Pictures are embedded, styles are inline, no script runs and nothing is requested from elsewhere. All text is escaped
by the template; pages are built from the blocks below, never from strings of HTML.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from semgan.artifacts import write_text_atomic

if TYPE_CHECKING:
    from semgan.report.health import Finding

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Figure:
    """A picture with a caption. ``pixelated``: enlarged without smoothing, for small images. ``wide``: full width."""

    kind: ClassVar[str] = "figure"
    png: bytes
    alt: str
    caption: str = ""
    pixelated: bool = False
    wide: bool = True


@dataclass(frozen=True)
class Figures:
    """Pictures side by side; one below the other on a phone."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text; ``strong`` names cells (row, column) that are set off, for example the best of a row.

    anchors: place in the page, by row, that the row's first cell leads to; empty: none
    """

    kind: ClassVar[str] = "table"
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()
    anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One small picture of a `PictureTable`; ``png`` None leaves the place empty."""

    png: bytes | None
    alt: str = ""


@dataclass(frozen=True)
class PictureTable:
    """Small pictures in rows with names; scrolls sideways where the screen is narrow."""

    kind: ClassVar[str] = "pictures"
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """One case of a `Gallery`: ``anchor`` is its place in the page, ``back`` the one its heading leads to."""

    anchor: str
    title: str
    caption: str
    pictures: tuple[Figure, ...]
    back: str = ""


@dataclass(frozen=True)
class Gallery:
    """Cases side by side; one below the other on a phone."""

    kind: ClassVar[str] = "gallery"
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Notice:
    """A warning that nobody should pass over."""

    kind: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True)
class Legend:
    """Class names with their colours (``#rrggbb``)."""

    kind: ClassVar[str] = "legend"
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Findings:
    """What the curves say, as `report.health` found it."""

    kind: ClassVar[str] = "findings"
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Details:
    """Folded text, for example settings."""

    kind: ClassVar[str] = "details"
    title: str
    text: str


Block = Text | Figure | Figures | Table | PictureTable | Gallery | Notice | Legend | Findings | Details


@dataclass(frozen=True)
class Section:
    """``anchor``: its place in the page; with one it is listed in the page's contents."""

    title: str
    blocks: tuple[Block, ...]
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """A report: heading, a lead sentence, facts in short (name, value), then sections."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...] = ()
    sections: tuple[Section, ...] = ()
    foot: str = field(default="")


def render(page: Page) -> str:
    """The page as one HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template("page.html.j2").render(page=page)


def write_page(path: Path, page: Page) -> Path:
    """Render and write atomically."""
    write_text_atomic(path, render(page))
    return path


def data_uri(png: bytes) -> str:
    """PNG bytes as an address that needs no file beside the page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def table_of_mappings(
    rows: Sequence[dict],
    caption: str = "",
    *,
    columns: Sequence[str] | None = None,
    anchors: tuple[str, ...] = (),
    strong: frozenset[tuple[int, int]] = frozenset(),
) -> Table:
    """A `Table` of dictionaries with the same keys; numbers in four figures."""
    header = tuple(columns or (rows[0].keys() if rows else ()))
    lines = tuple(tuple(_text(row.get(name)) for name in header) for row in rows)
    return Table(header, lines, caption, strong, anchors)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
