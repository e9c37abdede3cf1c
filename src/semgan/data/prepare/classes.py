"""Values found in masks -> class indices: from a mapping, from named classes, or from what the masks hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semgan.artifacts import read_json
from semgan.types import IGNORE, LabelSpace

Names = Path | str | Sequence[str] | Mapping[Any, Any]
Values = Path | str | Sequence[Any] | Mapping[Any, Any]


class WithoutClassError(ValueError):
    """Masks hold values whose class nobody has said; ``values``: these."""

    def __init__(self, message: str, values: Sequence[int]) -> None:
        super().__init__(message)
        self.values = tuple(values)


@dataclass(frozen=True)
class ClassRule:
    """``table``: stored mask value -> class index, or 255 for pixels to ignore."""

    labels: LabelSpace
    table: dict[int, int]

    @property
    def ignores(self) -> bool:
        return IGNORE in self.table.values()


def decide_classes(
    found: Collection[int], classes: Names | None, mapping: Values | None, ignore: Collection[int] = ()
) -> ClassRule:
    """The rule for masks that hold the values ``found``.

    Raises WithoutClassError (a ValueError) that lists the values without a class and says how to give them one.
    """
    table = {value: IGNORE for value in ignore}
    open_values = sorted(set(found) - set(ignore))
    names = None if classes is None else _read_names(classes)
    if mapping is not None:
        return _by_mapping(open_values, {**_read_mapping(mapping), **table}, names)
    if names is not None:
        return _by_names(open_values, names, table)
    if open_values == [0, 255]:
        return ClassRule(LabelSpace(("background", "foreground")), {0: 0, 255: 1, **table})
    count = len(open_values)
    if count >= 2 and open_values == list(range(count)):
        more = ("foreground",) if count == 2 else tuple(f"class_{value}" for value in range(1, count))
        return ClassRule(LabelSpace(("background", *more)), {**{value: value for value in open_values}, **table})
    void = open_values[:-1] == list(range(len(open_values) - 1)) and open_values[-1] == IGNORE
    raise WithoutClassError(
        f"The masks hold the values {_some(open_values)}, which are neither 0 and 255 nor 0, 1, 2, ... without gaps. "
        + ("If 255 marks pixels of no class (void), add --ignore 255. Else say" if void else "Say")
        + ' what they mean: --mapping JSON like {"0": 0, "127": "ignore", "255": 1}, or --classes JSON like '
        '{"0": "background", "1": "lung"}; --ignore VALUE leaves pixels out.',
        open_values,
    )


def _some(values: Sequence[int]) -> str:
    more = f", ... ({len(values)} values; JPEG or smoothed masks look like this)" if len(values) > 20 else ""
    return ", ".join(map(str, values[:20])) + more


def _by_mapping(found: Sequence[int], table: dict[int, int], names: dict[int, str] | None) -> ClassRule:
    missing = [value for value in found if value not in table]
    if missing:
        raise WithoutClassError(
            f"The masks hold the values {_some(missing)}, which the mapping lacks; it has {_some(sorted(table))}. "
            'Add them to --mapping (a class index, or "ignore").',
            missing,
        )
    needed = max((target for target in table.values() if target != IGNORE), default=-1) + 1
    if names is None:
        more = ("foreground",) if needed == 2 else tuple(f"class_{index}" for index in range(1, needed))
        return ClassRule(LabelSpace(("background", *more)), table)
    if sorted(names) != list(range(len(names))) or len(names) < needed:
        raise ValueError(
            f"The mapping leads to {needed} classes and --classes names {len(names)}: {list(names.values())}. "
            "With a mapping, --classes names the classes after it: 0, 1, 2, ..."
        )
    return ClassRule(LabelSpace(tuple(names[index] for index in range(len(names)))), table)


def _by_names(found: Sequence[int], names: dict[int, str], ignored: dict[int, int]) -> ClassRule:
    """Names keyed by stored value; keys with gaps (0 and 255) become indices in their order."""
    labels = LabelSpace(tuple(names[value] for value in sorted(names)))
    table = {value: index for index, value in enumerate(sorted(names))}
    if set(found) <= {0, 255} and sorted(names) == [0, 1]:
        table = {0: 0, 1: 1, 255: 1}
    missing = [value for value in found if value not in table]
    if missing:
        raise WithoutClassError(
            f"The masks hold the values {_some(missing)}, which have no name in --classes ({names}). Name them, pass "
            '--mapping JSON like {"0": 0, "255": 1}, or --ignore VALUE for pixels to leave out.',
            missing,
        )
    return ClassRule(labels, {**table, **ignored})


def _content(source: Any, option: str) -> Any:
    if not isinstance(source, Path | str):
        return source
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{option}: {path} does not exist.")
    try:
        return read_json(path)
    except UnicodeDecodeError:
        raise ValueError(f"{option}: {path} is not JSON text.") from None


def _where(source: Any) -> str:
    return f"{source} " if isinstance(source, Path | str) else ""


def _read_names(source: Names) -> dict[int, str]:
    """``{value: name}`` from ["background", "lung"], {"0": "background"}, or an object that has one at "classes"."""
    content: Any = _content(source, "--classes")
    if isinstance(content, Mapping) and "classes" in content:
        content = content["classes"]
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    try:
        names = {int(value): name for value, name in dict(content).items()}
    except (ValueError, TypeError):
        names = {}
    are_texts = all(isinstance(name, str) for name in names.values())
    if len(names) < 2 or not are_texts or len(set(names.values())) < len(names):
        raise ValueError(
            f"--classes {_where(source)}must name at least two different classes, like "
            f'["background", "lung"] or {{"0": "background", "1": "lung"}}; got {str(content)[:200]}.'
        )
    return names


def _read_mapping(source: Values) -> dict[int, int]:
    """``{stored value: class index or 255}`` from a list, an object, or an object with one at "mapping", "from_*"."""
    content: Any = _content(source, "--mapping")
    if isinstance(content, Mapping):
        inner = [key for key in content if key == "mapping" or str(key).startswith("from_")]
        content = content[inner[0]] if len(inner) == 1 else content
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    try:
        table = {int(value): _target(target) for value, target in dict(content).items()}
    except (ValueError, TypeError):
        table = {}
    targets = sorted({target for target in table.values() if target != IGNORE})
    if len(targets) < 2 or targets[0] < 0 or targets[-1] >= IGNORE:
        raise ValueError(
            f"--mapping {_where(source)}must lead from mask values to at least two class indices, like "
            f' {{"0": 0, "127": "ignore", "255": 1}} or [0, 1, 1]; got {str(content)[:200]}.'
        )
    return table


def _target(target: Any) -> int:
    if target is None or target == "ignore":
        return IGNORE
    if isinstance(target, bool) or int(target) != target:
        raise ValueError
    return int(target)
