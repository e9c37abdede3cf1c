"""Curves as pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semgan.report.curves import PANEL_DPI, PANEL_INCH, TITLE_INCH, panels, write_curves
from semgan.report.plotting import short_count


def test_every_kind_of_curve_gets_its_panel(gan_log, encoder_log, history_of) -> None:
    shown = {(panel.stage, panel.title) for panel in panels(history_of(gan_log + encoder_log))}
    titles = ["Losses", "Image critic's scores", "Pair critic's scores", "Regularisers", "Fréchet distance"]
    titles += ["Pixels per class, samples / labelled", "Validation score", "Speed"]
    assert {("gan", title) for title in titles} <= shown
    assert {("encoder", "Losses"), ("encoder", "Validation score")} <= shown
    assert ("encoder", "Image critic's scores") not in shown  # no empty panels


def test_clocks_are_no_losses(gan_log, history_of) -> None:
    losses = next(panel for panel in panels(history_of(gan_log)) if panel.title == "Losses")
    assert {line.label for line in losses.lines} == {
        "image critic", "pair critic", "generator image", "generator label", "feature matching",
    }  # fmt: skip


def test_a_run_gets_one_picture_and_no_litter(make_run) -> None:
    run = make_run()
    picture = Image.open(write_curves(run))
    assert picture.width > 1000
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert not [path for path in run.iterdir() if ".tmp" in path.name]


def test_a_line_is_drawn_in_its_colour(gan_log, history_of) -> None:
    panel = next(p for p in panels(history_of(gan_log)) if p.title == "Fréchet distance")
    pixels = panel.pixels.astype(int)
    wanted = np.array([int(panel.lines[0].colour[i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(pixels - wanted).sum(2) < 30).sum() > 200


def test_the_sheet_shows_every_panel_at_its_place(make_run, gan_log, history_of) -> None:
    pixels = np.asarray(Image.open(write_curves(make_run(gan_log))).convert("RGB"), int)
    shown = panels(history_of(gan_log))
    width, height, top = (round(inch * PANEL_DPI) for inch in (*PANEL_INCH, TITLE_INCH))
    assert pixels.shape == (top + height * -(-len(shown) // 3), 3 * width, 3) and pixels[:top].min() < 100
    for i, panel in enumerate(shown):
        row, column = divmod(i, 3)
        found = pixels[top + row * height :, column * width :][:height, :width]
        assert np.abs(found - panel.pixels).mean() < 3  # colours are reduced to a palette


def test_runs_without_metrics_get_a_clear_message(make_run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        write_curves(tmp_path)
    with pytest.raises(ValueError, match="No curves"):
        write_curves(make_run([]))


@pytest.mark.parametrize(("value", "text"), [(640, "640"), (38_400, "38.4k"), (3_200_000, "3.2M")])
def test_counts_are_short(value: int, text: str) -> None:
    assert short_count(value) == text


def test_matplotlib_and_torch_are_loaded_only_when_something_is_drawn() -> None:
    code = "import sys, semgan.demo, semgan.report.run_report\n"
    code += "print([name for name in ('matplotlib', 'torch', 'jinja2') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
