"""What docs/posterior.md tells people to type, typed: on the weights that come with the package."""

from __future__ import annotations

import csv
import json

import numpy as np
from PIL import Image
from typed_pages import run_programs, typed

from semgan.posterior import calibration, latent, preconditioning
from semgan.posterior.latent import Budget


def test_every_command_of_the_page_draws_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibration, "TEMPERATURES", (1e-3,))
    monkeypatch.setattr(calibration, "LADDER", (1e-3,))
    monkeypatch.setattr(calibration, "BUDGET", Budget(count=4, chains=2, warmup=2, thin=1))
    monkeypatch.setattr(preconditioning, "RANK", 4)
    monkeypatch.setattr(latent, "LAPLACE_RANK", 4)
    run_programs("posterior.md")
    typed("posterior.md")
    assert json.loads((tmp_path / "model/posterior.json").read_text())["temperature"] == 1e-3
    for name in ("plausible", "quick"):
        rows = list(csv.DictReader((tmp_path / name / "posterior.csv").open()))
        assert len(rows) == 2 and all(float(row["skin_px_low"]) <= float(row["skin_px_high"]) for row in rows)
        masks = [np.array(Image.open(path)) for path in sorted((tmp_path / name / "draws/test_00000").iterdir())]
        assert len(masks) == 8 and {mask.shape for mask in masks} == {(48, 48)}
        assert len({mask.tobytes() for mask in masks}) > 1
