"""One precision for all cells of a folder, by whatever process or machine: OUT/precision.json.

Where settings leave it open (`auto`), a training takes what is faster on its machine (`semgan.runtime.device`). Cells
that are compared with one another must not differ in it, so the first process decides for the folder. A folder of an
earlier version goes on with what most of its finished cells had.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

from semgan import artifacts, config, methods
from semgan.config import Precision
from semgan.rehearsal import LENGTHS
from semgan.runtime.device import choose_device, faster_precision

FILE = "precision.json"
CHOICES = tuple(each for each in get_args(Precision) if each != "auto")


def precision_of(out: Path, device: str, *, keep: bool) -> str:
    """The folder's precision; found, and with ``keep`` written, where it has none yet.

    Raises ValueError for a file that holds something else.
    """
    path = out / FILE
    if not path.is_file():
        cells = Counter(filter(None, map(trained_in, sorted(out.glob("cells/*/logs/config.yaml")))))
        known = [found for found, _ in cells.most_common() if found in CHOICES]
        found = known[0] if known else faster_precision(choose_device(device).type)
        if not keep:
            return found
        with artifacts.locked_folder(out):
            if not path.is_file():
                artifacts.write_json(path, {"precision": found})
    try:
        kept = artifacts.read_json(path)["precision"]
    except (ValueError, KeyError, TypeError):
        kept = None
    if not isinstance(kept, str) or kept not in CHOICES:
        raise ValueError(f'{path} must say {{"precision": "..."}}, one of {", ".join(CHOICES)}; correct it.')
    return kept


def trained_in(saved: Path) -> str | None:
    """The precision of the stages that settings were trained with, joined where they differ; None: cannot be read."""
    try:
        settings = config.load(saved)
        sections = {LENGTHS[stage][0] for stage in methods.get(settings.method).stages}
    except (OSError, ValueError):
        return None
    return ", ".join(sorted({getattr(settings, name).precision for name in sections & {*config.PRECISION_SECTIONS}}))
