"""What docs/robustness.md tells people to type, typed: on the weights that come with the package."""

from __future__ import annotations

import json

import pytest
from typed_pages import ROOT, run_programs, typed

from semgan.data.shifts import MIXED, SHIFTS
from semgan.robustness import read_rows


def test_every_command_of_the_page_scores_shifted_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_programs("robustness.md")
    typed("robustness.md")
    rows = read_rows(tmp_path / "robust" / "robustness.csv")
    assert [row.shift for row in rows] == ["none", *SHIFTS] and {row.n for row in rows} == {4}
    mixed = read_rows(tmp_path / "mixed" / "robustness.csv")
    assert [row.shift for row in mixed] == ["none", MIXED] and {row.n for row in mixed} == {2}
    assert json.loads((tmp_path / "mixed" / "means.json").read_text())["model"]["shifted"] == pytest.approx(
        mixed[1].score, abs=1e-5
    )


def test_the_page_names_every_shift():
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in (*SHIFTS, MIXED))
