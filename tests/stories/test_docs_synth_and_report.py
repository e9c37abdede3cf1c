"""What docs/synth.md and docs/report.md tell people to type, typed; on the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed_pages import ROOT, run, run_programs, typed

from semgan.synth import rules


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with the sources beside, as in a checkout; fewer pairs on trial, as time is short in tests."""
    monkeypatch.setattr(rules, "CALIBRATION", 64)
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_synth_page_work(here):
    pytest.importorskip("pycocotools", reason="the page's last example writes COCO: pip install 'semgan[coco]'")
    lines = typed("synth.md")
    assert len(lines) >= 5
    assert json.loads((here / "synthetic" / "summary.json").read_text())["pairs"] == 30
    styles = json.loads((here / "styles" / "summary.json").read_text())
    assert styles["styles_drawn"] == 15 and styles["images"] > 5
    run_programs("synth.md")
    assert len(list((here / "more" / "labelsTr").iterdir())) == 20


def test_the_commands_of_the_report_page_work(here):
    typed("report.md")
    text = (here / "report" / "report.html").read_text()
    assert "Cases from best to worst: optimised" in text and "may be patients&#39;" in text
    assert (here / "report-to-send" / "report.html").stat().st_size < len(text) / 4
    assert "Differences" in (here / "report" / "tables.tex").read_text()


def test_models_without_a_generator_and_empty_folders_end_with_one_message(here, capsys):
    (here / "model").mkdir()
    (here / "model" / "config.json").write_text('{"method": "unet"}')
    for words, message in (
        (["synth", "-m", "model", "-n", "4", "-o", "out"], "cannot draw"),
        (["synth", "-m", "src/semgan/weights/phantoms-faces", "-n", "4", "-o", "out", "--min-share", "eye"], "CLASS="),
        (["report", "model", "-o", "out"], "nothing to report on"),
    ):
        assert run(*words) == 2 and message in " ".join(capsys.readouterr().err.split())
    assert not (here / "out").exists() and not (here / "out.partial").exists()
