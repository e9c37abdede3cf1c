"""RUN/report.html: settings, curves, samples, health and scores of one training run, read from its files alone."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semgan import artifacts, config
from semgan.report import html
from semgan.report.curves import Panel, panels, write_curves
from semgan.report.evaluations import is_foreign, read_evaluation, score_lines, short_names
from semgan.report.health import Finding, findings
from semgan.report.history import STAGES, History, read_history
from semgan.report.plotting import short_count, small_png

GRIDS_PER_STAGE = 3  # first, middle, latest
SHOWN_CASES = 5


@dataclass(frozen=True)
class RunRecord:
    """What the files of a run folder say; environment, model: empty where the file is not there (yet)."""

    folder: artifacts.RunFolder
    settings: config.Settings
    environment: dict[str, Any]
    model: dict[str, Any]
    history: History

    @property
    def title(self) -> str:
        return f"{self.settings.recipe}: {self.settings.method}"

    @functools.cached_property
    def panels(self) -> list[Panel]:
        """The plots of its history."""
        return panels(self.history)


def read_run(run: Path) -> RunRecord:
    """Works on an unfinished run as well. Raises FileNotFoundError where ``run`` is not a run folder."""
    folder = artifacts.RunFolder(Path(run))
    if not folder.config.is_file():
        raise FileNotFoundError(
            f"{folder.path} is not a run folder (no config.yaml); name what `semgan train ... -o` wrote."
        )
    environment = artifacts.read_json(folder.environment) if folder.environment.is_file() else {}
    model = artifacts.read_json(folder.model / "config.json") if (folder.model / "config.json").is_file() else {}
    return RunRecord(folder, config.load(folder.config), environment, model, read_history(folder.metrics))


def write_run_report(run: Path, *, scores: Sequence[Path] = ()) -> Path:
    """Write RUN/report.html and RUN/curves.png.

    scores: folders with scores.json and cases.csv, or such files; those inside the run folder are found without.
    Raises FileNotFoundError where ``run`` is not a run folder.
    """
    record = read_run(run)
    folder = record.folder
    page = html.Page(
        title=record.title,
        lead=run_lead(record),
        facts=tuple(run_facts(record)),
        sections=tuple(run_sections(record, _score_sections(_score_files(folder.path, scores)))),
        foot=f"Made by semgan {record.environment.get('versions', {}).get('semgan', '')} from {folder.path.name}.",
    )
    if record.panels:
        write_curves(folder.path, record.panels)
    return html.write_page(folder.report, page)


def run_sections(
    record: RunRecord, scores: Sequence[html.Section] = (), *, pictures: bool = True
) -> list[html.Section]:
    """Everything about one run. pictures: sample grids too, which may show what the run was trained on."""
    return [
        html.Section("Health", (html.Findings(tuple(findings(record.history))),)),
        *curve_sections(record.panels),
        *(_sample_sections(record.folder.samples) if pictures else ()),
        *scores,
        *_inversion_sections(record.history, record.model),
        _settings_section(record.settings, record.environment),
    ]


def run_findings(run: Path) -> list[Finding]:
    """What the curves of a run say so far, for the log and the command line."""
    return findings(read_history(artifacts.RunFolder(Path(run)).metrics))


def run_lead(record: RunRecord) -> str:
    """One sentence: on what, and how far."""
    settings, environment, history = record.settings, record.environment, record.history
    labels = "all labelled images" if settings.labels is None else f"{settings.labels} labelled images"
    where = Path(str(environment["dataset"])).name if environment.get("dataset") else "a dataset"
    stages = [
        f"{STAGES.get(name, name).lower()} {short_count(images)} images" for name, images in history.images.items()
    ]
    return (
        f"Trained on {labels} of {where}; {', '.join(stages)} seen."
        if stages
        else f"{labels} of {where}; not trained yet."
    )


def run_facts(record: RunRecord) -> Iterable[tuple[str, str]]:
    """The run in short: (name, value)."""
    settings, environment, history = record.settings, record.environment, record.history
    yield "Size", f"{settings.preprocessing.size_px} px, {settings.preprocessing.channels} channel(s)"
    yield "Classes", ", ".join(settings.classes)
    yield "Split seed, seed", f"{settings.split_seed}, {settings.seed}"
    for stage, seconds in history.seconds.items():
        yield f"{STAGES.get(stage, stage)} time", duration(seconds)
    for stage in history.stages:
        for metric, curve in history.validation(stage).items():
            yield f"Validation {metric} ({STAGES.get(stage, stage)})", f"{curve.last:.3f}"
    if distance := record.model.get("training", {}).get("perceptual_distance"):
        yield "Perceptual distance", distance
    if environment.get("commit"):
        yield "Commit", str(environment["commit"])


def duration(seconds: float) -> str:
    """``4530`` -> ``1 h 16 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def curve_sections(plots: Iterable[Panel]) -> list[html.Section]:
    """One section of plots per stage."""
    by_stage: dict[str, list[Panel]] = {}
    for panel in plots:
        by_stage.setdefault(panel.stage, []).append(panel)
    return [
        html.Section(
            f"Curves: {STAGES.get(stage, stage)}",
            (
                html.Figures(
                    tuple(
                        html.Figure(small_png(panel.pixels), f"{panel.title} over images seen", panel.note)
                        for panel in shown
                    )
                ),
            ),
        )
        for stage, shown in by_stage.items()
    ]


