"""``semgan segment``: a few images or volumes whole or not at all, archives in units that many processes share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, Exit, examples, existing, progress_bars, say, show, verb
from semgan.cli.use import Device, Out, Overwrite
from semgan.types import parse_steps

SHOWN = 20  # problems told one by one

Models = Annotated[
    list[Path], typer.Option("-m", "--model", help="Run folder or model folder; several answer as one ensemble.")
]
Images = Annotated[
    str | None,
    typer.Option(
        "-i",
        "--images",
        help="Image (PNG, DICOM X-ray), volume (NIfTI, DICOM folder), or a folder; tar shards, or an address.",
    ),
]
Steps = Annotated[
    Any,
    typer.Option(
        parser=parse_steps,
        metavar="N|auto",
        help="Optimisation steps; auto: each image's own, by the model's stopping rule; 0: encoder only. "
        "Default: auto where the model has a rule, else the number chosen on validation.",
    ),
]
SaveProbabilities = Annotated[
    bool, typer.Option("--save-probabilities", help="Also OUT/probabilities/STEM.npz (volumes: .nii.gz).")
]
Overlay = Annotated[
    bool, typer.Option("--overlay", help="Also OUT/overlays/STEM.png: image and mask (volumes: slices).")
]
DicomSeg = Annotated[
    bool, typer.Option("--dicom-seg", help="DICOM: also OUT/STEM.dcm, a DICOM SEG object (extra: dicom).")
]
Modality = Annotated[
    str | None, typer.Option(help="Preprocessing rule of the model, where it has several; auto: as each volume is.")
]
Signals = Annotated[
    bool, typer.Option("--signals", help="Columns that say how far to trust an answer: entropy, disagreement, ...")
]
Choose = Annotated[
    bool, typer.Option("--choose", help="Each image's answer as `semgan trust fit --choose` has learned.")
]
DropoutPasses = Annotated[
    int | None, typer.Option(min=2, help="Mean of so many passes with dropout, for networks trained with it.")
]
Manifest = Annotated[
    str | None, typer.Option(help="Archive: text file with a path or address per line, or CSV with path and stem.")
]
Archive = Annotated[
    bool, typer.Option("--archive", help="Work in units that any number of processes share through OUT.")
]
UnitImages = Annotated[
    int | None, typer.Option(min=1, help="Archive: images per unit, default 1024; a tar shard is one unit.")
]
Members = Annotated[str | None, typer.Option(help="Archive: only files, members of shards, of such names: '*.jpg'.")]
MasksOnly = Annotated[
    bool, typer.Option("--masks-only", help="Archive, steps 0: leave out losses and trust, half of the work.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many units and images, and the expected time.")]


def register(app: typer.Typer) -> None:
    app.command(
        "segment",
        epilog=examples(
            "semgan segment -m run -i new_images -o masks",
            "semgan segment -m run -i picture.png -o masks --steps 0   (encoder only, fast)",
            "semgan segment -m run -i new_images -o masks --steps auto   (every image as long as it gains)",
            "semgan segment -m run/model -i new_images -o masks --overlay --save-probabilities",
            "semgan segment -m run -i films -o masks --dicom-seg   (X-rays as DICOM; a DICOM SEG for each)",
            "semgan segment -m run -i ct.nii.gz -o masks --modality auto   (or a DICOM folder, or a folder of studies)",
            "semgan segment -m run -i studies -o masks --modality ct --overlay   (a picture of every volume's slices)",
            "semgan segment -m run -i new_images -o masks --signals   (what to look at first: docs/trust.md)",
            "semgan segment -m unet_0 -m unet_1 -m unet_2 -i new_images -o masks --signals   (an ensemble)",
            "semgan segment -m run -i 'shards/{0000..0999}.tar' -o masks --steps 0   (an archive; start many at once)",
            "semgan segment -m run --manifest list.csv -o masks --dry-run   (how long an archive takes)",
        ),
    )(segment)


@verb
def segment(
    model: Models,
    out: Out,
    images: Images = None,
    steps: Steps = None,
    save_probabilities: SaveProbabilities = False,
    overlay: Overlay = False,
    dicom_seg: DicomSeg = False,
    signals: Signals = False,
    choose: Choose = False,
    dropout_passes: DropoutPasses = None,
    modality: Modality = None,
    batch: Annotated[int, typer.Option(min=1, help="Images given to the model at a time.")] = 64,
    manifest: Manifest = None,
    archive: Archive = False,
    members: Members = None,
    unit_images: UnitImages = None,
    masks_only: MasksOnly = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Segment images: OUT/STEM.png, class indices at each image's own size, and OUT/segmentation.csv.

    A folder without pictures means its sub-folders: a/b.png becomes OUT/a__b.png.
    Volumes: OUT/STEM.nii.gz, geometry as the volume's. Where some cannot be read, the rest is done and the code is 2.
    Archives (--archive, --manifest, tar shards, addresses, torchrun): OUT/units/UNIT/masks.tar, see docs/archives.md.
    """
    if images is None and manifest is None:
        raise ValueError("There is nothing to segment: give -i, or --manifest.")
    for each in model:
        existing(each, "Model")
    options = {"steps": steps, "modality": modality, "batch": batch, "device": device}
    options |= {"signals": signals, "choose": choose}
    extras = {"save_probabilities": save_probabilities, "overlay": overlay, "dicom_seg": dicom_seg}
    extras |= {"dropout_passes": dropout_passes}
    if archive or dry_run or masks_only or members or _is_archive(images, manifest):
        _refuse({**extras, "overwrite": overwrite}, model)
        options |= {"masks_only": masks_only} | ({} if unit_images is None else {"unit_images": unit_images})
        return _archived(model[0], (images, manifest, members), out, dry_run, options)
    if unit_images is not None:
        raise ValueError("--unit-images is for archives; add --archive, or leave it out.")
    return _plain(model, Path(images or ""), out, {**options, **extras, "overwrite": overwrite})


