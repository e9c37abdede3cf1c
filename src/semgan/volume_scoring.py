"""A trained model on held-out volumes: masks as `semgan segment` writes them, counted as `semgan evaluate` does.

A case is a volume, or a patient where a manifest says which volumes are of whom. Shared by `semgan benchmark` and
``results/score_volumes.py``. Volumes are segmented anew for every step: they are too large to keep all steps of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semgan import masks
from semgan.evaluate import averaged_classes, count_masks
from semgan.scoring import Scored, TrainedModel
from semgan.segment import segment
from semgan.segment_volumes import read_problems
from semgan.types import Steps

if TYPE_CHECKING:
    from semgan.runtime.loop import Progress


@dataclass(frozen=True)
class VolumeSet:
    """Volumes with true masks that no training sees.

    volumes:  NIfTI files or DICOM series, in any tree; labels: STEM.nii.gz, named as `segment` names the volumes
    modality: preprocessing rule of the model, "auto", or None for its only one
    manifest: CSV with the columns stem and patient; None: every volume is a patient
    the rest: as in `semgan.scoring.HeldOut`
    """

    name: str
    volumes: Path
    labels: Path
    modality: str | None = None
    manifest: Path | None = None
    only: tuple[str, ...] | None = None
    mapping: masks.ClassMapping | None = None
    map_predictions: masks.ClassMapping | None = None
    classes: tuple[str, ...] | None = None
    mean_over: tuple[str, ...] | None = None


def segmented(
    model: TrainedModel, held_out: VolumeSet, folder: Path, step: Steps, progress: Progress | None = None
) -> Path:
    """The set's masks at an optimisation step, in FOLDER/steps-N; not made again by the same model.

    Raises ValueError naming volumes that cannot be segmented, and what `segment` raises.
    """
    out = folder / f"steps-{step}"
    steps = step if model.optimises else None
    options = {"modality": held_out.modality, "device": model.device, "progress": progress}
    segment(model.run.path, held_out.volumes, out, steps=steps, overwrite=True, **options)
    problems = {name: why for name, why in read_problems(out).items() if held_out.only is None or name in held_out.only}
    if problems:
        first, why = next(iter(problems.items()))
        raise ValueError(
            f"Test set '{held_out.name}': {len(problems)} volumes cannot be segmented, for example {first}: {why} "
            "Repair them, or take them out."
        )
    return out


def score_volumes(
    model: TrainedModel,
    held_out: VolumeSet,
    folder: Path,
    steps: Sequence[int] = (),
    progress: Progress | None = None,
) -> Scored:
    """Segment a set into ``folder`` and count it per patient, at the steps asked for, 0 and the chosen one.

    Raises ValueError naming files that do not fit, or are missing.
    """
    classes = tuple(held_out.classes or model.description["classes"])
    every, counts = model.steps(steps), {}
    stems, over = (), ()
    for step in every:
        found = count_masks(
            segmented(model, held_out, folder, step, progress),
            held_out.labels,
            manifest=held_out.manifest,
            per=None if held_out.manifest is None else "patient",
            classes=classes,
            mapping=held_out.mapping,
            map_predictions=_every_class(held_out.map_predictions, len(model.description["classes"])),
            stems=held_out.only,
        )
        patients, counts[step] = found.by_group()
        stems, over = tuple(patients or found.stems), tuple(averaged_classes(found.space, held_out.mean_over))
    return Scored(held_out.name, classes, over, stems, counts)


def _every_class(mapping: masks.ClassMapping | None, classes: int) -> dict[int, int] | None:
    """Class of the set for every class of the model; classes that are not named become the background."""
    if mapping is None:
        return None
    named = dict(mapping.items() if isinstance(mapping, Mapping) else enumerate(mapping))
    return {value: int(named.get(value, 0)) for value in range(classes)}
