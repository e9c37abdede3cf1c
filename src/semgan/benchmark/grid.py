"""GRID.yaml: what a benchmark compares. Unknown and contradictory keys are errors that say which, and what to do.

Paths are relative to the file itself; ``${NAME}`` stands for an environment variable. Where a list or a mapping is
wanted, ``FILE.json:KEY`` takes it from a file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from semgan.benchmark.parts import class_mapping, class_names, part
from semgan.benchmark.rows import Budget, LabelCounts, Number, Seeds, Variant, check_shares, different
from semgan.config import Frozen
from semgan.rehearsal import LENGTHS
from semgan.scoring import VALIDATION, HeldOut
from semgan.volume_scoring import VolumeSet

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Settings that the harness decides, or that must be equal for every method of a task.
SCHEDULE_SETTINGS = ("encoder.schedule_images", "baseline.schedule_images")
LENGTH_SETTINGS = (*SCHEDULE_SETTINGS, *(f"{section}.{images}" for section, images, _ in LENGTHS.values()))
THE_GRIDS = ("seed", "split_seed", "labels", "method", "recipe", "device", "threads", "classes")
SHARED_BY_METHODS = ("preprocessing", "metric", "modalities", "run.validation_cases")


def _variables(value: Any) -> Any:
    """Text with ``${NAME}`` replaced. Raises ValueError naming a variable that is not set.

    A relative path that begins with a variable is one that somebody typed: it starts where the command runs.
    """
    if not isinstance(value, str):
        return value
    missing = [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]
    if missing:
        raise ValueError(f"the environment variable {missing[0]} is not set; set it before the command")
    text = re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], value)
    return os.path.abspath(text) if value.startswith("${") and "/" in text else text


Text = Annotated[str, BeforeValidator(_variables)]  # a path, or FILE.json:KEY
Part = Text | tuple[Any, ...] | dict[Any, Any]


class Prepare(Frozen):
    """Plain folders to prepare once, as `semgan data prepare folder` does."""

    images: Text
    labels: Text
    unlabelled: Text | None = None
    manifest: Text | None = None
    classes: Part | None = None
    mapping: Part | None = None


class TestSet(Frozen):
    """Images or volumes with masks that are opened after training, once per cell.

    See `semgan.scoring.HeldOut`, and for volumes `semgan.volume_scoring.VolumeSet`.
    """

    __test__ = False  # not a test, whatever pytest thinks

    name: str
    images: Text | None = None
    volumes: Text | None = None
    labels: Text
    modality: str | None = None
    manifest: Text | None = None
    only: Part | None = None
    mapping: Part | None = None
    map_predictions: Part | None = None
    classes: Part | None = None
    mean_over: Part | None = None

    @model_validator(mode="after")
    def _fits(self) -> TestSet:
        if (self.images is None) == (self.volumes is None):
            raise ValueError("a test set has either 'images' or 'volumes' (NIfTI, DICOM series), not both or none")
        if self.images is not None and (self.modality is not None or self.manifest is not None):
            raise ValueError("'modality' and 'manifest' (stem, patient) belong to 'volumes'; leave them out for images")
        return self

    @property
    def inputs(self) -> str:
        """The folder of images or volumes."""
        return self.images or self.volumes or ""


class Published(Frozen):
    """Numbers of a paper to show beside ours, from a csv: task, metric, labels, method, test_set, class, value.

    task: its name there; sets: our test set -> its name there, only where the set is the same
    """

    file: Text
    task: str
    sets: dict[str, str]


class Task(Frozen):
    name: str
    recipe: Text
    labels: tuple[int, ...] = Field(min_length=1)
    test_sets: tuple[TestSet, ...] = Field(min_length=1)
    dataset: Text | None = None
    prepare: Prepare | None = None
    splits: Text | None = None
    metric: Literal["dice", "jaccard", "miou", "miou-per-case"] | None = None
    steps: tuple[Number, ...] = ()
    settings: dict[str, Any] = {}
    published: Published | None = None

    @field_validator("labels")
    @classmethod
    def _counts(cls, labels: tuple[int, ...]) -> tuple[int, ...]:
        if min(labels) < 2:
            raise ValueError("a labelled list has 2 cases or more")
        return different(labels)

    @model_validator(mode="after")
    def _fits(self) -> Task:
        _check_name(self.name)
        if (self.dataset is None) == (self.prepare is None):
            raise ValueError("either 'dataset' (a prepared folder) or 'prepare' (plain folders), not both or none")
        if self.splits is not None and self.prepare is None:
            raise ValueError("'splits' belongs to 'prepare'; a prepared dataset keeps the lists it has")
        names = different([each.name for each in self.test_sets])
        for name in names:
            _check_name(name)
        if VALIDATION in names:
            raise ValueError(
                f"'{VALIDATION}' is the name of the rows that come from the validation list; choose another"
            )
        unknown = set(self.published.sets if self.published else ()) - set(names)
        if unknown:
            raise ValueError(f"'published' names test sets that the task lacks: {', '.join(sorted(unknown))}")
        _refuse(self.settings, THE_GRIDS, "is decided by the grid itself")
        if self.metric is not None:
            _refuse(self.settings, ("metric",), "stands beside the task's own; leave one out")
        return self


class Selector(Frozen):
    """Cells that come together; what is not given matches everything."""

    tasks: tuple[str, ...] | None = None
    labels: LabelCounts | None = None
    methods: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


class Grid(Frozen):
    """A whole benchmark. seeds: of the labelled list and of training alike; seeds_of: for some rows others.

    further_seeds: "budget": every seed has the row's budget; "images": the first one has it, and the others see as
    many images as that one did in its time (`semgan.benchmark.cells.first_of`)
    methods: the rows, methods or names of ``variants``; settings: row -> changes of settings;
    shares: stage of training -> its weight, where a method has several; "steps": choosing the inversion steps,
    "choice": the student's share in the answer; priority: cells that match the first selector come first, and so on;
    reference: the row that the others are compared with, default the best of each column
    """

    tasks: tuple[Task, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field(min_length=1)
    seeds: Seeds = (0,)
    seeds_of: dict[str, Seeds] = {}
    further_seeds: Literal["budget", "images"] = "budget"
    budget: Budget | None = None
    shares: dict[str, float] = {}
    variants: dict[str, Variant] = {}
    settings: dict[str, dict[str, Any]] = {}
    priority: tuple[Selector, ...] = ()
    reference: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Grid:
        different(self.methods)
        for name in self.methods:
            _check_name(name)
        different([task.name for task in self.tasks])
        named: dict[str, Any] = {key: getattr(self, key) for key in ("seeds_of", "variants", "settings")}
        named["reference"] = [self.reference or self.methods[0]]
        for key, methods in named.items():
            if unknown := sorted(set(methods) - set(self.methods)):
                raise ValueError(f"'{key}' names {', '.join(unknown)}, which is not among the methods of the grid")
        if self.reference is not None and self.budget_of(self.reference) != self.budget:
            raise ValueError(f"'reference' is {self.reference}, whose budget is another; choose a row of the grid's")
        if self.reference is not None and self.variant(self.reference).labels is not None:
            raise ValueError(f"'reference' is {self.reference}, which has not all label counts; choose another row")
        check_shares(self.shares)
        if self.further_seeds == "images" and not any(map(self.has_clock, self.methods)):
            raise ValueError("'further_seeds: images' is for a budget of minutes or cpu_minutes; leave it out")
        self._check_selectors()
        for name in self.methods:
            self._check_changes(name)
        return self

    def variant(self, row: str) -> Variant:
        return self.variants.get(row, Variant())

    def method_of(self, row: str) -> str:
        return self.variant(row).method or row

    def budget_of(self, row: str) -> Budget | None:
        return self.variant(row).budget or self.budget

    def has_clock(self, row: str) -> bool:
        """Whether a clock of either kind ends a row's training, and not a number of images."""
        budget = self.budget_of(row)
        return budget is not None and budget.time is not None

    def counts_processor(self, row: str) -> bool:
        """Whether a row's clock is the processor's."""
        budget = self.budget_of(row)
        return budget is not None and budget.cpu_minutes is not None

    def settings_of(self, row: str) -> dict[str, Any]:
        """Setting -> value of a row, "gan.batch" -> 8."""
        return leaves(self.settings.get(row, {})) | leaves(self.variant(row).settings)

    def _check_changes(self, row: str) -> None:
        changes = self.settings_of(row)
        _refuse(changes, THE_GRIDS, f"is decided by the grid itself (settings of {row})")
        _refuse(changes, SHARED_BY_METHODS, f"is the same for all methods; set it in the task, not for {row}")
        if self.budget_of(row) is not None:
            for each in [changes, *(task.settings for task in self.tasks)]:
                _refuse(each, LENGTH_SETTINGS, "contradicts 'budget', which gives every cell its length; leave out one")

    def _check_selectors(self) -> None:
        known = {
            "tasks": {task.name for task in self.tasks},
            "methods": set(self.methods),
            "labels": {count for task in self.tasks for count in task.labels},
            "seeds": {*self.seeds, *(seed for seeds in self.seeds_of.values() for seed in seeds)},
        }
        for selector in self.priority:
            labels = selector.labels if isinstance(selector.labels, tuple) else ()
            asked = {"tasks": selector.tasks, "methods": selector.methods, "labels": labels, "seeds": selector.seeds}
            for key, values in asked.items():
                if unknown := [str(value) for value in values or () if value not in known[key]]:
                    raise ValueError(f"'priority' names {key} that the grid lacks: {', '.join(unknown)}")
        for row, variant in self.variants.items():
            counts = variant.labels if isinstance(variant.labels, tuple) else ()
            if unknown := [str(count) for count in counts if count not in known["labels"]]:
                raise ValueError(f"'variants.{row}' names labels that the grid lacks: {', '.join(unknown)}")


