"""Phantoms as plain folders, as people have them: the input of ``semgan data prepare folder``."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from semgan.data.phantoms.catalogue import CLASSES, DOMAINS, check_request, phantom

RECORD = "phantoms.json"
DRAWING_VERSION = 1  # raise it when the pictures of a seed change: folders of an older version then count as others
ROLES = ("labelled", "validation", "unlabelled", "test")


@dataclass(frozen=True)
class Job:
    """One phantom to write; ``label`` is None where no mask may exist."""

    seed: int
    domain: str
    image: str
    label: str | None


def write_phantom_dataset(
    out: Path | str,
    family: str,
    *,
    size_px: int,
    labelled: int,
    unlabelled: int,
    validation: int,
    test: int,
    seed: int,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set of phantoms as plain folders and return its path.

    ``images/`` and ``labels/`` (labelled and validation, told apart by ``manifest.csv``: stem, set, group),
    ``unlabelled/``, ``test/DOMAIN/images`` and ``/labels`` for every domain, with the same shapes in each;
    ``classes.json`` names the mask values; ``phantoms.json`` records the request. Masks are 8-bit class indices.
    ``test`` counts phantoms per domain. ``progress(done, total)`` is called as pictures are finished.
    The folder appears complete or not at all; asked again for the same data, it is returned as it is.
    Raises ValueError for an impossible request, FileExistsError where ``out`` holds anything else.
    """
    counts = {"labelled": labelled, "validation": validation, "unlabelled": unlabelled, "test": test}
    _check_counts(counts, seed, workers)
    check_request(family, None, size_px)
    out = Path(out)
    record = {"drawing_version": DRAWING_VERSION, "family": family, "size_px": size_px, "seed": seed, **counts}
    if is_there(out, record):
        return out
    with building_folder(out, record) as building:
        jobs = list(_jobs(family, counts, seed))
        for folder in sorted({str(Path(name).parent) for job in jobs for name in (job.image, job.label) if name}):
            (building / folder).mkdir(parents=True, exist_ok=True)
        draw = partial(_write_one, building, family, size_px)
        for done, _ in enumerate(_each(draw, jobs, workers), start=1):
            if progress is not None:
                progress(done, len(jobs))
        _write_lists(building, family, counts)
    return out


@contextmanager
def building_folder(out: Path, record: dict) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` with its record where all went well, and goes where not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield building
        (building / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        building.chmod(0o755)  # mkdtemp's own is for the owner alone
        os.replace(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _check_counts(counts: dict[str, int], seed: int, workers: int) -> None:
    for name, value in counts.items():
        if value < 0:
            raise ValueError(f"The number of {name} phantoms is 0 or more; got {value}.")
    if sum(counts.values()) == 0:
        raise ValueError("A data set of no phantoms was asked for; give at least one of labelled, unlabelled, test.")
    if seed < 0 or workers < 1:
        raise ValueError(f"seed is 0 or more and workers 1 or more; got seed={seed}, workers={workers}.")


def is_there(out: Path, record: dict) -> bool:
    """Whether ``out`` already holds exactly this data set; an error where it holds another or anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == record:
        return True
    what = "another phantom data set" if found else "other files"
    raise FileExistsError(f"{out} holds {what}; choose another folder or remove this one.")


def phantom_seed(seed: int, role: int, index: int) -> int:
    """A seed of its own for every phantom of every role."""
    words = np.random.SeedSequence((seed, role, index)).generate_state(2, np.uint32)
    return (int(words[0]) << 32) | int(words[1])


def _phantom_seed(seed: int, role: str, index: int) -> int:
    return phantom_seed(seed, ROLES.index(role), index)


def _jobs(family: str, counts: dict[str, int], seed: int) -> Iterator[Job]:
    standard = DOMAINS[family][0]
    for role in ("labelled", "validation"):
        for index in range(counts[role]):
            stem = _stem(role, index)
            yield Job(_phantom_seed(seed, role, index), standard, f"images/{stem}.png", f"labels/{stem}.png")
    for index in range(counts["unlabelled"]):
        stem = _stem("unlabelled", index)
        yield Job(_phantom_seed(seed, "unlabelled", index), standard, f"unlabelled/{stem}.png", None)
    for domain in DOMAINS[family]:
        for index in range(counts["test"]):
            stem = _stem("test", index)
            folder = f"test/{domain}"
            yield Job(
                _phantom_seed(seed, "test", index), domain, f"{folder}/images/{stem}.png", f"{folder}/labels/{stem}.png"
            )


def _stem(role: str, index: int) -> str:
    return f"{role}_{index:05d}"


def _each(draw: Callable[[Job], None], jobs: list[Job], workers: int) -> Iterable[None]:
    if workers == 1:
        yield from map(draw, jobs)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the threads of torch
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(draw, jobs, chunksize=max(1, min(64, len(jobs) // (4 * workers))))


def _write_one(folder: Path, family: str, size_px: int, job: Job) -> None:
    from PIL import Image

    image, label = phantom(family, job.seed, domain=job.domain, size_px=size_px)
    Image.fromarray(image).save(folder / job.image, compress_level=1)
    if job.label is not None:
        Image.fromarray(label).save(folder / job.label)


def _write_lists(folder: Path, family: str, counts: dict[str, int]) -> None:
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("stem", "set", "group"))
        for role, set_name in (("labelled", "train"), ("validation", "validation")):
            for index in range(counts[role]):
                rows.writerow((_stem(role, index), set_name, f"{role}_person_{index:05d}"))
    classes = {"classes": {str(value): name for value, name in enumerate(CLASSES[family])}}
    (folder / "classes.json").write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")
