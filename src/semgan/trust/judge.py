"""``semgan trust judge``: do signals tell good masks from bad ones, on images whose true masks are known.

    OUT/trust.csv         a row per folder of predictions and signal: AUROC of failures, area under the curve, ranks
    OUT/curves.csv        predictions, signal, coverage, risk: the curves of all of them
    OUT/trust.png         the curves of every folder's own estimate of its scores
    OUT/calibration.csv   of the pixels' probabilities, where they were saved: before and after the model's temperature

Signals are columns of segmentation.csv, which `semgan segment` writes; the true score stands among them as "score", the
best order there is. A failure is an image whose score is below the limit, the same for all folders: as given, or the
worst fifth of all images of all folders.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semgan import artifacts
from semgan.evaluate import averaged_classes, count_masks
from semgan.masks import ClassMapping, listed
from semgan.metrics import overlap
from semgan.metrics.selective import RiskCoverage, auroc, auroc_interval, rank_correlation, risk_coverage
from semgan.report.curves import write_bytes_atomic
from semgan.report.selective import Line, risk_coverage_png
from semgan.segmentation_rows import TABLE, Row, read_rows
from semgan.trust.fit import failure_limit
from semgan.trust.pixels import PixelCalibration, pixel_calibration
from semgan.trust.samples import PER_IMAGE
from semgan.trust.signals import SIGNALS
from semgan.words import as_typed

BEST = "score"
# Column -> 1 where a high number says that the answer is good, -1 where it says the opposite.
SURER = {
    "predicted_score": 1,
    "out_of_domain": -1,
    "confidence": 1,
    "calibrated_confidence": 1,
    "loss": -1,
    **{name: signal.surer for name, signal in SIGNALS.items() if signal.surer},
}
MAIN = ("predicted_score", "disagreement", "entropy", "confidence")  # the first that a folder has is drawn


@dataclass(frozen=True)
class Judged:
    """One signal of one folder. risk is 1 - score; aurc: area under the risk-coverage curve.

    auroc: of failures, with a 95 % bootstrap interval; nan where no image fails, or all do
    risk_at_80: of the most trusted 80 % of the images; mean_risk: of all, and of any share in an uninformed order
    rank_correlation: Spearman's, of trust and score
    auroc_domain: of telling these images from in-domain ones, where such were given, else nan
    """

    predictions: str
    signal: str
    n: int
    limit: float
    failures: int
    auroc: float
    auroc_low: float
    auroc_high: float
    aurc: float
    mean_risk: float
    risk_at_80: float
    rank_correlation: float
    auroc_domain: float


@dataclass(frozen=True)
class Predictions:
    """A folder with its table: scores ``[images]`` and the numbers of every signal, turned so that high is trusted.

    in_domain: the same numbers of in-domain images; empty where none were given
    """

    name: str
    scores: NDArray[np.float64]
    trust: dict[str, NDArray[np.float64]]
    in_domain: dict[str, NDArray[np.float64]]


def judge(
    predictions: Sequence[Path],
    labels: Path,
    out: Path,
    *,
    metric: str,
    limit: float | None = None,
    signals: Sequence[str] | None = None,
    in_domain: Sequence[Path] = (),
    classes: Sequence[str] | None = None,
    mapping: ClassMapping | None = None,
    map_predictions: ClassMapping | None = None,
    mean_over: Sequence[str] | None = None,
    stems: Sequence[str] | None = None,
) -> list[Judged]:
    """Judge the signals of folders of predictions of the same images; returns the rows of trust.csv.

    metric, classes, mapping, map_predictions, mean_over: as in `semgan.evaluate.evaluate`; pooled mIoU is taken per
    image. stems: of the images to judge; None: all that were segmented. signals: columns; None: all that are known.
    in_domain: for every folder of predictions, one of in-domain images by the same model, whose masks nobody needs
    Raises FileNotFoundError for folders without segmentation.csv or masks, ValueError for folders of other images than
    the first, for images without label, and for unknown columns.
    """
    if in_domain and len(in_domain) != len(predictions):
        raise ValueError(
            f"Every folder of predictions takes one of in-domain images; got {len(predictions)} and {len(in_domain)}."
        )
    if twice := [str(folder) for place, folder in enumerate(predictions) if folder in predictions[:place]]:
        raise ValueError(f"{twice[0]} is given twice; name every folder of predictions once.")
    tables = {folder: table_of(folder) for folder in predictions}
    wanted = _common_stems(tables, stems)
    found = []
    for folder, home in zip(tables, in_domain or [None] * len(tables), strict=True):
        counted = count_masks(
            folder, labels, classes=classes, mapping=mapping, map_predictions=map_predictions, stems=wanted
        )
        over = averaged_classes(counted.space, mean_over)
        means = overlap.case_means(counted.counts, PER_IMAGE.get(metric, metric), over)
        scored = {stem: float(score) for stem, score in zip(counted.stems, means, strict=True) if not np.isnan(score)}
        if not scored:
            raise ValueError(f"No image of {folder} has a score: none of the classes is in any mask.")
        true = np.array(list(scored.values()))
        trust = _trust(folder, [tables[folder][stem] for stem in scored], signals)
        of_home = {} if home is None else _trust(home, list(table_of(home).values()), list(trust))
        found.append(Predictions(_name(folder, predictions), true, {BEST: true, **trust}, of_home))
    if limit is None:
        limit = failure_limit(np.concatenate([each.scores for each in found]))
    judged = {(each.name, name): _judged(each, name, limit) for each in found for name in each.trust}
    named = {_name(each, predictions): each for each in predictions}
    # All is known before anything is written.
    rows = [] if map_predictions is not None else pixel_calibration(named, labels, wanted, classes, mapping)
    out = Path(out)
    if out.is_file():
        raise FileExistsError(f"{out} is a file; give a folder with -o.")
    artifacts.write_text_atomic(out / "trust.csv", _csv([asdict(row) for row, _ in judged.values()], Judged))
    artifacts.write_text_atomic(out / "curves.csv", _curves_csv({key: curve for key, (_, curve) in judged.items()}))
    write_bytes_atomic(out / "trust.png", risk_coverage_png(_lines(found, judged, signals), f"1 - {metric}"))
    (out / "calibration.csv").unlink(missing_ok=True)  # of earlier folders
    if rows:
        artifacts.write_text_atomic(out / "calibration.csv", _csv([asdict(row) for row in rows], PixelCalibration))
    return [row for row, _ in judged.values()]


def table_of(folder: Path) -> dict[str, Row]:
    """Stem -> row of a folder's segmentation.csv. Raises FileNotFoundError without one, ValueError for volumes."""
    path = Path(folder) / TABLE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {TABLE}; make it with `semgan segment --signals -o {as_typed(folder)} ...`."
        )
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path} lists no image; segment again with -o {as_typed(folder)}.")
    if "slices" in rows[0]:
        raise ValueError(f"{folder} holds volumes, and trust is judged image by image; segment their slices as images.")
    return {row["stem"]: row for row in rows}


