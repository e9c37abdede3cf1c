"""Decoded, preprocessed images of a dataset folder as one uint8 memory map, so that training never waits for decoding.

    DATASET/cache/KEY/images.npy   uint8 [images, channels, size_px, size_px]
    DATASET/cache/KEY/index.json   preprocessing, and name, size and modification time of every source file

KEY names the preprocessing. A cache whose index does not agree with the files on disk is built again; one that is being
built has another name until it is complete, so a killed build is never used. Test images are not in it: training has no
business with them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semgan.artifacts import read_json, write_json
from semgan.config import Preprocessing
from semgan.data.folder import Dataset
from semgan.data.parallel import CHUNK, Progress, each
from semgan.data.readers import read_image_files
from semgan.data.transforms import preprocess
from semgan.types import Case

FORMAT = 1  # raise it when preprocessing changes what it returns


@dataclass(frozen=True)
class ImageCache:
    """``images``: read-only memory map uint8 ``[N, channels, size_px, size_px]``; one row per image of the dataset."""

    images: np.ndarray
    row_of: dict[str, int]
    build_seconds: float

    def row(self, case: Case) -> int:
        """The row of a case's image."""
        return self.row_of[f"{case.image.parent.name}/{case.image.name}"]

    def rows(self, cases: Sequence[Case]) -> np.ndarray:
        """int64 ``[len(cases)]``, to index ``images``."""
        return np.fromiter((self.row(case) for case in cases), np.int64, len(cases))


