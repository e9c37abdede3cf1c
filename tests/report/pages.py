"""What tests ask of a page: headings, text, pictures, and every address that a browser would fetch."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

VOID = {"meta", "link", "img", "br", "hr", "input"}
FETCHED = ("src", "href", "srcset", "poster", "data", "action")


@dataclass
class Page(HTMLParser):
    """A parsed page; ``outside``: addresses that are not embedded; ``unclosed``: tags left open or closed wrongly;
    ``places``, ``leads_to``: marks in the page, and the marks that its links lead to."""

    headings: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    images: list[tuple[str, Image.Image]] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    unclosed: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    leads_to: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self._open.append(tag)
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.places.append(values["id"])
        if tag == "a" and values.get("href", "").startswith("#"):
            self.leads_to.append(values.pop("href")[1:])
        self.outside += [values[name] for name in FETCHED if name in values and not values[name].startswith("data:")]
        self.outside += re.findall(r"url\((?!['\"]?data:)[^)]*\)", values.get("style", ""))
        if tag == "img":
            self.images.append((values.get("alt", ""), _decoded(values.get("src", ""))))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "style":
            self.outside += re.findall(r"@import[^;]*|url\((?!['\"]?data:)[^)]*\)", data)
        elif data.strip():
            self.text += data
            if inside == "h2":
                self.headings.append(data.strip())


def _decoded(source: str) -> Image.Image:
    head, _, body = source.partition(",")
    if head != "data:image/png;base64":
        raise AssertionError(f"An image is not embedded: {source[:60]!r}")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
        picture.load()
    except (binascii.Error, OSError) as error:
        raise AssertionError(f"An embedded image is damaged: {error}") from None
    return picture


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    page.unclosed += page._open
    return page
