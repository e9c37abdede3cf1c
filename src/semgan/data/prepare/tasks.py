"""Raw downloads of a published task -> a dataset folder with the paper's sets and label budgets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from semgan.config import Preprocessing
from semgan.data.folder import Dataset
from semgan.data.parallel import Progress
from semgan.data.prepare import chest_xray, faces, liver, skin
from semgan.data.prepare.folder import Report, prepare_inventory
from semgan.data.prepare.inventory import VOLUME_SUFFIXES, Inventory, Source
from semgan.data.prepare.raw import FOLDER_OF, Finding, Layout, is_picture, list_files
from semgan.data.prepare.slices import cut
from semgan.data.splits import Protocol

UNLABELLED_PX = 1024  # of ChestX-ray14, MetFaces, FFHQ, which stay as they are; ISIC 2020 has photographs of 6000


@dataclass(frozen=True)
class Task:
    """One task of the paper (supplement section 4), with the layouts in which its data are published.

    test_share:    of the in-domain cases, drawn where the data name no test cases, at most ``most_test``
    most_training: in-domain cases for training; further ones lose their masks and join the unlabelled
    any_folder:    a folder of no known layout is taken as unlabelled pictures
    in_volumes:    cases are volumes: sets, shares and budgets count these, and their slices are trained on
    """

    name: str
    classes: tuple[str, ...]
    protocol: Protocol
    layouts: tuple[Layout, ...]
    test_share: float
    most_test: int
    most_training: int | None = None
    any_folder: bool = False
    in_volumes: bool = False


TASKS = {
    task.name: task
    for task in (
        Task(
            name="chest-xray",
            classes=("background", "lung"),
            protocol=Protocol("dice", (9, 35, 175)),
            layouts=chest_xray.LAYOUTS,
            test_share=72 / 247,
            most_test=72,
        ),
        Task(
            name="skin",
            classes=("background", "lesion"),
            protocol=Protocol("jaccard", (40, 200, 2000)),
            layouts=skin.LAYOUTS,
            test_share=594 / 2594,
            most_test=594,
        ),
        Task(
            name="liver",
            classes=("background", "liver"),
            protocol=Protocol("dice", (8, 20, 118), counted_in="patient"),
            layouts=liver.LAYOUTS,
            test_share=13 / 131,
            most_test=13,
            in_volumes=True,
        ),
        Task(
            name="faces",
            classes=faces.CLASSES,
            protocol=Protocol("miou", (30, 150, 1500)),
            layouts=faces.LAYOUTS,
            test_share=0.25,
            most_test=500,
            most_training=1500,
            any_folder=True,
        ),
    )
}


@dataclass(frozen=True)
class Collection:
    """What one layout gave. ``role``: train, test or unlabelled; ``left_out``: reason -> number of files."""

    name: str
    title: str
    role: str
    images: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskReport:
    """``sets``: number of cases in train, validation, test (in-domain), test_elsewhere and unlabelled.

    unit: what cases are, images or volumes
    """

    dataset: Report
    collections: tuple[Collection, ...]
    sets: Mapping[str, int]
    unit: str = "images"


def prepare_task(
    name: str,
    raw: Sequence[Path | str],
    out: Path | str,
    *,
    roles: Mapping[str, str] | None = None,
    validation_share: float = 0.0,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> TaskReport:
    """Write the dataset folder ``out`` of a published task from its raw downloads, in any order and nesting.

    roles:            layout -> train, test or unlabelled, where it differs from the paper's use
    validation_share: of the training pool. Departure: the paper's budgets use up all training cases and leave none to
                      validate on; a share makes the largest budget smaller.
    The rest, and the errors, as in `prepare_inventory`; ValueError for a folder that no layout of the task knows.
    """
    if name not in TASKS:
        raise ValueError(f"Unknown task '{name}'; expected one of {', '.join(TASKS)}.")
    task = TASKS[name]
    roots = [Path(folder).resolve() for folder in raw]
    layouts = _with_roles(task, roles or {})
    findings = _look(layouts, roots, task)
    inventory, collections = Inventory(leaves_out_broken=True, unlabelled_px=UNLABELLED_PX), []
    taken: dict[str, str] = {}
    for layout, finding in findings:
        _refuse_maskless(inventory, layout, finding)
        collections.append(_collect(inventory, layout, finding, taken))
    _draw_sets(inventory, task)
    inventory.protocol = replace(task.protocol, validation_share=validation_share)
    inventory.sources.sort(key=lambda source: (source.folder, source.stem))
    if task.in_volumes:
        cut(inventory)
    if not any(source.folder == "imagesTr" for source in inventory.sources):
        inventory.problems.append(_no_training(layouts))
    report = prepare_inventory(
        inventory, out, classes=task.classes, preprocessing=preprocessing, workers=workers, progress=progress
    )
    sizes = _sizes(report.path, in_volumes=task.in_volumes)
    return TaskReport(report, tuple(collections), sizes, "volumes" if task.in_volumes else "images")


def _with_roles(task: Task, roles: Mapping[str, str]) -> list[Layout]:
    known = {layout.name for layout in task.layouts}
    for name, role in roles.items():
        if name not in known or role not in FOLDER_OF:
            raise ValueError(
                f"'{name}={role}' is no use of a layout; expected one of {', '.join(sorted(known))}, then = and one of "
                f"{', '.join(FOLDER_OF)}."
            )
    return [replace(layout, role=roles.get(layout.name, layout.role)) for layout in task.layouts]


def _look(layouts: Sequence[Layout], roots: Sequence[Path], task: Task) -> list[tuple[Layout, Finding]]:
    """What every layout finds among the files that none before it took. Raises ValueError for a foreign folder."""
    files = list_files(roots)
    findings = []
    for layout in layouts:
        finding = layout.find(files)
        if finding.used:
            files = [file for file in files if file not in finding.used]
            findings.append((layout, finding))
    used = {file for _, finding in findings for file in finding.used}
    foreign = [root for root in roots if not any(root in file.parents for file in used)]
    for root in foreign:
        pictures = [file for file in files if root in file.parents and is_picture(file)]
        if pictures and task.any_folder and not _other_task(task, files, root):
            is_alone = sum(other.name == root.name for other in roots) == 1
            findings.append(_plain_pictures(root.name if is_alone else "-".join(root.parts[-2:]), root, pictures))
        else:
            raise ValueError(_foreign(task, files, root))
    return findings


def _plain_pictures(name: str, root: Path, pictures: Sequence[Path]) -> tuple[Layout, Finding]:
    def stem(file: Path) -> str:
        return "__".join((name, *file.relative_to(root).with_suffix("").parts))

    finding = Finding(sources=[Source(stem(file), "", file) for file in pictures], used=set(pictures))
    return Layout(name, f"pictures of {root}", "unlabelled", lambda files: finding, is_generic=True), finding


def _other_task(task: Task, files: Sequence[Path], root: Path) -> tuple[str, Layout] | None:
    """Which layout of another task a folder looks like."""
    below = [file for file in files if root in file.parents]
    candidates = ((other, layout) for other in TASKS.values() if other is not task for layout in other.layouts)
    return next(
        ((other.name, layout) for other, layout in candidates if not layout.is_generic and layout.find(below).used),
        None,
    )


def _foreign(task: Task, files: Sequence[Path], root: Path) -> str:
    below = [file for file in files if root in file.parents]
    if other := _other_task(task, files, root):
        return f"{root} is not for {task.name}: it looks like {other[1].title}. Use `semgan data prepare {other[0]}`."
    if not task.in_volumes and any(file.suffix.lower() in VOLUME_SUFFIXES for file in below):
        return f"{root} is not for {task.name}: it holds volumes. Use `semgan data prepare liver`."
    known = "\n".join(f"- {layout.title}" for layout in task.layouts)
    return (
        f"{root} holds {len(below)} file(s), and none of the layouts of {task.name} knows them:\n{known}\n"
        "Keep the published names of files and folders; for your own pictures use `semgan data prepare folder`."
    )


def _refuse_maskless(inventory: Inventory, layout: Layout, finding: Finding) -> None:
    inventory.problems += finding.problems
    if not finding.sources and not finding.problems:
        left_out = ", ".join(f"{count} {reason}" for reason, count in finding.left_out.items())
        inventory.problems.append(
            f"{layout.title}: no image with its mask was found ({left_out or 'nothing'}). Images and masks may be "
            "separate downloads: give both folders."
        )


def _collect(inventory: Inventory, layout: Layout, finding: Finding, taken: dict[str, str]) -> Collection:
    """Add a layout's cases; one that a layout before it gave already is counted only."""
    new = [source for source in finding.sources if source.stem not in taken]
    for source in new:
        taken[source.stem] = layout.name
        columns = dict(finding.columns.get(source.stem, {}))
        inside = layout.role == "train"
        set_name = (columns.pop("set", "") if inside else layout.role) or "train"
        inventory.columns[source.stem] = {"stem": source.stem, "set": set_name, "collection": layout.name, **columns}
        labels = () if layout.role == "unlabelled" else source.labels
        inventory.sources.append(replace(source, folder=FOLDER_OF[layout.role], labels=labels))
    if len(new) < len(finding.sources):
        finding.leave_out("images that another collection has", len(finding.sources) - len(new))
    inventory.warnings += finding.warnings
    if finding.left_out:
        left_out = ", ".join(f"{count} {reason}" for reason, count in finding.left_out.items())
        inventory.warnings.append(f"{layout.name}: left out {left_out}.")
    return Collection(layout.name, layout.title, layout.role, len(new), dict(finding.left_out))