def open_cache(
    dataset_path: Path | str,
    cases: Sequence[Case] | None,
    preprocessing: Preprocessing,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageCache:
    """The cache of a dataset folder for one preprocessing; built where it is missing or stale.

    It holds every image of the folder but those of imagesTs and the test list, and no masks; ``cases`` are checked to
    be among them (None: nothing to check). Raises ValueError for unreadable images, a full disk, and unknown cases.
    """
    dataset = Dataset.open(dataset_path)
    files, held_out = _files(dataset)
    sources = _sources(dataset, files)
    target = dataset.path / "cache" / cache_key(preprocessing)
    found = _load(target, sources, held_out)
    if found is None:
        with _only_builder(target):
            found = _load(target, sources, held_out)  # another process may have built it meanwhile
            if found is None:
                _build(target, files, sources, preprocessing, workers, progress)
                found = _load(target, sources, held_out)
        assert found is not None
    unknown = [case.stem for case in cases or () if f"{case.image.parent.name}/{case.image.name}" not in found.row_of]
    if unknown:
        raise ValueError(f"{dataset.path} has no image for {', '.join(unknown[:10])}; they belong to another dataset.")
    return found


def cache_key(rule: Preprocessing) -> str:
    """A folder name that people can read and that changes with any part of the preprocessing."""
    digest = hashlib.sha256(f"{FORMAT} {rule.model_dump_json(exclude_none=True)}".encode()).hexdigest()[:8]
    return f"{rule.size_px}px-{rule.channels}ch-{digest}"


def _files(dataset: Dataset) -> tuple[dict[str, Path], set[str]]:
    """"imagesTr/case_0000.png" -> file of every image that training may see, and the names of the test images."""
    test = set(dataset.splits.get("test", []))
    files, held_out = {}, set()
    for folder, found in dataset.files.items():
        for stem, file in found.items():
            if folder == "imagesTs" or (folder == "imagesTr" and stem in test):
                held_out.add(f"{folder}/{file.name}")
            else:
                files[f"{folder}/{file.name}"] = file
    return files, held_out


def _sources(dataset: Dataset, files: Mapping[str, Path]) -> list[list[Any]]:
    """``[name, bytes, modification time in ns]`` of every image; over all its channel files."""
    folders = {file.parent for file in files.values()}
    found = {folder: {entry.name: entry.stat() for entry in os.scandir(folder)} for folder in folders}
    sources = []
    for name, file in files.items():
        stem = file.name.removesuffix(f"_0000{file.suffix}")
        channels = [f"{stem}_{channel:04d}{file.suffix}" for channel in range(dataset.channels)]
        states = [found[file.parent][channel] for channel in channels if channel in found[file.parent]]
        sources.append([name, sum(s.st_size for s in states), max(s.st_mtime_ns for s in states)])
    return sources


def _load(target: Path, sources: list[list[Any]], held_out: set[str]) -> ImageCache | None:
    """The cache, or None where it is missing, stale or damaged.

    held_out: names of test images; one that was built before they became test images may hold them
    """
    try:
        index = read_json(target / "index.json")
        built = index["sources"]
        if index["format"] != FORMAT or [entry for entry in built if entry[0] not in held_out] != sources:
            return None
        images = np.load(target / "images.npy", mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(images) != len(built):
        return None
    return ImageCache(images, {name: row for row, (name, _, _) in enumerate(built)}, index["build_seconds"])


@contextmanager
def _only_builder(target: Path) -> Iterator[None]:
    """Hold the lock of one cache and clear what killed builders left."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = open(target.parent / f".{target.name}.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"Cannot write the cache into {target.parent} ({error.strerror}); make it writable.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in target.parent.glob(f".{target.name}.tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _build(
    target: Path,
    files: Mapping[str, Path],
    sources: list[list[Any]],
    rule: Preprocessing,
    workers: int | None,
    progress: Progress | None,
) -> None:
    started = time.perf_counter()
    growing = target.with_name(f".{target.name}.tmp")
    growing.mkdir()
    try:
        shape = (len(sources), rule.channels, rule.size_px, rule.size_px)
        offset = reserve_array(growing / "images.npy", shape)
        ordered = tuple(files.values())
        parts = [
            _Part(growing / "images.npy", offset, rule, row, ordered[row : row + CHUNK])
            for row in range(0, len(ordered), CHUNK)
        ]
        problems: list[str] = []
        for found in each(_fill, parts, workers=workers, progress=_by_images(progress, len(files)), chunk=1):
            problems += found
        if problems:
            raise ValueError(_listed(problems, target.parents[1]))
        seconds = time.perf_counter() - started
        index = {"format": FORMAT, "preprocessing": rule.model_dump(), "build_seconds": seconds, "sources": sources}
        write_json(growing / "index.json", index)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(growing, target)
    except OSError as error:
        raise _teach(error, target) from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _by_images(progress: Progress | None, images: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, what: progress(min(done * CHUNK, images), images, "caching images")


def reserve_array(file: Path, shape: tuple[int, ...]) -> int:
    """Write the header of an .npy file and reserve its disk space; returns where the pixels start."""
    with open(file, "wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        offset = out.tell()
        # Reserved at once: a full disk is told now, and not by a killed process when a page is written.
        os.posix_fallocate(out.fileno(), 0, max(1, offset + int(np.prod(shape))))
    return offset


@dataclass(frozen=True)
class _Part:
    out: Path
    offset: int
    rule: Preprocessing
    first_row: int
    files: tuple[Path, ...]


def _fill(part: _Part) -> list[str]:
    """Decode a few images and write their rows; returns the problems."""
    row_bytes = part.rule.channels * part.rule.size_px**2
    problems = []
    with open(part.out, "r+b") as out:
        out.seek(part.offset + part.first_row * row_bytes)
        for file in part.files:
            try:
                out.write(preprocess(read_image_files(file), part.rule).tobytes())
            except (ValueError, FileNotFoundError) as error:
                problems.append(str(error) if str(file) in str(error) else f"{file}: {error}")
                out.write(bytes(row_bytes))
    return problems


def _listed(problems: list[str], path: Path) -> str:
    shown = "\n".join(f"- {problem}" for problem in problems[:50])
    more = f"\n... and {len(problems) - 50} more." if len(problems) > 50 else ""
    return f"{len(problems)} image(s) of {path} cannot be cached:\n{shown}{more}"


def _teach(error: OSError, target: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ValueError(f"No disk space left for the cache {target}; free some, or move the dataset to another disk.")
    return error
