"""Plain folders of images and masks -> a dataset folder. Everything is checked first; nothing is left half-written."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from semgan.artifacts import write_json, write_text_atomic
from semgan.config import Preprocessing
from semgan.data.cache import open_cache
from semgan.data.folder import IMAGE_FOLDERS, LABEL_FOLDERS, Dataset, description_json
from semgan.data.parallel import Progress, each
from semgan.data.prepare.classes import ClassRule, Names, Values, WithoutClassError, decide_classes
from semgan.data.prepare.held_out import link_test_sets
from semgan.data.prepare.inventory import Inventory, PlainFolders, Source, take_inventory
from semgan.data.prepare.own_volumes import are_volumes, take_volumes
from semgan.data.prepare.pictures import Conversion, Found, convert, failed_conversion, failed_survey, survey
from semgan.data.prepare.requests import done_before, request_of
from semgan.data.prepare.slices import check_volume, each_source, keep_volume
from semgan.data.splits import COUNTED_IN, in_validation_order, write_protocol

SHOWN_PROBLEMS = 100


@dataclass(frozen=True)
class Report:
    """What `prepare_folder` made; of volumes to train on, slices are counted.

    test_volumes:      volumes kept whole to test on
    images_per_second: covers checking and writing, not the cache
    """

    path: Path
    classes: tuple[str, ...]
    channels: int
    labelled: int
    test: int
    unlabelled: int
    test_volumes: int
    warnings: tuple[str, ...]
    seconds: float
    images_per_second: float
    was_already_prepared: bool = False


def prepare_folder(
    images: Path | str,
    labels: Path | str,
    out: Path | str,
    *,
    unlabelled: Path | str | None = None,
    test_images: Path | str | None = None,
    test_labels: Path | str | None = None,
    manifest: Path | str | None = None,
    classes: Names | None = None,
    mapping: Values | None = None,
    ignore: Collection[int] = (),
    group_by_patient: bool = False,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write the dataset ``out`` from plain folders of pictures (`semgan.data.readers.read_image`); masks by stem.

    Or of volumes, see `semgan.data.prepare.own_volumes`: slices to train on, whole volumes to test on.

    classes:        names, {value: name}, or a JSON file of either
    mapping:        {mask value: class index or "ignore"}, a list, or a JSON file of either; ignore: values left out.
                    Without classes and mapping, masks of {0, 255} or of {0, 1, 2, ...} are accepted.
    manifest:       CSV with the columns stem, set (train, validation, test, unlabelled), group and any other
    group_by_patient: DICOM series of one PatientID are one patient; the ID itself is neither shown nor kept
    preprocessing:  build the cache for it at once; progress(done, total, what) is called as work goes on

    The same call again finds its work done, also for a copy of the files with other dates. Raises ValueError with all
    problems of the input in one message, FileNotFoundError for a missing JSON file, FileExistsError for an ``out`` with
    other content.
    """
    optional = (None if folder is None else Path(folder) for folder in (unlabelled, test_images, test_labels))
    folders = PlainFolders(Path(images), Path(labels), *optional)
    table = Path(manifest) if manifest else None
    if are_volumes(folders.images):
        inventory = take_volumes(folders, table, group_by_patient=group_by_patient)
    elif group_by_patient:
        raise ValueError(
            f"--group-by-patient reads PatientID of DICOM series, and {folders.images} holds none; name the patients "
            "in a --manifest with the columns stem and group."
        )
    else:
        inventory = take_inventory(folders, table)
    return prepare_inventory(
        inventory,
        out,
        classes=classes,
        mapping=mapping,
        ignore=ignore,
        preprocessing=preprocessing,
        workers=workers,
        progress=progress,
    )