def _common_stems(tables: dict[Path, dict[str, Row]], stems: Sequence[str] | None) -> list[str]:
    """The images to judge; every folder must have them."""
    first, *others = tables
    wanted = sorted(tables[first]) if stems is None else sorted(set(stems))
    for folder in tables if stems is not None else others:
        missing, more = sorted(set(wanted) - set(tables[folder])), sorted(set(tables[folder]) - set(wanted))
        if missing or (more and stems is None):
            lacks, has = (listed(names) if names else "none" for names in (missing, more))
            raise ValueError(
                f"Folders are compared on the same images: {folder} lacks {lacks}, and has {has} beyond those wanted "
                f"({first} or --stems). Segment the same images with every model, or name those to judge (--stems)."
            )
    return wanted


def _name(folder: Path, all_folders: Sequence[Path]) -> str:
    alone = [other.name for other in all_folders].count(folder.name) == 1
    return folder.name if alone and folder.name else str(folder)


def _trust(folder: Path, rows: Sequence[Row], signals: Sequence[str] | None) -> dict[str, NDArray[np.float64]]:
    """Signal -> ``[images]``, turned so that high is trusted. Raises ValueError for columns that are not there."""
    there = [name for name in rows[0] if name in SURER]
    unknown = [name for name in signals or () if name not in there]
    if unknown:
        raise ValueError(
            f"{folder}/{TABLE} has no signal {', '.join(unknown)}; it has {', '.join(there)}. "
            "`semgan segment --signals` writes more."
        )
    found = {name: SURER[name] * np.array([row[name] for row in rows], float) for name in signals or there}
    for name, values in found.items():
        if not np.isfinite(values).all():
            strange = rows[int(np.flatnonzero(~np.isfinite(values))[0])]
            raise ValueError(
                f"{folder}/{TABLE} has no number for {name} of image {strange['stem']}; leave the signal out "
                "(--signal names those to use) or the image (--stems)."
            )
    return found


def _judged(found: Predictions, signal: str, limit: float) -> tuple[Judged, RiskCoverage]:
    trust, failed = found.trust[signal], found.scores < limit
    curve = risk_coverage(trust, 1 - found.scores)
    low, high = auroc_interval(-trust, failed)
    row = Judged(
        found.name,
        signal,
        len(trust),
        limit,
        int(failed.sum()),
        auroc(-trust, failed),
        low,
        high,
        curve.area,
        float(1 - found.scores.mean()),
        curve.at(0.8),
        rank_correlation(trust, found.scores),
        _auroc_domain(trust, found.in_domain.get(signal)),
    )
    return row, curve


def _auroc_domain(trust: NDArray, at_home: NDArray | None) -> float:
    if at_home is None:
        return float("nan")
    return auroc(-np.concatenate([trust, at_home]), np.arange(len(trust) + len(at_home)) < len(trust))


def _lines(
    found: Sequence[Predictions],
    judged: dict[tuple[str, str], tuple[Judged, RiskCoverage]],
    signals: Sequence[str] | None,
) -> list[Line]:
    """Every folder's best order and its main signal (or those asked for)."""
    lines = []
    for number, each in enumerate(found):
        shown = signals or [next(name for name in (*MAIN, BEST) if name in each.trust)]
        for place, name in enumerate([*dict.fromkeys(shown), BEST]):
            curve = judged[each.name, name][1]
            label = f"{each.name}, best order" if name == BEST else f"{each.name}, {name}"
            lines.append(Line(label, curve.coverage, curve.risk, number, None if name == BEST else place))
    return lines


# ---------------------------------------------------------------- tables


def _csv(rows: Sequence[dict[str, Any]], kind: type) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    table.writeheader()
    table.writerows(
        {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    return text.getvalue()


def _curves_csv(curves: dict[tuple[str, str], RiskCoverage]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["predictions", "signal", "coverage", "risk"])
    for (predictions, signal), curve in curves.items():
        for coverage, risk in zip(curve.coverage, curve.risk, strict=True):
            table.writerow([predictions, signal, f"{coverage:.6f}", f"{risk:.6f}"])
    return text.getvalue()
