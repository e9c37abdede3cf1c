"""Who is labelled, who validates: nested, grouped lists that depend on names and seed alone.

The order of cases comes from hashes of seed, group and stem: lists of one seed are nested (9 in 35 in 175) because each
is the start of the same order.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from semgan.artifacts import write_json
from semgan.data.folder import (
    GROUP_COLUMNS,
    LABEL_FOLDERS,
    LABELLED_NAME,
    Dataset,
    check_splits_shape,
    mask_stems,
    read_object,
)

SplitLists = dict[str, Any]
COUNTED_IN = "labels_counted_in"  # key of splits.json: a column of the manifest
VALIDATION_SHARE = 0.1  # of the training cases, where nothing else is asked for


@dataclass(frozen=True)
class Protocol:
    """What a published task fixes: metric, numbers of labelled cases, split seeds, share of the pool for validation.

    counted_in: column of the manifest whose members make up one labelled case (the slices of a volume); None: images
    """

    metric: str
    budgets: tuple[int, ...]
    split_seeds: tuple[int, ...] = (0, 1, 2)
    validation_share: float = 0.0
    counted_in: str | None = None


def write_splits(
    dataset_path: Path | str,
    labels: int,
    split_seed: int = 0,
    group: str | None = None,
    validation_share: float | None = None,
    *,
    redraw: bool = False,
) -> SplitLists:
    """Add the list ``labelled_N_seedS`` to splits.json; returns the whole content.

    Where splits.json has no "validation" list yet, one is drawn first (a share of the labelled images, a tenth unless
    given, whole groups, the same for every seed); the rest is the "pool". ``group`` is a column of manifest.csv; None
    takes the one named group or patient, where there is one. No group is in two of train, validation and test, the
    labelled list takes one image of each group before a second one of any, and unlabelled images of validation or test
    groups are left out. A labelled list that is there already, and is another one, stays.
    Where splits.json says "labels_counted_in" (a column), ``labels`` counts groups of it, and all their images are in.
    redraw: draw "validation" anew; the labelled lists that there are belong to the old one and go.

    Raises ValueError for too few images, an unknown column, groups that are in training and test already, a share that
    would have drawn another validation list than the one there is, and for a labelled list that would be replaced.
    """
    dataset = Dataset.open(dataset_path)
    if labels < 2:
        raise ValueError(f"A labelled list has 2 cases or more; got {labels}.")
    group = group or dataset.splits.get(COUNTED_IN) or _column_of_groups(dataset)
    if redraw:
        dataset = _without_drawn(dataset, _groups(dataset, group))
    lists = _with_pool(dataset, group, VALIDATION_SHARE if validation_share is None else validation_share)
    if validation_share is not None:
        _refuse_other_share(dataset, _groups(dataset, group), validation_share)
    units = _units(dataset, lists, lists["pool"])
    if labels > units:
        counted = f", counted by the column {dataset.splits[COUNTED_IN]}" if COUNTED_IN in dataset.splits else ""
        raise ValueError(
            f"{labels} labelled cases were asked for and {dataset.path} has {units} for training{counted} "
            f"({_units(dataset, lists, lists['validation'])} are kept for validation). Ask for fewer, or add masks."
        )
    drawn = _labelled(dataset, lists, _groups(dataset, group), [labels], split_seed)
    for name, stems in drawn.items():
        if lists.get(name, stems) != stems:
            raise ValueError(
                f"{dataset.path} has a list '{name}' that was not drawn like this (imported, or of other images or "
                "groups), and it is kept. Take another --split-seed, or draw all lists anew with --redraw."
            )
    lists |= drawn
    write_json(dataset.path / "splits.json", lists)
    return lists


def write_protocol(dataset_path: Path | str, protocol: Protocol) -> SplitLists:
    """Add the lists ``labelled_N_seedS`` of every budget and seed to splits.json; returns the whole content.

    A budget beyond the pool becomes the whole pool. Groups, validation and errors as in `write_splits`.
    """
    dataset = Dataset.open(dataset_path)
    group = protocol.counted_in or _column_of_groups(dataset)
    lists = _with_pool(dataset, group, protocol.validation_share)
    if protocol.counted_in is not None:
        lists[COUNTED_IN] = protocol.counted_in
    budgets = sorted({min(budget, _units(dataset, lists, lists["pool"])) for budget in protocol.budgets})
    for seed in protocol.split_seeds:
        lists |= _labelled(dataset, lists, _groups(dataset, group), budgets, seed)
    write_json(dataset.path / "splits.json", lists)
    return lists


def _with_pool(dataset: Dataset, group: str | None, validation_share: float) -> SplitLists:
    """The known lists, with "validation", "pool" and the unlabelled images of no held-out group."""
    if not 0 <= validation_share < 1:
        raise ValueError(f"The share for validation is in [0, 1); got {validation_share}.")
    lists, group_of = dict(dataset.splits), _groups(dataset, group)
    if "validation" not in lists:
        labelled = {group_of(stem) for name in labelled_names(lists) for stem in lists[name]}
        lists["validation"] = _validation(dataset, group_of, validation_share, without=labelled)
    held_out = {*lists["validation"], *lists.get("test", [])}
    lists["pool"] = [stem for stem in lists.get("pool", dataset.files["imagesTr"]) if stem not in held_out]
    _refuse_shared_groups(dataset, lists, group_of)
    if group is not None and dataset.files["imagesUn"]:
        lists["unlabelled_extra"] = _unlabelled_of_training_groups(dataset, lists, group_of)
    return lists


def _refuse_other_share(dataset: Dataset, group_of: Callable[[str], str], share: float) -> None:
    if "validation" not in dataset.splits:
        return
    known = dataset.splits["validation"]
    stems = [*dataset.splits.get("pool", dataset.pool()), *known]
    wanted = len(_validation(dataset, group_of, share, stems))
    if wanted != len(known):
        raise ValueError(
            f"A share of {share:g} would keep {wanted} of {len(stems)} images for validation, and {dataset.path} "
            f"already keeps {len(known)}, the same for all its labelled lists. Leave --validation out to go on with "
            "these, or draw it and all labelled lists anew with --redraw."
        )


def _without_drawn(dataset: Dataset, group_of: Callable[[str], str]) -> Dataset:
    """As if validation and labelled lists had never been drawn from the pool; test lists and the like stay."""
    lists = {key: value for key, value in dataset.splits.items() if not LABELLED_NAME.fullmatch(key)}
    validation = lists.pop("validation", [])
    if "pool" in lists:
        known = {*lists["pool"], *validation}
        lists["pool"] = [stem for stem in dataset.files["imagesTr"] if stem in known]
    if "unlabelled_extra" in lists:  # those left out for being of a validation group
        groups = {group_of(stem) for stem in validation}
        kept = {*lists["unlabelled_extra"]["stems"], *(s for s in dataset.files["imagesUn"] if group_of(s) in groups)}
        lists["unlabelled_extra"] = lists["unlabelled_extra"] | {
            "stems": [stem for stem in dataset.files["imagesUn"] if stem in kept]
        }
    return Dataset(dataset.path, dataset.description, lists, dataset.columns)


def _labelled(
    dataset: Dataset, lists: SplitLists, group_of: Callable[[str], str], budgets: Sequence[int], split_seed: int
) -> SplitLists:
    purpose = f"labelled {split_seed}"
    if column := lists.get(COUNTED_IN):
        cases = _members(lists["pool"], _groups(dataset, column), purpose)
    else:
        cases = [[stem] for stem in _one_of_each_group_first(lists["pool"], group_of, purpose)]
    return {f"labelled_{count}_seed{split_seed}": list(chain(*cases[:count])) for count in budgets}


def _units(dataset: Dataset, lists: SplitLists, stems: Sequence[str]) -> int:
    """What labels are counted in: images, or groups where the lists say so."""
    return len(set(map(_groups(dataset, lists.get(COUNTED_IN)), stems)))


def import_splits(dataset_path: Path | str, file: Path | str) -> SplitLists:
    """Take the lists of a JSON file in the format of ``splits/*.json``; returns them.

    Raises ValueError, all problems in one, for stems that the dataset lacks and for lists that overlap.
    """
    dataset, file = Dataset.open(dataset_path), Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist.")
    lists = check_splits_shape(read_object(file), file)
    if not any(key in lists for key in ("test", "validation", "pool")) and not labelled_names(lists):
        raise ValueError(f"{file} has none of the lists test, validation, pool, labelled_N_seedS; is it another file?")
    proposed = Dataset(dataset.path, dataset.description, lists, dataset.columns)
    problems = [message for level, message in problems_of_splits(proposed) if level == "error"]
    if problems:
        raise ValueError(f"{file} does not fit {dataset.path}:\n" + "\n".join(f"- {problem}" for problem in problems))
    write_json(dataset.path / "splits.json", lists)
    return lists


def labelled_names(lists: SplitLists) -> list[str]:
    """The keys of labelled lists."""
    return [key for key in lists if LABELLED_NAME.fullmatch(key)]


def problems_of_splits(dataset: Dataset) -> list[tuple[str, str]]:
    """("error" or "warning", message) for stems that do not exist and for overlaps of training and held-out cases."""
    lists, problems = dataset.splits, []
    pairs: set[str] = set()
    for images, masks in LABEL_FOLDERS.items():
        pairs |= mask_stems(dataset.path / masks, dataset.description.file_ending) & set(dataset.files[images])
    for name in ("test", "validation", "pool", *labelled_names(lists)):
        stems = lists.get(name, [])
        unknown = [stem for stem in stems if stem not in pairs]
        problems += _listed("error", f"'{name}' names cases that have no image and mask", unknown)
        repeated = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
        problems += _listed("error", f"'{name}' names a case twice", sorted(repeated))
    extra = lists.get("unlabelled_extra", {}).get("stems", [])
    unknown = [stem for stem in extra if stem not in dataset.files["imagesUn"]]
    problems += _listed("error", "'unlabelled_extra' names images that imagesUn lacks", unknown)
    problems += _overlaps(dataset)
    pool = set(dataset.pool())
    if (column := lists.get(COUNTED_IN)) not in (None, *_columns(dataset)):
        return [*problems, ("error", f"labels are counted in '{column}', and manifest.csv has no such column")]
    for name in labelled_names(lists):
        outside = [stem for stem in lists[name] if stem not in pool]
        problems += _listed("error", f"'{name}' names cases outside the pool", outside)
        count = _units(dataset, lists, lists[name])
        if count != int(LABELLED_NAME.fullmatch(name)[1]):  # type: ignore[index]
            problems.append(("error", f"'{name}' has {count} cases, unlike its name"))
    return problems


def _overlaps(dataset: Dataset) -> list[tuple[str, str]]:
    """Leakage: the same case, or the same group (patient), in two of training, validation and test."""
    lists, problems = dataset.splits, []
    test = [*lists.get("test", []), *dataset.files["imagesTs"]]
    validation, pool = lists.get("validation", []), lists.get("pool") or dataset.pool()
    parts = {"pool": pool, "validation": validation, "test": test}
    pairs = (("pool", "validation"), ("pool", "test"), ("validation", "test"))
    for first, second in pairs:
        both = sorted(set(parts[first]) & set(parts[second]))
        problems += _listed("error", f"leakage: cases in both '{first}' and '{second}'", both)
        groups = sorted(_group_set(dataset, parts[first]) & _group_set(dataset, parts[second]))
        problems += _listed("error", f"leakage: groups in both '{first}' and '{second}'", groups)
    unlabelled = lists.get("unlabelled_extra", {}).get("stems", dataset.files["imagesUn"])
    held_out = _group_set(dataset, [*validation, *test])
    shared = sorted(_group_set(dataset, unlabelled) & held_out)
    return problems + _listed("warning", "unlabelled images show groups of validation or test", shared)


def _listed(level: str, message: str, names: Sequence[str]) -> list[tuple[str, str]]:
    if not names:
        return []
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return [(level, f"{message}: {', '.join(names[:10])}{more}")]


def _group_set(dataset: Dataset, stems: Sequence[str] | dict[str, Path]) -> set[str]:
    return {group for stem in stems if (group := dataset.group(stem)) is not None}


def _column_of_groups(dataset: Dataset) -> str | None:
    """The manifest's group or patient column, if any: leakage is never the default."""
    return next((name for name in GROUP_COLUMNS for row in dataset.columns.values() if row.get(name)), None)


def _groups(dataset: Dataset, column: str | None) -> Callable[[str], str]:
    """The group of a stem; every case its own group where there is no column, or no entry."""
    if column is None:
        return lambda stem: f"{stem}\n"
    known = _columns(dataset)
    if column not in known:
        raise ValueError(
            f"{dataset.path / 'manifest.csv'} has no column '{column}'; it has {', '.join(known) or 'none'}. "
            "Prepare the dataset with --manifest CSV that has it."
        )
    return lambda stem: dataset.columns.get(stem, {}).get(column) or f"{stem}\n"


def _columns(dataset: Dataset) -> list[str]:
    """The columns of the manifest that may group cases."""
    return sorted({name for row in dataset.columns.values() for name in row} - {"stem", "set"})


def _rank(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode()).digest()


def _members(stems: Sequence[str], group_of: Callable[[str], str], purpose: str) -> list[list[str]]:
    """The stems by group, groups and members in the order of their hashes."""
    members: dict[str, list[str]] = defaultdict(list)
    for stem in sorted(stems, key=lambda stem: _rank(purpose, stem)):
        members[group_of(stem)].append(stem)
    return [members[name] for name in sorted(members, key=lambda name: _rank(purpose, "group", name))]


def _one_of_each_group_first(stems: Sequence[str], group_of: Callable[[str], str], purpose: str) -> list[str]:
    groups = _members(stems, group_of, purpose)
    turns = max((len(members) for members in groups), default=0)
    return [members[turn] for turn in range(turns) for members in groups if turn < len(members)]


def _validation(
    dataset: Dataset,
    group_of: Callable[[str], str],
    share: float,
    known: Sequence[str] | None = None,
    without: Collection[str] = (),
) -> list[str]:
    """Whole groups of the labelled images (``known``: of these) outside the test list, until the share is reached.

    without: groups that lists hold already. In the order of `in_validation_order`.
    """
    test = set(dataset.splits.get("test", []))
    pool = dataset.splits.get("pool", dataset.files["imagesTr"]) if known is None else known
    stems = [stem for stem in pool if stem not in test]
    wanted, chosen = round(share * len(stems)), []
    taken = {*without, *(group_of(stem) for stem in (*test, *dataset.files["imagesTs"]))}
    for members in _members(stems, group_of, "validation"):
        if len(chosen) + len(members) <= wanted and group_of(members[0]) not in taken:
            chosen += members
    return in_validation_order(chosen)


def in_validation_order(stems: Iterable[str]) -> list[str]:
    """Stems in the order of their hashes: training and calibration take the first ones only, and the first of a sorted
    list may be the slices of a single volume."""
    return sorted(stems, key=lambda stem: _rank("validation order", stem))


def _refuse_shared_groups(dataset: Dataset, lists: SplitLists, group_of: Callable[[str], str]) -> None:
    test = {group_of(stem) for stem in (*lists.get("test", []), *dataset.files["imagesTs"])}
    validation = {group_of(stem) for stem in lists["validation"]}
    for stem in lists["pool"]:
        held_out = "test" if group_of(stem) in test else "validation" if group_of(stem) in validation else None
        if held_out:
            raise ValueError(
                f"Leakage: group '{group_of(stem).strip()}' of training case '{stem}' is in the {held_out} list too. "
                f"Move all images of one group into one set in the manifest, or remove '{held_out}' from splits.json."
            )


def _unlabelled_of_training_groups(
    dataset: Dataset, lists: SplitLists, group_of: Callable[[str], str]
) -> dict[str, Any]:
    held_out = {group_of(stem) for stem in (*lists["validation"], *lists.get("test", []), *dataset.files["imagesTs"])}
    known = lists.get("unlabelled_extra", {"set": "imagesUn", "stems": list(dataset.files["imagesUn"])})
    return {**known, "stems": [stem for stem in known["stems"] if group_of(stem) not in held_out]}
