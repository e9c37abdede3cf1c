"""``semgan suggest``: the unlabelled images whose masks are worth drawing next.

    OUT/suggestions.csv    rank, stem, group, measures, gain, nearest, why, file
    OUT/suggestions.json   the same rows, and the labelled list that they lead to
    OUT/splits.json        the dataset's lists with that one added, for `semgan data split DATASET --from`
    OUT/sheet.png          the suggested images with the model's masks, to look at
    OUT/suggest.json       what was asked

OUT appears when everything is done; until then measures lie in OUT.partial, and the same command goes on with them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semgan import artifacts, ranks, seeding
from semgan.data.folder import Dataset
from semgan.data.parallel import Progress, thread_pool
from semgan.posterior.calibration import Calibration
from semgan.posterior.latent import LatentPosterior
from semgan.posterior.run import posterior_of
from semgan.result_folder import ResultFolder
from semgan.runtime.device import prepare_cpu
from semgan.segment import load_identified
from semgan.segmentation_rows import fingerprint
from semgan.student_answer import SemganStudent, gan_of
from semgan.suggest import sheet
from semgan.suggest.candidates import Enlarged, Field, Unit, enlarged, known_list, of_dataset, of_folder
from semgan.suggest.measures import GENERATIVE, Measured, last_step, measuring
from semgan.suggest.selection import Pick, nearest_distances, pick, rank_share, standardised
from semgan.types import Segmenter, Steps

logger = logging.getLogger("semgan")

BY = ("combined", "entropy", "distance", "diversity", *GENERATIVE, "random")
SPREADING = ("combined", "diversity")  # a gain that counts the distance to what is labelled or picked
MARKER, TABLE, RESULT, SPLITS, SHEET = (
    "suggest.json", "suggestions.csv", "suggestions.json", "splits.json", "sheet.png"
)  # fmt: skip
MEASURED = "measured"  # in the partial folder, and gone from the finished one
Row = dict[str, Any]


def suggest(
    model: Path | str,
    out: Path | str,
    *,
    count: int,
    dataset: Path | str | None = None,
    images: Path | str | None = None,
    by: str = "combined",
    labels: int | None = None,
    split_seed: int | None = None,
    steps: Steps | None = None,
    posterior: bool = False,
    seed: int = 0,
    batch: int = 32,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Suggest ``count`` unlabelled images of a dataset, or of the folder ``images``; returns what suggestions.json has.

    dataset: whose labelled list the suggestions add to; may be left out with ``images``
    labels, split_seed: name that list; None: the model's own; where the dataset lacks it every case with a mask (told)
    steps: of generators' optimisation; None: 0, the encoder alone; for "disagreement" the model's own choice
    posterior: entropy of a mean over draws of a generator's posterior (Laplace), instead of its single answer; at the
        calibrated temperature; of a semgan-student its generator's alone
    seed: of the random choice and of the posterior's draws

    Raises ValueError for too few candidates, a model that does not fit, measures that it does not have, "disagreement"
    without optimisation; FileNotFoundError where something is missing; FileExistsError where ``out`` has other content.
    """
    if by not in BY:
        raise ValueError(f"Unknown way to suggest '{by}'; there are {', '.join(BY)}.")
    ranks.refuse_several("semgan suggest")
    prepare_cpu()
    segmenter, identity = load_identified(model, device)
    steps = _checked_steps(segmenter, model, by, steps, posterior)
    settings = artifacts.read_json(artifacts.find_model(Path(model)) / "config.json")["settings"]
    if dataset is None and (labels, split_seed) != (None, None):
        raise ValueError("--labels and --split-seed name a list of a dataset; give its folder too, or leave them out.")
    opened = None if dataset is None else Dataset.open(dataset)
    chosen = (None, split_seed or 0) if opened is None else known_list(opened, labels, split_seed, settings)
    field = _field(opened, images, segmenter, chosen, progress)
    _check_count(count, field, opened, images, chosen)
    options = {"count": count, "by": by, "steps": steps, "posterior": posterior, "seed": seed, "batch": batch}
    drawing, drawn_at = _posterior(segmenter, artifacts.find_model(Path(model))) if posterior else (None, {})
    request = {"format": 3, "model": identity, **_identity(field, opened), "list": list(chosen), **options, **drawn_at}
    folder = ResultFolder(Path(out), MARKER, request)
    if folder.is_finished():
        logger.warning("%s already holds these suggestions; nothing to do.", out)
        return artifacts.read_json(folder.out / RESULT)
    folder.begin(overwrite=overwrite)
    measure = measuring(segmenter, steps=steps, posterior=drawing, seed=seed)
    with folder.filling(lambda: any((folder.partial / MEASURED).glob("*.npz"))):
        measured = _measured(measure, field, folder.partial, batch, progress)
    rows, picked = _ranked(field, measured, count, by, seed)
    lists = None if opened is None else enlarged(opened, field, picked, chosen[1])
    result = _written(folder.partial, rows, lists)
    _draw(segmenter, picked, steps, folder.partial / SHEET)
    folder.finish()
    return result


