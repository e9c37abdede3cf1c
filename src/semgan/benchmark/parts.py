"""What an entry of a grid stands for: itself, or what FILE.json or FILE.json:KEY holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semgan.artifacts import read_json
from semgan.masks import ClassMapping


def part(value: Any) -> Any:
    """The value itself, or what FILE.json (or FILE.json:KEY) holds."""
    return part_of_file(value) if isinstance(value, str) else value


def part_of_file(text: str) -> Any:
    """What FILE.json holds, or the part of it under KEY, from "FILE.json:KEY"."""
    file, colon, key = text.rpartition(":")
    if not colon or text.endswith(".json"):
        return read_json(Path(text))
    content = read_json(Path(file))
    if not isinstance(content, dict) or key not in content:
        known = ", ".join(content) if isinstance(content, dict) else "a list"
        raise ValueError(f"{file} has no '{key}'; it holds {known[:200]}.")
    return content[key]


def class_names(classes: Any) -> tuple[str, ...]:
    """Names in order of their index, from a list or from {"0": name, ...}."""
    names = [classes[key] for key in sorted(classes, key=int)] if isinstance(classes, Mapping) else classes
    return tuple(str(name) for name in names)


def class_mapping(value: Any) -> ClassMapping | None:
    """Value -> class, from a list or a mapping, in the file or in another one."""
    found = part(value)
    if isinstance(found, Mapping):
        return {int(key): int(target) for key, target in found.items()}
    return None if found is None else [int(target) for target in found]