def prepare_inventory(
    inventory: Inventory,
    out: Path | str,
    *,
    classes: Names | None = None,
    mapping: Values | None = None,
    ignore: Collection[int] = (),
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write the dataset folder ``out`` from an inventory; the rest as in `prepare_folder`."""
    started = time.perf_counter()
    out = Path(out)
    request = request_of(inventory, classes, mapping, ignore)
    if done := done_before(out, request):
        report = _report(done, inventory, started, was_already_prepared=True)
    else:
        plan = _check(inventory, classes, mapping, ignore, workers, progress)
        with _growing(out) as growing:
            noted = request.noted()  # before broken files are left out of the inventory
            origin = {"content_sha256": _write(growing, inventory, plan, workers, progress), **noted}
            _write_description(growing, out.name, inventory, plan, origin)
            _write_lists(growing, inventory)
        report = _report(Dataset.open(out), inventory, started)
    if preprocessing is not None:
        open_cache(out, None, preprocessing, workers, progress)
    return report


@dataclass(frozen=True)
class _Plan:
    rule: ClassRule
    channels: int


def _check(
    inventory: Inventory,
    classes: Names | None,
    mapping: Values | None,
    ignore: Collection[int],
    workers: int | None,
    progress: Progress | None,
) -> _Plan:
    """Decode every image that has a mask, decide on channels and classes. Raises ValueError with all problems."""
    problems = list(inventory.problems)
    paired = [source for source in inventory.sources if source.label is not None]
    training = sum(source.folder == "imagesTr" for source in paired)
    if training < 2:
        problems.append(f"{training} labelled image(s) for training; at least 2 images with masks are needed.")
    look = partial(each_source, survey, failed=failed_survey, workers=workers, progress=progress)
    found = list(look(paired, what="checking images with masks"))
    problems += [problem for _, one in found for problem in one.problems]
    whole = [(source, one) for source, one in found if not one.problems]
    seen = {source.scan for source in paired}
    tests = [volume for volume in inventory.volumes if volume.scan not in seen]
    looks = each(check_volume, tests, workers=workers, progress=progress, what="checking volumes", chunk=1)
    drawn = [(source.labels[0], one.values) for source, one in whole]
    for volume, told in zip(tests, looks, strict=True):
        problems += told.problems
        drawn.append((volume.scan.files[-1], told.values))
    channels = _decide_channels(whole, problems)
    values = sorted({value for _, held in drawn for value in held})
    rule = None
    if values:
        try:
            rule = decide_classes(values, classes, mapping, ignore)
        except WithoutClassError as error:
            problems.append(f"{error}{_examples(drawn, error.values)}")
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
    if problems:
        # Only now are the images without masks decoded twice: everything wrong is to be told in one go.
        bare = [source for source in inventory.sources if source.label is None]
        others = look(bare, what="checking images without masks")
        problems += [problem for _, one in others for problem in one.problems]
        raise ValueError(_message(problems))
    assert rule is not None
    return _Plan(rule, channels)


def _message(problems: Sequence[str]) -> str:
    shown = "\n".join(f"- {problem}" for problem in problems[:SHOWN_PROBLEMS])
    more = f"\n... and {len(problems) - SHOWN_PROBLEMS} more." if len(problems) > SHOWN_PROBLEMS else ""
    return f"The dataset was not made; {len(problems)} problem(s):\n{shown}{more}"


def _examples(drawn: Sequence[tuple[Path, Sequence[int]]], values: Sequence[int]) -> str:
    """Where unusual values occur: the first mask of the rarest ones."""
    holders = {value: [file for file, held in drawn if value in held] for value in values[:300]}
    rare = sorted(holders, key=lambda value: (len(holders[value]), value))[:5]
    return " Examples: " + "; ".join(f"{value} in {holders[value][0]}" for value in rare) + "."


def _decide_channels(whole: list[tuple[Source, Found]], problems: list[str]) -> int:
    """1 where every labelled image is grey (equal colour channels count as grey), else the one count that all have."""
    training = [(source, one) for source, one in whole if source.folder == "imagesTr"] or whole
    if all(one.is_grey for _, one in training):
        channels = 1
    else:
        channels = next(one.channels for _, one in training if not one.is_grey)
    for source, one in whole:
        if one.channels != channels and not (channels == 1 and one.is_grey):
            example = next((other for other, seen in whole if seen.channels == channels), source)
            problems.append(
                f"{source.image} has {one.channels} channel(s), and others such as {example.image} have {channels}; "
                "convert the images to one kind."
            )
    return channels


def _write(growing: Path, inventory: Inventory, plan: _Plan, workers: int | None, progress: Progress | None) -> str:
    """Convert and write all images and masks; returns the sha256 of their pixels. Sources left out go from the list."""
    for name in (*IMAGE_FOLDERS, *LABEL_FOLDERS.values()):
        (growing / name).mkdir()
    conversion = Conversion(
        growing, plan.channels, plan.rule.table, inventory.file_ending, unlabelled_px=inventory.unlabelled_px
    )
    job = partial(convert, conversion)
    write = partial(each_source, job, failed=failed_conversion, workers=workers, progress=progress)
    sources = write(inventory.sources, what="writing the dataset")
    keep, kept = partial(keep_volume, growing, plan.rule.table), inventory.volumes
    volumes = each(keep, kept, workers=workers, progress=progress, what="writing test volumes", chunk=1)
    digest, problems, broken = hashlib.sha256(), [], {}
    for source, one in chain(sources, ((None, written) for written in volumes)):
        if one.problems and inventory.leaves_out_broken and source is not None and source.folder == "imagesUn":
            broken[source.stem] = one.problems[0]
            continue
        problems += one.problems
        inventory.warnings += one.warnings[: max(0, 20 - len(inventory.warnings))]
        digest.update(one.sha256)
    if problems:
        raise ValueError(_message(problems))
    _leave_out(inventory, broken)
    return digest.hexdigest()


def _leave_out(inventory: Inventory, broken: Mapping[str, str]) -> None:
    """Take unlabelled sources (stem -> problem), and all slices of their volumes, out of the inventory, and say so."""
    scans = {source.scan for source in inventory.sources if source.stem in broken} - {None}
    inventory.sources = [
        source for source in inventory.sources if source.stem not in broken and source.scan not in scans
    ]
    inventory.warnings += [f"left out: {problem}" for problem in list(broken.values())[:SHOWN_PROBLEMS]]
    if broken:
        inventory.warnings.append(f"{len(broken)} unlabelled file(s) cannot be used and were left out; see above.")


def _write_lists(growing: Path, inventory: Inventory) -> None:
    """manifest.csv for the cases at hand; splits.json and test sets where manifest or protocol name them."""
    stems = {source.stem for source in inventory.sources}
    rows = {stem: row for stem, row in inventory.columns.items() if stem in stems}
    if rows:
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        lines = [columns, *([row.get(name, "") for name in columns] for row in rows.values())]
        write_text_atomic(growing / "manifest.csv", "".join(_csv_line(line) for line in lines))
    training = [source.stem for source in inventory.sources if source.folder == "imagesTr"]
    set_of = {stem: rows.get(stem, {}).get("set") or "pool" for stem in training}
    held_out = {name: [stem for stem in training if set_of[stem] == name] for name in ("test", "validation")}
    held_out["validation"] = in_validation_order(held_out["validation"])
    lists: dict[str, Any] = {name: stems for name, stems in held_out.items() if stems}
    if lists:
        lists["pool"] = [stem for stem in training if set_of[stem] not in held_out]
    if inventory.protocol is not None:
        lists["metric"] = inventory.protocol.metric
    if inventory.counted_in is not None:
        lists[COUNTED_IN] = inventory.counted_in
    if lists:
        write_json(growing / "splits.json", lists)
    if inventory.protocol is not None:
        write_protocol(growing, inventory.protocol)
        link_test_sets(growing, inventory)


def _csv_line(values: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _write_description(growing: Path, name: str, inventory: Inventory, plan: _Plan, own: dict[str, Any]) -> None:
    training = sum(source.folder == "imagesTr" for source in inventory.sources)
    labels, ignores = plan.rule.labels, bool(plan.rule.ignores)
    content = description_json(name, labels, plan.channels, training, inventory.file_ending, ignores=ignores, own=own)
    write_json(growing / "dataset.json", content)


@contextlib.contextmanager
def _growing(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its name when all went well and vanishes otherwise."""
    growing = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for leftover in out.parent.glob(f"{out.name}.tmp-*"):
            if not _is_running(leftover.name.rpartition("-")[2]):
                shutil.rmtree(leftover, ignore_errors=True)
        growing.mkdir()
        yield growing
        os.replace(growing, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(f"No disk space left for {out}; nothing was kept. Free some or change -o.") from None
        raise
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _report(dataset: Dataset, inventory: Inventory, started: float, *, was_already_prepared: bool = False) -> Report:
    seconds = time.perf_counter() - started
    count = {name: len(files) for name, files in dataset.files.items()}
    report = Report(
        path=dataset.path,
        classes=dataset.labels.names,
        channels=dataset.channels,
        labelled=count["imagesTr"],
        test=count["imagesTs"],
        unlabelled=count["imagesUn"],
        test_volumes=len(inventory.volumes),
        warnings=tuple(inventory.warnings),
        seconds=round(seconds, 3),
        images_per_second=round(sum(count.values()) / seconds, 1),
    )
    return replace(report, was_already_prepared=was_already_prepared)
