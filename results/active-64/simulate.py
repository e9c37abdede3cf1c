"""Active learning, played on data whose masks are all known: does a suggested list teach more than a random one?

    python results/active-64/simulate.py DATASET --task lungs --work runs/active-64 --out results/active-64 \
        --test-set kermany IMAGES LABELS splits/lungs.json:test --test-set hannover IMAGES LABELS

For every seed S a model is trained on the list ``labelled_FIRST_seedS``. From there each strategy goes its own way: its
last model suggests cases of the pool (`semgan.suggest`), their masks are uncovered, and a new model is trained on the
longer list with the same seed. Every model is scored on the test sets; nothing else looks at them.

OUT/scores.csv   as in every results folder; method "METHOD+STRATEGY", and METHOD for the common first model
OUT/lists.json   what was suggested: seed -> strategy -> list size -> stems
OUT/curves.png   score over labels; README.md: the table between the marks
OUT/settings.json   what everything there is made with; WORK has it too

Stopped, the same command goes on. More seeds, strategies or sizes at the end only add to what is there; for anything
else (recipe, method, --set, data, sizes in between) give other folders, for lists and scores would be mixed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semgan import artifacts, results
from semgan.benchmark.parts import part_of_file
from semgan.data.folder import Dataset
from semgan.data.splits import COUNTED_IN, import_splits
from semgan.report.curves import write_bytes_atomic
from semgan.report.plotting import CYCLE, draw
from semgan.scoring import HeldOut, TrainedModel
from semgan.suggest.run import BY, SPLITS, suggest
from semgan.train import train

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = ("<!-- table -->", "<!-- end of table -->")
KEPT = ("metric", "test", "validation", "pool", COUNTED_IN)  # lists of the dataset that every view of it keeps
RANDOM = "random"
SETTINGS = "settings.json"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--recipe", default="lungs-64")
    parser.add_argument("--method", default="unet-strong")
    parser.add_argument("--sizes", type=int, nargs="+", default=[9, 18, 36], help="of the lists; the first is given")
    parser.add_argument("--by", nargs="+", choices=BY, default=["combined", "entropy", "distance", "diversity", RANDOM])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="settings of all trainings")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--test-set", nargs="+", action="append", required=True, metavar="NAME IMAGES LABELS", help="[FILE.json:KEY]"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    claim(args.work, args, holds="seed*")
    claim(args.out, args, holds="scores.csv")
    for seed in args.seeds:
        start = view(args.dataset, args.work / f"seed{seed}" / "start" / "data", args.sizes[0], seed)
        first = taught(args, start, args.sizes[0], seed, args.method)
        for by in args.by:
            follow(args, by, seed, first)
    rows = results.read_rows(args.out / "scores.csv")
    write_bytes_atomic(args.out / "curves.png", plot(rows))
    fill_page(args.out / "README.md", table(rows))


def claim(folder: Path, args: argparse.Namespace, holds: str) -> None:
    """Note in a folder what everything there is made with. Raises ValueError where it was something else.

    A list depends on all sizes before its own, so known sizes may go on or be cut short, but not differ.
    holds: pattern of what is there once work has begun
    """
    path, recipe = folder / SETTINGS, Path(args.recipe)
    of_file = {"recipe_sha256": hashlib.sha256(recipe.read_bytes()).hexdigest()} if recipe.is_file() else {}
    made_with = {"task": args.task, "recipe": recipe.name, **of_file, "method": args.method, "set": args.set}
    asked = {**made_with, "data": Dataset.open(args.dataset).fingerprint, "sizes": args.sizes}
    if not any(folder.glob(holds)):
        artifacts.write_json(path, asked)
        return
    if not path.is_file():
        raise ValueError(f"{folder} holds results, and no {SETTINGS} says what made them; give another folder.")
    known = artifacts.read_json(path)
    common = min(len(known["sizes"]), len(args.sizes))
    other = [key for key in known | asked if key != "sizes" and known.get(key) != asked.get(key)]
    other += ["sizes"] * (known["sizes"][:common] != args.sizes[:common])
    if other:
        told = "; ".join(f"{key}: {known.get(key)}, and now {asked.get(key)}" for key in other)
        raise ValueError(f"{folder} was made with other settings ({told}); give other --work and --out.")
    if len(args.sizes) > common:
        artifacts.write_json(path, asked)


def follow(args: argparse.Namespace, by: str, seed: int, model: Path) -> None:
    """One strategy from the first model to the longest list."""
    dataset = view(args.dataset, args.work / f"seed{seed}" / by / "data", args.sizes[0], seed)
    for known, size in zip(args.sizes, args.sizes[1:], strict=False):
        chosen = dataset.parent / f"suggested-{size}"
        if not (chosen / SPLITS).is_file():  # a run that is trained on has other weights, and would suggest anew
            options: dict[str, Any] = {"labels": known, "split_seed": seed, "seed": seed, "device": args.device}
            suggest(model, chosen, dataset=dataset, count=size - known, by=by, **options)
        name = f"labelled_{size}_seed{seed}"
        if name not in Dataset.open(dataset).splits:  # later lists are there too, where fewer sizes are asked for now
            import_splits(dataset, chosen / SPLITS)
        note(args.out / "lists.json", seed, by, size, Dataset.open(dataset).splits[name])
        model = taught(args, dataset, size, seed, f"{args.method}+{by}")


def view(dataset: Path, path: Path, labels: int, seed: int) -> Path:
    """The dataset under another name, by links, with one labelled list; suggestions come from its pool alone.

    Raises ValueError where the lists of the dataset are no longer those that the view was made with.
    """
    path.mkdir(parents=True, exist_ok=True)
    (dataset / "cache").mkdir(exist_ok=True)
    for each in dataset.iterdir():
        if each.name != "splits.json" and not (path / each.name).is_symlink():
            os.symlink(each.resolve(), path / each.name)
    known = Dataset.open(dataset)
    known.labelled(labels, seed)  # told here, where it is missing
    kept = {key: known.splits[key] for key in (*KEPT, f"labelled_{labels}_seed{seed}") if key in known.splits}
    if not (path / "splits.json").is_file():
        artifacts.write_json(path / "splits.json", kept | {"unlabelled_extra": {"set": "none", "stems": []}})
    elif changed := [key for key, value in kept.items() if Dataset.open(path).splits.get(key) != value]:
        raise ValueError(f"{path} was made with other lists ({', '.join(changed)}); give other --work and --out.")
    return path


def taught(args: argparse.Namespace, dataset: Path, size: int, seed: int, name: str) -> Path:
    """A run trained on a list of the dataset, its scores noted as those of ``name``."""
    run, scores = dataset.parent / f"run-{size}", args.out / "scores.csv"
    done = results.read_rows(scores) if scores.is_file() else []
    wanted = {words[0] for words in args.test_set}
    scored = {row.test_set for row in done if (row.method, row.labels, row.seed) == (name, size, seed)}
    if wanted <= scored and artifacts.RunFolder(run).model.is_dir():
        return run
    options: dict[str, Any] = {"recipe": args.recipe, "method": args.method, "changes": args.set}
    train(dataset, run, labels=size, split_seed=seed, seed=seed, device=args.device, **options)
    model = TrainedModel(run, device=args.device)
    for words in args.test_set:
        scored = model.score(held_out(*words))
        rows = [row for row in model.rows(scored, args.task, model.settings["metric"]) if row.chosen]
        results.append_rows(scores, [replace(row, method=name) for row in rows], replace=True)
    return run


def held_out(name: str, images: str, labels: str, only: str | None = None) -> HeldOut:
    return HeldOut(name, Path(images), Path(labels), only=None if only is None else tuple(part_of_file(only)))


def note(path: Path, seed: int, by: str, size: int, stems: list[str]) -> None:
    known = artifacts.read_json(path) if path.is_file() else {}
    known.setdefault(f"seed{seed}", {}).setdefault(by, {})[str(size)] = stems
    artifacts.write_json(path, known)


# ---------------------------------------------------------------- what came out


def strategy(row: results.ScoreRow) -> str:
    """How the list was made; empty for the first one, which all share."""
    return row.method.partition("+")[2]


def table(rows: Sequence[results.ScoreRow]) -> str:
    """Means over seeds, and the mean difference from random choice with the same seed."""
    means = [row for row in rows if row.class_name == results.MEAN]
    sets = sorted({row.test_set for row in means})
    lines = ["| labels | chosen by | seeds | " + " | ".join(sets) + " |", "|---" * (3 + len(sets)) + "|"]
    for size, by in sorted({(row.labels, strategy(row)) for row in means}):
        own = [row for row in means if (row.labels, strategy(row)) == (size, by)]
        by_chance = [row for row in means if (row.labels, strategy(row)) == (size, RANDOM)]
        chance = {(row.seed, row.test_set): row.value for row in by_chance}
        cells = [cell([row for row in own if row.test_set == name], chance) for name in sets]
        seeds = len({row.seed for row in own})
        lines.append(f"| {size} | {by or 'the given list'} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rows: Sequence[results.ScoreRow], chance: dict[tuple[int, str], float]) -> str:
    if not rows:
        return ""
    text = f"{statistics.mean(row.value for row in rows):.4f}"
    gains = [row.value - chance[row.seed, row.test_set] for row in rows if (row.seed, row.test_set) in chance]
    if not gains or strategy(rows[0]) == RANDOM:
        return text
    spread = f" ± {statistics.stdev(gains):.4f}" if len(gains) > 1 else ""
    return f"{text} ({statistics.mean(gains):+.4f}{spread})"


def plot(rows: Sequence[results.ScoreRow]) -> bytes:
    """PNG: a panel per test set, a line per strategy, its seeds thin."""
    means = [row for row in rows if row.class_name == results.MEAN]
    sets = sorted({row.test_set for row in means})
    names = sorted({strategy(row) for row in means} - {""})

    def paint(figure: Figure) -> None:
        (panels,) = figure.subplots(1, len(sets), squeeze=False)
        for name, axes in zip(sets, panels, strict=True):
            for colour, by in zip(CYCLE, names, strict=False):
                own = [row for row in means if row.test_set == name and strategy(row) in ("", by)]
                paint_line(axes, own, by, colour)
            axes.set_title(name)
            axes.set_xticks(sorted({row.labels for row in means}))
            axes.set_xlabel("labels")
            axes.set_ylabel(means[0].metric)
        if names:
            panels[0].legend()

    return draw((4.2 * len(sets), 3.2), paint)


def paint_line(axes: Axes, rows: Sequence[results.ScoreRow], by: str, colour: str) -> None:
    sizes = sorted({row.labels for row in rows})
    for seed in sorted({row.seed for row in rows}):
        own = sorted((row.labels, row.value) for row in rows if row.seed == seed)
        axes.plot(*zip(*own, strict=True), color=colour, linewidth=0.6, alpha=0.5)
    middle = [statistics.mean(row.value for row in rows if row.labels == size) for size in sizes]
    axes.plot(sizes, middle, "o--" if by == RANDOM else "o-", color=colour, label=by, markersize=4)


def fill_page(page: Path, text: str) -> None:
    """The table between the marks of README.md; a new page where there is none."""
    old = page.read_text(encoding="utf-8") if page.is_file() else f"{MARKS[0]}\n{MARKS[1]}\n"
    before, after = old.partition(MARKS[0])[0], old.partition(MARKS[1])[2]
    artifacts.write_text_atomic(page, f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
