"""A model with a stopping rule, from its folder to segmentation.csv, results rows and tables."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from test_semantic_gan import SETTINGS, save
from tiny_networks import generated_images, tiny_networks

from semgan import artifacts, results
from semgan.data.whole_images import to_pixels
from semgan.metrics import overlap
from semgan.report.score_tables import names_of_step
from semgan.scoring import HeldOut, TrainedModel
from semgan.segment import segment
from semgan.stages.semantic_gan import SemanticGan
from semgan.stages.stopping import StoppingRule
from semgan.types import parse_steps, step_order

RULE = StoppingRule(0.61, (0, 1, 3))


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


@pytest.fixture(scope="module")
def run(networks, tmp_path_factory):
    """A run folder whose model has a rule, with five images and masks beside it."""
    root = tmp_path_factory.mktemp("rule")
    save(networks, root / "run" / "model", chosen_steps=3, rule=RULE)
    artifacts.write_json(root / "run" / "environment.json", {"commit": "abc"})
    line = {"stage": "inversion", "images_seen": 20, "seconds": 0.0}
    told = {0: 0.5, 3: 0.6, "auto": 0.7}
    scores = {f"validation/{SETTINGS.metric}/steps_{step}": value for step, value in told.items()}
    (root / "run" / "metrics.jsonl").write_text(json.dumps(line | scores) + "\n")
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for number, image in enumerate(generated_images(networks, 5)):
        Image.fromarray(to_pixels(image)).save(root / "images" / f"case{number}.png")
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(root / "masks" / f"case{number}.png")
    return root / "run"


@pytest.fixture(scope="module")
def stepwise(run):
    """Stem -> its step under the rule, by the model itself."""
    model = SemanticGan.load(run, device="cpu")
    files = sorted((run.parent / "images").iterdir())
    return {path.stem: answer.steps for path, answer in zip(files, model.segment(files), strict=True)}


def test_a_model_with_a_rule_uses_it_unless_told_otherwise(run, stepwise, tmp_path):
    model = SemanticGan.load(run, device="cpu")
    assert model.rule == RULE and model.steps == "auto"
    assert set(stepwise.values()) <= {0, 1, 3} and len(set(stepwise.values())) > 1
    rows = segment(run, run.parent / "images", tmp_path / "default")
    assert {row["stem"]: row["steps"] for row in rows} == stepwise
    assert segment(run, run.parent / "images", tmp_path / "named", steps="auto")[0]["steps"] == rows[0]["steps"]
    fixed = segment(run, run.parent / "images", tmp_path / "fixed", steps=2)
    assert {row["steps"] for row in fixed} == {2}
    with open(tmp_path / "default" / "segmentation.csv", newline="") as file:
        assert [int(row["steps"]) for row in csv.DictReader(file)] == list(stepwise.values())


def test_a_model_without_a_rule_says_so(networks, tmp_path):
    folder = save(networks, tmp_path / "model", chosen_steps=1)
    model = SemanticGan.load(folder, device="cpu")
    assert model.rule is None and model.steps == 1
    with pytest.raises(ValueError, match="no stopping rule"):
        model.segment_batch(generated_images(networks, 1), steps="auto")


def test_the_rule_is_told_in_the_folder_and_on_the_card(run):
    assert artifacts.read_json(run / "model" / "config.json")["inversion"]["rule"]["checkpoints"] == [0, 1, 3]
    assert "less than 0.61" in (run / "model" / "README.md").read_text()


def test_the_rules_answer_is_the_reported_number_beside_fixed_steps(run, stepwise):
    model = TrainedModel(run, device="cpu")
    held_out = HeldOut("toys", run.parent / "images", run.parent / "masks")
    scored = model.score(held_out, steps=(2,))
    assert list(scored.counts) == [0, 2, 3, "auto"]
    by_hand = [scored.counts[step] for step in (0, 2, 3)]
    for row, stem in enumerate(scored.stems):
        if stepwise[stem] in (0, 3):
            same = by_hand[(0, 2, 3).index(stepwise[stem])]
            assert np.array_equal(scored.counts["auto"].intersection[row], same.intersection[row])
    rows = [row for row in model.rows(scored, "toys", "dice") if row.class_name == results.MEAN]
    assert [(row.steps, row.chosen) for row in rows] == [(0, 0), (2, 0), (3, 0), ("auto", 1)]
    assert rows[-1].value == pytest.approx(overlap.overall(scored.counts["auto"], "dice"), abs=1e-5)
    told = [(row.steps, row.chosen, row.value) for row in model.validation_rows("toys")]
    assert told == [(0, 0, 0.5), (3, 0, 0.6), ("auto", 1, 0.7)]


def test_rows_of_a_rule_come_back_from_the_table_and_carry_the_methods_name(run, tmp_path):
    rows = TrainedModel(run, device="cpu").validation_rows("toys")
    results.append_rows(tmp_path / "scores.csv", rows)
    assert results.read_rows(tmp_path / "scores.csv") == rows
    assert names_of_step("semgan", "auto", "auto", True) == ["semgan"]
    assert names_of_step("semgan", 3, "auto", True) == []
    assert names_of_step("semgan", 0, "auto", True) == ["semgan (NO)"]


def test_steps_are_read_and_sorted_with_auto_last():
    assert [parse_steps(text) for text in ("0", "25", "auto")] == [0, 25, "auto"]
    assert sorted(["auto", 25, 0], key=step_order) == [0, 25, "auto"]
    for wrong in ("-1", "2.5", "all", ""):
        with pytest.raises(ValueError, match="whole number from 0, or auto"):
            parse_steps(wrong)
