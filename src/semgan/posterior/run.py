"""``semgan posterior``: plausible masks of every image, and how far they agree.

    OUT/<stem>.png               mask of the mean probability, 8-bit class indices, the image's own size
    OUT/draws/<stem>/<n>.png     masks drawn from the posterior, the same
    OUT/probabilities/<stem>.npz float16 "probabilities" [classes, height, width], the mean over draws
    OUT/entropy/<stem>.png       8 bits: entropy of the mean probability, 255 for the most that the classes can have
    OUT/posterior.csv            a row per image: pixels of every class with their credible interval, diagnostics
    OUT/posterior.json           what was asked

OUT appears when everything is done; until then the work lies in OUT.partial, and the same command goes on with it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semgan import artifacts, segmentation_rows
from semgan.data.whole_images import Input, find_inputs, to_own_size
from semgan.generative import load_generative
from semgan.posterior.calibration import Calibration, calibrate
from semgan.posterior.diagnostics import R_HAT_LIMIT, UNKNOWN
from semgan.posterior.latent import LENGTHS, METHODS, Budget, LatentPosterior, MaskDraws, Method
from semgan.posterior.sampler import told_as_images
from semgan.result_folder import ResultFolder
from semgan.segment import check_inputs
from semgan.segmentation_rows import Row
from semgan.stages.semantic_gan import SemanticGan

logger = logging.getLogger(__name__)

MARKER = "posterior.json"
TABLE = "posterior.csv"
DEFAULT_TEMPERATURE = 3e-4  # where a model was not calibrated
CREDIBLE = 0.95
FEW_DRAWS = 40  # below, the extreme draws are the interval, and it covers less than 90 % of the posterior
NEVER_MOVED = 999.0  # r_hat of chains that are stuck; a number that every reader takes


def draw_posterior(
    model: Path | str,
    images: Path | str,
    out: Path | str,
    *,
    method: Method = "hmc",
    budget: Budget = Budget(),  # noqa: B008
    temperature: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    batch: int = 4,
    modality: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    progress: Any = None,
) -> list[Row]:
    """Draw masks for an image or a folder of images; returns the rows of posterior.csv.

    temperature: of the likelihood; None: as `semgan calibrate` found it; batch: images at a time, each with its chains
    Raises ValueError for a model that has no latent code, for unreadable images and unknown methods;
    FileNotFoundError where there is no model or image; FileExistsError where ``out`` has other content.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method '{method}' to draw from a posterior; there are {', '.join(METHODS)}.")
    images, out = Path(images), Path(out)
    generative, identity = load_generative(model, device)
    posterior = posterior_of(generative, artifacts.find_model(Path(model)), temperature, chains=method in LENGTHS)
    inputs, _ = find_inputs(images, generative.settings.preprocessing.channels)
    check_inputs(generative, inputs, modality=modality, progress=progress)
    request = {
        "format": 5,
        "model": identity,
        "images": segmentation_rows.fingerprint((item.stem, file) for item in inputs for file in item.files),
        "method": method,
        "draws": vars(budget.of(method)),
        "temperature": posterior.temperature,
        "slack": posterior.slack,
        "steps": steps,
        "seed": seed,
        "modality": modality,
    }
    folder = ResultFolder(out, MARKER, request, segmentation_rows.SCORED)
    if folder.is_finished():
        logger.warning("%s already holds these results; nothing to do.", out)
        return segmentation_rows.read_rows(out / TABLE)
    _warn_of_few(budget.count)
    goes_on = folder.begin(overwrite=overwrite)
    done = segmentation_rows.taken_up(folder.partial, ".png", goes_on=goes_on)
    writer = _Writer(folder.partial, generative.labels.names)
    rest = _left(inputs, done)
    notes_file = folder.partial / segmentation_rows.ROWS
    with folder.filling(lambda: done), open(notes_file, "a", encoding="utf-8") as notes:
        for start in range(0, len(rest), batch):
            block = rest[start : start + batch]
            told = told_as_images(progress, len(done), len(block), len(inputs), "posterior")
            for row in _drawn(posterior, writer, block, method, budget, seed, steps, modality, told):
                done.append(segmentation_rows.noted(notes, row))
    rows = segmentation_rows.write_table(folder.partial, done, TABLE)
    folder.finish()
    if apart := sum(row["r_hat"] > R_HAT_LIMIT for row in rows):
        told = (apart, len(rows), R_HAT_LIMIT)
        logger.warning("The chains of %d of %d images do not agree (R-hat above %g): take a longer --warmup.", *told)
    return rows