# ---------------------------------------------------------------- asking


def _posterior(segmenter: Segmenter, folder: Path) -> tuple[LatentPosterior, Row]:
    """The posterior that a model folder's draws come from, and what names it in a request."""
    generator, known = gan_of(segmenter), Calibration.read(folder)
    assert generator is not None
    if isinstance(segmenter, SemganStudent):
        logger.warning("--posterior draws from the generator alone, without the student and its guide.")
    found = posterior_of(generator, folder, asked=False)
    return found, {"temperature": found.temperature, "slack": None if known is None else known.slack}


def _checked_steps(
    segmenter: Segmenter, model: Path | str, by: str, steps: Steps | None, posterior: bool
) -> Steps | None:
    """The steps to optimise; None: as the model chooses. Raises ValueError for what a model cannot do."""
    generator = gan_of(segmenter)
    asked = [f"--by {by}"] * (by in GENERATIVE) + ["--posterior"] * posterior + [f"--steps {steps}"] * bool(steps)
    if generator is None and asked:
        others = ", ".join(name for name in BY if name not in GENERATIVE)
        raise ValueError(
            f"{' and '.join(asked)} needs a model with a generator, and {model} answers with a feed-forward network. "
            f"For this model there are --by {others}; else give one of method semgan, semgan-paper or semgan-student."
        )
    if generator is not None and generator.encoder is None:
        raise ValueError(f"The model {model} has no encoder yet, and so no code for an image: finish its training.")
    if by != "disagreement" and steps is None:
        steps = 0
    if generator is not None and last_step(generator, steps) == 0 and by == "disagreement":
        why = "--steps 0 was asked for" if steps == 0 else "the model by its own choice does not optimise"
        raise ValueError(
            f"--by disagreement compares the encoder's mask with an optimised one, and {why}: no image would differ. "
            "Give a number of steps, for example --steps 25."
        )
    return steps


def _field(
    dataset: Dataset | None,
    images: Path | str | None,
    segmenter: Segmenter,
    chosen: tuple[int | None, int],
    progress: Progress | None,
) -> Field:
    if dataset is None:
        if images is None:
            raise ValueError("Suggest from what? Give a dataset folder, or a folder of images with -i.")
        return Field((), of_folder(Path(images), segmenter, progress))
    found = of_dataset(dataset, segmenter, *chosen, progress)
    if images is None:
        return found
    units = of_folder(Path(images), segmenter, progress)
    known = set(chain(*dataset.files.values()))
    both = [unit.name for unit in units if unit.name in known]
    if both:
        raise ValueError(
            f"{len(both)} images of {images} have names of images in {dataset.path}: {', '.join(both[:5])}; rename "
            "them, or leave out -i to choose among the dataset's own."
        )
    return Field(found.labelled, units)


