"""``semgan evaluate``, ``sample``, ``info``, ``demo``: what is done with a trained model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, say, show, verb
from semgan.types import MOST_SEED


class Metric(StrEnum):
    dice = "dice"
    jaccard = "jaccard"
    miou = "miou"
    miou_per_case = "miou-per-case"


class Family(StrEnum):
    faces = "faces"
    chests = "chests"


Model = Annotated[Path, typer.Option("-m", "--model", help="Run folder or model folder.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results in OUT (never other files).")]
NAMED = 4  # classes named in a title
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


def register(app: typer.Typer) -> None:
    app.command(
        "evaluate",
        epilog=examples(
            "semgan evaluate masks true_masks --metric dice",
            "semgan evaluate masks true_masks --metric dice --manifest manifest.csv --per patient --json",
            "semgan evaluate masks true_masks --metric dice --surface --spacing-mm 0.7 --spacing-mm 0.5",
        ),
    )(evaluate)
    app.command(
        "sample",
        epilog=examples("semgan sample -m run -o samples --count 16", "semgan sample -m run -o samples --seed 100"),
    )(sample)
    app.command("info", epilog=examples("semgan info", "semgan info run", "semgan info dataset --json"))(info)
    app.command("demo", epilog=examples("semgan demo", "semgan demo -o demo --family faces --minutes 5"))(demo)


@verb
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks, as `semgan segment` writes.")],
    labels: Annotated[Path, typer.Argument(help="Folder of true masks with the same stems.")],
    metric: Annotated[
        Metric, typer.Option(help="dice, jaccard, miou-per-case: per image or --per, averaged; miou: over all pixels.")
    ],
    manifest: Annotated[Path | None, typer.Option(help="CSV with stem and the column of --per.")] = None,
    per: Annotated[str | None, typer.Option(help="Column whose cases are counted together, e.g. patient.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="JSON: class names, background first, or by the values of the true masks.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="JSON: label value -> class index, for the true masks.")] = None,
    map_predictions: Annotated[Path | None, typer.Option(help="The same for the predicted masks.")] = None,
    mean_over: Annotated[
        list[str] | None, typer.Option(help="Class to average; repeatable; default: all but the background.")
    ] = None,
    ignore: Annotated[list[int] | None, typer.Option(help="Label value that does not count; repeatable.")] = None,
    stems: Annotated[Path | None, typer.Option(help="JSON list of the cases to score; default: all labels.")] = None,
    surface: Annotated[
        bool, typer.Option("--surface", help="Also HD95, average surface distance (ASSD) and size difference.")
    ] = False,
    spacing_mm: Annotated[
        list[float] | None, typer.Option(help="Pixel size, once or for height and width; default: all in pixels.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where scores go; default: PREDICTIONS.")] = None,
    as_json: AsJson = False,
) -> Any:
    """Score predicted masks against true ones; writes scores.json and cases.csv into PREDICTIONS."""
    existing(predictions, "Folder of predictions")
    existing(labels, "Folder of true masks")
    from semgan.evaluate import evaluate as run_evaluation

    result = run_evaluation(
        predictions,
        labels,
        metric=metric.value,
        manifest=manifest and existing(manifest, "Manifest"),
        per=per,
        classes=class_names_in(classes),
        mapping=mapping_in(mapping) or mapping_by_names_in(classes),
        map_predictions=mapping_in(map_predictions),
        mean_over=mean_over or None,
        ignore=tuple(ignore or ()),
        stems=list_in(stems),
        surface=surface,
        spacing_mm=spacing_mm or None,
        out=out,
    )
    for warning in result.warnings:
        say(f"warning: {warning}")
    rows = {"mean": result.mean, "interval": _interval_text(result.interval), **result.classes}
    over = ", ".join(result.mean_over) if len(result.mean_over) <= NAMED else f"{len(result.mean_over)} classes"
    show(f"{metric.value} of {predictions} (n = {result.n} per {result.per}; mean over {over})", rows)
    for measure, summary in result.surface.items():
        title = f"{measure} (n = {summary.n} per {result.per}, not defined: {sum(summary.undefined.values())})"
        values = {"mean": summary.mean, "interval": _interval_text(summary.interval), **summary.classes}
        show(title, {name: "not defined" if value is None else value for name, value in values.items()})
    return result


def _interval_text(interval: tuple[float, float] | None) -> str:
    return "none, fewer than two cases" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g} (95 %)"


def list_in(file: Path | None) -> list[str] | None:
    """A JSON list of names; None where no file is given."""
    if file is None:
        return None
    from semgan.artifacts import read_json

    names = read_json(existing(file, "File"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{file} must hold a JSON list of names like ["background", "lung"]; got {str(names)[:80]}.')
    return names


def class_names_in(file: Path | None) -> list[str] | None:
    """Names in order of their index from a list, {"0": name, ...}, or {"classes": either}; None where not given."""
    if file is None:
        return None
    content = _classes_in(file)
    if isinstance(content, dict) and all(value.isdigit() for value in content):
        content = [content[value] for value in sorted(content, key=int)]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError(f'{file} must name classes like ["background", "lung"]; got {str(content)[:80]}.')
    return content


def mapping_by_names_in(file: Path | None) -> dict[int, int] | None:
    """Value -> index where the names are keyed by values with gaps, as `data prepare` takes them; else None."""
    content = None if file is None else _classes_in(file)
    if not isinstance(content, dict):
        return None
    values = sorted(int(value) for value in content)
    plain = values == list(range(len(values))) or values == [0, 255]  # 0 and 255 need no mapping
    return None if plain else {value: index for index, value in enumerate(values)}


def _classes_in(file: Path) -> Any:
    """A file's list or mapping of names, which may stand under "classes"."""
    from semgan.artifacts import read_json

    content = read_json(existing(file, "Class file"))
    return content.get("classes", content) if isinstance(content, dict) else content


