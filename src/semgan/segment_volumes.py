"""``semgan segment`` on volumes: NIfTI files and DICOM series -> NIfTI masks of the same geometry.

    OUT/<stem>.nii.gz       uint8 class indices, geometry as the volume's
    OUT/<stem>.dcm          the same as DICOM SEG, where asked for
    OUT/probabilities/<stem>.nii.gz, OUT/overlays/<stem>.png    see `semgan.volume_extras`, where asked for
    OUT/segmentation.csv    stem, slices, mean steps, mean confidence, mean of each loss term, seconds, ml_CLASS
    OUT/problems.csv        stem, problem: volumes that could not be read, where there are any
    OUT/segmentation.json   what was asked

Axial slices go through the model as images do; one volume at a time is in memory. A volume that cannot be read is noted
and the rest goes on.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semgan import artifacts, segmentation_rows
from semgan.data.dicom_seg import check_at_hand, write_dicom_seg
from semgan.data.nifti import write_label_volume
from semgan.data.studies import Study, find_studies
from semgan.data.volumes import Volume, axial, axial_slices
from semgan.data.whole_images import preprocessing_of, segment_images
from semgan.masks import listed
from semgan.memory import was_full
from semgan.result_folder import ResultFolder
from semgan.segmentation_rows import TABLE, Row, read_rows
from semgan.types import Segmenter
from semgan.volume_extras import ContactSheet, ProbabilityVolume

logger = logging.getLogger(__name__)

MARKER = "segmentation.json"
PROBLEMS = "problems.csv"
ENDING = ".nii.gz"
TOO_LARGE = "It needs more memory than there is. Crop it, or segment it on a larger machine."
_SURELY_CT = -200  # MR values are not negative; air in CT is about -1000 HU
Progress = Callable[[int, int, str], Any]


def segment_volumes(
    segmenter: Segmenter,
    identity: str | None,
    images: Path,
    out: Path,
    options: dict[str, Any],
    *,
    overwrite: bool,
    batch: int,
    threads: int | None,
    progress: Progress | None,
) -> list[Row]:
    """Segment all volumes of ``images``; returns the rows of segmentation.csv.

    identity: what identifies the model; None for one that only lives in memory
    options:  steps, modality (a rule's name, None, or "auto": by each volume), probabilities, overlay, dicom_seg

    progress(done, total, what) is called for every slice and every volume. Raises ValueError where no volume can be
    read, and for models that take no grey images; FileExistsError where ``out`` has other content.
    """
    _check_options(segmenter, options)
    studies, others = find_studies(images)
    if not studies:
        raise FileNotFoundError(
            f"{images} holds no volume: {len(others)} DICOM files, none of which is a slice (but localisers, masks). "
            "Give the folder of the series."
        )
    if others:
        logger.warning("%d files in %s hold no slices and are left out, for example %s", len(others), images, others[0])
    niftis = [study.stem for study in studies if study.series is None]
    if options["dicom_seg"]:
        if niftis:
            raise ValueError(f"A DICOM SEG is drawn on DICOM images, and {niftis[0]} is NIfTI; leave out --dicom-seg.")
        check_at_hand()
    files = [(study.stem, file) for study in studies for file in study.files]
    request = {
        "format": 1,
        "model": identity,
        "images": segmentation_rows.fingerprint(files),
        "count": len(studies),
        "options": options,
    }
    folder = ResultFolder(out, MARKER, request, segmentation_rows.SCORED)
    if identity is not None and folder.is_finished() and not (overwrite and read_problems(out)):
        left = len(read_problems(out))
        hint = f" {left} volumes could not be read; --overwrite tries all again." if left else ""
        logger.warning("%s already holds these results; nothing to do.%s", out, hint)
        return read_rows(out / TABLE)
    goes_on = folder.begin(overwrite=overwrite) and identity is not None
    done = segmentation_rows.taken_up(folder.partial, ENDING, goes_on=goes_on)
    worker = _Worker(segmenter, options, batch, threads, folder.partial)
    with folder.filling(lambda: done):
        problems = worker.segment_all(studies, done, progress)
        if not done:
            listed = "\n".join(f"- {stem}: {problem}" for stem, problem in problems.items())
            raise ValueError(f"None of {len(studies)} volumes can be segmented; nothing was written:\n{listed}")
    rows = segmentation_rows.write_table(folder.partial, done)
    (folder.partial / PROBLEMS).unlink(missing_ok=True)
    if problems:
        artifacts.write_text_atomic(folder.partial / PROBLEMS, _table(problems))
        logger.warning("%d of %d volumes could not be segmented: see %s", len(problems), len(studies), out / PROBLEMS)
    folder.finish()
    return rows


def read_problems(out: Path) -> dict[str, str]:
    """Stem -> why it could not be segmented; empty where all went well."""
    path = Path(out) / PROBLEMS
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["stem"]: row["problem"] for row in csv.DictReader(file)}


def _check_options(segmenter: Segmenter, options: dict[str, Any]) -> None:
    """Refuse at once what would fail for every volume."""
    modality = None if options["modality"] == "auto" else options["modality"]
    preprocessing_of(segmenter, modality)(np.zeros((16, 16), np.int16))


class _Unreadable(Exception):
    """A volume that cannot be segmented, while others may."""


class _Progress:
    """Tells how many slices of all volumes, and how many volumes, are done; slices are counted by the headers."""

    def __init__(self, studies: Sequence[Study], tell: Progress | None) -> None:
        self.tell = tell
        self.slices = {} if tell is None else {study.stem: _slices_of(study) for study in studies}
        self.volumes = self.before = 0

    def slice_done(self, number: int) -> None:
        """After slice ``number``, counted from 0, of the volume at hand."""
        if self.tell is not None:
            self.tell(self.before + number + 1, sum(self.slices.values()), "slices")

    def volume_done(self, stem: str) -> None:
        """After a volume, segmented or not."""
        if self.tell is not None:
            self.volumes, self.before = self.volumes + 1, self.before + self.slices[stem]
            self.slice_done(-1)
            self.tell(self.volumes, len(self.slices), "volumes")


def _slices_of(study: Study) -> int:
    """Axial slices by the headers; 0 where they cannot be read, which is told when the volume's turn comes."""
    try:
        return axial_slices(*study.geometry())
    except (ValueError, OSError):
        return 0


@dataclass(frozen=True)
class _Worker:
    """How each volume is segmented, and the folder for the results."""

    segmenter: Segmenter
    options: dict[str, Any]
    batch: int
    threads: int | None
    folder: Path
    guessed: list[str] = field(default_factory=list)  # stems of those taken for MRI by their values alone

    def segment_all(self, studies: Sequence[Study], done: list[Row], tell: Progress | None) -> dict[str, str]:
        """Append to ``done``, one volume after another; returns stem -> problem of those that failed."""
        problems: dict[str, str] = {}
        stems = {row["stem"] for row in done}
        progress = _Progress(studies, tell)
        with open(self.folder / segmentation_rows.ROWS, "a", encoding="utf-8") as notes:
            for study in sorted(studies, key=lambda study: study.stem not in stems):
                if study.stem not in stems:
                    try:
                        done.append(segmentation_rows.noted(notes, self.segment_one(study, progress)))
                    except (_Unreadable, MemoryError, RuntimeError) as error:
                        if not isinstance(error, _Unreadable) and not was_full(error):
                            raise
                        problems[study.stem] = str(error) if isinstance(error, _Unreadable) else TOO_LARGE
                        logger.warning("%s: %s", study.stem, problems[study.stem])
                progress.volume_done(study.stem)
        if self.guessed:
            logger.warning(
                "%d volumes do not name their modality and have no negative value, so they were taken for MRI (%s). "
                "Where they are CT whose values begin at 0, name it with --modality ct.",
                len(self.guessed),
                listed(self.guessed),
            )
        return problems

    def segment_one(self, study: Study, progress: _Progress) -> Row:
        """Write the mask of one volume, and what else is asked for; its row."""
        volume, rule = self.opened(study)
        labels = np.zeros(volume.values.shape, np.uint8)
        into = axial(labels, volume.affine)
        answers = segment_images(
            self.segmenter,
            volume.slices,
            steps=self.options["steps"],
            batch=self.batch,
            modality=rule,
            threads=self.threads,
        )
        extras = self.extras(volume, rule)
        seconds, steps, means = 0.0, 0, defaultdict[str, float](float)
        for number, answer in enumerate(answers):
            into[number] = answer.label_map
            for extra in extras.values():
                extra.add(number, answer)
            steps, seconds = steps + answer.steps, seconds + answer.seconds
            for name, value in {"confidence": answer.confidence, **answer.losses}.items():
                means[name] += value / len(into)
            progress.slice_done(number)
        names = self.segmenter.labels.names
        for folder, extra in extras.items():
            (self.folder / folder).mkdir(exist_ok=True)
            extra.save(self.folder / folder / study.stem)
        self.write(self.folder / study.stem, labels, volume)
        millilitres = dict(zip(names, volume.volume_ml(labels, len(names)), strict=True))
        return {
            "stem": study.stem,
            "slices": len(into),
            "steps": round(steps / len(into)),
            **{name: round(value, 6) for name, value in means.items()},
            "seconds": round(seconds, 4),
            **{f"ml_{name}": round(millilitres[name], 4) for name in names[1:]},
        }

    def extras(self, volume: Volume, rule: str | None) -> dict[str, ProbabilityVolume | ContactSheet]:
        """Sub-folder -> what is collected for it."""
        classes = self.segmenter.labels.classes
        asked: dict[str, ProbabilityVolume | ContactSheet] = {}
        if self.options["probabilities"]:
            asked["probabilities"] = ProbabilityVolume(volume, classes)
        if self.options["overlay"]:
            asked["overlays"] = ContactSheet(volume, self.segmenter.rules[rule or "default"], classes)
        return asked

    def write(self, path: Path, labels: np.ndarray, volume: Volume) -> None:
        """The files of one mask; the NIfTI, whose presence says that all are there, comes last."""
        if self.options["dicom_seg"]:
            try:
                write_dicom_seg(path.with_name(f"{path.name}.dcm"), labels, volume, self.segmenter.labels.names)
            except ValueError as error:
                raise _Unreadable(str(error)) from None
        write_label_volume(path.with_name(path.name + ENDING), labels, volume)

    def opened(self, study: Study) -> tuple[Volume, str | None]:
        """The volume and the name of its preprocessing rule. Raises _Unreadable."""
        try:
            volume = study.read()
            modality = self.options["modality"]
            rule = self.rule_of(volume) if modality == "auto" else modality
            if modality == "auto" and volume.modality is None and rule == "mri":
                self.guessed.append(study.stem)
        except (ValueError, OSError) as error:
            raise _Unreadable(str(error)) from None
        for remark in volume.warnings:
            logger.warning("%s: %s", study.stem, remark)
        return volume, rule

    def rule_of(self, volume: Volume) -> str:
        """Raises ValueError where neither file nor values tell the modality, or the model has no such rule."""
        lowest = float(volume.values.min())
        if volume.modality is None and _SURELY_CT <= lowest < 0:
            raise ValueError(f"Its values begin at {lowest:g}, so it may be CT or MRI; say which with --modality.")
        rule = volume.modality or ("ct" if lowest < 0 else "mri")
        preprocessing_of(self.segmenter, rule)(np.zeros((16, 16), np.int16))
        return rule


def _table(problems: dict[str, str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["stem", "problem"])
    table.writerows(problems.items())
    return text.getvalue()