def _check_count(
    count: int,
    field: Field,
    dataset: Dataset | None,
    images: Path | str | None,
    chosen: tuple[int | None, int],
) -> None:
    there = len(field.candidates)
    where = str(images) if images is not None or dataset is None else f"{dataset.path}"
    beside = "" if chosen[0] is None else f" beside labelled_{chosen[0]}_seed{chosen[1]}"
    if not there:
        raise ValueError(
            f"{where} has no unlabelled images{beside}: every image that may be trained on has a mask in use. Prepare "
            "it with --unlabelled FOLDER, name a shorter list with --labels N, or give a folder of images with -i."
        )
    if not 1 <= count <= there:
        raise ValueError(f"{count} suggestions were asked for and {where} has {there} unlabelled images{beside}.")


def _identity(field: Field, dataset: Dataset | None) -> dict[str, Any]:
    """Everything about images and lists that the answer depends on."""
    units = (*field.labelled, *field.candidates)
    names = "\n".join(f"{unit.name} {unit.group}" for unit in units)
    return {
        "images": fingerprint(
            (picture.stem, file) for unit in units for picture in unit.pictures for file in picture.files
        ),
        "labelled": len(field.labelled),
        "candidates": len(field.candidates),
        "names": hashlib.sha256(names.encode()).hexdigest()[:16],
        "lists": None if dataset is None else hashlib.sha256(json.dumps(dataset.splits).encode()).hexdigest()[:16],
    }


# ---------------------------------------------------------------- measuring


def _measured(measure: Any, field: Field, folder: Path, batch: int, progress: Progress | None) -> Measured:
    """Measures of every unit, labelled ones first: the mean over its pictures. What lies in the folder is not done
    again."""
    import torch

    units = (*field.labelled, *field.candidates)
    every = [picture for unit in units for picture in unit.pictures]
    blocks: list[Measured] = []
    (folder / MEASURED).mkdir(exist_ok=True)
    with thread_pool() as pool:
        for start in range(0, len(every), batch):
            file = folder / MEASURED / f"{start:08d}.npz"
            found = _read(file)
            if found is None:
                own = every[start : start + batch]
                found = measure(torch.stack(list(pool.map(lambda picture: picture.load(), own))), start)
                np.savez(file, **found)
            blocks.append(found)
            if progress is not None:
                progress(min(start + batch, len(every)), len(every), "measure images")
    starts = np.cumsum([0] + [len(unit.pictures) for unit in units])[:-1]
    sizes = np.array([len(unit.pictures) for unit in units])
    by_picture = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    _refuse_no_numbers(by_picture, [picture.stem for picture in every])
    return {
        name: np.add.reduceat(values.astype(np.float64), starts) / sizes.reshape(-1, *[1] * (values.ndim - 1))
        for name, values in by_picture.items()
    }


def _refuse_no_numbers(measured: Measured, stems: Sequence[str]) -> None:
    """What is no number has no rank: it would come first, or last, by chance."""
    finite = np.all([np.isfinite(values.reshape(len(stems), -1)).all(1) for values in measured.values()], axis=0)
    lost = [stem for stem, is_finite in zip(stems, finite, strict=True) if not is_finite]
    if lost:
        raise ValueError(
            f"The model's answers to {len(lost)} of {len(stems)} images are no numbers (nan), {', '.join(lost[:5])} "
            "among them: its training broke down, or its files are damaged. Train it anew, or take an earlier model."
        )


def _read(file: Path) -> Measured | None:
    """Measures of a block; None where they are not there, or cut off by a kill."""
    try:
        with np.load(file) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


# ---------------------------------------------------------------- ranking


