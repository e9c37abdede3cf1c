"""OUT/report.html of the demo: inputs, truth, reconstructions, masks over the steps, scores, curves and times.

Made from the demo's files alone (`demo_files` and the run folders below OUT).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semgan.report import html, plotting
from semgan.report.colours import colourise, hex_colour
from semgan.report.curves import panels
from semgan.report.demo_files import (
    Answers,
    Record,
    find_score,
    read_answers,
    read_inputs,
    read_record,
    score_rows,
)
from semgan.report.health import findings
from semgan.report.history import read_history
from semgan.report.run_report import curve_sections, duration, sample_grids
from semgan.report.score_tables import metric_title
from semgan.report.sheet import COLOURS, domain_title, kept_images, write_sheet
from semgan.results import ScoreRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS = {"semgan": "semgan, live", "unet": "U-Net, live"}


def write_demo_report(out: Path) -> Path:
    """Write OUT/report.html and OUT/demo.png. Raises FileNotFoundError where the demo is not finished."""
    out = Path(out)
    record = read_record(out)
    rows = score_rows(out)
    write_sheet(out, record)
    sections = [
        html.Section("Scores", tuple(_score_blocks(record, rows))),
        html.Section("Masks over the optimisation", tuple(_picture_blocks(out, record))),
        *_training_sections(out),
        html.Section("Times and conditions", tuple(_condition_blocks(record))),
    ]
    page = html.Page(
        title=f"semgan demo: {record.family}",
        lead=_lead(record),
        facts=tuple(_facts(record)),
        sections=tuple(sections),
        foot=f"Made by `semgan demo`, commit {record.commit}. All pictures are drawn by a program; no person is shown.",
    )
    return html.write_page(out / "report.html", page)


def _lead(record: Record) -> str:
    shifted = ", ".join(domain_title(domain) for domain in record.domains[1:])
    unlabelled, labelled = record.counts.get("unlabelled", 0), record.counts.get("labelled", 0)
    return (
        f"A generator learns images together with their masks, from {unlabelled:,} images without and only {labelled} "
        "with a mask. A new image is segmented by finding the code whose generated image reproduces it, and reading "
        f"off the generated mask. Tested on {domain_title(record.domains[0])} images and on domains that no training "
        f"saw: {shifted}."
    )


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    yield "Labelled / unlabelled", f"{record.counts.get('labelled', 0)} / {record.counts.get('unlabelled', 0):,}"
    yield "Size", f"{record.size_px} px"
    yield "Classes", str(len(record.classes))
    for method in record.methods.values():
        if method.weights == "live":
            yield f"{method.title}, training", method.trained
    yield "Whole demo", duration(sum(record.chapters.values()))


# ---------------------------------------------------------------- scores


def _score_blocks(record: Record, rows: Sequence[ScoreRow]) -> Iterable[html.Block]:
    for sentence in verdict(record, rows):
        yield html.Text(sentence)
    yield _score_table(record, rows)
    if any(len(method.steps) > 1 for method in record.methods.values()):
        yield html.Text(
            "Score over the optimisation steps; 0 is the encoder's answer, dashed lines are methods without steps."
        )
        yield html.Figures(tuple(_steps_figure(record, rows, domain) for domain in record.domains))
    yield _class_table(record, rows)


def verdict(record: Record, rows: Sequence[ScoreRow]) -> list[str]:
    """Who is ahead, in domain and averaged over the shifted domains, for weights of equal training only."""
    metric = metric_title(record.metric)
    sentences = []
    for weights in ("live", "shipped"):
        ours, rival = f"semgan-{weights}", f"unet-{weights}"
        if ours not in record.methods or rival not in record.methods:
            continue
        given = "labels and time" if weights == "live" else "labels"
        for where, domains in (
            ("In the training domain", record.domains[:1]),
            ("On shifted domains", record.domains[1:]),
        ):
            values = [_mean_score(rows, name, domains) for name in (ours, rival)]
            if values[0] is not None and values[1] is not None:
                word = "ahead of" if values[0] > values[1] else "behind" if values[0] < values[1] else "level with"
                average = ", averaged," if len(domains) > 1 else ""
                sentences.append(
                    f"{where}{average} semgan ({weights}) is {word} the U-Net ({weights}), given the same {given}: "
                    f"{metric} {values[0]:.3f} against {values[1]:.3f}."
                )
    return sentences + list(record.notes)


def _mean_score(rows: Sequence[ScoreRow], method: str, domains: Sequence[str]) -> float | None:
    values = [find_score(rows, method, domain) for domain in domains]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _score_table(record: Record, rows: Sequence[ScoreRow]) -> html.Table:
    header = ["method", "weights", *map(domain_title, record.domains), "mean of shifted"]
    lines: list[tuple[str, ...]] = []
    numbers: list[list[float | None]] = []
    for name, method in record.methods.items():
        picks = {0: "encoder alone", method.chosen_steps: f"{method.chosen_steps} steps, chosen on validation"}
        for steps, what in picks.items() if len(method.steps) > 1 else [(0, "")]:
            values = [find_score(rows, name, domain, steps=steps) for domain in record.domains]
            shifted = [value for value in values[1:] if value is not None]
            values.append(float(np.mean(shifted)) if shifted else None)
            numbers.append(values)
            lines.append((f"{method.title}{': ' + what if what else ''}", method.weights, *map(_number, values)))
    strong = set()
    for column in range(len(record.domains) + 1):
        known = [(value, line) for line, values in enumerate(numbers) if (value := values[column]) is not None]
        strong |= {(max(known)[1], column + 2)} if known else set()
    caption = f"{metric_title(record.metric)}, mean over classes, {record.images_per_domain} images per domain"
    return html.Table(tuple(header), tuple(lines), caption, frozenset(strong))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _class_table(record: Record, rows: Sequence[ScoreRow]) -> html.Table:
    names = [name for name in record.classes if any(row.class_name == name for row in rows)]
    lines = []
    for name, method in record.methods.items():
        for where, domains in (("own domain", record.domains[:1]), ("shifted", record.domains[1:])):
            values = [[v for d in domains if (v := find_score(rows, name, d, name=part)) is not None] for part in names]
            cells = [_number(float(np.mean(v)) if v else None) for v in values]
            lines.append((f"{method.title} ({method.weights}), {where}", *cells))
    return html.Table(
        ("by class", *names), tuple(lines), f"{metric_title(record.metric)} by class, at the chosen steps"
    )


def _steps_figure(record: Record, rows: Sequence[ScoreRow], domain: str) -> html.Figure:
    title = domain_title(domain)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for name, method in record.methods.items():
            colour, label = COLOURS.get(name, plotting.FAINT), _title(record, name)
            values = [find_score(rows, name, domain, steps=steps) for steps in method.steps]
            if len(values) > 1:
                known = [np.nan if value is None else value for value in values]
                axes.plot(method.steps, known, "o-", color=colour, label=label, markersize=4)
            elif values[0] is not None:
                axes.axhline(values[0], color=colour, linestyle=(0, (5, 2)), label=label)
        axes.set_title(title)
        axes.set_xlabel("steps")
        axes.set_ylabel(metric_title(record.metric))
        axes.margins(y=0.12)
        axes.legend(loc="best")

    return html.Figure(plotting.draw((5.0, 3.0), paint, dpi=120), f"Score over optimisation steps, {title}")


# ---------------------------------------------------------------- pictures


def _picture_blocks(out: Path, record: Record) -> Iterable[html.Block]:
    classes = len(record.classes)
    yield html.Legend(tuple((name, hex_colour(i, classes)) for i, name in enumerate(record.classes)))
    yield html.Text(
        "The images are the first of each test set, not picked. Below each row of masks stands the image that the "
        "generator found at that step: where it does not resemble the input, do not trust the mask."
    )
    optimised = [name for name, method in record.methods.items() if len(method.steps) > 1]
    steps = record.methods[optimised[0]].steps if optimised else []
    plain = [name for name in record.methods if name not in optimised]
    header = ["image", "true mask"] + [_title(record, name) for name in plain]
    header += ["encoder" if step == 0 else f"{step} steps" for step in steps]
    for place, domain in enumerate(record.domains):
        answers = {name: read_answers(out, name, domain) for name in record.methods}
        lines: list[tuple[str, tuple[html.Cell, ...]]] = []
        for i in range(min(record.plan.get("shown", 1), kept_images(out, record, domain))):
            lines += _image_lines(out, record, domain, i, answers, optimised, plain)
        caption = f"{domain_title(domain)}{' (the training domain)' if place == 0 else ''}"
        yield html.PictureTable(tuple(header), tuple(lines), caption)


def _title(record: Record, name: str) -> str:
    method = record.methods[name]
    return f"{method.title} ({method.weights})"


def _image_lines(
    out: Path,
    record: Record,
    domain: str,
    i: int,
    answers: dict[str, Answers],
    optimised: Sequence[str],
    plain: Sequence[str],
) -> list[tuple[str, tuple[html.Cell, ...]]]:
    """Per optimised method a line of masks and a line of reconstructions; the first also shows image, truth, rivals."""
    inputs, classes = read_inputs(out, domain), len(record.classes)

    def mask(picture: np.ndarray, alt: str) -> html.Cell:
        return html.Cell(plotting.png_bytes(colourise(picture, classes)), f"{domain_title(domain)} {i + 1}: {alt}")

    left = [
        html.Cell(plotting.png_bytes(inputs.image[i]), f"{domain_title(domain)} {i + 1}: image"),
        mask(inputs.truth[i], "true mask"),
        *(mask(answers[name].masks[-1, i], f"mask of {_title(record, name)}") for name in plain),
    ]
    empty = [html.Cell(None)] * len(left)
    if not optimised:
        return [("", tuple(left))]
    lines = []
    for line, name in enumerate(optimised):
        found = answers[name]
        label = record.methods[name].weights
        masks = [mask(found.masks[s, i], f"{label}, mask after {step} steps") for s, step in enumerate(found.steps)]
        lines.append((f"{label} mask", tuple((empty if line else left) + masks)))
        if found.reconstructions is not None:
            pictures = [
                html.Cell(
                    plotting.png_bytes(found.reconstructions[s, i]),
                    f"{domain_title(domain)} {i + 1}: {label}, image found after {step} steps",
                )
                for s, step in enumerate(found.steps)
            ]
            lines.append((f"{label} image", tuple(empty + pictures)))
    return lines


# ---------------------------------------------------------------- training


def _training_sections(out: Path) -> list[html.Section]:
    sections = []
    for run, title in RUNS.items():
        history = read_history(out / "runs" / run / "metrics.jsonl")
        if not history.stages:
            continue
        blocks: list[html.Block] = [html.Findings(tuple(findings(history)))]
        grids = sample_grids(out / "runs" / run / "samples").get("gan")
        if grids:
            images, path = grids[-1]
            blocks.append(
                html.Figure(
                    path.read_bytes(),
                    "Generated images and masks",
                    f"Drawn by the live generator after {images:,} images.",
                    pixelated=True,
                    wide=False,
                )
            )
        for section in curve_sections(panels(history)):
            blocks += [html.Text(section.title), *section.blocks]
        sections.append(html.Section(f"Training: {title}", tuple(blocks)))
    return sections


def _condition_blocks(record: Record) -> Iterable[html.Block]:
    lines = tuple((name, duration(seconds)) for name, seconds in record.chapters.items())
    yield html.Table(("chapter", "time"), (*lines, ("all", duration(sum(record.chapters.values())))))
    methods = tuple(
        (f"{method.title} ({method.weights})", method.trained, duration(method.segment_seconds))
        for method in record.methods.values()
    )
    yield html.Table(("method", "training", "segmenting all test images"), methods)
    yield html.Text(
        f"Steps were chosen on {record.images_per_domain} validation images of the training domain. "
        f"Repeat with: semgan demo --family {record.family} --minutes {record.minutes:g} --seed {record.seed}. "
        "Training stops by the clock, so numbers vary with the machine; shipped weights do not."
    )
