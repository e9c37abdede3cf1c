"""``semgan segment``: images -> masks at their own size, with confidence and losses per image, for every method.

    OUT/<stem>.png                 8-bit class indices, the image's own size
    OUT/segmentation.csv           stem, steps, confidence, one column per loss term, seconds
    OUT/segmentation.json          what was asked: model, images, options
    OUT/probabilities/<stem>.npz   float16 "probabilities" [classes, height, width], where asked for
    OUT/overlays/<stem>.png        image with the mask laid over it, where asked for

OUT appears when everything is done; until then the work lies in OUT.partial, and the same command goes on with it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semgan import artifacts
from semgan.data.parallel import available_workers, thread_pool
from semgan.data.whole_images import Input, SegmentedImage, find_inputs, preprocessing_of, segment_images
from semgan.report.colours import overlay as overlaid
from semgan.result_folder import ResultFolder
from semgan.types import Segmenter

logger = logging.getLogger(__name__)

MARKER = "segmentation.json"
ROWS = "rows.jsonl"  # one finished image per line; only while work goes on
MOST_SHOWN = 20
Progress = Callable[[int, int, str], Any]
Row = dict[str, Any]


def segment(
    model: Path | str | Segmenter,
    images: Path | str,
    out: Path | str,
    *,
    steps: int | None = None,
    save_probabilities: bool = False,
    overlay: bool = False,
    overwrite: bool = False,
    batch: int = 64,
    modality: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Segment an image or a folder of images; returns the rows of segmentation.csv.

    model: run folder, model folder, or what `semgan.load` returned (then a stopped run cannot be continued)
    steps: optimisation steps; None: as chosen on validation; 0: encoder only
    batch: images given to the model at a time (the inversion's own ``inversion.batch`` may cut them smaller)
    overwrite: replace results of another request in ``out`` (never other files)

    Raises ValueError naming all unreadable images before any work; FileExistsError where ``out`` has other content;
    FileNotFoundError where there is no image or no model.
    """
    images, out = Path(images), Path(out)
    segmenter, identity = _loaded(model, device)
    inputs, ignored = find_inputs(images, _channels(segmenter))
    if ignored:
        logger.warning("%d files in %s are no images and are left out: %s", len(ignored), images, _some(ignored))
    request = {
        "format": 1,
        "model": identity,
        "images": _fingerprint(inputs),
        "count": len(inputs),
        "options": {"steps": steps, "probabilities": save_probabilities, "overlay": overlay, "modality": modality},
    }
    folder = ResultFolder(out, MARKER, request)
    if identity is not None and folder.is_finished():
        logger.warning("%s already holds these results; nothing to do.", out)
        return read_rows(out / "segmentation.csv")
    check_inputs(segmenter, inputs, modality=modality, threads=threads, progress=progress)
    goes_on = folder.begin(overwrite=overwrite) and identity is not None
    done = _finished_rows(folder.partial) if goes_on else []
    _forget_unfinished(folder.partial, done)
    stems = {row["stem"] for row in done}
    rest = [item for item in inputs if item.stem not in stems]
    answers = segment_images(segmenter, rest, steps=steps, batch=batch, modality=modality, threads=threads)
    writer = _Writer(folder.partial, len(segmenter.labels.names), save_probabilities, overlay)
    try:
        for row in writer.write_all(rest, answers, available_workers(threads)):
            done.append(row)
            if progress is not None:
                progress(len(done), len(inputs), "segment")
    except BaseException:
        if not done:
            folder.discard()
        raise
    rows = sorted(done, key=lambda row: row["stem"])
    artifacts.write_text_atomic(folder.partial / "segmentation.csv", _csv(rows))
    (folder.partial / ROWS).unlink(missing_ok=True)
    folder.finish()
    return rows


def _loaded(model: Path | str | Segmenter, device: str) -> tuple[Segmenter, str | None]:
    """The model and what identifies it (None for one that only lives in memory)."""
    if not isinstance(model, (Path, str)):
        return model, None
    import semgan

    folder = artifacts.find_model(Path(model))
    known = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        about = path.stat()
        known.update(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode())
    return semgan.load(folder, device=device), known.hexdigest()[:16]


def _channels(segmenter: Segmenter) -> int:
    """Channels the model takes, read off what its own preprocessing gives."""
    for channels in (1, 3, *range(2, 65)):
        try:
            return int(segmenter.preprocess(np.zeros((16, 16, channels), np.uint8)).shape[0])
        except ValueError:
            continue
    raise ValueError("The model's preprocessing takes no image of 1 to 64 channels.")


