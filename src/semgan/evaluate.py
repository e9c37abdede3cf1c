"""Score predicted masks against true ones, file by file, at the images' own size.

Which cases: every mask in LABELS (or those of ``stems``); a missing prediction is an error, further predictions are
listed in the result. Files match by stem; other files are left alone, and sub-folders where there are masks beside
them. A volume (STEM.nii.gz) is one case, its slices counted together; it must lie where its label lies.

How masks are read and classes are found: see `semgan.masks`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from semgan import artifacts
from semgan.data.nifti import common_grid
from semgan.data.volumes import is_sheared, stored_like
from semgan.masks import SHOWN, ClassMapping, ClassSpace, MaskReader, class_space, inferred_space, listed, masks_in
from semgan.metrics import overlap
from semgan.metrics.intervals import overlap_interval
from semgan.metrics.surface import Summary, measures, summarise
from semgan.segmentation_rows import swapped

SCORES_FORMAT = 1
CASE_COLUMNS = ("stem", "group", "class", "intersection", "prediction", "truth", "score")

# (prediction, truth, number of classes, affine of a volume) -> measure -> one value per class
Ruler = Callable[[np.ndarray, np.ndarray, int, np.ndarray | None], dict[str, np.ndarray]]


@dataclass(frozen=True)
class EvaluationResult:
    """Scores in [0, 1]; scores.json holds the same fields.

    n:        cases averaged: images, or groups where ``per`` was given (mIoU pools all of them)
    classes:  score of every class, background included; mean: over the classes in ``mean_over`` only
    interval: 95 % bootstrap interval of the mean, cases drawn anew (seeded); None for fewer than two cases
    groups:   group -> class -> score (None where it does not count), where ``per`` was given
    surface:  measure with its unit -> summary over cases, where asked for
    """

    metric: str
    per: str
    mean: float
    interval: tuple[float, float] | None
    classes: dict[str, float]
    mean_over: list[str]
    n: int
    images: int
    groups: dict[str, dict[str, float | None]] = field(default_factory=dict)
    surface: dict[str, Summary] = field(default_factory=dict)
    extra_predictions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    predictions: str = ""
    labels: str = ""
    format: int = SCORES_FORMAT

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def evaluate(
    predictions: Path,
    labels: Path,
    *,
    metric: str,
    manifest: Path | None = None,
    per: str | None = None,
    classes: Sequence[str] | None = None,
    mapping: ClassMapping | None = None,
    map_predictions: ClassMapping | None = None,
    mean_over: Sequence[str] | None = None,
    ignore: Sequence[int] = (),
    stems: Sequence[str] | None = None,
    surface: bool = False,
    spacing_mm: Sequence[float] | None = None,
    out: Path | None = None,
) -> EvaluationResult:
    """Score a folder of predictions; writes ``scores.json`` and ``cases.csv`` into ``out`` (default: the predictions).

    metric:          dice, jaccard: per case (image or ``per``), averaged; miou: over the pixels of all images;
                     miou-per-case: the mean IoU of each case, averaged. What is empty: see `semgan.metrics.overlap`
    manifest, per:   CSV with the columns ``stem`` and ``per``; images with the same value there are one case
    mapping:         label value -> class, for the true masks; map_predictions: the same for the predicted ones
    mean_over:       names of the classes to average; default: all but the background
    stems:           score these cases only
    surface:         also HD95, average surface distance and size differences, see `semgan.metrics.surface`: of each
                     image, then averaged per case
    spacing_mm:      size of a pixel, for all axes or (height, width); None: distances in pixels, named so

    Raises ValueError, naming the files, for missing predictions, unequal sizes, values outside the classes, unknown
    names; FileNotFoundError for folders without masks.
    """
    if metric not in overlap.METRICS:
        raise ValueError(f"Unknown metric '{metric}'; choose one of {', '.join(overlap.METRICS)}.")
    ruler = _ruler(surface, spacing_mm)
    counted = count_masks(
        Path(predictions),
        Path(labels),
        manifest=manifest,
        per=per,
        classes=classes,
        mapping=mapping,
        map_predictions=map_predictions,
        ignore=ignore,
        stems=stems,
        ruler=ruler,
    )
    space, counts, wanted, groups = counted.space, counted.counts, counted.stems, counted.groups
    names, chosen = space.names, averaged_classes(space, mean_over)
    group_names, cases = counted.by_group()
    own_groups = None if group_names is None else [groups[stem] for stem in wanted]
    surfaces = {name: summarise(values, names, chosen, own_groups) for name, values in counted.measured.items()}
    remarks = (space.remark, _absent(counts, names, chosen), _uncounted(cases, metric, chosen), _undefined(surfaces))
    result = EvaluationResult(
        metric=metric,
        per=per or "image",
        mean=overlap.overall(cases, metric, chosen),
        interval=overlap_interval(cases, metric, chosen),
        classes=_named(names, overlap.class_scores(cases, metric)),
        mean_over=[names[index] for index in chosen],
        n=cases.cases - _without_score(cases, metric, chosen),
        images=counts.cases,
        groups=_group_scores(group_names, cases, metric, names),
        surface=surfaces,
        extra_predictions=counted.extra_predictions,
        warnings=[text for text in (swapped(Path(predictions), Path(labels)), *remarks) if text],
        predictions=str(Path(predictions).absolute()),  # for reports made elsewhere
        labels=str(Path(labels).absolute()),
    )
    table = _case_table(wanted, groups, names, counts, metric, counted.measured)
    _write(Path(predictions if out is None else out), result, table)
    return result


@dataclass(frozen=True)
class CountedMasks:
    """Pixel counts of masks, file by file in the order of ``stems``.

    groups: stem -> group; empty where no manifest names any; per: the column that makes cases of them; None: a file
    is a case; measured: measure -> ``[files, classes]``, where a ruler was given
    """

    space: ClassSpace
    stems: list[str]
    counts: overlap.Counts
    per: str | None
    groups: dict[str, str]
    measured: dict[str, np.ndarray]
    extra_predictions: list[str]

    def by_group(self) -> tuple[list[str] | None, overlap.Counts]:
        """The groups and their counts added up; None and the counts of the files where every file is a case."""
        if self.per is None:
            return None, self.counts
        names, pooled = self.counts.pooled_by([self.groups[stem] for stem in self.stems])
        return [str(name) for name in names], pooled


def count_masks(
    predictions: Path,
    labels: Path,
    *,
    manifest: Path | None = None,
    per: str | None = None,
    classes: Sequence[str] | None = None,
    mapping: ClassMapping | None = None,
    map_predictions: ClassMapping | None = None,
    ignore: Sequence[int] = (),
    stems: Sequence[str] | None = None,
    ruler: Ruler | None = None,
) -> CountedMasks:
    """What `evaluate` counts before it makes scores of it; options and errors as there."""
    found, true = masks_in(predictions), masks_in(labels)
    wanted = _wanted(true, stems, labels)
    _check_predictions(found, wanted, predictions)
    groups = _groups(manifest, per, wanted)
    pairs = [(found[stem], true[stem]) for stem in wanted]
    space, counts, measured = _score_all(pairs, labels, classes, ignore, mapping, map_predictions, ruler)
    return CountedMasks(space, wanted, counts, per, groups, measured, sorted(set(found) - set(wanted)))


def _ruler(surface: bool, spacing_mm: Sequence[float] | None) -> Ruler | None:
    """How surfaces are measured, where that was asked for: by the given spacing, else by a volume's own."""
    if not surface and spacing_mm is not None:
        raise ValueError("Only surface distances use a spacing; ask for them too (--surface), or leave it out.")
    if not surface:
        return None
    return lambda found, true, classes, affine: measures(
        found, true, classes, spacing_mm=spacing_mm or (None if affine is None else _spacing_of(affine))
    )


