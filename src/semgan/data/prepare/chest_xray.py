"""Published chest X-rays with lung masks, and ChestX-ray14 without: which files are what.

JSRT films carry SCR masks, Montgomery one mask per lung; both lungs are one class. Histogram equalisation and gamma
belong to the recipe, not to the pixels here.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semgan.data.prepare.inventory import Source
from semgan.data.prepare.jsrt import is_negative, read_film, read_lungs, read_negative
from semgan.data.prepare.raw import Finding, Layout, find_paired_folders, folder_name, is_mask, is_picture, pair

SIDES = {"left lung": "left", "right lung": "right", "leftmask": "left", "rightmask": "right"}
SIDES |= {"left mask": "left", "right mask": "right"}
OTHER_STRUCTURES = ("heart", "left clavicle", "right clavicle")
WHOLE_FOLDERS = ("masks", "mask", "manualmask", "lungs")
WHOLE_ENDINGS = ("_mask", "mask", "msk", "_msk")
JSRT = re.compile(r"JPC[LN]N\d{3}", re.IGNORECASE)
MONTGOMERY = re.compile(r"MCUCXR_\d{4}_[01]", re.IGNORECASE)
SHENZHEN = re.compile(r"CHNCXR_\d{4}_[01]", re.IGNORECASE)
NEGATIVE_VOTES = 7
CHEST14 = re.compile(r"(\d{8})_\d{3}")


def find_jsrt(files: Sequence[Path]) -> Finding:
    """Films ``JPCLN001.IMG`` (nodule) and ``JPCNN001.IMG`` (none), or pictures of them; SCR's masks or landmarks."""
    finding = _find_lungs(files, JSRT)
    _turn_negatives(finding)
    for source in finding.sources:
        finding.columns[source.stem] = {"stratum": source.stem[:5]}
    return finding