def _left(inputs: Sequence[Input], done: Sequence[Row]) -> list[tuple[int, Input]]:
    """The images without a row, with their places among all."""
    stems = {row["stem"] for row in done}
    return [(number, item) for number, item in enumerate(inputs) if item.stem not in stems]


def posterior_of(
    model: SemanticGan, folder: Path, temperature: float | None = None, *, chains: bool = False, asked: bool = True
) -> LatentPosterior:
    """The posterior of a model at its folder's calibrated temperature, unless another is given.

    chains: whether chains will draw from it; a temperature that was fitted to other draws is warned of
    asked: whether people can give a temperature where this is called; warnings say so
    """
    advice = "run `semgan calibrate -m MODEL DATASET`" + (", or give --temperature" if asked else "")
    known = Calibration.read(folder)
    if known is not None:
        if chains and temperature is None and known.method not in LENGTHS:
            logger.warning(
                "The temperature %g was fitted to draws by %s, which hardly depend on it, and may be wrong for chains; "
                "%s.",
                known.temperature,
                known.method,
                advice,
            )
        chosen = known.temperature if temperature is None else temperature
        return LatentPosterior(model, temperature=chosen, slack=known.slack)
    if temperature is None:
        logger.warning(
            "The posterior of this model was not calibrated: temperature %g is a guess, and intervals may be too wide "
            "or too narrow; %s.",
            DEFAULT_TEMPERATURE,
            advice,
        )
        temperature = DEFAULT_TEMPERATURE
    return LatentPosterior(model, temperature=temperature)


def _warn_of_few(count: int) -> None:
    if count < FEW_DRAWS:
        logger.warning(
            "The 95 %% intervals of %d draws cover about %.0f %% of the posterior; take %d draws or more (-n).",
            count,
            100 * coverage(count),
            FEW_DRAWS,
        )


def _drawn(
    posterior: LatentPosterior,
    writer: _Writer,
    block: Sequence[tuple[int, Input]],
    method: Method,
    budget: Budget,
    seed: int,
    steps: int | None,
    modality: str | None,
    progress: Any,
) -> list[Row]:
    """Files and rows of a few images. An image's random numbers are named by its place among all, so that a run that
    was stopped ends like one that was not."""
    import torch

    began, rule = time.perf_counter(), modality or "default"
    pixels = [item.read() for _, item in block]
    rows = []
    inputs = [posterior.model.preprocess(image, rule) for image in pixels]
    numbers = [number for number, _ in block]
    runs = _runs(numbers)
    draws: list[MaskDraws] = []
    for start, stop in runs:
        told = told_as_images(progress, start, stop - start, len(block), "posterior")
        part, first = torch.stack(inputs[start:stop]), numbers[start]
        draws += posterior.draw(part, method, budget, seed=seed, first=first, steps=steps, modality=rule, progress=told)
    if progress is not None:
        progress(1, 1, "posterior")
    seconds = (time.perf_counter() - began) / len(block)
    for (_, item), image, own in zip(block, pixels, draws, strict=True):
        rows.append({"stem": item.stem, "method": method, **writer.write(item.stem, own, image.shape[:2])})
        rows[-1]["seconds"] = round(seconds, 3)
    return rows


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Places (start, stop) of runs of consecutive numbers."""
    starts = [place for place, number in enumerate(numbers) if place == 0 or number != numbers[place - 1] + 1]
    return list(zip(starts, [*starts[1:], len(numbers)], strict=True))


class _Writer:
    """Writes one image's draws and says what its row holds; the mask, which says that it is done, comes last."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes
        for name in ("draws", "probabilities", "entropy"):
            (folder / name).mkdir(exist_ok=True)

    def write(self, stem: str, draws: MaskDraws, size: tuple[int, int]) -> Row:
        mean = to_own_size(draws.mean, size).numpy()
        maps = [to_own_size(each.float(), size).argmax(0).byte().numpy() for each in draws.probabilities]
        own = self.folder / "draws" / stem
        own.mkdir(exist_ok=True)
        for number, label_map in enumerate(maps):
            Image.fromarray(label_map).save(own / f"{number:03d}.png")
        entropy = entropy_share(mean)
        np.savez_compressed(self.folder / "probabilities" / f"{stem}.npz", probabilities=mean.astype(np.float16))
        Image.fromarray(np.round(255 * entropy).astype(np.uint8)).save(self.folder / "entropy" / f"{stem}.png")
        Image.fromarray(mean.argmax(0).astype(np.uint8)).save(self.folder / f"{stem}.png")
        row: Row = {"draws": len(maps), "mean_entropy": round(float(entropy.mean()), 6)}
        for index, name in enumerate(self.classes[1:], 1):
            row |= interval(f"{name}_px", [int((label_map == index).sum()) for label_map in maps])
        return row | _diagnostics(draws)