def _is_archive(images: str | None, manifest: str | None) -> bool:
    """Whether the inputs, or how this process was started, ask for units that are shared."""
    shards = (images or "").lower().endswith((".tar", ".tar.gz", ".tgz"))
    return manifest is not None or shards or "://" in (images or "") or int(os.environ.get("WORLD_SIZE") or 1) > 1


def _refuse(options: dict[str, Any], models: list[Path]) -> None:
    given = ["--" + name.replace("_", "-") for name, wanted in options.items() if wanted]
    given += [f"-m {extra}" for extra in models[1:]]
    if given:
        raise ValueError(f"An archive has masks and tables only, and is never replaced; leave out {', '.join(given)}.")


def _plain(models: list[Path], images: Path, out: Path, options: dict[str, Any]) -> Any:
    existing(images, "Image or folder")
    from semgan.segment import segment as run_segmentation
    from semgan.segment_volumes import read_problems

    with progress_bars() as progress:
        rows = run_segmentation(models if len(models) > 1 else models[0], images, out, progress=progress, **options)
    mean, steps_taken = (sum(row[name] for row in rows) / len(rows) for name in ("confidence", "steps"))
    unit = "volumes" if "slices" in rows[0] else "images"
    show(f"Masks in {out}", {unit: len(rows), "mean steps": steps_taken, "mean confidence": mean} | _trusted(rows))
    problems = read_problems(out)
    if problems:
        for stem, problem in problems.items():
            say(f"not segmented: {stem}: {problem}")
        raise Exit(2, {"out": out, "rows": rows, "problems": problems})
    return {"out": out, "rows": rows}


def _trusted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What trust says of all rows; nothing where none was fitted. People are told which images to look at."""
    if "look_at" not in rows[0]:
        return {}
    doubtful = sorted((row for row in rows if row["look_at"]), key=lambda row: row["predicted_score"])
    if doubtful:
        names = ", ".join(row["stem"] for row in doubtful[:SHOWN])
        more = f", and {len(doubtful) - SHOWN} more (look_at)" if len(doubtful) > SHOWN else ""
        say(f"{len(doubtful)} of {len(rows)} images should be looked at, worst first: {names}{more}")
    mean = sum(row["predicted_score"] for row in rows) / len(rows)
    return {"mean predicted score": mean, "to be looked at": len(doubtful)}


def _archived(
    model: Path, inputs: tuple[str | None, str | None, str | None], out: Path, dry_run: bool, options: dict[str, Any]
) -> Any:
    from semgan.archive.inputs import Source
    from semgan.archive.run import as_rows, forecast, segment_archive
    from semgan.archive.tables import first_problems
    from semgan.data.addresses import is_address
    from semgan.segmentation_rows import TABLE

    for path in inputs[:2]:
        if path is not None and not is_address(path) and not any(letter in path for letter in "{*?"):
            existing(Path(path), "Input")
    source = Source(*inputs)
    if dry_run:
        expected = forecast(model, source, out, **options)
        show(f"Nothing was written to {out}", as_rows(expected))
        return expected
    with progress_bars() as progress:
        done = segment_archive(model, source, out, progress=progress, **options)
    show(f"Masks in {out / 'units'}", as_rows(done))
    if done.flagged:
        say(f"{done.flagged} of {done.images} images should be looked at: look_at is 1 in {out / TABLE}")
    if done.failed:
        for line in first_problems(out, SHOWN):
            say(f"not segmented: {line}")
        if done.failed > SHOWN:
            say(f"... and {done.failed - SHOWN} more, see {out / 'problems.csv'}")
        raise Exit(2, {"out": out, "summary": done})
    return {"out": out, "summary": done}
