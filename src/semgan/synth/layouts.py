"""How the pairs lie in the folder, and what is written once all of them are there.

    folder   images/STEM.png, masks/STEM.png (8-bit class indices), classes.json
    nnunet   imagesTr/STEM_0000.png, labelsTr/STEM.png, dataset.json, manifest.csv: a dataset folder of ours, and a raw
             one of nnU-Net v2
    coco     as folder, and annotations.json: one annotation per image and class shown (not per object), as
             run-length codes

Images of another channel count than one or three are STEM_0000.png, STEM_0001.png, ... everywhere.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semgan import artifacts
from semgan.data.folder import description_json
from semgan.data.picture_files import picture_files
from semgan.types import LabelSpace

Progress = Callable[[int, int, str], Any]
STEM = r"(?P<stem>\d{6,}(_s\d\d)?)(_\d{4})?"  # of a picture: the pair's, and the number of a channel


@dataclass(frozen=True)
class Member:
    """One image that is kept: its file stem, and the stem of the pair whose mask it has (its own, but for styles)."""

    stem: str
    group: str


@dataclass(frozen=True)
class Layout:
    """Names of the folders, whether images are numbered by channel, and how the folder is completed."""

    images: str
    masks: str
    numbered: bool
    complete: Callable[[Path, str, LabelSpace, int, Sequence[Member], Progress], None]

    def begin(self, folder: Path) -> None:
        for name in (self.images, self.masks):
            (folder / name).mkdir(exist_ok=True)

    def write(self, folder: Path, stem: str, image: np.ndarray, label_map: np.ndarray) -> None:
        """One pair, as PNG; image: uint8 ``[height, width]`` or ``[height, width, channels]``."""
        for name, pixels in picture_files(image, stem, numbered=self.numbered).items():
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / self.images / name)
        Image.fromarray(label_map).save(folder / self.masks / f"{stem}.png")

    def forget_others(self, folder: Path, stems: set[str]) -> None:
        """Remove the files of pairs that are not in the list: a stop came between them and their row."""
        for path in self._files(folder):
            if stem_of(path) not in stems:
                path.unlink()

    def stems_in(self, folder: Path, files_per_image: int) -> set[str]:
        """The pairs of whose image all files, and whose mask, are there; empty files do not count."""
        images, masks = (
            Counter(stem_of(path) for path in self._files(folder) if path.parent.name == name and path.stat().st_size)
            for name in (self.images, self.masks)
        )
        return {stem for stem, files in images.items() if files == files_per_image and stem in masks}

    def _files(self, folder: Path) -> list[Path]:
        """The pictures of all pairs, by their names."""
        both = ((folder / name).iterdir() for name in (self.images, self.masks))
        return [path for path in itertools.chain(*both) if path.suffix == ".png" and re.fullmatch(STEM, path.stem)]


def stem_of(path: Path) -> str:
    """The stem of the pair that a picture belongs to: without the number of a channel."""
    found = re.fullmatch(STEM, path.stem)
    assert found is not None
    return found["stem"]


def _complete_folder(
    folder: Path, name: str, labels: LabelSpace, channels: int, members: Sequence[Member], progress: Progress
) -> None:
    artifacts.write_json(folder / "classes.json", {str(index): label for index, label in enumerate(labels.names)})


def _complete_nnunet(
    folder: Path, name: str, labels: LabelSpace, channels: int, members: Sequence[Member], progress: Progress
) -> None:
    """Appearances of one mask are one group, so that no split puts them on both sides."""
    artifacts.write_json(folder / "dataset.json", description_json(name, labels, channels, len(members)))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("stem", "set", "group"))
    table.writerows((member.stem, "train", member.group) for member in members)
    artifacts.write_text_atomic(folder / "manifest.csv", text.getvalue())


def _complete_coco(
    folder: Path, name: str, labels: LabelSpace, channels: int, members: Sequence[Member], progress: Progress
) -> None:
    _complete_folder(folder, name, labels, channels, members, progress)
    path = folder / "annotations.json"
    temporary = artifacts.temporary_beside(path)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            _write_coco(file, folder, name, labels, channels, members, progress)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_coco(
    file: io.TextIOBase | Any,
    folder: Path,
    name: str,
    labels: LabelSpace,
    channels: int,
    members: Sequence[Member],
    progress: Progress,
) -> None:
    """Line by line: annotations of many masks need not fit the memory."""
    categories = [{"id": index, "name": label} for index, label in enumerate(labels.names) if index]
    info = {"description": f"{name}: synthetic images and masks, drawn by a generator", "version": "1"}
    file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n')
    file.write(f'"categories": {json.dumps(categories)},\n"images": [\n')
    suffix = "" if channels in (1, 3) else "_0000"
    for place, member in enumerate(members, start=1):
        with Image.open(folder / "masks" / f"{member.stem}.png") as mask:
            width, height = mask.size
        about = {"id": place, "file_name": f"images/{member.stem}{suffix}.png", "width": width, "height": height}
        file.write(json.dumps(about) + (",\n" if place < len(members) else "\n"))
    file.write('],\n"annotations": [')
    for number, annotation in enumerate(_annotations(folder, members, progress), start=1):
        file.write(("\n" if number == 1 else ",\n") + json.dumps({"id": number, **annotation}))
    file.write("\n]}\n")


def _annotations(folder: Path, members: Sequence[Member], progress: Progress) -> Iterator[dict[str, Any]]:
    coder = coco_coder()
    for place, member in enumerate(members, start=1):
        label_map = np.array(Image.open(folder / "masks" / f"{member.stem}.png"))
        for value in (int(each) for each in np.unique(label_map) if each):
            code = coder.encode(np.asfortranarray(label_map == value, dtype=np.uint8))
            size, counts = [int(side) for side in code["size"]], code["counts"].decode("ascii")
            yield {
                "image_id": place,
                "category_id": value,
                "segmentation": {"size": size, "counts": counts},
                "area": int(coder.area(code)),
                "bbox": [float(number) for number in coder.toBbox(code)],
                "iscrowd": 0,
            }
        progress(place, len(members), "annotations")


def coco_coder() -> Any:
    """COCO's own run-length coder. Raises ValueError where it is not installed."""
    with contextlib.suppress(ImportError):
        from pycocotools import mask

        return mask
    raise ValueError("The format coco needs pycocotools: pip install 'semgan[coco]'; or choose another --format.")


LAYOUTS = {
    "folder": Layout("images", "masks", False, _complete_folder),
    "nnunet": Layout("imagesTr", "labelsTr", True, _complete_nnunet),
    "coco": Layout("images", "masks", False, _complete_coco),
}
