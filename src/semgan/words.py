"""What messages tell people to type."""

from __future__ import annotations

import shlex
from pathlib import Path


def as_typed(path: Path | str) -> str:
    """A path as a shell takes it: in quotes where it holds blanks or signs that mean something there."""
    return shlex.quote(str(path))
