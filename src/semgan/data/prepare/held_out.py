"""The test sets of a published task by name: ``test_sets/NAME/images`` and ``labels``, to score one at a time.

They are the files of imagesTs, and of imagesTr for in-domain tests, under a second name (hard links), so they take no
space; where the disk knows no links they are copies. Volumes have ``volumes/NAME`` instead.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from semgan.data.folder import LABEL_FOLDERS
from semgan.data.prepare.inventory import Inventory


def link_test_sets(dataset: Path, inventory: Inventory) -> None:
    """Give every test case with a mask a place in its collection's folder. Raises OSError for a full disk."""
    ending = inventory.file_ending
    for source in inventory.sources:
        row = inventory.columns[source.stem]
        if row["set"] != "test" or not source.labels or source.scan is not None:
            continue
        folder = dataset / "test_sets" / row["collection"]
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        channel = 0
        while (image := dataset / source.folder / f"{source.stem}_{channel:04d}{ending}").exists():
            _link(image, folder / "images" / image.name)
            channel += 1
        label = dataset / LABEL_FOLDERS[source.folder] / f"{source.stem}{ending}"
        _link(label, folder / "labels" / label.name)


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a full disk refuses the copy too
        shutil.copyfile(file, name)
