"""What docs/trust.md tells people to type, typed: on the weights that come with the package."""

from __future__ import annotations

import csv
import json

from typed_pages import ROOT, run_programs, typed

from semgan.trust import samples
from semgan.trust.answering import TRUST_COLUMNS
from semgan.trust.signals import SIGNALS


def test_every_command_of_the_page_says_how_far_to_trust(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samples, "SEVERITIES", samples.SEVERITIES[2:])  # one shifted copy an image: seconds
    run_programs("trust.md")
    typed("trust.md")
    report = json.loads((tmp_path / "model/trust.json").read_text())["report"]
    assert report["images"] == 8 and report["copies"] == 1
    for name in ("photo", "marble"):
        rows = list(csv.DictReader((tmp_path / name / "segmentation.csv").open()))
        assert len(rows) == 4 and set(TRUST_COLUMNS) <= set(rows[0]) and set(SIGNALS) - {"disagreement"} <= set(rows[0])
        assert all(0 <= float(row["predicted_score"]) <= 1 for row in rows)
    judged = list(csv.DictReader((tmp_path / "judged/trust.csv").open()))
    assert {"score", "predicted_score", "out_of_domain", "entropy"} <= {row["signal"] for row in judged}
    assert len(list(csv.DictReader((tmp_path / "judged/calibration.csv").open()))) == 2


def test_the_page_names_every_signal_and_column():
    page = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in (*SIGNALS, *TRUST_COLUMNS))
