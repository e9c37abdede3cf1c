"""What is to be segmented, as a stream: a folder or address walked, a manifest's lines, tar shards' members."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal

from semgan.data import addresses
from semgan.data.archives import TarHeader
from semgan.data.dicom import DICOM_SUFFIXES
from semgan.data.readers import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

ENDINGS = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES)
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")
MOST_BYTES = 2**30  # of one image file
_COLUMNS = ("path", "stem")
_NO_TEXT = re.compile("[\ud800-\udfff]")  # how Python stands for bytes of names that are no UTF-8


@dataclass(frozen=True)
class Entry:
    """A line of the list of inputs: an image, or a shard; ``name``: of its mask without ending, or of its unit.

    repeated: an image of the same name comes before it in the list
    """

    name: str
    address: str
    repeated: bool = False


@dataclass(frozen=True)
class Item:
    """An image of a unit: its bytes where they came with a shard, or why there is none."""

    name: str
    address: str
    content: bytes | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Source:
    """Where images come from.

    images:   folder, file or address of images; shards such as ``shards/{000..999}.tar``; the folder that a
              manifest's relative paths start from; None: the manifest's own folder
    manifest: text file (a path or address per line) or CSV with the column ``path`` and perhaps ``stem``
    members:  only files and members of shards whose name fits, e.g. ``*.jpg``
    """

    images: str | None
    manifest: str | None = None
    members: str | None = None

    @property
    def kind(self) -> Literal["shards", "manifest", "folder"]:
        if self.manifest is not None:
            return "manifest"
        return "shards" if (self.images or "").lower().endswith(SHARD_ENDINGS) else "folder"

    def describe(self) -> dict[str, Any]:
        """What the inputs are, for the request: a changed manifest is another request."""
        images = None if self.images is None else addresses.joined("", self.images)
        about: dict[str, Any] = {"images": images, "members": self.members}
        if self.manifest is not None:
            about["manifest"] = addresses.joined("", self.manifest)
            if not addresses.is_address(self.manifest):
                found = os.stat(self.manifest)
                about["manifest_bytes"], about["manifest_ns"] = found.st_size, found.st_mtime_ns
        return about

    def entries(self) -> Iterator[Entry]:
        """The lines of the list. Raises FileNotFoundError where nothing is there, ValueError for a bad manifest."""
        if self.kind == "manifest":
            yield from self._listed()
        elif self.kind == "shards":
            yield from self._shards()
        else:
            yield from self._walked()

    def _fits(self, name: str) -> bool:
        base = name.rpartition("/")[2]
        if self.members is not None and not fnmatchcase(base, self.members):
            return False
        return base.lower().endswith(ENDINGS) and not base.startswith(".")

    def _walked(self) -> Iterator[Entry]:
        assert self.images is not None, "a source without manifest has images"
        if not addresses.exists(self.images):
            raise FileNotFoundError(f"{self.images} does not exist; give an image, a folder, shards or an address.")
        if not addresses.is_folder(self.images):
            name = self.images.rpartition("/")[2]
            yield Entry(_name(name, ENDINGS), addresses.joined("", self.images))
            return
        others = 0
        for name, address in addresses.walk(self.images):
            if self._fits(name):
                yield Entry(_name(name, ENDINGS), address)
            else:
                others += 1
        if others:
            logger.warning("%d files in %s are no images, or do not fit, and are left out.", others, self.images)

    def _shards(self) -> Iterator[Entry]:
        assert self.images is not None, "a source without manifest has images"
        seen: set[str] = set()
        shards = list(addresses.expanded(self.images))
        local = [shard for shard in shards if "://" not in shard]
        if local and len(local) == len(shards) and not any(map(addresses.exists, local)):
            raise FileNotFoundError(f"None of the {len(shards)} shards of {self.images} exists; correct the pattern.")
        for shard in shards:
            name = _name(shard.rpartition("/")[2], SHARD_ENDINGS)
            if name in seen:
                raise ValueError(f"Two shards are named {name}; results go by this name. Rename one.")
            seen.add(name)
            yield Entry(name, addresses.joined("", shard))

    def _listed(self) -> Iterator[Entry]:
        assert self.manifest is not None, "the kind says so"
        base = addresses.parent(self.manifest) if self.images is None else self.images
        for path, stem in _lines(self.manifest):
            name = _name(stem or path, () if stem else ENDINGS)
            yield Entry(name, addresses.joined(base, path))

    def members_of(self, shard: str) -> Iterator[Item]:
        """The images in a tar, read as a stream, one at a time in memory; nothing is unpacked onto the disk.

        A shard that is damaged or cannot be read ends with an item that says why.
        """
        try:
            with addresses.open_binary(shard) as packed, _opened(packed) as file:
                for info in file:
                    file.members = []  # else it keeps every header  # type: ignore[attr-defined]
                    if info.isfile() and self._fits(info.name):
                        yield self._member(file, info, shard)
                _check_end(file)
        except Exception as error:  # damaged shards, and every driver of addresses, raise errors of their own
            yield Item("", shard, problem=f"the shard cannot be read to its end: {error}")

    def _member(self, file: tarfile.TarFile, info: tarfile.TarInfo, shard: str) -> Item:
        name, address = _name(info.name, ENDINGS), f"{shard}/{info.name}"
        if info.size > MOST_BYTES:
            return Item(name, address, problem=f"it has {info.size:,} bytes, too many for one image")
        content = file.extractfile(info)
        assert content is not None, "a regular file has content"
        return Item(name, address, content.read())


def _opened(packed: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=packed, mode="r|*", tarinfo=TarHeader)


def _check_end(file: tarfile.TarFile) -> None:
    """Raises ReadError where more than padding comes after a tar's mark of the end."""
    assert file.fileobj is not None, "it was opened for reading"
    while rest := file.fileobj.read(2**20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("it goes on after its mark of the end: it is damaged, or several tars in one file")


def _name(path: str, endings: tuple[str, ...]) -> str:
    """As `addresses.plain_name`, and text: what is no UTF-8 in a file's name becomes ``_``."""
    return _NO_TEXT.sub("_", addresses.plain_name(path, endings))


def _lines(manifest: str) -> Iterator[tuple[str, str | None]]:
    """Path and stem (None: made of the path) of every line; the file is read as a stream."""
    with addresses.open_binary(manifest) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        try:
            if Path(manifest).suffix.lower() != ".csv":
                yield from ((path, None) for line in text if (path := line.strip()))
                return
            table = csv.DictReader(text)
            if "path" not in (table.fieldnames or ()):
                found = ", ".join(table.fieldnames or ()) or "none"
                raise ValueError(f"{manifest} has the columns {found}; expected {' and perhaps '.join(_COLUMNS)}.")
            for number, row in enumerate(table, start=2):
                if not row["path"]:
                    raise ValueError(f"{manifest}, row {number}, names no path; fill it in or take the row out.")
                yield row["path"], row.get("stem") or None
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{manifest} is no UTF-8 list of paths ({error}); write it again.") from None
