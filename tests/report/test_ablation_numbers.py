"""What an ablation suggests, on made-up counts."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from semgan.metrics.overlap import Counts
from semgan.report import pictures
from semgan.report.ablation import LINES, panels, write_ablation
from semgan.report.ablation_numbers import Variant, suggestion


def variant(name: str, dice_by_step: dict[int, list[float]], *, distance: float = 0.5, problem: str = "") -> Variant:
    """A variant whose cases have these Dice scores of the foreground (100 pixels in truth and prediction)."""
    counts, distances = {}, {}
    for step, scores in dice_by_step.items():
        hits = np.round(100 * np.asarray(scores)).astype(np.int64)
        both = np.stack([np.full(len(hits), 900), hits], 1)
        whole = np.stack([np.full(len(hits), 900), np.full(len(hits), 100)], 1)
        counts[step] = Counts(both, whole, whole)
        distances[step] = distance * np.linspace(2, 1, len(hits)) / (1 + step)
    changes = {} if name == "as saved" else {f"inversion.{name.partition('=')[0]}": 1.0}
    return Variant(name, changes, counts, distances, problem=problem)


EVEN = [0.5, 0.6, 0.7, 0.8, 0.9]


def test_a_steady_gain_is_beyond_chance_and_said_so():
    better = [score + 0.05 for score in EVEN]
    found = suggestion([variant("as saved", {0: EVEN, 10: EVEN}), variant("a=1", {0: EVEN, 10: better})], "dice", 10)
    assert (found.variant, found.steps, found.beyond_chance) == ("a=1", 10, True)
    assert found.difference == pytest.approx(0.05) and found.interval == pytest.approx((0.05, 0.05))
    assert "worth trying" in found.words and "after looking at these cases" in found.words


def test_a_gain_of_one_case_is_chance_and_said_so():
    lucky = [*EVEN[:-1], 1.0]
    found = suggestion([variant("as saved", {10: EVEN}), variant("a=1", {10: lucky})], "dice", 10)
    assert found.variant == "a=1" and not found.beyond_chance and found.interval[0] == pytest.approx(0)
    assert "no reason to change" in found.words


def test_the_model_as_saved_wins_ties():
    found = suggestion([variant("as saved", {0: EVEN, 10: EVEN}), variant("a=1", {0: EVEN, 10: EVEN})], "dice", 10)
    assert (found.variant, found.steps) == ("as saved", 10) and found.difference is None
    assert "keep it" in found.words


def test_other_steps_of_the_same_settings_are_compared_too():
    found = suggestion([variant("as saved", {0: [s + 0.1 for s in EVEN], 10: EVEN})], "dice", 10)
    assert (found.variant, found.steps) == ("as saved", 0) and found.beyond_chance


def test_the_encoders_answer_is_one_point_however_many_settings_begin_with_it():
    """Three settings that lose .1 by more steps, each from the same step 0; of another step 0 both count."""
    worse = [score - 0.1 for score in EVEN]
    others = [variant(f"a={name}", {0: EVEN, 10: worse}) for name in range(3)]
    found = suggestion([variant("as saved", {0: EVEN, 10: EVEN}), *others], "dice", 10)
    assert found.tried == 5 and (found.variant, found.steps) == ("as saved", 10)
    other_encoder = variant("b=1", {0: worse, 10: worse})
    assert suggestion([variant("as saved", {0: EVEN, 10: EVEN}), other_encoder], "dice", 10).tried == 4


@pytest.mark.parametrize(("far", "scale"), [(1.0, "linear"), (30.0, "log")])
def test_a_setting_far_away_does_not_press_the_others_together(tmp_path, monkeypatch, far, scale):
    drawn = []
    monkeypatch.setattr(pictures, "save_figure", lambda path, formats, size, paint: drawn.append(paint) or [])
    variants = [variant(name, {0: EVEN, 1: EVEN, 2: EVEN}) for name in ("as saved", "a=1", "a=2")]
    variants.append(variant("a=3", {0: EVEN, 1: EVEN}, distance=0.5 * far))
    write_ablation(tmp_path / "figure", variants, "dice", 1, suggestion(variants, "dice", 1), ("png",))
    figure = Figure()
    drawn[0](figure)
    assert figure.axes[1].get_xscale() == scale and figure.axes[0].get_xscale() == "linear"


def test_variants_without_scores_do_not_count():
    broken = variant("a=1", {10: [1.0] * 5}, problem="diverged")
    assert suggestion([variant("as saved", {10: EVEN}), broken], "dice", 10).variant == "as saved"
    only_broken = suggestion([variant("as saved", {10: EVEN}, problem="diverged")], "dice", 10)
    assert only_broken.variant is None and "No setting gave a score" in only_broken.words
    alone = suggestion([variant("as saved", {10: EVEN}, problem="x"), variant("a=1", {10: EVEN})], "dice", 10)
    assert alone.variant == "a=1" and "no score to compare" in alone.words


def test_one_case_tells_nothing():
    found = suggestion([variant("as saved", {10: [0.5]}), variant("a=1", {10: [0.9]})], "dice", 10)
    assert found.variant == "a=1" and found.interval is None and "One case cannot tell" in found.words


def test_cases_without_a_score_are_no_second_case():
    """Of miou-per-case, a case with neither predicted nor true class has no score: nothing is left to compare with."""

    def counts(hits: int) -> Counts:
        both = np.array([[100, 0], [50, hits]])
        return Counts(both, np.array([[100, 0], [50, 50]]), np.array([[100, 0], [50, 50]]))

    names = {"as saved": {}, "a=1": {"inversion.a": 1.0}}
    variants = [
        Variant(name, changes, {10: counts(hits)}, {10: np.array([1.0, 2.0])})
        for (name, changes), hits in zip(names.items(), (10, 40), strict=True)
    ]
    found = suggestion(variants, "miou-per-case", 10)
    assert found.variant == "a=1" and found.interval is None and not found.beyond_chance


def test_a_model_that_stops_by_a_rule_is_not_said_to_answer_at_its_fixed_steps():
    found = suggestion([variant("as saved", {0: EVEN, 10: EVEN})], "dice", 10, by_rule=True)
    assert "does already" not in found.words and "stopping rule" in found.words and "was not run here" in found.words


def test_distance_and_score_are_correlated_over_settings_and_over_cases():
    rising = {0: [s - 0.2 for s in EVEN], 5: [s - 0.1 for s in EVEN], 10: EVEN}
    found = suggestion([variant("as saved", rising)], "dice", 10)
    assert found.spearman == pytest.approx(-1) and found.pearson < -0.8
    assert found.spearman_cases == pytest.approx(-1)  # the cases of higher score have smaller distances
    assert suggestion([variant("as saved", {10: EVEN})], "dice", 10).spearman is None


def test_images_of_one_patient_are_one_case():
    pooled = variant("as saved", {10: [0.2, 0.4, 0.9]}).pooled_by(["p", "p", "q"])
    assert pooled.counts[10].cases == 2 and pooled.score(10, "dice") == pytest.approx((0.3 + 0.9) / 2)
    assert len(pooled.distances[10]) == 2


def test_panels_hold_few_lines_and_each_begins_with_the_model_as_saved():
    saved = variant("as saved", {0: EVEN})
    many = [variant(f"a={number}", {0: EVEN}) for number in range(LINES + 2)] + [variant("b=1", {0: EVEN})]
    found = panels([saved, *many])
    assert [len(members) for _, members in found] == [LINES + 1, 3, 2]
    assert all(members[0] is saved for _, members in found)
    assert panels([saved]) == [("as saved", [saved])]