def sample_grids(samples: Path) -> dict[str, list[tuple[int, Path]]]:
    """Stage -> (images seen, file) of its sample grids, first to latest."""
    grids: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(samples.glob("*.png")) if samples.is_dir() else ():
        stage, _, images = path.stem.rpartition("-")
        if stage and images.isdigit():
            grids.setdefault(stage, []).append((int(images), path))
    order = list(STAGES)
    return dict(sorted(grids.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def chosen_grids(grids: list[tuple[int, Path]], most: int = GRIDS_PER_STAGE) -> list[tuple[int, Path]]:
    """First, latest and evenly between, at most ``most``."""
    if len(grids) <= most:
        return grids
    return [grids[round(i * (len(grids) - 1) / (most - 1))] for i in range(most)]


def _sample_sections(samples: Path) -> list[html.Section]:
    sections = []
    for stage, grids in sample_grids(samples).items():
        figures = tuple(
            html.Figure(
                path.read_bytes(), f"Sample grid after {images} images", f"after {short_count(images)} images", True
            )
            for images, path in reversed(chosen_grids(grids))
        )
        sections.append(html.Section(f"Samples: {STAGES.get(stage, stage)}", (html.Figures(figures),)))
    return sections


def _score_files(run: Path, given: Sequence[Path]) -> list[Path]:
    named = [Path(path) / "scores.json" if Path(path).is_dir() else Path(path) for path in given]
    for path in named:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; `semgan evaluate` writes it beside the predictions.")
    return list(dict.fromkeys([*score_files_in(run), *named]))


def score_files_in(run: Path) -> list[Path]:
    """The scores.json of `semgan evaluate` in a run's folder and in the folders up to two levels below."""
    found = [path for depth in ("", "*/", "*/*/") for path in sorted(run.glob(f"{depth}scores.json"))]
    return [path for path in found if not is_foreign(path)]


def _score_sections(files: list[Path]) -> list[html.Section]:
    if not files:
        return []
    names = short_names([file.parent for file in files])
    evaluations = {name: read_evaluation(folder) for folder, name in names.items()}
    blocks: list[html.Block] = [html.table_of_mappings(score_lines(evaluations))]
    for place, each in evaluations.items():
        if each.cases is not None:
            worst = [
                {"image": name, "mean score": value} for name, value in each.cases.ranked()[: -SHOWN_CASES - 1 : -1]
            ]
            blocks.append(html.table_of_mappings(worst, f"Lowest scores in {place}"))
    return [html.Section("Scores", tuple(blocks))]


def _inversion_sections(history: History, model: dict[str, Any]) -> list[html.Section]:
    """How many optimisation steps were chosen on validation, and what every candidate scored."""
    inversion = model.get("inversion") or {}
    chosen, rule = inversion.get("chosen_steps"), inversion.get("rule")
    if chosen is None and not history.step_scores:
        return []
    steps = sorted(history.step_scores)
    blocks: list[html.Block] = []
    if chosen is not None:
        blocks.append(html.Text(f"Optimisation steps chosen on validation: {chosen}; 0 is the encoder alone."))
    if rule is not None:
        blocks.append(html.Text(f"Stopping rule, used instead: {rule['in_words']}."))
    if steps:
        line = ("validation score", *(f"{history.step_scores[step]:.4f}" for step in steps))
        strong = frozenset({(0, steps.index(chosen) + 1)} if chosen in steps else ())
        blocks.append(html.Table(("steps", *map(str, steps)), (line,), strong=strong))
    return [html.Section("Inversion", tuple(blocks))]


def _settings_section(settings: config.Settings, environment: dict[str, Any]) -> html.Section:
    record = {key: value for key, value in environment.items() if not isinstance(value, dict)}
    flat = [(key, str(value)) for key, value in record.items()]
    for key in ("versions", "machine"):
        flat += [(f"{key}: {name}", str(value)) for name, value in environment.get(key, {}).items()]
    blocks: list[html.Block] = [html.Details("All settings (config.yaml)", config.dump(settings))]
    if flat:
        blocks.append(html.Details("Environment", "\n".join(f"{name}: {value}" for name, value in flat)))
    return html.Section("Settings", tuple(blocks))