def _fingerprint(inputs: Sequence[Input]) -> str:
    known = hashlib.sha256()
    for item in inputs:
        about = item.path.stat()
        known.update(f"{item.stem} {item.path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return known.hexdigest()[:16]


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:5])
    return names if len(paths) <= 5 else f"{names}, ..."


def check_inputs(
    segmenter: Segmenter,
    inputs: Sequence[Input],
    *,
    modality: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Decode every image once. Raises one ValueError that lists all that cannot be read or preprocessed."""
    prepare = preprocessing_of(segmenter, modality)
    prepare(np.zeros((16, 16, _channels(segmenter)), np.uint8))  # an unknown modality is one error, not one per image

    def problem(item: Input) -> str | None:
        try:
            pixels = item.read()
            # A corner tells whether the channels fit; only float images can hold values that are not finite.
            prepare(pixels if pixels.dtype.kind == "f" else pixels[:16, :16])
        except (ValueError, OSError) as error:
            message = str(error)
            return message if item.path.name in message else f"{item.path}: {message}"
        return None

    problems = []
    with thread_pool(threads) as pool:
        for count, found in enumerate(pool.map(problem, inputs), 1):
            if found is not None:
                problems.append(found)
            if progress is not None:
                progress(count, len(inputs), "check images")
    if problems:
        shown = "\n".join(f"- {found}" for found in problems[:MOST_SHOWN])
        more = f"\n... and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
        count = f"{len(problems)} of {len(inputs)} images"
        raise ValueError(f"{count} cannot be segmented; nothing was written:\n{shown}{more}")


# ---------------------------------------------------------------- writing


class _Writer:
    """Writes one image's answer; files are complete before their row is."""

    def __init__(self, folder: Path, classes: int, save_probabilities: bool, overlay: bool) -> None:
        self.folder, self.classes = folder, classes
        self.probabilities = folder / "probabilities" if save_probabilities else None
        self.overlays = folder / "overlays" if overlay else None
        for extra in (self.probabilities, self.overlays):
            if extra is not None:
                extra.mkdir(exist_ok=True)

    def write_all(self, inputs: Sequence[Input], answers: Iterator[SegmentedImage], threads: int) -> Iterator[Row]:
        """Write in threads, in order, a few images at most waiting; yields each row once it is on disk."""
        waiting: deque[Future[Row]] = deque()
        pool = thread_pool(threads)
        try:
            with open(self.folder / ROWS, "a", encoding="utf-8") as rows:
                for item, answer in zip(inputs, answers, strict=True):
                    waiting.append(pool.submit(self.write, item, answer))
                    while len(waiting) > 2 * threads:
                        yield _noted(rows, waiting.popleft().result())
                while waiting:
                    yield _noted(rows, waiting.popleft().result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def write(self, item: Input, answer: SegmentedImage) -> Row:
        Image.fromarray(answer.label_map).save(self.folder / f"{item.stem}.png")
        if self.probabilities is not None:
            np.savez_compressed(
                self.probabilities / f"{item.stem}.npz", probabilities=answer.probabilities.astype(np.float16)
            )
        if self.overlays is not None:
            picture = overlaid(_eight_bit(item.read()), answer.label_map, self.classes)
            Image.fromarray(picture).save(self.overlays / f"{item.stem}.png")
        losses = {name: round(value, 6) for name, value in answer.losses.items()}
        return {
            "stem": item.stem,
            "steps": answer.steps,
            "confidence": round(answer.confidence, 6),
            **losses,
            "seconds": round(answer.seconds, 4),
        }


def _noted(rows: io.TextIOBase | Any, row: Row) -> Row:
    rows.write(json.dumps(row) + "\n")
    rows.flush()
    return row


def _eight_bit(image: np.ndarray) -> np.ndarray:
    """A decoded image for people's eyes: deeper ones are stretched from their minimum to their maximum."""
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return np.round((image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def _finished_rows(partial: Path) -> list[Row]:
    rows = artifacts.read_metrics(partial / ROWS) if (partial / ROWS).is_file() else []
    return [row for row in rows if (partial / f"{row['stem']}.png").is_file()]


def _forget_unfinished(partial: Path, done: Sequence[Row]) -> None:
    """Leave whole lines only, so that a line cut off by a kill is not continued by the next."""
    artifacts.write_text_atomic(partial / ROWS, "".join(json.dumps(row) + "\n" for row in done))


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def read_rows(path: Path) -> list[Row]:
    """The rows of a segmentation.csv, numbers as numbers."""
    kinds = {"stem": str, "steps": int}
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: kinds.get(name, float)(value) for name, value in row.items()} for row in csv.DictReader(file)
        ]