def mapping_in(file: Path | None) -> dict[int, int] | None:
    """A JSON object {"label value": class index or "ignore"}, or a list of classes by value; None where not given."""
    if file is None:
        return None
    from semgan.artifacts import read_json
    from semgan.types import IGNORE

    content = read_json(existing(file, "Mapping file"))
    items = enumerate(content) if isinstance(content, list) else getattr(content, "items", tuple)()
    try:
        mapping = {int(value): IGNORE if target == "ignore" else int(target) for value, target in items}
    except (TypeError, ValueError):
        mapping = {}
    if not mapping:
        raise ValueError(
            f'{file} must map label values to class indices or "ignore", like {{"0": 0, "13": 1, "9": "ignore"}}; '
            f"got {str(content)[:80]}."
        )
    return mapping


@verb
def sample(
    model: Model,
    out: Out,
    count: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 16,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the first pair; the next ones follow.")] = 0,
    truncation: Annotated[float, typer.Option(min=0, help="1: as learnt; towards 0: ever closer to the mean.")] = 1.0,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Draw random images with their masks: OUT/images, OUT/masks and OUT/grid.png to look at."""
    existing(model, "Model")
    from semgan.sample import sample as draw

    options = {"count": count, "seed": seed, "truncation": truncation, "overwrite": overwrite, "device": device}
    with progress_bars() as progress:
        result = draw(model, out, **options, progress=progress)
    show(f"Samples in {out}", {"pairs": count, "to look at": out / "grid.png"})
    return {"out": out, **result}


@verb
def info(
    path: Annotated[
        Path | None, typer.Argument(help="Dataset, run or model folder; none: versions and devices.")
    ] = None,
    as_json: AsJson = False,
) -> Any:
    """Tell what a folder holds, or which versions and devices are at hand."""
    from semgan.cli.info import describe

    result = describe(path)
    show(str(path or "semgan"), result)
    return result


@verb
def demo(
    out: Out = Path("demo"),
    family: Annotated[Family, typer.Option(help="Kind of procedural pictures.")] = Family.chests,
    minutes: Annotated[float, typer.Option(min=0.1, help="Time for the whole demo.")] = 9.0,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of pictures and training.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Show the whole story on procedural pictures: train, segment unseen domains, compare, report."""
    from semgan.demo import demo as run_demo

    with progress_bars() as progress:
        result = run_demo(out, minutes=minutes, family=family.value, seed=seed, device=device, progress=progress)
    show("Mean scores", {method: scores for method, scores in result.scores.items()})
    print(f"\nThe report lies in {Path(result.report).resolve()}")
    return result