def read_grid(path: Path) -> Grid:
    """A grid file, checked, with its paths made absolute. Raises ValueError with all problems in one message."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_OneOfEachKey)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a grid ('tasks:', 'methods:', ...); got {type(content).__name__}.")
    try:
        grid = Grid.model_validate(content)
    except ValidationError as error:
        problems = [_told(problem) for problem in error.errors()]
        raise ValueError(f"{path} is not a grid that can be run: {'; '.join(problems)}.") from None
    return grid.model_copy(update={"tasks": tuple(_located(task, path.resolve().parent) for task in grid.tasks)})


def held_out(entry: TestSet) -> HeldOut | VolumeSet:
    """A test set with everything its entry refers to. Raises ValueError or FileNotFoundError naming the file."""
    only, classes, mean_over = (part(value) for value in (entry.only, entry.classes, entry.mean_over))
    places = Path(entry.inputs), Path(entry.labels)
    shared: dict[str, Any] = {
        "only": None if only is None else tuple(only),
        "mapping": class_mapping(entry.mapping),
        "map_predictions": class_mapping(entry.map_predictions),
        "classes": None if classes is None else class_names(classes),
        "mean_over": None if mean_over is None else tuple(mean_over),
    }
    if entry.volumes is None:
        return HeldOut(entry.name, *places, **shared)
    manifest = None if entry.manifest is None else Path(entry.manifest)
    return VolumeSet(entry.name, *places, modality=entry.modality, manifest=manifest, **shared)


# ---------------------------------------------------------------- checks


class _OneOfEachKey(yaml.SafeLoader):
    """YAML in which the same key twice is an error, instead of the last one winning."""


def _mapping_once(loader: _OneOfEachKey, node: yaml.MappingNode) -> dict[Hashable, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
        raise yaml.YAMLError(f"the key '{twice[0]}' stands there twice{node.start_mark}; keep one")
    return loader.construct_mapping(node, deep=True)


_OneOfEachKey.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_once)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"'{name}' becomes part of a folder's name: letters, digits, '.', '_' and '-' only")


def _refuse(changes: Mapping[str, Any], keys: tuple[str, ...], why: str) -> None:
    """Raise for settings, nested or dotted, that may not be changed here."""
    for name in leaves(changes):
        if any(name == key or name.startswith(f"{key}.") for key in keys):
            raise ValueError(f"the setting '{name}' {why}")


def leaves(changes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"gan.batch": 8, ...}. Raises ValueError for one that is given in both ways."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        own = leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        if twice := sorted(found.keys() & own.keys()):
            raise ValueError(f"the setting '{twice[0]}' is given twice; keep one")
        found |= own
    return found


def _told(problem: Any) -> str:
    """One problem of the schema in words."""
    places = [str(place) for place in problem["loc"] if not str(place).startswith(("function-", "tuple[", "dict["))]
    where = ".".join(places)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(places[:-1])
        guess = difflib.get_close_matches(places[-1], known, n=1)
        hint = f"did you mean '{guess[0]}'?" if guess else f"there are {', '.join(known)}"
        return f"unknown key '{where}' ({hint})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"'{where}': {message}" if where else message


def _keys_at(places: list[str]) -> list[str]:
    """The known keys of the table that a place in the file names."""
    tables: dict[str, type[BaseModel]] = {
        "tasks": Task,
        "test_sets": TestSet,
        "prepare": Prepare,
        "published": Published,
        "budget": Budget,
        "variants": Variant,
        "priority": Selector,
    }
    named = [place for place in places if place in tables]
    return list((tables[named[-1]] if named else Grid).model_fields)


def _located(task: Task, base: Path) -> Task:
    """The task with every path taken from the folder of the grid file."""

    def at(value: Any) -> Any:
        return str(base / value) if isinstance(value, str) else value

    def all_at(model: Any, *fields: str) -> Any:
        return model and model.model_copy(update={name: at(getattr(model, name)) for name in fields})

    recipe = at(task.recipe) if task.recipe.endswith((".yaml", ".yml")) else task.recipe
    parts = ("images", "volumes", "labels", "manifest", "only", "mapping", "map_predictions", "classes", "mean_over")
    return task.model_copy(
        update={
            "recipe": recipe,
            "dataset": at(task.dataset),
            "splits": at(task.splits),
            "prepare": all_at(task.prepare, "images", "labels", "unlabelled", "manifest", "classes", "mapping"),
            "test_sets": tuple(all_at(each, *parts) for each in task.test_sets),
            "published": all_at(task.published, "file"),
        }
    )
