"""The cases of an evaluation from best to worst, with pictures: image, true mask, predicted mask.

Pictures are looked for where they are named or where `semgan segment` and `semgan evaluate` left them: images in the
folder of ``--images``, else its overlays; true masks in ``--labels``, else in the folder that scores.json names;
predicted masks where scores.json says, else in its own folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semgan.masks import MaskReader, listed, masks_in
from semgan.report import html, plotting
from semgan.report.colours import as_rgb, colourise, eight_bit, hex_colour, overlay
from semgan.report.evaluations import Cases, Evaluation
from semgan.types import IGNORE

SIDE_PX = 224  # pictures are reduced to this length
WORST, WORST_SHARE = 12, 0.25  # failure cases: so many, and of few cases no more than this share
Picture = Callable[[str], np.ndarray]
Mask = Callable[[str], np.ndarray | None]  # None: that file is not what was scored


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of an evaluation are; None: nowhere. notes: what could not be shown, and why."""

    image: Picture | None
    truth: Mask | None
    prediction: Mask | None
    overlaid: Picture | None
    notes: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        return any((self.image, self.truth, self.prediction, self.overlaid))


NO_PICTURES = Pictures(None, None, None, None)


def find_pictures(evaluation: Evaluation, images: Path | None, labels: Path | None) -> Pictures:
    """Raises FileNotFoundError or ValueError for named folders that do not fit the cases."""
    cases = evaluation.cases
    if cases is None:
        return NO_PICTURES
    recorded = {name: Path(str(evaluation.scores.get(name) or evaluation.folder)) for name in ("predictions", "labels")}
    notes: list[str] = []
    truth = _masks(labels, recorded["labels"], "label", cases, notes)
    places = (recorded["predictions"], evaluation.folder)
    predictions = next((place for place in places if place.is_dir() and _has_masks(place)), places[0])
    prediction = _masks(None, predictions, "prediction", cases, notes)
    overlaid = evaluation.folder / "overlays"
    files = {path.stem: path for path in overlaid.glob("*.png")} if images is None and overlaid.is_dir() else {}
    has_overlays = set(cases.stems) <= set(files)
    return Pictures(
        None if images is None else _images(images, cases),
        truth,
        prediction,
        (lambda stem: _read(files[stem])) if has_overlays else None,
        tuple(notes),
    )


def _read(path: Path) -> np.ndarray:
    from semgan.data.readers import read_image

    return read_image(path)


def _has_masks(folder: Path) -> bool:
    try:
        return bool(masks_in(folder))
    except (ValueError, OSError):
        return False


def _images(folder: Path, cases: Cases) -> Picture:
    from semgan.data.whole_images import find_inputs

    inputs = {item.stem: item for item in find_inputs(folder, 1)[0]}
    channels = [stem for stem in inputs if re.fullmatch(re.escape(cases.stems[0]) + r"_\d{4}", stem)]
    if len(channels) > 1:  # every channel lies in a file of its own
        inputs = {item.stem: item for item in find_inputs(folder, len(channels))[0]}
    missing = [stem for stem in cases.stems if stem not in inputs]
    if missing:
        raise ValueError(
            f"{folder} has no image for {len(missing)} of {len(cases.stems)} scored cases: {listed(missing)}. Name the "
            "folder that was segmented, or leave --images out."
        )
    return lambda stem: inputs[stem].read()


def _masks(named: Path | None, recorded: Path, what: str, cases: Cases, notes: list[str]) -> Mask | None:
    """How to read the masks of a folder as class indices; None, with a note, where that cannot be."""
    from semgan.data.nifti import nifti_suffix

    folder = named or recorded
    if named is None and not _has_masks(recorded):
        notes.append(f"The {what}s are no longer where `semgan evaluate` found them, and are not shown.")
        return None
    files = masks_in(folder)
    missing = [stem for stem in cases.stems if stem not in files]
    if missing and named is not None:
        raise ValueError(f"{folder} has no mask for {len(missing)} of the scored cases: {listed(missing)}.")
    if missing or any(nifti_suffix(files[stem]) for stem in cases.stems):
        kind = "are not all there" if missing else "are volumes (see the overlays of `semgan segment`)"
        notes.append(f"The {what}s {kind}, and are not shown.")
        return None
    return lambda stem: _as_scored(files[stem], what, cases, cases.stems.index(stem))


