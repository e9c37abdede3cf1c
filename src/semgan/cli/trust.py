"""``semgan trust fit`` and ``semgan trust judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, existing, progress_bars, say, show, verb
from semgan.cli.posterior import Method
from semgan.cli.segment import Steps
from semgan.cli.use import Device, Metric, class_names_in, list_in, mapping_by_names_in, mapping_in
from semgan.types import MOST_SEED

app = typer.Typer(help="Know when not to trust a mask: learn it, and judge what was learnt.", no_args_is_help=True)

Limit = Annotated[float | None, typer.Option(min=0, max=1, help="Scores below are failures; default: the worst fifth.")]


@app.command(
    "fit",
    epilog=examples(
        "semgan trust fit -m run dataset",
        "semgan trust fit -m run dataset --limit 0.8   (an image below 0.8 is a failure)",
        "semgan trust fit -m run dataset --choose   (after semgan calibrate: step 0, optimised or posterior mean)",
    ),
)
@verb
def fit(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder with a validation list.")],
    model: Annotated[Path, typer.Option("-m", "--model", help="Run folder or model folder, of any method.")],
    cases: Annotated[int | None, typer.Option(min=1, help="Images of the validation list; default: all.")] = None,
    steps: Steps = None,
    limit: Limit = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Also learn which answer an image gets: step 0, own, posterior mean.")
    ] = False,
    method: Annotated[Method, typer.Option(help="How the posterior is drawn; laplace is cheap.")] = Method.laplace,
    batch: Annotated[int, typer.Option(min=1, help="Images given to the model at a time.")] = 16,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the shifts and of cross-validation.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> Any:
    """Learn on the validation list to predict every image's score; kept beside the weights (trust.json)."""
    existing(model, "Model")
    existing(dataset, "Dataset folder")
    from semgan.trust.run import fit_trust

    with progress_bars() as progress:
        found = fit_trust(
            model,
            dataset,
            cases=cases,
            steps=steps,
            limit=limit,
            choose=choose,
            method=method.value,
            batch=batch,
            seed=seed,
            device=device,
            progress=progress,
        )
    told = found.report
    where = f"{told['images']} images and {told['copies']} shifted copies of each"
    show(f"Trust in {model}, held out on {where}", _told(found))
    return {"metric": found.metric, "steps": found.steps, "limit": found.limit, "threshold": found.threshold, **told}


def _told(found: Any) -> dict[str, Any]:
    score, flagged, warmth = (found.report[name] for name in ("predicted score", "flagged", "calibration"))
    error, of_mean = score["mean absolute error"], score["mean absolute error of the mean"]
    rows = {
        f"error of the predicted {found.metric}": f"{error:.4f} (the mean for all: {of_mean:.4f})",
        "AUROC of failures": _or_unknown(score["auroc of failures"]),
        "failures score below": found.limit,
        "looked at: predicted below": found.threshold,
        "looked at: of validation images": flagged["of validation images"],
        "looked at: of all failures": _or_unknown(flagged["of failures"]),
        "temperature": found.temperature,
        "calibration error": f"{warmth['before']['ece']:.4f}, with temperature {warmth['after']['ece']:.4f}",
    }
    if "choice" not in found.report:
        return rows
    choice = found.report["choice"]
    if "why not" in choice:
        return rows | {"usual answer": choice["usual"], "choice": f"always the usual: {choice['why not']}"}
    gain = choice["gain held out"]["validation"]
    low, high = gain["interval"]
    worth = f"{gain['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
    return rows | {
        "usual answer": choice["usual"],
        "choice": "always the usual" if choice["margin"] is None else f"gains above {choice['margin']:g}",
        "against the best fixed, held out": worth if choice["is safe"] else f"{worth}: not safe, all get the usual",
    }


def _or_unknown(share: float | None) -> float | str:
    return "unknown: there were none, or nothing else" if share is None else share


@app.command(
    "judge",
    epilog=examples(
        "semgan trust judge masks --labels true_masks --metric dice -o judged",
        "semgan trust judge ours unet ensemble --labels true_masks --metric dice --limit 0.8 -o judged",
        "semgan trust judge ours_elsewhere --in-domain ours --labels true_masks --metric dice -o judged",
    ),
)
@verb
def judge(
    predictions: Annotated[list[Path], typer.Argument(help="Folders that `semgan segment --signals` wrote.")],
    labels: Annotated[Path, typer.Option(help="Folder of true masks with the same stems.")],
    metric: Annotated[Metric, typer.Option(help="Score of each image; miou is taken per image.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    limit: Limit = None,
    signal: Annotated[list[str] | None, typer.Option(help="Column to judge; repeatable; default: all known.")] = None,
    in_domain: Annotated[
        list[Path] | None, typer.Option(help="The same model's predictions in domain, one for each PREDICTIONS.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="JSON: class names, background first, or by the values of the true masks.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="JSON: label value -> class index, for the true masks.")] = None,
    map_predictions: Annotated[Path | None, typer.Option(help="The same for the predicted masks.")] = None,
    mean_over: Annotated[
        list[str] | None, typer.Option(help="Class to average; repeatable; default: all but the background.")
    ] = None,
    stems: Annotated[Path | None, typer.Option(help="JSON list of the cases to judge; default: all segmented.")] = None,
    as_json: AsJson = False,
) -> Any:
    """Do signals tell good masks from bad ones: risk-coverage curves, AUROC of failures, calibration."""
    for folder in predictions:
        existing(folder, "Folder of predictions")
    existing(labels, "Folder of true masks")
    from semgan.trust.judge import judge as run_judge

    rows = run_judge(
        predictions,
        labels,
        out,
        metric=metric.value,
        limit=limit,
        signals=signal or None,
        in_domain=[existing(folder, "Folder of predictions in domain") for folder in in_domain or ()],
        classes=class_names_in(classes),
        mapping=mapping_in(mapping) or mapping_by_names_in(classes),
        map_predictions=mapping_in(map_predictions),
        mean_over=mean_over or None,
        stems=list_in(stems),
    )
    failures = ", ".join(f"{row.failures} of {row.n} in {row.predictions}" for row in rows if row.signal == "score")
    say(f"Failures score below {rows[0].limit:.4g}: {failures}")
    table = {f"{row.predictions}: {row.signal}": f"{row.auroc:.3f}, {row.aurc:.4f}" for row in rows}
    show(f"AUROC of failures and area under the risk-coverage curve, in {out}", table)
    return {"out": out, "rows": rows}
