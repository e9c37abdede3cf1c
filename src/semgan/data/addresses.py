"""Files by path or by address (``s3://bucket/key``): opened, read and listed as streams, never downloaded as a whole.

Paths need nothing; addresses need fsspec (the extra ``semgan[archive]``) and its driver for the protocol.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

TRIES = 3
WAIT_S = 1.0  # before the second try, four times as long before each further one
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*(://|::)")
_BRACES = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
Answer = TypeVar("Answer")


class Unreachable(OSError, ValueError):
    """A remote file system that gave no answer, or no leave: nothing that this program can mend."""


def is_address(text: str) -> bool:
    """Whether a text is an address for fsspec (``memory://x``, ``zip://x::s3://y``) and not a path."""
    return _ADDRESS.match(text) is not None


def open_binary(address: str) -> IO[bytes]:
    """Open a path or an address for reading. Raises FileNotFoundError; Unreachable (OSError of a path); ValueError
    without a driver."""
    if not is_address(address):
        return open(address, "rb")
    files, path = _file_system(address)
    return _tried(lambda: files.open(path, "rb"), address)


def read_bytes(address: str, most: int) -> bytes:
    """The content of a file of at most ``most`` bytes. Raises as `open_binary`, ValueError for a larger one."""

    def read() -> bytes:
        with open_binary(address) as file:
            return file.read(most + 1)

    content = _tried(read, address) if is_address(address) else read()
    if len(content) > most:
        raise ValueError(f"{address} has over {most:,} bytes, too many for one image.")
    return content


def exists(address: str) -> bool:
    """Whether a file or folder is there."""
    if not is_address(address):
        return os.path.exists(address)
    files, path = _file_system(address)
    return bool(_tried(lambda: files.exists(path), address))


def is_folder(address: str) -> bool:
    if not is_address(address):
        return os.path.isdir(address)
    files, path = _file_system(address)
    return bool(_tried(lambda: files.isdir(path), address))


def walk(address: str) -> Iterator[tuple[str, str]]:
    """All files below a folder as (path relative to it, full address), in the file system's order.

    Hidden files and folders are passed over, links to folders are not followed. Memory: one folder's names.
    Raises as `open_binary` for a folder that cannot be listed: no file is left out without a word.
    """
    if not is_address(address):
        yield from _walk_paths(os.path.abspath(address))
        return
    files, top = _file_system(address)
    folders = [top]
    while folders:  # fsspec's own walk passes over what it cannot list
        folder = folders.pop()
        entries = _tried(lambda listed=folder: files.ls(listed, detail=True), files.unstrip_protocol(folder))
        for path, kind in ((entry["name"].rstrip("/"), entry["type"]) for entry in entries):
            name = path.rpartition("/")[2]
            if not name or name.startswith(".") or path == folder.rstrip("/"):
                continue
            if kind == "directory":
                folders.append(path)
            else:
                yield path.removeprefix(top.rstrip("/")).lstrip("/"), files.unstrip_protocol(path)


def _walk_paths(top: str) -> Iterator[tuple[str, str]]:
    folders = [top]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file():
                    yield os.path.relpath(entry.path, top), entry.path


def expanded(pattern: str) -> list[str]:
    """``shard-{000..127}.tar``, ``{a,b}.tar`` and ``*.tar`` as the list of what they stand for, braces as given.

    Raises FileNotFoundError where a ``*`` finds nothing.
    """
    found: list[str] = []
    for text in _without_braces(pattern):
        if not any(letter in text for letter in "*?"):
            found.append(text)
            continue
        if is_address(text):
            matches = _matches(text)
        else:
            matches = glob.glob(text)
        if not matches:
            raise FileNotFoundError(f"No file fits {text}; check the pattern.")
        found += sorted(matches)
    return found


def _matches(pattern: str) -> list[str]:
    """Addresses that fit a pattern with ``*``."""
    files, path = _file_system(pattern)
    return [files.unstrip_protocol(name) for name in _tried(lambda: files.glob(path), pattern)]


def _without_braces(pattern: str) -> Iterator[str]:
    parts = _BRACES.split(pattern)  # text, inside, text, inside, ..., text
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    yield from map("".join, itertools.product(*choices))


def _choices(inside: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        return inside.split(",")
    first, last = span.groups()
    step = 1 if int(first) <= int(last) else -1  # downwards too, as shells do, rather than to nothing
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + step, step)]


def joined(base: str, path: str) -> str:
    """``path`` as seen from the folder ``base``: addresses and absolute paths as they are."""
    if is_address(path):
        return path
    if is_address(base):
        return path if path.startswith("/") else f"{base.rstrip('/')}/{path}"
    return os.path.abspath(os.path.join(base, path))


def parent(address: str) -> str:
    """The folder that holds a file."""
    return address.rpartition("/")[0] if is_address(address) else os.path.dirname(os.path.abspath(address))


def plain_name(path: str, endings: tuple[str, ...]) -> str:
    """A relative name for what is made of a file: without protocol, root, "..", control characters and ending.

    ``s3://bucket/a/1.png`` -> ``bucket/a/1``; endings that are not known are part of the name.
    """
    path = path.split("::")[0]
    # No pathlib: it keeps the parts of every path it ever saw (interned), and here pass millions.
    parts = _ADDRESS.sub("", path, count=1).replace("\\", "/").split("/")
    parts = [re.sub(r"[\x00-\x1f\x7f]", "_", part) for part in parts if part not in ("", ".", "..")]
    if not parts:
        return "_"
    last = parts[-1]
    # What is left must be a name: "...tar" is none without its ending.
    known = [ending for ending in endings if last.lower().endswith(ending) and last[: -len(ending)].strip(".")]
    return "/".join([*parts[:-1], last[: len(last) - max(map(len, known), default=0)]])


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it. Raises ValueError that names what to install."""
    try:
        from fsspec.core import url_to_fs
    except Exception:
        raise ValueError(f"{address} is an address, which needs fsspec: pip install 'semgan[archive]'.") from None
    try:
        return url_to_fs(address)
    except ImportError as error:
        raise ValueError(f"{address} cannot be opened: {error}.") from None


def _tried(work: Callable[[], Answer], address: str) -> Answer:
    """The answer of a remote file system, asked again after a break. Raises Unreachable where it never came,
    FileNotFoundError where there is no such file."""
    for number in itertools.count():
        try:
            return work()
        except (IsADirectoryError, Unreachable):
            raise
        except FileNotFoundError as error:  # of some drivers for a server that is away, too
            reason = f" ({error.__cause__})" if error.__cause__ else ""
            raise FileNotFoundError(f"{address} was not found{reason}; check the address.") from error
        except PermissionError as error:
            raise Unreachable(f"{address} may not be read: {error}. Check the keys that its driver takes.") from error
        except Exception as error:  # every driver has errors of its own
            if number + 1 == TRIES:
                reason = str(error) or type(error).__name__
                raise Unreachable(f"{address} cannot be read, after {TRIES} tries: {reason}") from error
            time.sleep(WAIT_S * 4**number)
    raise AssertionError("the loop ends by an answer or an error")
