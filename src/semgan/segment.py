"""``semgan segment``: images -> masks at their own size, with confidence and losses per image, for every method.

Volumes (NIfTI, DICOM) have their own story, `semgan.segment_volumes`.

    OUT/<stem>.png                 8-bit class indices, the image's own size
    OUT/segmentation.csv           stem, steps, confidence, one column per loss term, signals and trust, seconds
    OUT/segmentation.json          what was asked: model, images, options
    OUT/probabilities/<stem>.npz   float16 "probabilities" [classes, height, width], where asked for
    OUT/overlays/<stem>.png        image with the mask laid over it, where asked for
    OUT/<stem>.dcm                 the mask as DICOM SEG, for DICOM pictures, where asked for

OUT appears when everything is done; until then the work lies in OUT.partial, and the same command goes on with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semgan import artifacts, segmentation_rows
from semgan.data.dicom import is_dicom
from semgan.data.dicom_seg import check_at_hand, write_picture_seg
from semgan.data.parallel import available_workers, thread_pool
from semgan.data.studies import holds_volumes
from semgan.data.transforms import loses_or_lacks_colour
from semgan.data.whole_images import (
    Input,
    SegmentedImage,
    find_inputs,
    folders_with_images,
    preprocessing_of,
    segment_images,
)
from semgan.report.colours import eight_bit
from semgan.report.colours import overlay as overlaid
from semgan.result_folder import ResultFolder
from semgan.runtime.device import prepare_cpu
from semgan.segmentation_rows import TABLE, Row, read_rows
from semgan.types import Segmenter, Steps

logger = logging.getLogger(__name__)

MARKER = "segmentation.json"
MOST_SHOWN = 20
Progress = Callable[[int, int, str], Any]


def segment(
    model: Path | str | Segmenter | Sequence[Path],
    images: Path | str,
    out: Path | str,
    *,
    steps: Steps | None = None,
    save_probabilities: bool = False,
    overlay: bool = False,
    dicom_seg: bool = False,
    signals: bool = False,
    choose: bool = False,
    dropout_passes: int | None = None,
    overwrite: bool = False,
    batch: int = 64,
    modality: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Segment an image, a folder of images, or volumes; returns the rows of segmentation.csv.

    model: run folder, model folder, or what `semgan.load` returned (then a stopped run cannot be continued); several
        folders answer as one (`semgan.ensemble`)
    steps: optimisation steps; None: as chosen on validation, "auto" where a rule was learned there, which picks each
        image's own; 0: encoder only
    batch: images given to the model at a time (the inversion's own ``inversion.batch`` may cut them smaller)
    dicom_seg: for DICOM series and pictures, a DICOM SEG object beside the mask (needs the extra ``semgan[dicom]``)
    signals: a column for every signal of how far to trust an answer (`semgan.trust.signals`); where the model folder
        holds trust.json, what it makes of them is in the table anyway
    choose: each image's answer as `semgan trust fit --choose` has learned
    dropout_passes: answer with the mean of so many thinned networks (Monte Carlo dropout)
    overwrite: replace results of another request in ``out`` (never other files)

    Raises ValueError naming all unreadable images before any work; FileExistsError where ``out`` has other content;
    FileNotFoundError where there is no image or no model.
    """
    from semgan.trust.answering import answering

    images, out = Path(images), Path(out)
    prepare_cpu()
    found = answering(model, steps, device, signals=signals, choose=choose, dropout_passes=dropout_passes)
    segmenter, identity = found.segmenter, found.identity
    options = {"steps": steps, "probabilities": save_probabilities, "overlay": overlay, "modality": modality}
    if holds_volumes(images):
        if signals or choose:
            raise ValueError("Signals and choices are of single images, not of volumes; leave them out.")
        from semgan.segment_volumes import segment_volumes

        options["dicom_seg"] = dicom_seg
        work = {"overwrite": overwrite, "batch": batch, "threads": threads, "progress": progress}
        return segment_volumes(segmenter, identity, images, out, options, **work)
    inputs = pictures(images, channels_of(segmenter))
    if dicom_seg:
        options |= _seg_option(inputs)
    options |= found.options
    request = {
        "format": 1,
        "model": identity,
        "images": segmentation_rows.fingerprint((item.stem, file) for item in inputs for file in item.files),
        "count": len(inputs),
        "options": options,
    }
    folder = ResultFolder(out, MARKER, request, segmentation_rows.SCORED)
    if identity is not None and folder.is_finished():
        logger.warning("%s already holds these results; nothing to do.", out)
        return read_rows(out / TABLE)
    check_inputs(segmenter, inputs, modality=modality, threads=threads, progress=progress)
    goes_on = folder.begin(overwrite=overwrite) and identity is not None
    writer = _Writer(folder.partial, segmenter.labels.names, found.columns, save_probabilities, overlay, dicom_seg)
    asked: dict[str, Any] = {"steps": steps, "batch": batch, "modality": modality, "threads": threads}
    answers = partial(segment_images, segmenter, measure=found.measure(modality), **asked)
    return _written(folder, inputs, answers, writer, goes_on, threads, progress)


