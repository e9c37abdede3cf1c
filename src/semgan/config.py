"""Settings as they are used: loaded, changed, checked and saved.

A recipe returns one frozen `Settings`; a YAML file or ``--set a.b=v`` overrides it key by key; the resolved value is
saved beside the weights. What can be set stands in `semgan.settings`, whose classes are named here too.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from semgan.settings import (
    PRECISION_SECTIONS,
    BaselineSettings,
    CriticSettings,
    DataSettings,
    EncoderSettings,
    Frozen,
    GanSettings,
    GeneratorSettings,
    InversionSettings,
    Modality,
    PerceptualSettings,
    Precision,
    Preprocessing,
    RunSettings,
    Settings,
    StudentSettings,
)

__all__ = [
    "PRECISION_SECTIONS",
    "BaselineSettings",
    "CriticSettings",
    "DataSettings",
    "EncoderSettings",
    "Frozen",
    "GanSettings",
    "GeneratorSettings",
    "InversionSettings",
    "Modality",
    "PerceptualSettings",
    "Precision",
    "Preprocessing",
    "RunSettings",
    "Settings",
    "StudentSettings",
    "dump",
    "load",
    "override",
    "parse_assignments",
    "read_overrides",
]


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _known_keys(kind, prefix + name + ".")
    return keys


def _check_keys(changes: dict[str, Any], source: str, prefix: str = "") -> None:
    known = _known_keys(Settings)
    for key, value in changes.items():
        name = f"{prefix}{key}"
        if name not in known:
            leaf_matches = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
            guesses = leaf_matches or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean '{guesses[0]}'?" if guesses else " `semgan train --dry-run` lists all keys."
            raise ValueError(f"Unknown setting '{name}' in {source}.{hint}")
        if isinstance(value, dict):
            _check_keys(value, source, name + ".")


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def override(settings: Settings, changes: dict[str, Any], source: str = "the overrides") -> Settings:
    """Settings with a nested dictionary of changes laid over them.

    Raises ValueError naming the key (with a suggestion) for unknown keys, and the key and value for wrong ones.
    """
    _check_keys(changes, source)
    try:
        return Settings.model_validate(_merge(settings.model_dump(), changes))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"Setting '{key}' in {source}: got {first['input']!r}; {reason}.") from None


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """``["gan.batch=16", "encoder.trunk=narrow"]`` -> nested dictionary; values are read as YAML."""
    changes: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set takes key=value, for example gan.batch=16; got '{text}'.")
        *tables, leaf = key.strip().split(".")
        here = changes
        for table in tables:
            here = here.setdefault(table, {})
            if not isinstance(here, dict):
                raise ValueError(f"--set {text}: '{table}' was set to {here!r} before; it cannot hold '{leaf}'.")
        try:
            here |= _merge(here, {leaf: yaml.safe_load(value)})
        except yaml.YAMLError:
            raise ValueError(f"--set {text}: the value cannot be read; is a bracket or a quote missing?") from None
    return changes


def read_overrides(path: Path) -> dict[str, Any]:
    """A YAML file of settings as a nested dictionary."""
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold settings as 'key: value' lines; got {type(content).__name__}.")
    return _nested(content)


def _nested(content: dict[Any, Any]) -> dict[Any, Any]:
    """``{"gan.batch": 16}`` -> ``{"gan": {"batch": 16}}``: keys as --set takes them may stand in files, too."""
    changes: dict[Any, Any] = {}
    for key, value in content.items():
        *tables, leaf = key.split(".") if isinstance(key, str) else [key]
        found = _nested(value) if isinstance(value, dict) else value
        for name in (leaf, *reversed(tables)):
            found = {name: found}
        changes = _merge(changes, found)
    return changes


def dump(settings: Settings) -> str:
    """The settings as YAML text, as written to config.yaml."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def load(path: Path) -> Settings:
    """Settings from a saved config.yaml."""
    return override(Settings(), read_overrides(path), str(path))
