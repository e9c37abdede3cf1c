"""Published pictures of skin lesions: which files are what.

ISIC names pictures the same in every year, so a picture that two downloads share is one case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from semgan.data.prepare.inventory import Source
from semgan.data.prepare.raw import Finding, Layout, folder_name, is_mask, is_picture, pair, read_foregrounds

ISIC = re.compile(r"ISIC_\d{7}")
ISIC_YEAR = re.compile(r"IS(?:IC|BI)[-_ ]?(20\d\d)", re.IGNORECASE)
ISIC_PART = re.compile(r"ISIC.*_(training|validation|test)", re.IGNORECASE)
SET_OF_PART = {"validation": "validation", "test": "test"}
PH2 = re.compile(r"IMD\d{3}")


def find_isic(files: Sequence[Path], *, year: str, is_default: bool) -> Finding:
    """``ISIC_0000000.jpg`` and ``ISIC_0000000_segmentation.png`` of one year, named in a folder above.

    is_default: a folder without a year in its name belongs to this year, where there are masks for its pictures
    """
    finding = Finding()
    of_year = [file for file in files if ISIC.match(file.stem) and (_year(file) == year or _is_open(file, is_default))]
    masks = {
        file.stem.removesuffix("_segmentation"): (file,)
        for file in of_year
        if ISIC.fullmatch(file.stem.removesuffix("_segmentation")) and file.stem.endswith("_segmentation")
    }
    pictures = [file for file in of_year if ISIC.fullmatch(file.stem) and is_picture(file)]
    images = {file.stem: file for file in pictures if _year(file) == year or file.stem in masks}
    pair(finding, images, masks, read_label=read_foregrounds)
    for source in finding.sources:
        finding.columns[source.stem] = {"set": SET_OF_PART.get(_part(source.image), "")}
    others = {file for file in of_year if _year(file) == year} - finding.used
    finding.leave_out("superpixels, attributes and other files", len(others))
    finding.used |= others
    return finding


def _year(file: Path) -> str | None:
    """The year that the nearest folder above names."""
    return next((match[1] for folder in reversed(file.parent.parts) if (match := ISIC_YEAR.search(folder))), None)


def _is_open(file: Path, is_default: bool) -> bool:
    return is_default and _year(file) is None


def _part(file: Path) -> str:
    parts = (match[1] for folder in reversed(file.parent.parts) if (match := ISIC_PART.search(folder)))
    return next(parts, "").lower()


def find_isic_unlabelled(files: Sequence[Path]) -> Finding:
    """Every other ``ISIC_0000000.jpg``: the pictures of ISIC 2020, which have no masks."""
    finding = Finding()
    pictures = {
        file.stem: file
        for file in files
        if is_picture(file) and ISIC.fullmatch(file.stem) and _year(file) not in ("2016", "2017", "2018")
    }
    finding.sources = [Source(stem, "", file) for stem, file in sorted(pictures.items())]
    finding.used = set(pictures.values())
    return finding


def find_ph2(files: Sequence[Path]) -> Finding:
    """``IMD002/IMD002_Dermoscopic_Image/IMD002.bmp`` and ``IMD002/IMD002_lesion/IMD002_lesion.bmp``."""
    finding = Finding()
    named = [file for file in files if PH2.match(file.stem)]
    images = {file.stem: file for file in named if PH2.fullmatch(file.stem) and is_picture(file)}
    lesions = [file for file in named if re.fullmatch(r"IMD\d{3}_lesion", file.stem) and is_mask(file)]
    pair(finding, images, {file.stem[:6]: (file,) for file in lesions}, read_label=read_foregrounds)
    regions = {file for file in named if file not in finding.used}
    finding.leave_out("masks of colours and other files", len(regions))
    finding.used |= regions
    return finding


def find_waterloo(files: Sequence[Path], *, source: str) -> Finding:
    """``Skin Image Data Set-1/skin_data/melanoma/dermis/1_orig.jpg`` and ``1_contour.png`` beside it.

    source: the name of the folder, ``dermis`` or ``dermquest``
    """
    finding = Finding()
    here = [file for file in files if folder_name(file) == source]
    images = {_waterloo_name(file, "_orig"): file for file in here if file.stem.endswith("_orig") and is_picture(file)}
    masks = {
        _waterloo_name(file, "_contour"): (file,) for file in here if file.stem.endswith("_contour") and is_mask(file)
    }
    pair(finding, images, masks, prefix=f"{source}__", read_label=read_foregrounds)
    return finding


def _waterloo_name(file: Path, ending: str) -> str:
    """Melanomas and other lesions may share numbers: their folder's name tells them apart."""
    return f"{file.parent.parent.name}__{file.stem.removesuffix(ending)}"


LAYOUTS = (
    Layout(
        "isic2018",
        "ISIC 2018 task 1 (ISIC2018_Task1-2_*_Input; ISIC_0000000_segmentation.png)",
        "train",
        partial(find_isic, year="2018", is_default=True),
    ),
    Layout(
        "isic2017",
        "ISIC 2017 (ISIC-2017_*_Data; ISIC-2017_*_Part1_GroundTruth)",
        "train",
        partial(find_isic, year="2017", is_default=False),
    ),
    Layout("ph2", "PH2 (IMD002_Dermoscopic_Image, IMD002_lesion)", "test", find_ph2),
    Layout("dermis", "DermIS (dermis/1_orig.jpg, 1_contour.png)", "test", partial(find_waterloo, source="dermis")),
    Layout(
        "dermquest",
        "DermQuest (dermquest/1_orig.jpg, 1_contour.png)",
        "test",
        partial(find_waterloo, source="dermquest"),
    ),
    Layout("isic2020", "ISIC 2020 without masks (ISIC_0000000.jpg)", "unlabelled", find_isic_unlabelled),
)