def _as_scored(path: Path, what: str, cases: Cases, row: int) -> np.ndarray | None:
    """Class indices of a mask as they were scored; None where it cannot be read so.

    Scores do not tell which label values were mapped or ignored, but the counts of cases.csv do: a picture that gives
    others would show something else than its score says.
    """
    classes = len(cases.classes)
    known = (cases.counts.truth if what == "label" else cases.counts.prediction)[row]
    for ignored in ((), range(classes, IGNORE + 1)) if what == "label" else ((),):
        try:
            mask = MaskReader(what, None, tuple(ignored)).read(path, cases.classes)
        except (ValueError, OSError):
            continue
        found = np.bincount(mask[mask != IGNORE], minlength=classes)
        # Of a prediction those pixels were counted whose truth is known.
        if (found == known if what == "label" else found >= known).all():
            return mask
    return None


# ---------------------------------------------------------------- sections


def gallery_sections(
    name: str, evaluation: Evaluation, pictures: Pictures, prefix: str, most: int
) -> list[html.Section]:
    """Failure cases, then cases from best to worst; tables alone where there are no pictures.

    prefix: tells the places in the page of this evaluation from those of others; most: cases with pictures
    """
    if evaluation.cases is None:
        return []
    ranked = evaluation.cases.ranked()
    chosen = chosen_ranks(len(ranked), most)
    worst = list(range(len(ranked)))[: -failures(len(ranked), most) - 1 : -1]
    places = {rank: f"{prefix}-{rank + 1}" for rank in chosen} if pictures.any else {}
    shown = f"{len(chosen)} of {len(ranked)} cases: the {len(worst)} worst, and others evenly spaced by rank."
    if len(chosen) == len(ranked):
        shown = f"All {len(ranked)} cases."
    if without := len(evaluation.cases.stems) - len(ranked):
        shown += f" {without} more have none of the classes, neither predicted nor true, and no score."
    blocks: list[html.Block] = [html.Text(text) for text in (*pictures.notes, shown)]
    if places:
        colours = _colours(evaluation)
        legend = tuple((label, hex_colour(i, colours)) for i, label in enumerate(evaluation.cases.classes))
        cards = tuple(_card(evaluation, pictures, ranked, rank, places[rank], prefix) for rank in chosen)
        blocks += [*map(html.Text, _not_shown(cards, pictures)), html.Legend(legend), html.Gallery(cards)]
    else:
        blocks.append(_case_table(evaluation, ranked, chosen, {}))
    lowest = html.Text("The lowest scores first."), _case_table(evaluation, ranked, worst, places)
    return [
        html.Section(f"Failure cases: {name}", lowest, f"{prefix}-failures"),
        html.Section(f"Cases from best to worst: {name}", tuple(blocks), f"{prefix}-cases"),
    ]


def failures(cases: int, most: int) -> int:
    """How many of the cases are shown as failures, at least one."""
    return min(WORST, most, math.ceil(WORST_SHARE * cases))


def chosen_ranks(cases: int, most: int) -> list[int]:
    """Ranks (0 the best) that are shown: the failures, and of the others evenly spaced ones, at most ``most``."""
    if cases <= most:
        return list(range(cases))
    worst = failures(cases, most)
    others = np.linspace(0, cases - worst - 1, most - worst).round().astype(int).tolist()
    return sorted({*others, *range(cases - worst, cases)})


def _colours(evaluation: Evaluation) -> int:
    assert evaluation.cases is not None
    return max(2, len(evaluation.cases.classes))