def _spacing_of(affine: np.ndarray) -> tuple[float, ...]:
    """Millimetres along the stored axes of a volume. Raises ValueError where these are not at right angles."""
    if is_sheared(affine):
        raise ValueError(
            "Surface distances need axes at right angles, and a volume is sheared (tilted gantry): leave --surface "
            "out, or give --spacing-mm to measure as if it were not."
        )
    return tuple(float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))


def _wanted(true: Mapping[str, Path], stems: Sequence[str] | None, folder: Path) -> list[str]:
    if stems is None:
        return list(true)
    unlabelled = sorted(set(stems) - set(true))
    if unlabelled:
        raise ValueError(f"{folder} has no mask for {len(unlabelled)} of the cases asked for: {listed(unlabelled)}.")
    return sorted(set(stems))


def _check_predictions(found: Mapping[str, Path], wanted: Sequence[str], folder: Path) -> None:
    missing = [stem for stem in wanted if stem not in found]
    if not missing:
        return
    message = f"{folder} has no prediction for {len(missing)} of {len(wanted)} labelled cases: {listed(missing)}."
    if any(f"{stem}_0000" in found for stem in missing):
        message += " There are predictions named STEM_0000: rename them to STEM."
    elif any(stem.removesuffix("_0000") in found for stem in missing):
        message += " There are predictions named as these without _0000: rename the labels to STEM."
    raise ValueError(message + " Segment these images too, or give a folder with the labels of the others left out.")


