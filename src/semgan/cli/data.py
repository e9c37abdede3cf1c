"""``semgan data``: fetch and unpack data, make a dataset folder, check it, and choose who is labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli import fetch, unpack
from semgan.cli.output import AsJson, Exit, examples, existing, progress_bars, say, show, verb
from semgan.cli.tasks import add_tasks
from semgan.types import MOST_SEED

app = typer.Typer(
    help="Fetch and unpack data, make a dataset folder, check it, choose the labelled cases.", no_args_is_help=True
)
prepare = typer.Typer(help="Make a dataset folder from raw images.", no_args_is_help=True)
app.add_typer(prepare, name="prepare")
fetch.register(app)
unpack.register(app)
add_tasks(prepare)


@prepare.command(
    "folder",
    epilog=examples(
        "semgan data prepare folder --images images --labels masks -o dataset",
        "semgan data prepare folder --images images --labels masks --unlabelled more --test-images test/images "
        "--test-labels test/masks --classes classes.json --mapping mapping.json --ignore 255 -o dataset",
        "semgan data prepare folder --images studies --labels masks --group-by-patient -o dataset   (DICOM)",
    ),
)
@verb
def prepare_from_folders(
    images: Annotated[Path, typer.Option(help="Labelled images (PNG, DICOM X-ray, ...) or volumes (NIfTI, DICOM).")],
    labels: Annotated[Path, typer.Option(help="Masks with the same stems; DICOM SEG of series lie anywhere in it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Dataset folder to write.")],
    unlabelled: Annotated[Path | None, typer.Option(help="Folder of images without masks.")] = None,
    test_images: Annotated[Path | None, typer.Option(help="Folder of test images.")] = None,
    test_labels: Annotated[Path | None, typer.Option(help="Folder of test masks.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV with columns stem, set, group.")] = None,
    classes: Annotated[Path | None, typer.Option(help="JSON: class names by label value.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="JSON: label value in the masks -> class index.")] = None,
    ignore: Annotated[
        list[int] | None, typer.Option(help="Label value left out of losses and scores; repeatable.")
    ] = None,
    group_by_patient: Annotated[
        bool, typer.Option("--group-by-patient", help="DICOM series of one PatientID are one patient (ID not kept).")
    ] = False,
    recipe: Annotated[str | None, typer.Option(help="Make the cache for this recipe (name or YAML file) now.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per CPU core.")] = None,
    as_json: AsJson = False,
) -> Any:
    """Make a dataset folder (nnU-Net's layout) from plain folders of images and masks."""
    from semgan.data.prepare.folder import prepare_folder

    preprocessing = None
    if recipe is not None:
        from semgan import recipes

        preprocessing = recipes.load(recipe).preprocessing
    with progress_bars() as progress:
        report = prepare_folder(
            images,
            labels,
            out,
            unlabelled=unlabelled,
            test_images=test_images,
            test_labels=test_labels,
            manifest=manifest,
            classes=classes,
            mapping=mapping,
            ignore=tuple(ignore or ()),
            group_by_patient=group_by_patient,
            preprocessing=preprocessing,
            workers=workers,
            progress=progress,
        )
    for warning in report.warnings:
        say(f"warning: {warning}")
    show(f"Dataset {out}", {name: value for name, value in vars(report).items() if name not in ("path", "warnings")})
    return report


@app.command(
    "phantoms",
    epilog=examples(
        "semgan data phantoms -o raw --volumes 80 --mri 10",
        "semgan data prepare liver raw/LITS17 raw/CHAOS_Train_Sets --validation 0.1 -o dataset",
    ),
)
@verb
def phantoms(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write: LITS17 and CHAOS_Train_Sets.")],
    volumes: Annotated[int, typer.Option(min=0, help="CT volumes with masks, as LiTS has them.")] = 80,
    mri: Annotated[int, typer.Option(min=0, help="MRI patients, T1 in and out of phase, as CHAOS has them.")] = 10,
    unlabelled: Annotated[int, typer.Option(min=0, help="CT volumes without masks.")] = 0,
    size_px: Annotated[int, typer.Option(min=16, help="Columns of a slice.")] = 128,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Other patients with every seed.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per CPU core.")] = None,
    as_json: AsJson = False,
) -> Any:
    """Draw procedural abdomens, scanned by CT and MRI: NIfTI and DICOM files for `semgan data prepare liver`."""
    from semgan.data.phantoms import write_abdomens

    numbers = {"volumes": volumes, "mri": mri, "unlabelled": unlabelled}
    with progress_bars() as progress:
        write_abdomens(out, **numbers, size_px=size_px, seed=seed, workers=workers, progress=progress)
    show(f"Phantoms {out}", numbers)
    return {"out": out, **numbers}


@app.command("check", epilog=examples("semgan data check dataset", "semgan data check dataset --json"))
@verb
def check(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    as_json: AsJson = False,
) -> Any:
    """Report every problem of a dataset at once: exit 0 with warnings only, 2 with errors."""
    existing(dataset, "Dataset folder")
    from semgan.data.check import check_dataset

    with progress_bars() as progress:
        problems = check_dataset(dataset, progress=progress)
    errors = sum(problem.level == "error" for problem in problems)
    for problem in problems:
        say(f"{problem.level}: {problem.file}: {problem.message}")
    show(f"Dataset {dataset}", {"errors": errors, "warnings": len(problems) - errors})
    result = {"dataset": dataset, "errors": errors, "warnings": len(problems) - errors, "problems": problems}
    if errors:
        raise Exit(2, result)
    return result


@app.command(
    "split",
    epilog=examples(
        "semgan data split dataset --labels 35 --split-seed 0 --group patient",
        "semgan data split dataset --labels 35 --validation 0.2 --redraw   (another validation list)",
        "semgan data split dataset --from splits/lungs.json",
    ),
)
@verb
def split(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    labels: Annotated[int | None, typer.Option(min=2, help="Number of labelled training cases.")] = None,
    split_seed: Annotated[
        int, typer.Option("--split-seed", "--seed", min=0, max=MOST_SEED, help="Which random choice of them.")
    ] = 0,
    group: Annotated[
        str | None, typer.Option(help="Manifest column whose members stay together, e.g. patient.")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="Share of the training cases for validation; default: 0.1, drawn once."),
    ] = None,
    from_file: Annotated[Path | None, typer.Option("--from", help="Take the lists from this JSON file.")] = None,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Draw validation anew; labelled lists of the old one are removed.")
    ] = False,
    as_json: AsJson = False,
) -> Any:
    """Choose the labelled cases: nested lists (the 9 are among the 35), groups kept together."""
    existing(dataset, "Dataset folder")
    if (labels is None) == (from_file is None):
        raise ValueError("Give either --labels N (choose N cases at random) or --from FILE.json (take given lists).")
    if redraw and from_file is not None:
        raise ValueError("--from takes the lists of a file as they are; leave --redraw out.")
    from semgan.data.splits import import_splits, write_splits

    if from_file is not None:
        lists = import_splits(dataset, existing(from_file, "Splits file"))
    else:
        assert labels is not None
        lists = write_splits(dataset, labels, split_seed, group, validation, redraw=redraw)
    sizes = {name: len(stems) for name, stems in lists.items() if isinstance(stems, list)}
    show(f"Splits of {dataset}", sizes)
    if from_file is None and not lists["validation"] and validation != 0:
        say(
            "warning: Nothing is kept for validation: groups stay whole, and none fits into the share. Training then "
            "takes its last weights. For a list, give a larger --validation and --redraw."
        )
    return {"dataset": dataset, "sizes": sizes}
