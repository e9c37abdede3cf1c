"""What a page of docs/ tells people to type: its blocks, and typing them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from semgan.cli import main

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of docs/PAGE in a language."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run(*words: str) -> int:
    """`semgan` with these words; the exit code."""
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


def run_programs(page: str) -> None:
    """The Python blocks of a page, in the current folder."""
    for block in blocks(page, "python"):
        exec(compile(block, f"docs/{page}", "exec"), {})


def typed(page: str) -> list[str]:
    """Every command of a page, run in the current folder; returns the lines."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "semgan" and run(*words[1:]) == 0, line
    return lines
