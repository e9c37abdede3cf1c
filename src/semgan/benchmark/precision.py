"""One precision for all cells of a folder, by whatever process or machine: OUT/precision.json.

Where settings leave it open (`auto`), a training takes what is faster on its machine (`semgan.runtime.device`). Cells
that are compared with one another must not differ in it, so the first process decides for the folder. A folder of an
earlier version goes on with what its finished cells had.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from semgan import artifacts, config
from semgan.config import Precision, Settings
from semgan.runtime.device import choose_device, faster_precision

FILE = "precision.json"
SECTIONS = ("gan", "encoder", "baseline", "inversion")
CHOICES = tuple(each for each in get_args(Precision) if each != "auto")


def precision_of(out: Path, device: str, *, keep: bool) -> str:
    """The folder's precision; found, and with ``keep`` written, where it has none yet.

    Raises ValueError for a file that holds something else.
    """
    path = out / FILE
    if not path.is_file():
        found = _of_cells(out) or faster_precision(choose_device(device).type)
        if not keep:
            return found
        with artifacts.locked_folder(out):
            if not path.is_file():
                artifacts.write_json(path, {"precision": found})
    try:
        kept = str(artifacts.read_json(path)["precision"])
    except (ValueError, KeyError, TypeError):
        kept = ""
    if kept not in CHOICES:
        raise ValueError(f'{path} must say {{"precision": "..."}}, one of {", ".join(CHOICES)}; correct it.')
    return kept


def _of_cells(out: Path) -> str | None:
    """What the first finished cell was trained in."""
    for path in sorted(out.glob("cells/*/logs/config.yaml")):
        found = config.load(path).baseline.precision
        if found != "auto":
            return found
    return None


def changes_for(settings: Settings, precision: str) -> dict[str, str]:
    """Changes of settings that leave nothing to the machine; what is named already stays."""
    left_open = (name for name in SECTIONS if getattr(settings, name).precision == "auto")
    return {f"{name}.precision": precision for name in left_open}