def _ranked(field: Field, measured: Measured, count: int, by: str, seed: int) -> tuple[list[Row], list[Unit]]:
    """Rows of the suggestions in order, and their units. Without labelled images the mean stands for them."""
    first = len(field.labelled)
    features = standardised(measured.pop("features"))
    centres = features[:first] if first else features.mean(0, keepdims=True)
    values = {name: each[first:] for name, each in measured.items()}
    values["distance"] = nearest_distances(features[first:], centres)
    units = field.candidates
    picks = pick(
        [unit.name for unit in units],
        features[first:],
        centres,
        count,
        _values(by, values, units, seed),
        spread=by in SPREADING,
        groups=[unit.group for unit in units],
        labelled_groups=[unit.group for unit in field.labelled],
        centres_are_images=first > 0,
    )
    rows = [_row(rank, found, units[found.index], by, values) for rank, found in enumerate(picks, 1)]
    return rows, [units[found.index] for found in picks]


def _values(by: str, measured: Measured, units: Sequence[Unit], seed: int) -> np.ndarray:
    """What `pick` takes: the gain of every candidate, or with spreading what its distance is weighted by."""
    if by == "combined":
        return rank_share(measured["entropy"])
    if by == "diversity":
        return np.ones(len(units))
    if by == "random":  # of the name alone: what else may be chosen makes no difference
        keys = [int.from_bytes(hashlib.sha256(unit.name.encode()).digest()[:7], "big") for unit in units]
        return seeding.uniform(seed, "suggest", keys, ()).numpy()
    return measured[by]


def _row(rank: int, found: Pick, unit: Unit, by: str, measured: Measured) -> Row:
    at = found.index
    own = {name: round(float(values[at]), 6) for name, values in sorted(measured.items())}
    numbers = {"gain": round(found.gain, 6), "nearest": round(found.nearest, 6)}
    middle = unit.pictures[len(unit.pictures) // 2]
    group = {"group": unit.group if unit.group != unit.name else ""}
    return {"rank": rank, "stem": unit.name, **group, **own, **numbers, "why": _why(found, by, measured)} | {
        "file": str(middle.files[0])
    }


def _why(found: Pick, by: str, measured: Measured) -> str:
    """The reason in words."""

    def above(name: str) -> str:
        values = measured[name]
        below = 100 * float((values < values[found.index]).mean())
        return f"{name} {values[found.index]:.3g} (above {below:.0f} % of the unlabelled)"

    apart = f"{found.nearest:.2g} from the nearest labelled or suggested image"
    words = {"combined": f"{above('entropy')}, {apart}", "diversity": apart, "random": "drawn by lot"}
    reason = words.get(by) or above(by)
    return reason if not found.repeats else f"{reason}; its like is labelled or suggested already: no others are left"


# ---------------------------------------------------------------- writing


def _written(folder: Path, rows: Sequence[Row], lists: Enlarged | None) -> dict[str, Any]:
    """The table, the lists and the result, which is returned."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    artifacts.write_text_atomic(folder / TABLE, text.getvalue())
    result: dict[str, Any] = {"suggestions": list(rows), "list": None}
    if lists is not None:
        artifacts.write_json(folder / SPLITS, lists.lists)
        result["list"] = {"labels": lists.labels, "split_seed": lists.split_seed, "waiting": list(lists.waiting)}
    artifacts.write_json(folder / RESULT, result)
    for file in (folder / MEASURED).iterdir():
        file.unlink()
    (folder / MEASURED).rmdir()
    return result


def _draw(segmenter: Segmenter, picked: Sequence[Unit], steps: Steps | None, path: Path) -> None:
    """The middle picture of every unit with the model's mask."""
    import torch

    shown = [unit.pictures[len(unit.pictures) // 2] for unit in picked[: sheet.MOST]]
    images = torch.stack([picture.load() for picture in shown])
    maps = segmenter.segment_batch(images, steps=steps).label_map.byte().cpu().numpy()
    names = [unit.name for unit in picked]
    Image.fromarray(sheet.drawn(images, maps, names, segmenter.labels.classes)).save(path)