def _written(
    folder: ResultFolder,
    inputs: Sequence[Input],
    answers: Callable[[Sequence[Input]], Iterator[SegmentedImage]],
    writer: _Writer,
    goes_on: bool,
    threads: int | None,
    progress: Progress | None,
) -> list[Row]:
    """Answer and write what an earlier start has not, and give the folder its final name; the rows of its table."""
    done = segmentation_rows.taken_up(folder.partial, ".png", goes_on=goes_on)
    stems = {row["stem"] for row in done}
    rest = [item for item in inputs if item.stem not in stems]
    with folder.filling(lambda: done):
        for row in writer.write_all(rest, answers(rest), available_workers(threads)):
            done.append(row)
            if progress is not None:
                progress(len(done), len(inputs), "segment")
    rows = segmentation_rows.write_table(folder.partial, done)
    folder.finish()
    return rows


def load_identified(model: Path | str | Segmenter, device: str) -> tuple[Segmenter, str | None]:
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


def channels_of(segmenter: Segmenter) -> int:
    """Channels the model takes, read off what its own preprocessing gives."""
    for channels in (1, 3, *range(2, 65)):
        try:
            return int(segmenter.preprocess(np.zeros((16, 16, channels), np.uint8)).shape[0])
        except ValueError:
            continue
    raise ValueError("The model's preprocessing takes no image of 1 to 64 channels.")


def pictures(images: Path, channels: int) -> list[Input]:
    """The images of a file or folder; what is no image is told and left out, and so are folders beside images."""
    inputs, ignored = find_inputs(images, channels)
    if images.is_dir() and inputs[0].path.parent == images and (beside := folders_with_images(images)):
        logger.warning("Folders with images in %s are left out, as images lie beside them: %s", images, _some(beside))
    if ignored:
        logger.warning("Files in %s that are no images are left out (%d): %s", images, len(ignored), _some(ignored))
    return inputs


def _seg_option(inputs: Sequence[Input]) -> dict[str, Any]:
    """What the request says of DICOM SEG. Raises ValueError where it cannot be made of every input."""
    other = next((item.path for item in inputs if not is_dicom(item.path)), None)
    if other is not None:
        raise ValueError(f"A DICOM SEG is drawn on DICOM images, and {other} is none; leave out --dicom-seg.")
    check_at_hand()
    return {"dicom_seg": True}


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
    """Decode every image once; colour that is made grey, or grey that is repeated, is told.

    Raises one ValueError that lists all that cannot be read or preprocessed.
    """
    prepare, channels = preprocessing_of(segmenter, modality), channels_of(segmenter)
    prepare(np.zeros((16, 16, channels), np.uint8))  # an unknown modality is one error, not one per image
    turned: list[Path] = []

    def problem(item: Input) -> str | None:
        try:
            pixels = item.read()
            # A corner tells whether the channels fit; only float images can hold values that are not finite.
            prepare(pixels if pixels.dtype.kind == "f" else pixels[:16, :16])
            if loses_or_lacks_colour(pixels, channels):
                turned.append(item.path)
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
    if turned:
        what = "in colour, and the model learned from grey ones: they are made grey"
        if channels != 1:
            what = "grey, and the model learned from colour ones: their one channel stands for all"
        logger.warning("%d of %d images are %s (%s).", len(turned), len(inputs), what, _some(sorted(turned)))


# ---------------------------------------------------------------- writing


class _Writer:
    """Writes one image's answer; files are complete before their row is."""

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        columns: Callable[[SegmentedImage], Row],
        save_probabilities: bool,
        overlay: bool,
        dicom_seg: bool,
    ) -> None:
        self.folder, self.classes, self.columns, self.dicom_seg = folder, classes, columns, dicom_seg
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
            with open(self.folder / segmentation_rows.ROWS, "a", encoding="utf-8") as rows:
                for item, answer in zip(inputs, answers, strict=True):
                    waiting.append(pool.submit(self.write, item, answer))
                    while len(waiting) > 2 * threads:
                        yield segmentation_rows.noted(rows, waiting.popleft().result())
                while waiting:
                    yield segmentation_rows.noted(rows, waiting.popleft().result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def write(self, item: Input, answer: SegmentedImage) -> Row:
        if self.dicom_seg:
            write_picture_seg(self.folder / f"{item.stem}.dcm", answer.label_map, item.path, self.classes)
        Image.fromarray(answer.label_map).save(self.folder / f"{item.stem}.png")
        if self.probabilities is not None:
            np.savez_compressed(
                self.probabilities / f"{item.stem}.npz", probabilities=answer.probabilities.astype(np.float16)
            )
        if self.overlays is not None:
            picture = overlaid(eight_bit(item.read()), answer.label_map, len(self.classes))
            Image.fromarray(picture).save(self.overlays / f"{item.stem}.png")
        return {"stem": item.stem, **segmentation_rows.answer_row(answer, self.columns)}
