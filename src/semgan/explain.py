"""``semgan explain``: how the optimisation of an image goes, step by step (the paper's Figures 1, 4, 5, 6).

    OUT/STEM.png, .pdf             input, truth, reconstruction and mask at every step asked for; loss terms and score
    OUT/STEM.webp, .gif            the same as an animation, of about 20 steps
    OUT/masks/step_0050/STEM.png   8-bit class indices, the image's own size, for every step asked for
    OUT/summary/over_steps.png     all images together (and .pdf)
    OUT/explain.csv                stem, step, loss terms, confidence, and with truth the score and that of every class
    OUT/explain.json               what was asked: model, images, options

Images of one run do not influence one another. With ramps of the learning rate, a mask at step k of n is not the one
of a run of k steps. A score of mIoU is that of the image alone here (miou-per-case), and pooled in the mean.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from semgan import artifacts, masks, segmentation_rows
from semgan.data.transforms import scale_label, windowed
from semgan.data.whole_images import Input, preprocessing_of, to_own_size, to_pixels
from semgan.generative import load_generative
from semgan.metrics import overlap
from semgan.report import pictures
from semgan.report.story import Story, write_story, write_summary
from semgan.result_folder import ResultFolder
from semgan.segment import check_inputs
from semgan.segment import pictures as find_pictures

if TYPE_CHECKING:
    from semgan.stages.semantic_gan import SemanticGan
    from semgan.types import Segmentation

logger = logging.getLogger(__name__)

MARKER, TABLE = "explain.json", "explain.csv"
STEPS = (0, 25, 50, 100, 200, 400)
CURVE_POINTS = 20  # of the score, and frames of the animation
Progress = Callable[[int, int, str], Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Explained:
    """What was found. scores: step -> score of all images together, empty without truth; rows: of explain.csv."""

    out: Path
    images: int
    steps: tuple[int, ...]
    scores: dict[int, float]
    rows: list[Row]


def explain(
    model: Path | str | SemanticGan,
    images: Path | str,
    out: Path | str,
    *,
    labels: Path | str | None = None,
    steps: Sequence[int] = STEPS,
    formats: Sequence[str] = ("png", "webp"),
    modality: str | None = None,
    batch: int = 8,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Explained:
    """Show the inversion of an image, or of a folder of images, at several steps.

    labels: folder of true masks with the images' stems; formats: of png, pdf, gif, webp

    Raises ValueError for models without inversion or encoder, for unreadable images and masks (all of them, before any
    work), FileExistsError where ``out`` has other content, FileNotFoundError where there is no image or no model.
    """
    steps, formats, out = checked_steps(steps), pictures.checked_formats(formats), Path(out)
    gan, identity = load_generative(model, device)
    inputs = find_pictures(Path(images), gan.settings.preprocessing.channels)
    truths = _Truths(None if labels is None else Path(labels), gan.labels.names, inputs)
    options = {"steps": steps, "formats": formats, "modality": modality, "labels": truths.fingerprint}
    request = {
        "format": 1,
        "model": identity,
        "images": segmentation_rows.fingerprint((item.stem, file) for item in inputs for file in item.files),
        "count": len(inputs),
        "options": json.loads(json.dumps(options)),
    }
    folder = ResultFolder(out, MARKER, request)
    if identity is not None and folder.is_finished():
        logger.warning("%s already holds these results; nothing to do.", out)
        return _read(out, steps)
    check_inputs(gan, inputs, modality=modality, progress=progress)
    truths.check(inputs)
    goes_on = folder.begin(overwrite=overwrite) and identity is not None
    writer = _Writer(folder.partial, gan, truths, steps, formats, modality)
    notes = segmentation_rows.taken_up(folder.partial, f".{formats[0]}", goes_on=goes_on)
    known = {note["stem"] for note in notes}
    with folder.filling(lambda: notes):
        for note in writer.write_all([item for item in inputs if item.stem not in known], batch):
            notes.append(note)
            if progress is not None:
                progress(len(notes), len(inputs), "explain")
    scores = writer.finish(sorted(notes, key=lambda note: note["stem"]))
    artifacts.write_json(folder.partial / "scores.json", scores)
    folder.finish()
    return _read(out, steps)


def checked_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """The steps in order. Raises ValueError for none and for negative ones."""
    found = tuple(sorted(set(steps)))
    if not found or found[0] < 0:
        raise ValueError(f"--steps takes numbers of 0 or more (0: encoder only), like 0,50,200; got {list(steps)}.")
    return found


def _read(out: Path, steps: tuple[int, ...]) -> Explained:
    with open(out / TABLE, newline="", encoding="utf-8") as lines:
        rows = [
            {name: value if name == "stem" else _number(value) for name, value in row.items()}
            for row in csv.DictReader(lines)
        ]
    scores = {int(step): value for step, value in artifacts.read_json(out / "scores.json").items()}
    return Explained(out, len({row["stem"] for row in rows}), steps, scores, rows)


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.isdigit() else float(text)


class _Truths:
    """The true masks of the images, where there are some."""

    def __init__(self, folder: Path | None, names: tuple[str, ...], inputs: Sequence[Input]) -> None:
        self.names, self.files = names, {}
        if folder is None:
            return
        found = masks.masks_in(folder)
        missing = [item.stem for item in inputs if item.stem not in found]
        if missing:
            raise ValueError(f"{folder} has no mask for {masks.listed(missing)}; leave these images out, or --labels.")
        self.files = {item.stem: found[item.stem] for item in inputs}
        known = masks.class_space(None, folder, (), None)
        if known.names != names and sorted(known.names) == sorted(names):
            raise ValueError(
                f"{folder} counts the classes {', '.join(known.names)}, the model {', '.join(names)}: the same names "
                "in another order. Give masks that count them as the model does."
            )
        self.reader = masks.MaskReader("label", None, known.ignore)

    @property
    def fingerprint(self) -> str | None:
        return segmentation_rows.fingerprint(sorted(self.files.items())) if self.files else None

    def read(self, stem: str) -> np.ndarray | None:
        """Class indices with IGNORE, int32 ``[height, width]``; None where no truth is known."""
        return self.reader.read(self.files[stem], self.names) if self.files else None

    def check(self, inputs: Sequence[Input]) -> None:
        """Raises one ValueError that lists every mask that cannot be read or has another size than its image."""
        problems = []
        for item in inputs if self.files else ():
            try:
                truth, size = self.read(item.stem), item.read().shape[:2]
                if truth is not None and truth.shape != size:
                    raise ValueError(
                        f"{self.files[item.stem]} is {truth.shape[1]} x {truth.shape[0]} px but {item.path} is "
                        f"{size[1]} x {size[0]} px; masks must have the size of their images."
                    )
            except (ValueError, OSError) as error:
                problems.append(str(error))
        if self.files and (doubt := self.reader.doubt()):
            problems.append(doubt)
        if problems:
            raise ValueError("\n".join(problems))


class _Writer:
    """Inverts images batch by batch and writes one image's files at a time; files are complete before their note."""

    def __init__(
        self,
        folder: Path,
        gan: SemanticGan,
        truths: _Truths,
        steps: tuple[int, ...],
        formats: tuple[str, ...],
        modality: str | None,
    ) -> None:
        self.folder, self.gan, self.truths, self.steps, self.formats = folder, gan, truths, steps, formats
        self.modality = modality
        self.rule = gan.rules[modality or "default"]
        self.metric = gan.settings.metric
        last = steps[-1]
        self.measured = tuple(sorted({*steps, *range(0, last + 1, max(1, -(-last // CURVE_POINTS)))}))
        for step in steps:
            (folder / "masks" / f"step_{step:04d}").mkdir(parents=True, exist_ok=True)

    def write_all(self, inputs: Sequence[Input], batch: int) -> Iterator[Row]:
        """Yields each image's note once its files are on disk: rows of the table, and counts by step."""
        import torch

        prepare = preprocessing_of(self.gan, self.modality)
        modality = self.modality or "default"
        with open(self.folder / segmentation_rows.ROWS, "a", encoding="utf-8") as notes:
            for start in range(0, len(inputs), batch):
                block = inputs[start : start + batch]
                images = torch.stack([prepare(item.read()) for item in block])
                found = self.gan.segment_batch(
                    images, steps=self.steps[-1], snapshot_steps=self.measured, modality=modality
                )
                for row, item in enumerate(block):
                    yield segmentation_rows.noted(notes, self.write(item, found, row))

    def write(self, item: Input, found: Segmentation, row: int) -> Row:
        toned = np.moveaxis(windowed(item.read(), self.rule), 0, -1)
        size = (toned.shape[0], toned.shape[1])
        small, truth = pictures.shown_size(*size), self.truths.read(item.stem)
        maps, recons, counts = {}, {}, {}
        for step in self.measured:
            label_map = to_own_size(found.snapshots[step][row], size).argmax(0).byte().numpy()
            maps[step] = scale_label(label_map, *small)
            recons[step] = pictures.for_eyes(pictures.resized(to_pixels(found.reconstructions[step][row]), small))
            if step in self.steps:
                Image.fromarray(label_map).save(self.folder / "masks" / f"step_{step:04d}" / f"{item.stem}.png")
            if truth is not None:
                counts[step] = overlap.count(label_map, truth, self.gan.labels.classes)
        trace = {name: values[:, row].float().cpu().numpy() for name, values in found.trace.items()}
        confidence = {step: float(found.snapshots[step][row].amax(0).mean()) for step in self.measured}
        story = Story(
            stem=item.stem,
            classes=self.gan.labels.names,
            metric=self.metric,
            image=pictures.for_eyes(pictures.resized(toned, small)),
            truth=None if truth is None else scale_label(truth, *small),
            shown=self.steps,
            reconstructions=recons,
            masks=maps,
            trace=trace,
            scores={step: overlap.overall(own, self._own_metric) for step, own in counts.items()},
        )
        write_story(self.folder, story, self.formats)
        return {
            "stem": item.stem,
            "rows": list(self._rows(story, confidence, counts)),
            "counts": {str(step): _listed(own) for step, own in counts.items()},
        }

    @property
    def _own_metric(self) -> str:
        return "miou-per-case" if self.metric == "miou" else self.metric

    def _rows(
        self, story: Story, confidence: Mapping[int, float], counts: Mapping[int, overlap.Counts]
    ) -> Iterator[Row]:
        """A row per step; confidence and scores are empty where no mask was kept."""
        names = story.classes[1:] if self.truths.files else ()
        for step in range(self.steps[-1] + 1):
            row: Row = {"stem": story.stem, "step": step}
            row |= {name: float(f"{values[step]:.6g}") for name, values in story.trace.items()}
            row["confidence"] = round(confidence[step], 6) if step in confidence else ""
            if self.truths.files:
                row["score"] = round(story.scores[step], 6) if step in counts else ""
                own = overlap.case_scores(counts[step], self._own_metric)[0, 1:] if step in counts else np.nan
                values = np.broadcast_to(own, len(names))
                row |= {
                    f"score {name}": "" if np.isnan(value) else round(float(value), 6)
                    for name, value in zip(names, values, strict=True)
                }
            yield row

    def finish(self, notes: Sequence[Row]) -> dict[int, float]:
        """explain.csv and the summary instead of the notes; the score of all images together by step."""
        rows = [row for note in notes for row in note["rows"]]
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        artifacts.write_text_atomic(self.folder / TABLE, text.getvalue())
        per_image = self.steps[-1] + 1
        terms = [name for name in list(rows[0])[2:] if name != "confidence" and not name.startswith("score")]
        trace = {name: np.asarray([row[name] for row in rows], float).reshape(-1, per_image).mean(0) for name in terms}
        scores: dict[int, float] = {}
        for step in self.measured if self.truths.files else ():
            parts = [_counts(note["counts"][str(step)]) for note in notes]
            scores[step] = overlap.overall(overlap.concatenate(parts), self.metric)
        measured = [[row for row in note["rows"] if row.get("score", "") != ""] for note in notes] if scores else []
        own = [{row["step"]: row["score"] for row in its_rows} for its_rows in measured]
        write_summary(self.folder / "summary" / "over_steps", self.formats, trace, own, scores, self.metric, len(notes))
        (self.folder / segmentation_rows.ROWS).unlink(missing_ok=True)
        return scores


def _listed(counts: overlap.Counts) -> list[list[int]]:
    return [part[0].tolist() for part in (counts.intersection, counts.prediction, counts.truth)]


def _counts(lists: Sequence[Sequence[int]]) -> overlap.Counts:
    return overlap.Counts(*(np.asarray([part], np.int64) for part in lists))