def _turn_negatives(finding: Finding) -> None:
    """Pictures made of the films keep their negative or not: a few of them, with their lungs, tell which."""
    made = [source for source in finding.sources if source.image.suffix.lower() != ".img"]
    votes = []
    for source in made[:: max(1, len(made) // NEGATIVE_VOTES)][:NEGATIVE_VOTES]:
        with contextlib.suppress(ValueError, OSError):  # told with all other problems when the images are checked
            votes.append(is_negative(read_film(source.image), read_lungs(source.labels)))
    if 2 * sum(votes) > len(votes):
        films = [source for source in finding.sources if source.image.suffix.lower() == ".img"]
        finding.sources = films + [replace(source, read_image=read_negative) for source in made]
        finding.warnings.append(f"jsrt: {len(made)} pictures show air bright; they are inverted: {made[0].image}, ...")


def find_montgomery(files: Sequence[Path]) -> Finding:
    """``MCUCXR_0001_0.png`` in CXR_png, ManualMask/leftMask and ManualMask/rightMask."""
    return _find_lungs(files, MONTGOMERY)


def find_shenzhen(files: Sequence[Path]) -> Finding:
    """``CHNCXR_0001_0.png`` and ``CHNCXR_0001_0_mask.png``; about a hundred images have no mask."""
    return _find_lungs(files, SHENZHEN)


def _find_lungs(files: Sequence[Path], name: re.Pattern[str]) -> Finding:
    finding = Finding()
    images: dict[str, Path] = {}
    parts: dict[str, dict[str, Path]] = {}
    for file in files:
        match = name.match(file.stem)
        if match is None:
            continue
        key, place = match.group().upper(), folder_name(file)
        ending = file.stem[match.end() :].lower()
        side = SIDES.get(place) or ("outline" if file.suffix.lower() == ".pfs" else None)
        if side is None and (ending in WHOLE_ENDINGS or place in WHOLE_FOLDERS):
            side = "whole"
        is_film = file.suffix.lower() == ".img" or is_picture(file)
        finding.used.add(file)
        if place in OTHER_STRUCTURES:
            finding.leave_out("masks of heart and clavicles", 1)
        elif side is not None and (is_mask(file) or side == "outline"):
            if parts.setdefault(key, {}).setdefault(side, file) != file:
                finding.leave_out("second copies of masks", 1)
        elif side is None and not ending and is_film:
            _take_film(finding, images, key, file)
    masks = {key: chosen for key, found in parts.items() if (chosen := _whole_mask(finding, key, found))}
    pair(finding, images, masks, read_image=read_film, read_label=read_lungs, label_scales=True)
    return finding


def _take_film(finding: Finding, images: dict[str, Path], key: str, file: Path) -> None:
    """The untouched .IMG goes before pictures made of it, which may be inverted, or cut to 8 bits."""
    if key in images:
        finding.leave_out("second copies of images", 1)
    if key not in images or (file.suffix.lower() == ".img" and images[key].suffix.lower() != ".img"):
        images[key] = file


def _whole_mask(finding: Finding, key: str, found: dict[str, Path]) -> tuple[Path, ...]:
    if "left" in found and "right" in found:
        return found["left"], found["right"]
    for side in ("whole", "outline"):
        if side in found:
            return (found[side],)
    side, file = next(iter(found.items()))
    missing = "right" if side == "left" else "left"
    finding.problems.append(f"{file} is the mask of one lung, and {key} has none of the {missing} one; add it.")
    return ()


def find_nih(files: Sequence[Path]) -> Finding:
    """XLSor's NIH set: ``NIH/images`` and ``NIH/masks``; its generated ``Augmentation`` pictures are left alone."""
    finding = Finding()
    images, masks = find_paired_folders([file for file in files if "Augmentation" not in file.parts])
    same = {key for key in images if CHEST14.fullmatch(key)}  # names shared with ChestX-ray14 name the same picture
    for prefix, keys in (("", same), ("nih__", (images.keys() | masks.keys()) - same)):
        pair(
            finding,
            {key: images[key] for key in keys & images.keys()},
            {key: masks[key] for key in keys & masks.keys()},
            prefix=prefix,
            read_label=read_lungs,
            label_scales=True,
        )
    _note_patients(finding, {})
    return finding


def find_chest14(files: Sequence[Path]) -> Finding:
    """``images_001/images/00000001_000.png`` ...; patients from ``Data_Entry_2017*.csv``, else from the names."""
    finding = Finding()
    tables = [file for file in files if file.name.startswith("Data_Entry_2017") and file.suffix.lower() == ".csv"]
    pictures: dict[str, Path] = {}
    for file in files:
        if is_picture(file) and CHEST14.fullmatch(file.stem):
            if pictures.setdefault(file.stem, file) != file:
                finding.leave_out("second copies of images", 1)
            finding.used.add(file)
    patients: dict[str, str] = {}
    for table in tables if pictures else ():
        try:
            patients |= _read_patients(table)
        except (ValueError, OSError) as error:
            finding.problems.append(str(error))
        finding.used.add(table)
    finding.leave_out("images of the table that are not here", len(patients.keys() - pictures.keys()))
    finding.sources = [Source(stem, "", file) for stem, file in pictures.items()]
    _note_patients(finding, patients)
    return finding


def _read_patients(table: Path) -> dict[str, str]:
    with open(table, newline="", encoding="utf-8-sig", errors="replace") as lines:
        rows = csv.DictReader(lines)
        if not {"Image Index", "Patient ID"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{table} lacks the columns 'Image Index' and 'Patient ID'; is it another table?")
        try:
            return {Path(row["Image Index"]).stem: f"{int(row['Patient ID']):08d}" for row in rows}
        except (ValueError, TypeError):
            raise ValueError(
                f"{table}, line {rows.line_num}: a file and a patient's number were expected; download the table again."
            ) from None


def _note_patients(finding: Finding, patients: dict[str, str]) -> None:
    for source in finding.sources:
        if match := CHEST14.fullmatch(source.stem):
            finding.columns[source.stem] = {"patient": patients.get(source.stem, match[1])}


LAYOUTS = (
    Layout("jsrt", "JSRT films with SCR masks (JPCLN001.IMG; 'left lung', 'right lung')", "train", find_jsrt),
    Layout("montgomery", "NLM Montgomery (MCUCXR_0001_0.png; leftMask, rightMask)", "test", find_montgomery),
    Layout("shenzhen", "NLM Shenzhen (CHNCXR_0001_0.png, CHNCXR_0001_0_mask.png)", "test", find_shenzhen),
    Layout("nih", "NIH/XLSor (images and masks beside each other)", "test", find_nih, is_generic=True),
    Layout("chestx-ray14", "ChestX-ray14 (images_001/images/00000001_000.png)", "unlabelled", find_chest14),
)