def _case_table(
    evaluation: Evaluation, ranked: list[tuple[str, float]], ranks: list[int], places: Mapping[int, str]
) -> html.Table:
    cases = evaluation.cases
    assert cases is not None
    row_of = {stem: row for row, stem in enumerate(cases.stems)}
    lines = []
    for rank in ranks:
        stem, mean = ranked[rank]
        scores = cases.scores[row_of[stem]]
        own = {cases.classes[place]: None if np.isnan(scores[place]) else float(scores[place]) for place in cases.over}
        lines.append({"case": stem, "rank": f"{rank + 1} of {len(ranked)}", "mean": mean} | own)
    return html.table_of_mappings(lines, anchors=tuple(places.get(rank, "") for rank in ranks))


def _card(
    evaluation: Evaluation, pictures: Pictures, ranked: list[tuple[str, float]], rank: int, place: str, prefix: str
) -> html.Card:
    cases = evaluation.cases
    assert cases is not None
    stem, mean = ranked[rank]
    scores = cases.scores[cases.stems.index(stem)]
    parts = [f"{cases.classes[each]} {scores[each]:.3f}" for each in cases.over if not np.isnan(scores[each])]
    caption = ", ".join(parts) if len(parts) > 1 else ""
    title = f"{rank + 1}. {stem}: {mean:.3f}"
    return html.Card(place, title, caption, tuple(_figures(stem, pictures, _colours(evaluation))), f"{prefix}-failures")


def _figures(stem: str, pictures: Pictures, classes: int) -> list[html.Figure]:
    """Image, then masks laid over it; without the image the masks in colour."""
    image = None if pictures.image is None else reduced(eight_bit(pictures.image(stem)))
    found = []
    if image is not None:
        found.append(_figure(image, "image", stem))
    for what, read in (("truth", pictures.truth), ("prediction", pictures.prediction)):
        if what == "prediction" and image is None and pictures.overlaid is not None:
            found.append(_figure(reduced(eight_bit(pictures.overlaid(stem))), what, stem))
        elif read is not None and (mask := read(stem)) is not None:
            found.append(_figure(_mask_picture(mask, image, classes), what, stem))
    return found


def _not_shown(cards: Sequence[html.Card], pictures: Pictures) -> list[str]:
    """What to say of masks that are there and yet not shown."""
    remarks = []
    for what, read in (("truth", pictures.truth), ("prediction", pictures.prediction)):
        lacking = sum(what not in [figure.caption for figure in card.pictures] for card in cards)
        if read is not None and lacking:
            remarks.append(
                f"Not shown ({what}): {lacking} of {len(cards)} masks, which cannot be read as they were scored. Their "
                "values were mapped, or the files have changed since."
            )
    return remarks


def _mask_picture(mask: np.ndarray, image: np.ndarray | None, classes: int) -> np.ndarray:
    mask = np.where(mask == IGNORE, IGNORE, mask).astype(np.uint8)
    if image is None:
        return colourise(_shrunk(mask), classes)
    from semgan.data.transforms import scale_label

    fitting = scale_label(mask, *image.shape[:2]) if mask.shape != image.shape[:2] else mask
    return overlay(image, fitting, classes)


def _figure(pixels: np.ndarray, what: str, stem: str) -> html.Figure:
    return html.Figure(plotting.png_bytes(pixels), f"{stem}: {what}", what, pixelated=max(pixels.shape[:2]) < 128)


def reduced(image: np.ndarray) -> np.ndarray:
    """RGB uint8, at most `SIDE_PX` long."""
    from PIL import Image

    picture = Image.fromarray(as_rgb(image))
    picture.thumbnail((SIDE_PX, SIDE_PX))
    return np.array(picture)


def _shrunk(mask: np.ndarray) -> np.ndarray:
    step = -(-max(mask.shape) // SIDE_PX)
    return mask[::step, ::step]