def entropy_share(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of class probabilities ``[classes, height, width]`` over its largest value log(classes), in [0, 1]."""
    kept = np.clip(probabilities, 1e-12, 1)
    return np.clip(-(kept * np.log(kept)).sum(0) / math.log(len(probabilities)), 0, 1)


def interval(name: str, sizes: Sequence[int]) -> Row:
    """Median and central 95 % of the drawn sizes; of few draws it is narrower than the posterior's, see `coverage`."""
    low, middle, high = np.quantile(sizes, [(1 - CREDIBLE) / 2, 0.5, (1 + CREDIBLE) / 2]).tolist()
    return {name: round(middle, 1), f"{name}_low": round(low, 1), f"{name}_high": round(high, 1)}


def coverage(draws: int) -> float:
    """Share of a continuous posterior between the interval's ends, on average over sets of independent draws: of the
    n + 1 gaps between them, each as likely, linear quantiles leave out 1 + q (n - 1) at either end; q = 0.025."""
    left_out = 1 + (1 - CREDIBLE) / 2 * (draws - 1)
    return 1 - 2 * left_out / (draws + 1)


def _diagnostics(draws: MaskDraws) -> Row:
    """The worst of all quantities; -1 where there are no chains to judge, or too short ones."""
    acceptance = -1.0 if draws.acceptance is None else round(draws.acceptance, 4)
    if not draws.diagnoses:
        return {"acceptance": acceptance, "r_hat": -1.0, "ess": -1.0}
    found = draws.diagnoses.values()
    r_hats = [NEVER_MOVED if not math.isfinite(each.r_hat) else each.r_hat for each in found]
    known = [each.ess for each in found if each.ess >= 0]  # neither nan nor unknown
    return {
        "acceptance": acceptance,
        "r_hat": round(max(r_hats), 4),
        "ess": round(min(known, default=UNKNOWN), 1),
    }


def calibrate_model(
    model: Path | str,
    dataset: Path | str,
    *,
    cases: int = 24,
    method: Method = "hmc",
    seed: int = 0,
    device: str = "auto",
    progress: Any = None,
) -> Calibration:
    """Fit slack and temperature to the first ``cases`` of a dataset's validation list and keep them beside the weights.

    Raises ValueError for a model without latent code, a dataset without validation list, or of other classes or
    channels.
    """
    import torch

    from semgan.data.folder import Dataset
    from semgan.data.loading import load_labels
    from semgan.data.readers import read_image_files

    (generative, _), opened = load_generative(model, device), Dataset.open(Path(dataset))
    chosen = opened.validation_for(generative, cases)
    if len(chosen) < 2:
        raise ValueError(
            f"{opened.path} has {len(chosen)} validation cases; calibration needs 2 or more: `semgan data split`."
        )
    images = torch.stack([generative.preprocess(read_image_files(case.image)) for case in chosen])
    maps = load_labels(chosen, generative.settings.preprocessing.size_px, opened.labels, opened.ignore)
    found = calibrate(generative, images, np.asarray(maps), method=method, seed=seed, progress=progress)
    found.write(artifacts.find_model(Path(model)))
    return found
