"""``semgan report``: runs, scores and cases on one page that needs nothing beside it.

    OUT/report.html   settings, curves, samples, scores with intervals, comparisons, cases from best to worst
    OUT/tables.tex    its tables of scores and comparisons
    OUT/report.pdf    the page as a browser prints it, where asked for

All of it is read from files; no model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semgan import artifacts
from semgan.report import browser, html, latex
from semgan.report.evaluations import best_of, comparable, difference_lines, score_lines
from semgan.report.gallery import NO_PICTURES, find_pictures, gallery_sections
from semgan.report.run_report import RunRecord, run_facts, run_lead, run_sections
from semgan.report.score_tables import ScoreTable, metric_title, table_body, values_by_place
from semgan.report.sources import Sources, find_sources
from semgan.results import MEAN, ScoreRow

Progress = Callable[[int, int, str], Any]
WARNING = (
    "This page embeds images, and they may be patients'. Keep it, send it and delete it as you would the images "
    "themselves; semgan report --no-images leaves them out."
)
WITHOUT = "Images were left out (--no-images): no case and no generated picture is shown. Names of cases are."
NOTES = {
    "seeds": "Mean ± standard deviation over seeds (one seed: the value alone); best of a column set off. (NO): "
    "without optimisation, the encoder alone.",
    "interval": "Intervals are 95 % percentile bootstrap intervals over cases. Of predictions of the same cases, the "
    "highest mean is set off.",
    "difference": "Paired bootstrap over the same cases, against the best of them. p values are not corrected for many "
    "comparisons.",
}


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    with_images: bool = True,
    most: int = 60,
    pdf: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Any]:
    """Write the report of runs, results and evaluations; returns the files and what was found.

    images, labels: the folders that were segmented and scored, for the pictures of the cases
    with_images:    False leaves every picture out that shows an image, also generated ones
    most:           cases with pictures, per evaluation

    Raises FileNotFoundError or ValueError for paths that hold nothing to report on, or pictures that do not fit;
    FileExistsError where ``out`` is a file.
    """
    if Path(out).is_file():
        raise FileExistsError(f"{out} is a file; give a folder with -o.")
    if (Path(out) / "config.yaml").is_file():
        raise FileExistsError(f"{out} is a run with a report of its own; give another folder with -o.")
    sources = find_sources(paths)
    if images is not None or labels is not None:
        _check_pictures_wanted(sources, with_images)
    if pdf:
        browser.find_browser()
    compared = comparison_sections(sources)
    sections = [*compared]
    shows_images = False
    for number, (name, evaluation) in enumerate(sources.evaluations.items(), start=1):
        pictures = find_pictures(evaluation, images, labels) if with_images else NO_PICTURES
        chapter = gallery_sections(name, evaluation, pictures, f"case-{number}", most)
        shows_images |= any(isinstance(block, html.Gallery) for section in chapter for block in section.blocks)
        sections += chapter
        progress(number, len(sources.evaluations), "galleries")
    for number, (name, record) in enumerate(sources.runs.items(), start=1):
        sections += _run_chapter(name, record, number, with_images)
        shows_images |= with_images and any(record.folder.samples.glob("*.png"))
        progress(number, len(sources.runs), "runs")
    page = _page(sources, sections, WARNING if shows_images else "" if with_images else WITHOUT)
    out = Path(out)
    files = [html.write_page(out / "report.html", page), out / "tables.tex"]
    artifacts.write_text_atomic(files[1], tables_as_latex(compared))
    if pdf:
        files.append(browser.print_pdf(files[0], out / "report.pdf"))
    return {
        "files": [str(path) for path in files],
        "runs": list(sources.runs),
        "tables": list(sources.tables),
        "evaluations": list(sources.evaluations),
        "shows_images": shows_images,
    }


def _check_pictures_wanted(sources: Sources, with_images: bool) -> None:
    if not with_images:
        raise ValueError("--images and --labels are for pictures, and --no-images leaves them out; give one or other.")
    if not sources.evaluations:
        raise ValueError(
            "--images and --labels show scored cases, and none of the folders has any; name a folder of predictions "
            "that `semgan evaluate` scored, too."
        )


def _page(sources: Sources, sections: Sequence[html.Section], notice: str) -> html.Page:
    counts = {
        "run folders": len(sources.runs),
        "tables of scores": len(sources.tables),
        "scored predictions": len(sources.evaluations),
    }
    named = [*sources.runs, *sources.tables, *sources.evaluations]
    notices = (html.Section("About this page", (html.Notice(notice),)),) if notice else ()
    return html.Page(
        title="Report: " + ", ".join(dict.fromkeys(named[:3])) + (", ..." if len(set(named)) > 3 else ""),
        lead="; ".join(f"{what}: {count}" for what, count in counts.items() if count).capitalize() + ".",
        sections=(*notices, *sections),
        foot=f"Made by semgan report, version {artifacts.versions()['semgan']}.",
    )


# ---------------------------------------------------------------- comparisons


def comparison_sections(sources: Sources) -> list[html.Section]:
    """Scores and differences; their tables are those of tables.tex."""
    sections = []
    tables = score_tables(sources)
    if tables:
        blocks = (html.Text(NOTES["seeds"]), *(table.as_html() for table in tables))
        sections.append(html.Section("Scores by method", blocks, "scores"))
    for number, (name, rows) in enumerate(sources.comparisons.items(), start=1):
        if rows:
            table = html.table_of_mappings(rows, "Paired comparisons")
            sections.append(html.Section(f"Differences: {name}", (table,), f"comparisons-{number}"))
    if sources.evaluations:
        sections.append(_evaluation_section(sources))
    if sources.runs:
        sections += _run_comparison(sources.runs)
    return sections


def score_tables(sources: Sources) -> list[ScoreTable]:
    """A table of means by task, metric and resolution; methods carry their folder's name where there are several."""
    rows = [
        row if len(sources.tables) == 1 else replace(row, method=f"{name}: {row.method}")
        for name, own in sources.tables.items()
        for row in own
    ]
    subjects = dict.fromkeys((row.task, row.metric, row.resolution) for row in rows)
    return [_score_table([row for row in rows if (row.task, row.metric, row.resolution) == each]) for each in subjects]


