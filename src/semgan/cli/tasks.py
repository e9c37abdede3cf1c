"""``semgan data prepare TASK RAW...``: the published tasks, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from semgan.cli.output import AsJson, examples, progress_bars, say, show, verb

TASKS = {
    "chest-xray": "Lungs: JSRT + SCR; NLM Montgomery and Shenzhen, NIH/XLSor as tests; ChestX-ray14 unlabelled.",
    "skin": "Lesions: ISIC 2018 or 2017; PH2, DermIS, DermQuest as tests; ISIC 2020 unlabelled.",
    "liver": "Livers: LiTS (CT); its test volumes unlabelled; CHAOS T1 in and opposed phase (MRI) as tests.",
    "faces": "Face parts in 8 classes: CelebAMask-HQ; MetFaces-40 as test; any other pictures unlabelled.",
}
EXAMPLES = {
    "chest-xray": "semgan data prepare chest-xray JSRT SCR MontgomerySet ChinaSet_AllFiles ChestX-ray14 -o dataset",
    "skin": "semgan data prepare skin ISIC2018 ISIC2020 'PH2Dataset' 'Skin Image Data Set-1' -o dataset",
    "liver": "semgan data prepare liver LITS17 CHAOS_Train_Sets -o dataset",
    "faces": "semgan data prepare faces CelebAMask-HQ metfaces40 ffhq -o dataset",
}


def add_tasks(prepare: typer.Typer) -> None:
    """Give ``semgan data prepare`` one command per task."""
    for name, summary in TASKS.items():
        _add(prepare, name, summary)


def _add(prepare: typer.Typer, name: str, summary: str) -> None:
    summary += " Every layout is recognised by its published names of files and folders."

    @prepare.command(name, help=summary, epilog=examples(EXAMPLES[name], f"{EXAMPLES[name]} --json"))
    @verb
    def prepare_published(
        raw: Annotated[list[Path], typer.Argument(help="Folders of unpacked downloads, in any order.")],
        out: Annotated[Path, typer.Option("-o", "--out", help="Dataset folder to write.")],
        use: Annotated[
            list[str] | None, typer.Option(help="LAYOUT=train|test|unlabelled, where not as in the paper; repeatable.")
        ] = None,
        validation: Annotated[
            float, typer.Option(min=0, max=0.9, help="Share of the training pool for validation; the paper has none.")
        ] = 0.0,
        recipe: Annotated[str | None, typer.Option(help="Make the cache for this recipe now.")] = None,
        workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per CPU core.")] = None,
        as_json: AsJson = False,
    ) -> Any:
        from semgan import recipes
        from semgan.data.prepare.tasks import prepare_task

        with progress_bars() as progress:
            report = prepare_task(
                name,
                raw,
                out,
                roles=dict(_role(text) for text in use or ()),
                validation_share=validation,
                preprocessing=recipes.load(recipe).preprocessing if recipe else None,
                workers=workers,
                progress=progress,
            )
        for warning in report.dataset.warnings:
            say(f"warning: {warning}")
        show("Found", {found.title: f"{found.images} {report.unit}, {found.role}" for found in report.collections})
        show(f"Dataset {out}", {**report.sets, "classes": report.dataset.classes})
        return report


def _role(text: str) -> tuple[str, str]:
    layout, equals, role = text.partition("=")
    if not equals:
        raise ValueError(f"--use takes LAYOUT=train, LAYOUT=test or LAYOUT=unlabelled; got '{text}'.")
    return layout, role
