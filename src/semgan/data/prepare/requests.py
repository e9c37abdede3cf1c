"""Whether a dataset folder is what this very call made earlier: told by the dates of files, else by their contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semgan.artifacts import write_json
from semgan.data.folder import Dataset, read_object
from semgan.data.parallel import thread_pool
from semgan.data.prepare.inventory import Inventory

SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Request:
    """What a dataset folder is made from.

    quick:   sha256 of names, sizes and times of the files, and of the options: equal where nothing was touched
    options: option -> sha256; names: sha256 of names and sizes; files: those whose contents decide beyond that
    stems:   folder of the dataset -> its cases, where all of them will be there
    """

    quick: str
    options: Mapping[str, str]
    names: str
    files: tuple[Path, ...]
    stems: Mapping[str, frozenset[str]]

    def noted(self) -> dict[str, Any]:
        """What dataset.json keeps of it; reads all files."""
        parts = {"options": dict(self.options), "names": self.names, "contents": contents_of(self.files)}
        return {"request_sha256": self.quick, "request": parts}


def request_of(inventory: Inventory, classes: Any, mapping: Any, ignore: Collection[int]) -> Request:
    """Looks at the files' names, sizes and times, and opens none but those of the options."""
    cases, others = _cases(inventory), _others(inventory)
    lines = [(file.name, (file,)) for file in others] + cases
    options: dict[str, Any] = {"classes": _content(classes), "mapping": _content(mapping), "ignore": sorted(ignore)}
    options |= {"manifest": inventory.columns, "protocol": str(inventory.protocol)}
    stems: dict[str, set[str]] = {"imagesTr": set(), "imagesTs": set()}
    stems |= {} if inventory.leaves_out_broken else {"imagesUn": set()}
    for source in inventory.sources:
        stems.get(source.folder, set()).add(source.stem)
    return Request(
        _quick(cases, others, options),
        {name: _sha256([json.dumps(value, default=str)]) for name, value in options.items()},
        _sha256(f"{name} {[file.stat().st_size for file in files]}\n" for name, files in lines),
        tuple(dict.fromkeys(file for _, files in lines for file in files)),
        {folder: frozenset(names) for folder, names in stems.items()},
    )


def contents_of(files: Iterable[Path]) -> str:
    """sha256 of the contents of files, in their order."""

    def one(file: Path) -> str:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    with thread_pool() as pool:
        return _sha256(pool.map(one, files))


def done_before(out: Path, request: Request) -> Dataset | None:
    """The dataset that an equal request made earlier; None for no or an empty folder.

    Where the dates of the files are others (a copy of the data, say), their contents are compared, once. Raises
    FileExistsError saying what differs, and what to do.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        content = read_object(out / "dataset.json")
        earlier, dataset = content["semgan"], Dataset.open(out)
        if earlier["request_sha256"] == request.quick:
            return dataset
        unlike = _difference(earlier.get("request"), request, dataset)
    except (ValueError, OSError, KeyError, TypeError, AttributeError):
        raise FileExistsError(f"{out} exists and holds other content; choose another -o, or remove it first.") from None
    if unlike is not None:
        raise FileExistsError(
            f"{out} exists and holds other content: {unlike}. Choose another -o, or remove it first: the same command "
            "makes it again, and what was trained on it goes on where its images and masks are the same."
        )
    earlier["request_sha256"] = request.quick  # so that the next call need not read all files
    with contextlib.suppress(OSError):
        write_json(out / "dataset.json", content)
    return dataset


def _difference(earlier: Mapping[str, Any] | None, request: Request, dataset: Dataset) -> str | None:
    """How a dataset's request was another, in words; None where it was the same."""
    if earlier is None:
        return (
            "the names, sizes or dates of the files it was prepared from, or its options, were others (an older "
            "version prepared it, which did not note their contents)"
        )
    if options := [name for name, value in request.options.items() if earlier["options"].get(name) != value]:
        return f"it was prepared with other options ({', '.join(options)})"
    if earlier["names"] != request.names:
        return _other_files(request, dataset)
    if earlier["contents"] != contents_of(request.files):
        return "it was prepared from files of the same names and sizes, but with other contents"
    return None


def _other_files(request: Request, dataset: Dataset) -> str:
    told = []
    for folder, stems in request.stems.items():
        had = set(dataset.files[folder])
        for what, names in (("it lacks", stems - had), ("it has, and they are gone:", had - stems)):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                told.append(f"{what} {', '.join(sorted(names)[:SHOWN])}{more}")
    return "; ".join(told) or "some of the files it was prepared from had other names or sizes"


# ---------------------------------------------------------------- digests


def _cases(inventory: Inventory) -> list[tuple[str, tuple[Path, ...]]]:
    """Name and files of every image and volume."""
    cases = [(f"{source.folder}/{source.stem}", (source.image, *source.labels)) for source in inventory.sources]
    return cases + [(f"{volume.collection}/{volume.stem}", tuple(volume.scan.files)) for volume in inventory.volumes]


def _others(inventory: Inventory) -> list[Path]:
    """Files of scans that are no image or label by themselves."""
    known = {file for source in inventory.sources for file in (source.image, *source.labels)}
    scans = dict.fromkeys(source.scan for source in inventory.sources if source.scan is not None)
    return [file for scan in scans for file in scan.files if file not in known]


def _quick(cases: Iterable[tuple[str, Iterable[Path]]], others: Iterable[Path], options: Mapping[str, Any]) -> str:
    """As all versions made it: datasets of earlier ones are found by it."""
    states = ((file.name, file.stat()) for file in others)
    lines = [f"{name} {state.st_size} {state.st_mtime_ns}\n" for name, state in states]
    for name, files in cases:
        lines.append(f"{name} {[(state.st_size, state.st_mtime_ns) for state in map(Path.stat, files)]}\n")
    return _sha256([*lines, json.dumps(list(options.values()), default=str)])


def _content(option: Any) -> Any:
    is_file = isinstance(option, Path | str) and Path(option).is_file()
    return Path(option).read_bytes().hex() if is_file else option


def _sha256(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()