def _score_table(rows: Sequence[ScoreRow]) -> ScoreTable:
    values = values_by_place(rows)
    places = list(dict.fromkeys((labels, test_set, MEAN) for _, labels, test_set, name in values if name == MEAN))
    places.sort(key=lambda place: place[0])
    names = list(dict.fromkeys(key[0] for key in values))
    first = rows[0]
    title = f"{first.task}, {first.resolution} px: {metric_title(first.metric)}"
    columns = tuple((f"{labels} labels", test_set) for labels, test_set, _ in places)
    return ScoreTable(title, columns, tuple(table_body(names, places, values, {})))


def _evaluation_section(sources: Sources) -> html.Section:
    lines = score_lines(sources.evaluations)
    best = {best_of(names, sources.evaluations) for names in comparable(sources.evaluations)}
    strong = frozenset((place, 2) for place, line in enumerate(lines) if line["predictions"] in best)
    blocks: list[html.Block] = [html.Text(NOTES["interval"])]
    blocks.append(html.table_of_mappings(lines, "Scores of predictions", strong=strong))
    differences = difference_lines(sources.evaluations)
    if differences:
        columns = ("predictions", "against", "difference", "95 % interval", "p", "n")
        blocks += [html.Text(NOTES["difference"]), html.table_of_mappings(differences, "Differences", columns=columns)]
    return html.Section("Scored predictions", tuple(blocks), "evaluations")


def _run_comparison(runs: dict[str, RunRecord]) -> list[html.Section]:
    """What the runs reached in short, and the settings in which they differ."""
    facts = {name: dict(run_facts(record)) for name, record in runs.items()}
    keys = list(dict.fromkeys(key for own in facts.values() for key in own))
    rows = tuple((key, *(own.get(key, "") for own in facts.values())) for key in keys)
    blocks: list[html.Block] = [html.Table(("run", *facts), rows, "Runs")]
    if len(runs) > 1:
        flat = {name: dict(_flat(record.settings.model_dump(mode="json"))) for name, record in runs.items()}
        names = dict.fromkeys(key for own in flat.values() for key in own)
        different = [key for key in names if len({str(own.get(key)) for own in flat.values()}) > 1]
        lines = tuple((key, *(str(own.get(key)) for own in flat.values())) for key in different)
        table = html.Table(("setting", *flat), lines, "Settings that differ")
        blocks.append(table if lines else html.Text("All settings are equal."))
    return [html.Section("Runs side by side" if len(runs) > 1 else "The run", tuple(blocks), "runs")]


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def _run_chapter(name: str, record: RunRecord, number: int, with_images: bool) -> list[html.Section]:
    """The sections of one run's own report, named after it; the first is in the contents."""
    sections = run_sections(record, pictures=with_images)
    lead = html.Section(f"Run {name}: {record.title}", (html.Text(run_lead(record)),), f"run-{number}")
    return [lead, *(replace(section, title=f"{name}: {section.title}") for section in sections)]


def tables_as_latex(sections: Sequence[html.Section]) -> str:
    """Every table of the sections, after each other."""
    tables = [
        latex.table(replace(block, caption=block.caption or section.title))
        for section in sections
        for block in section.blocks
        if isinstance(block, html.Table)
    ]
    return "\n\n".join([latex.HEAD, *tables]) + "\n"
