"""An ablation as a picture (the paper's Figure 2): score over steps by setting, and distance against score."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semgan.report import pictures, plotting
from semgan.report.ablation_numbers import Suggestion, Variant
from semgan.report.sheet import metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = 7  # per panel, beside the model as saved
MARKERS = "osD^vP*X"
PANEL_INCH = (4.6, 3.1)
FAR = 4.0  # medians away from nothing: distances beyond want another scale


def write_ablation(
    path: Path, variants: Sequence[Variant], metric: str, saved_steps: int, found: Suggestion, formats: Sequence[str]
) -> list[Path]:
    """PATH.png and PATH.pdf: a panel per group of settings that were varied, and one of distance against score.

    variants: the first is the model as saved; it is drawn in every panel
    """
    groups = panels([variant for variant in variants if not variant.problem])
    count = len(groups) + 1
    columns = min(count, 3)
    rows = -(-count // columns)

    looks = _looks(variants)

    def paint(figure: Figure) -> None:
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, (title, members) in zip(places, groups, strict=False):
            _lines(place, title, members, looks, metric, saved_steps)
        _scatter(places[len(groups)], groups, looks, metric, found)
        for place in places[count:]:
            place.set_axis_off()

    return pictures.save_figure(path, formats, (columns * PANEL_INCH[0], rows * PANEL_INCH[1]), paint)


def panels(variants: Sequence[Variant]) -> list[tuple[str, list[Variant]]]:
    """Variants that change the same settings together, `LINES` at most, each panel led by the model as saved."""
    saved = [variant for variant in variants if not variant.changes]
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        if variant.changes:
            groups.setdefault(", ".join(variant.changes), []).append(variant)
    found = [
        (keys, [*saved, *members[start : start + LINES]])
        for keys, members in groups.items()
        for start in range(0, len(members), LINES)
    ]
    return found or [("as saved", saved)]


def _looks(variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Colour and marker of every variant, the same in all panels; the model as saved is black."""
    colours, looks = plotting.CYCLE, {}
    for number, variant in enumerate(variants):
        colour = colours[(number - 1) % len(colours)] if variant.changes else plotting.INK
        looks[variant.name] = {"color": colour, "marker": MARKERS[(number + number // len(colours)) % len(MARKERS)]}
    return looks


def _lines(
    axes: Axes,
    title: str,
    members: Sequence[Variant],
    looks: Mapping[str, dict[str, Any]],
    metric: str,
    saved_steps: int,
) -> None:
    for number, variant in enumerate(members):
        steps = sorted(variant.counts)
        scores = [variant.score(step, metric) for step in steps]
        dashes = plotting.DASHES[number % len(plotting.DASHES)]
        axes.plot(steps, scores, label=variant.name, linestyle=dashes, markersize=4, **looks[variant.name])
        if not variant.changes:
            ring = {"marker": "o", "markersize": 10, "fillstyle": "none", "color": plotting.INK}
            axes.plot(saved_steps, variant.score(saved_steps, metric), **ring)
    axes.set_title(title.replace("inversion.", ""))
    axes.set_xlabel("step (circle: the model as saved)")
    axes.set_ylabel(metric_title(metric))
    if members:
        axes.legend(fontsize=7.5)


def _scatter(
    axes: Axes,
    groups: Sequence[tuple[str, list[Variant]]],
    looks: Mapping[str, dict[str, Any]],
    metric: str,
    found: Suggestion,
) -> None:
    """Every (setting, step) once; later steps are larger. Marker and colour as in the panel of its setting."""
    for variant in {variant.name: variant for _, members in groups for variant in members}.values():
        for place, step in enumerate(sorted(variant.counts)):
            style = {"markersize": 3 + place, "alpha": 0.8, **looks[variant.name]}
            axes.plot(variant.distances[step].mean(), variant.score(step, metric), **style)
    seen = [float(line.get_xdata()[0]) for line in axes.get_lines()]  # type: ignore[index]
    if min(seen, default=0) > 0 and max(seen) > FAR * statistics.median(seen):
        axes.set_xscale("log")  # else a search that went astray would press all others together
    told = "" if found.spearman is None else f", Spearman {found.spearman:+.2f}"
    axes.set_title(f"Distance against score{told}")
    axes.set_xlabel("reconstruction distance (later steps larger)")
    axes.set_ylabel(metric_title(metric))