def _groups(manifest: Path | None, per: str | None, wanted: Sequence[str]) -> dict[str, str]:
    """Stem -> group; empty without a manifest, or where ``per`` is None and it has no grouping column."""
    if manifest is None:
        if per is not None:
            raise ValueError(f"Scores per {per} need a manifest: a CSV with the columns stem and {per}.")
        return {}
    with open(manifest, newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        columns = list(table.fieldnames or [])
        rows = list(table)
    # "patient" and "group" are two names of one thing; any other column is meant literally.
    alike = ("group", "patient") if per in (None, "group", "patient") else ()
    column = next((name for name in (per, *alike) if name in columns), None)
    if "stem" not in columns or (per is not None and column is None):
        have = ", ".join(columns) or "none"
        raise ValueError(f"{manifest} needs the columns stem and {per or 'group'}; it has {have}.")
    if column is None:
        return {}
    groups: dict[str, str] = {}
    for row in rows:
        if groups.setdefault(row["stem"], row[column]) != row[column]:
            raise ValueError(f"{manifest} puts '{row['stem']}' into two groups: {groups[row['stem']]}, {row[column]}.")
    unknown = [stem for stem in wanted if not groups.get(stem)]
    if unknown and per is not None:
        raise ValueError(f"{manifest} gives no {column} for {len(unknown)} labelled cases: {listed(unknown)}.")
    return groups


def _score_all(
    pairs: Sequence[tuple[Path, Path]],
    labels: Path,
    classes: Sequence[str] | None,
    ignore: Sequence[int],
    mapping: ClassMapping | None,
    map_predictions: ClassMapping | None,
    ruler: Ruler | None,
) -> tuple[ClassSpace, overlap.Counts, dict[str, np.ndarray]]:
    """Classes, counts and measures ``[images, classes]`` of pairs (prediction, label), in their order.

    Raises ValueError with all problems at once.
    """
    space = class_space(classes, labels, ignore, mapping)
    predicted, true = MaskReader("prediction", map_predictions), MaskReader("label", mapping, space.ignore)
    if not space.names:
        found = {value for pair in pairs for value in predicted.present(pair[0])}
        space = inferred_space(found, {value for pair in pairs for value in true.present(pair[1])}, space.ignore)
    parts, measured, problems = [], [], []
    for prediction_file, label_file in pairs:
        try:
            grid = common_grid(prediction_file, label_file)
            maps = predicted.read(prediction_file, space.names), true.read(label_file, space.names)
            if grid is not None:
                maps = stored_like(maps[0], grid[0]), maps[1]
            _check_sizes(maps[0].shape, maps[1].shape, prediction_file, label_file)
            parts.append(overlap.count(*maps, len(space.names)))
            measured.append(ruler(*maps, len(space.names), None if grid is None else grid[1]) if ruler else {})
        except ValueError as error:
            problems.append(str(error))
    problems += [doubt for doubt in (predicted.doubt(), true.doubt()) if doubt]
    problems = list(dict.fromkeys(problems))
    if problems:
        more = f" And {len(problems) - SHOWN} more problems like these." if len(problems) > SHOWN else ""
        raise ValueError(" ".join(problems[:SHOWN]) + more)
    return space, overlap.concatenate(parts), _columns(measured)


def _columns(measured: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Measures of single cases below one another. Raises ValueError where images lie among volumes."""
    if any(set(row) != set(measured[0]) for row in measured):
        raise ValueError("Some masks are images, others volumes; their surfaces are measured apart: score them apart.")
    return {name: np.stack([row[name] for row in measured]) for name in measured[0]}


def _check_sizes(predicted: tuple[int, ...], true: tuple[int, ...], prediction_file: Path, label_file: Path) -> None:
    if predicted != true:
        sizes = [" x ".join(str(length) for length in reversed(shape)) for shape in (predicted, true)]
        raise ValueError(
            f"{prediction_file} is {sizes[0]} px but {label_file} is {sizes[1]} px; "
            "predictions must have the size of their labels."
        )


def averaged_classes(space: ClassSpace, mean_over: Sequence[str] | None) -> list[int]:
    """Class indices of the mean. Raises ValueError for other names."""
    if mean_over is None:
        return list(space.averaged)
    unknown = [name for name in mean_over if name not in space.names]
    if unknown or not mean_over:
        raise ValueError(f"The mean over {list(mean_over)} needs names out of: {', '.join(space.names)}.")
    return [space.names.index(name) for name in mean_over]


# ---------------------------------------------------------------- results


def _write(folder: Path, result: EvaluationResult, table: str) -> None:
    artifacts.write_text_atomic(folder / "cases.csv", table)
    artifacts.write_json(folder / "scores.json", result.to_json())


def _absent(counts: overlap.Counts, names: Sequence[str], averaged: Sequence[int]) -> str | None:
    union = counts.pooled().union[0]
    absent = [names[index] for index in averaged if union[index] == 0]
    return (
        f"Neither in the predictions nor in the labels, so scored 1 by convention: {listed(absent)}."
        if absent
        else None
    )


def _without_score(cases: overlap.Counts, metric: str, averaged: Sequence[int]) -> int:
    return int(np.isnan(overlap.case_means(cases, metric, averaged)).sum())


def _uncounted(cases: overlap.Counts, metric: str, averaged: Sequence[int]) -> str | None:
    number = _without_score(cases, metric, averaged)
    return (
        f"{number} of {cases.cases} cases have none of the classes, neither predicted nor true, and do not count."
        if number
        else None
    )


def _undefined(surfaces: Mapping[str, Summary]) -> str | None:
    without = {
        measure: ", ".join(f"{name} in {number} images" for name, number in summary.undefined.items() if number)
        for measure, summary in surfaces.items()
    }
    told = [f"{measure} ({text})" for measure, text in without.items() if text]
    return f"Not defined, for a mask is empty, and left out of the mean: {'; '.join(told)}." if told else None


def _named(names: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    return {name: float(score) for name, score in zip(names, scores, strict=True)}


def _group_scores(
    group_names: Sequence[object] | None, cases: overlap.Counts, metric: str, names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    if group_names is None:
        return {}
    rows = overlap.case_scores(cases, metric)
    return {
        str(group): {name: None if np.isnan(score) else float(score) for name, score in zip(names, row, strict=True)}
        for group, row in zip(group_names, rows, strict=True)
    }


def _case_table(
    stems: Sequence[str],
    groups: Mapping[str, str],
    names: Sequence[str],
    counts: overlap.Counts,
    metric: str,
    measured: Mapping[str, np.ndarray],
) -> str:
    """One row per image and class: pixel counts, the score of the image alone (empty: does not count), its measures."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*CASE_COLUMNS, *measured])
    scores = overlap.case_scores(counts, metric)
    for row, stem in enumerate(stems):
        for place, name in enumerate(names):
            pixels = [int(part[row, place]) for part in (counts.intersection, counts.prediction, counts.truth)]
            score = "" if np.isnan(scores[row, place]) else f"{scores[row, place]:.6f}"
            own = [f"{values[row, place]:.6f}" for values in measured.values()]
            table.writerow([stem, groups.get(stem, ""), name, *pixels, score, *own])
    return text.getvalue()
