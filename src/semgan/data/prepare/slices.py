"""Volumes of a task -> axial slices to train on, and whole volumes to test on.

Slices keep their values (HU, MR units), so that the recipe's clipping acts in training as it does on a volume to
segment. One volume is in memory per process: a volume's slices are one piece of work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from semgan.data.nifti import write_label_volume, write_volume
from semgan.data.parallel import CHUNK, Progress, each
from semgan.data.prepare.inventory import Inventory, Scan, Source, WholeVolume
from semgan.data.prepare.pictures import MOST_VALUES, Found, Written, indices
from semgan.data.readers import values_in
from semgan.data.volumes import Volume, axial

Answer = TypeVar("Answer")


def cut(inventory: Inventory) -> None:
    """Replace every volume of an inventory by its slices, or, for tests on other data, by the whole volume.

    Slices take their volume's line of the manifest. In-domain test volumes are both: slices that are held out, and
    whole. Files that cannot be read, and CT beside MRI in training, join ``inventory.problems``.
    """
    volumes, rows = inventory.sources, inventory.columns
    inventory.sources, inventory.columns, inventory.file_ending = [], {}, ".tif"
    for source in volumes:
        assert source.scan is not None
        row = rows[source.stem]
        try:
            count, remarks = source.scan.look()
        except (ValueError, OSError) as error:
            inventory.problems.append(str(error))
            continue
        inventory.warnings += remarks
        if row["set"] == "test":
            inventory.volumes.append(WholeVolume(source.stem, row["collection"], source.scan))
        if source.folder == "imagesTs":
            continue
        for number in range(count):
            one = _slice(source, source.scan, number)
            inventory.sources.append(one)
            inventory.columns[one.stem] = {**row, "stem": one.stem}
    modalities = sorted({row["modality"] for row in inventory.columns.values()} - {""})
    if len(modalities) > 1:
        inventory.problems.append(
            f"Volumes of {' and '.join(modalities)} are to be trained on together, and one preprocessing rule serves "
            "all training images; use one of them as test: --use NAME=test."
        )


def _slice(source: Source, scan: Scan, number: int) -> Source:
    return replace(
        source,
        stem=f"{source.stem}__{number:04d}",
        read_image=partial(_image, scan, number),
        read_label=partial(_label, scan, number),
    )


@lru_cache(maxsize=1)
def _opened(scan: Scan) -> tuple[Volume, np.ndarray | None]:
    return scan.read()


def _image(scan: Scan, number: int, file: Path) -> np.ndarray:
    return _compact(_opened(scan)[0].slices[number])


def _label(scan: Scan, number: int, files: tuple[Path, ...]) -> np.ndarray:
    volume, labels = _opened(scan)
    assert labels is not None
    return axial(labels, volume.affine)[number].astype(np.int32)


def _compact(values: np.ndarray) -> np.ndarray:
    """Whole numbers as int16 where they fit, else float32."""
    limits = np.iinfo(np.int16)
    if values.dtype == np.uint8 or values.dtype == np.int16:
        return np.ascontiguousarray(values)
    fits = limits.min <= values.min() and values.max() <= limits.max
    if fits and (values.dtype.kind in "ui" or np.array_equal(values, np.rint(values))):
        return values.astype(np.int16)
    return values.astype(np.float32)


def each_source(
    function: Callable[[Source], Answer],
    sources: Sequence[Source],
    *,
    failed: Callable[[str], Answer],
    workers: int | None,
    progress: Progress | None,
    what: str,
) -> Iterator[tuple[Source, Answer]]:
    """Sources with ``function(source)``, in order; the slices of one volume are one piece of work for a process.

    failed: problem -> the one answer for all slices of a volume that cannot be read
    """
    pieces: list[tuple[Source, ...]] = []
    for scan, group in groupby(sources, key=lambda source: source.scan):
        members = tuple(group)
        pieces += [members] if scan is not None else [(source,) for source in members]
    chunk = CHUNK if len(pieces) == len(sources) else 1
    work = partial(_piece, function, failed)
    for answers in each(work, pieces, workers=workers, progress=progress, what=what, chunk=chunk):
        yield from answers


def _piece(
    function: Callable[[Source], Answer], failed: Callable[[str], Answer], sources: tuple[Source, ...]
) -> list[tuple[Source, Answer]]:
    scan = sources[0].scan
    try:
        if scan is not None:
            _opened(scan)
    except (ValueError, OSError) as error:
        return [(sources[0], failed(str(error)))]
    try:
        return [(source, function(source)) for source in sources]
    finally:
        _opened.cache_clear()  # its memory, and its files may change


def check_volume(volume: WholeVolume) -> Found:
    """Decode a volume and its mask completely: the problems, and the mask's values."""
    try:
        _, labels = volume.scan.read()
    except (ValueError, OSError) as error:
        return Found(problems=[str(error)])
    return Found(values=() if labels is None else tuple(values_in(labels)[:MOST_VALUES]))


def keep_volume(dataset: Path, table: Mapping[int, int], kept: WholeVolume) -> Written:
    """Write a volume, and its mask as class indices, as NIfTI of one geometry. Raises OSError for a full disk.

    table: mask value -> class index
    """
    written = Written()
    try:
        volume, drawn = kept.scan.read()
        labels = None if drawn is None else indices(drawn, table, kept.scan.files[-1])
    except ValueError as error:
        written.problems.append(str(error))
        return written
    volume = replace(volume, values=_compact(volume.values))
    folder = dataset / "volumes" / kept.collection
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"volumes/{kept.collection}/{kept.stem} {volume.values.shape}".encode())
    digest.update(volume.values.tobytes())
    write_volume(folder / "images" / f"{kept.stem}.nii.gz", volume)
    if labels is not None:
        digest.update(labels.tobytes())
        write_label_volume(folder / "labels" / f"{kept.stem}.nii.gz", labels, volume)
    written.sha256 = digest.digest()
    return written
