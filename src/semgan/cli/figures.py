"""``semgan explain``, ``ablate``, ``interpolate``: a trained model's figures, with their numbers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, say, show, verb
from semgan.cli.use import Device, Model, Out, Overwrite
from semgan.types import MOST_SEED


class Space(StrEnum):
    z = "z"
    w_plus = "w+"


Formats = Annotated[str, typer.Option("--format", help="Comma list of png, pdf, gif, webp (the last two: animations).")]
StillFormats = Annotated[str, typer.Option("--format", help="Comma list of png, pdf.")]
Steps = Annotated[str, typer.Option(metavar="LIST", help="Optimisation steps to show; 0: the encoder alone.")]


def register(app: typer.Typer) -> None:
    app.command(
        "explain",
        epilog=examples(
            "semgan explain -m run -i new_images -o story",
            "semgan explain -m run -i picture.png -o story --steps 0,50,200 --format png,pdf,gif",
            "semgan explain -m run -i new_images --labels true_masks -o story   (with score over steps)",
        ),
    )(explain)
    app.command(
        "ablate",
        epilog=examples(
            "semgan ablate -m run dataset -o ablation --vary inversion.lambda_encoder=0,0.001,0.1",
            "semgan ablate -m run dataset -o ablation --vary inversion.lambda_pixel=0.001,0.1 "
            "--vary inversion.reduction=sum,mean   (all combinations)",
            "semgan ablate -m run dataset -o ablation --vary inversion.learning_rate=0.02,0.05,0.1 "
            "--vary inversion.optimise_noise=true,false --one-by-one",
            "semgan ablate -m run dataset -o ablation --vary perceptual.distance=lpips,discriminator",
        ),
    )(ablate)
    app.command(
        "interpolate",
        epilog=examples(
            "semgan interpolate -m run -o walk --seeds 1,2,3",
            "semgan interpolate -m run -o walk --space w+ --seeds 1,2,3 --format png,pdf,gif",
            "semgan interpolate -m run -o walk --space w+ -i a.png b.png c.png --steps 200",
        ),
    )(interpolate)


@verb
def explain(
    model: Model,
    images: Annotated[Path, typer.Option("-i", "--images", help="Image (PNG, DICOM X-ray) or folder of images.")],
    out: Out,
    labels: Annotated[Path | None, typer.Option(help="Folder of true masks with the images' stems.")] = None,
    steps: Steps = "0,25,50,100,200,400",
    formats: Formats = "png,webp",
    modality: Annotated[str | None, typer.Option(help="Preprocessing rule of the model, where it has several.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images optimised together; does not change results.")] = 8,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Show how an image is explained step by step: reconstruction, mask, loss terms and, with --labels, score."""
    existing(model, "Model")
    existing(images, "Image or folder")
    from semgan.explain import explain as run

    with progress_bars() as progress:
        result = run(
            model,
            images,
            out,
            labels=labels and existing(labels, "Folder of true masks"),
            steps=_numbers("--steps", steps),
            formats=_words(formats),
            modality=modality,
            batch=batch,
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    show(f"Stories in {out}", {"images": result.images, "steps": result.steps})
    if result.scores:
        show("Score of all images", {f"step {step}": result.scores[step] for step in result.steps})
    return result


@verb
def ablate(
    model: Model,
    dataset: Annotated[Path, typer.Argument(help="Dataset folder; its validation list is scored, never a test list.")],
    out: Out,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=A,B,C", help="Values of inversion.* or perceptual.*; repeatable."),
    ] = None,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="Change one setting at a time instead of all combinations.")
    ] = False,
    steps: Steps = "0,10,25,50,100,200,400",
    cases: Annotated[int | None, typer.Option(min=1, help="The first so many validation cases; default: all.")] = None,
    formats: StillFormats = "png",
    batch: Annotated[int, typer.Option(min=1, help="Images optimised together; does not change results.")] = 16,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the bootstrap.")] = 0,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Score the inversion under several settings on validation images; says whether the best is worth a change.

    Stopped or killed, the same command goes on with the settings that are left.
    """
    existing(model, "Model")
    existing(dataset, "Dataset folder")
    from semgan.ablate import ablate as run

    with progress_bars() as progress:
        result = run(
            model,
            dataset,
            out,
            vary=list(vary or ()),
            one_by_one=one_by_one,
            steps=_numbers("--steps", steps),
            cases=cases,
            formats=_words(formats),
            batch=batch,
            seed=seed,
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    for name, problem in result.problems.items():
        say(f"not scored: {name}: {problem}")
    show(f"Settings at their best steps, in {out}", result.best)
    print(f"\n{result.suggestion}")
    return result


@verb
def interpolate(
    model: Model,
    out: Out,
    space: Annotated[Space, typer.Option(help="z: great circles between random codes; w+: straight lines.")] = Space.z,
    seeds: Annotated[str, typer.Option(metavar="LIST", help="Random codes, as `semgan sample` numbers them.")] = "",
    images: Annotated[
        list[Path] | None, typer.Option("-i", "--images", help="Image or folder to embed into w+; more may follow it.")
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(help="Further images after the one of -i.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Steps of each walk.")] = 16,
    steps: Annotated[int, typer.Option(min=0, help="Optimisation steps that embed an image; 0: encoder only.")] = 200,
    truncation: Annotated[float, typer.Option(min=0, help="Of random codes; 0 is the mean code.")] = 1.0,
    points: Annotated[
        int, typer.Option(min=0, help="Points at which the perceptual path length is measured; 0: not at all.")
    ] = 128,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the points of the path length.")] = 0,
    formats: Formats = "png,webp",
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Walk between codes: strips and videos of images with their masks, and how smooth the walks are."""
    existing(model, "Model")
    from semgan.interpolate import interpolate as run

    if more and not images:
        raise ValueError(f"{more[0]} stands alone; images are given with -i.")
    with progress_bars() as progress:
        result = run(
            model,
            out,
            space=space.value,
            seeds=_numbers("--seeds", seeds),
            images=[existing(path, "Image") for path in [*(images or ()), *(more or ())]],
            frames=frames,
            steps=steps,
            truncation=truncation,
            points=points,
            seed=seed,
            formats=_words(formats),
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    names = ("path_length", "mask_path_length", "of", "distance", "evenness")
    show(f"Walks in {out}", {name.replace("_", " "): result[name] for name in names if result[name] is not None})
    return {"out": out, **result}


def _words(text: str) -> list[str]:
    return [word.strip().lower() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str) -> list[int]:
    """``"0,25"`` -> whole numbers. Raises ValueError naming the option."""
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise ValueError(f"{option} takes whole numbers with commas between, like 0,25,50; got '{text}'.") from None
