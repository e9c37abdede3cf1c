"""Recipes by name: one file per experiment, one function `recipe()` in it. `debug_x.py` is the recipe `debug-x`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Any

from semgan.config import Settings, override, read_overrides


def names() -> list[str]:
    """All recipe names."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str | Path) -> Settings:
    """The settings of a recipe by name, or of a YAML file laid over the defaults or over the recipe it names.

    A file that lists every setting, as the config.yaml of a run, needs no recipe below it, whatever it names.
    Raises ValueError with a suggestion for unknown names, and for unknown or wrong settings in a file.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; --recipe takes a name ({', '.join(names())}) or a YAML file."
            )
        changes = read_overrides(path)
        base = changes.get("recipe")
        if base is not None and base not in names() and not set(Settings.model_fields) <= set(changes):
            raise _unknown(base, f" in {path}")
        start = load(base) if base in names() else Settings()
        return override(start, changes | {"recipe": base if base in names() else path.stem}, str(path))
    if str(name) not in names():
        raise _unknown(name)
    module = importlib.import_module(f"semgan.recipes.{str(name).replace('-', '_')}")
    return module.recipe().model_copy(update={"recipe": str(name)})


def written_in(name: str | Path) -> dict[str, Any]:
    """What a YAML file itself sets, by section; nothing for a recipe's name."""
    path = Path(name)
    return read_overrides(path) if path.suffix in (".yaml", ".yml") else {}


def _unknown(name: object, where: str = "") -> ValueError:
    guess = difflib.get_close_matches(str(name), names(), n=1)
    hint = f" Did you mean '{guess[0]}'?" if guess else ""
    return ValueError(f"Unknown recipe '{name}'{where}.{hint} There are: {', '.join(names())}, or a YAML file.")
