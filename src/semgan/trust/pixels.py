"""Are saved probabilities true: calibration of their pixels, as saved and at the temperature that trust found."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from semgan import artifacts
from semgan.masks import ClassMapping, MaskReader, class_space, masks_in
from semgan.metrics.calibration import CalibrationScores, calibration_scores
from semgan.segment import MARKER
from semgan.trust.samples import LARGEST_PX
from semgan.trust.temperature import tempered


@dataclass(frozen=True)
class PixelCalibration:
    """Of one folder's probabilities; temperature 1: as saved, else the model's own. Units: `CalibrationScores`."""

    predictions: str
    temperature: float
    nll: float
    brier: float
    ece: float
    pixels: int


def pixel_calibration(
    folders: Mapping[str, Path],
    labels: Path,
    stems: Sequence[str],
    classes: Sequence[str] | None,
    mapping: ClassMapping | None,
) -> list[PixelCalibration]:
    """A row per named folder and temperature; folders without the probabilities of all ``stems`` have none."""
    return [
        PixelCalibration(name, temperature, **asdict(scores))
        for name, folder in folders.items()
        if all((folder / "probabilities" / f"{stem}.npz").is_file() for stem in stems)
        for temperature, scores in _scores(folder, labels, stems, classes, mapping).items()
    ]


def _saved(path: Path) -> np.ndarray:
    """Probabilities ``[classes, height, width]`` as `semgan segment` saved them. Raises ValueError for another file."""
    try:
        with np.load(path) as saved:
            return saved["probabilities"]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); segment its image again with --save-probabilities."
        ) from None


def _scores(
    folder: Path, labels: Path, stems: Sequence[str], classes: Sequence[str] | None, mapping: ClassMapping | None
) -> dict[float, CalibrationScores]:
    """Temperature -> scores of every k-th pixel of each image, so that its longer side has at most `LARGEST_PX`."""
    space, paths = class_space(classes, labels, (), mapping), masks_in(labels)
    reader = MaskReader("label", mapping, space.ignore)
    found, truths = [], []
    for stem in stems:
        own = _saved(folder / "probabilities" / f"{stem}.npz")
        names = space.names or tuple(map(str, range(len(own))))
        every = -(-max(own.shape[1:]) // LARGEST_PX)
        found.append(own[:, ::every, ::every].reshape(len(own), 1, -1))
        truths.append(reader.read(paths[stem], names)[::every, ::every].reshape(1, -1))
    pixels, truth = np.concatenate(found, 2), np.concatenate(truths, 1)
    request = folder / MARKER
    asked = artifacts.read_json(request)["options"] if request.is_file() else {}
    temperatures = [1.0, *([asked["temperature"]] if "temperature" in asked else [])]
    return {each: calibration_scores(tempered(pixels, each), truth) for each in temperatures}