def _draw_sets(inventory: Inventory, task: Task) -> None:
    """Choose the in-domain test cases, the same for ever; and who of too many training cases goes without mask."""
    training = [source for source in inventory.sources if source.folder == "imagesTr"]
    rows = inventory.columns
    if not any(rows[source.stem]["set"] == "test" for source in training):
        pool = [source.stem for source in training if rows[source.stem]["set"] == "train"]
        strata = defaultdict(list)
        for stem in pool:
            strata[rows[stem].get("stratum", "")].append(stem)
        for stems in strata.values():
            share = min(task.test_share, task.most_test / len(pool))
            for stem in _whole_groups(stems, rows, round(share * len(stems))):
                rows[stem]["set"] = "test"
    pool = [source.stem for source in training if rows[source.stem]["set"] == "train"]
    most = len(pool) if task.most_training is None else task.most_training
    beyond = set(pool) - set(_whole_groups(pool, rows, most))
    for stem in beyond:
        rows[stem]["set"] = "unlabelled"
    inventory.sources = [
        replace(source, folder="imagesUn", labels=()) if source.stem in beyond else source
        for source in inventory.sources
    ]


def _whole_groups(stems: Sequence[str], rows: Mapping[str, Mapping[str, str]], count: int) -> list[str]:
    """At most ``count`` stems in the order of their groups' hashes; no group (patient) is cut in two."""
    members = defaultdict(list)
    for stem in stems:
        members[rows[stem].get("patient", stem)].append(stem)
    chosen: list[str] = []
    for group in sorted(members, key=_rank):
        if len(chosen) + len(members[group]) <= count:
            chosen += members[group]
    return chosen


def _rank(name: str) -> bytes:
    return hashlib.sha256(f"test {name}".encode()).digest()


def _no_training(layouts: Sequence[Layout]) -> str:
    wanted = "; ".join(layout.title for layout in layouts if layout.role == "train")
    return (
        f"None of the folders holds training images with masks. The paper trains on {wanted}; give that folder too, or "
        "train on another one: --use NAME=train."
    )


def _sizes(dataset: Path, *, in_volumes: bool) -> dict[str, int]:
    opened = Dataset.open(dataset)
    listed = {name: [case.stem for case in opened.cases(name)] for name in ("train", "validation", "test")}
    inside = set(opened.splits.get("test", []))
    listed["test_elsewhere"] = [stem for stem in listed["test"] if stem not in inside]
    listed["test"] = sorted(inside)
    listed["unlabelled"] = list(opened.files["imagesUn"])
    if not in_volumes:
        return {name: len(stems) for name, stems in listed.items()}
    sizes = {name: len({opened.group(stem) for stem in stems}) for name, stems in listed.items()}
    kept = list((dataset / "volumes").glob("*/images/*"))
    return {**sizes, "test_elsewhere": len(kept) - sizes["test"]}
