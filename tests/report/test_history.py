"""metrics.jsonl read as curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semgan.report.history import elapsed, read_history


def test_curves_are_sorted_and_a_rewritten_line_replaces_the_old_one(history_of) -> None:
    rows = [
        {"stage": "gan", "images_seen": 64, "seconds": 2.0, "loss/x": 2.0},
        {"stage": "gan", "images_seen": 32, "seconds": 1.0, "loss/x": 1.0},
        {"stage": "gan", "images_seen": 64, "seconds": 2.5, "loss/x": 3.0},
    ]
    curve = history_of(rows).curve("gan", "loss/x")
    assert curve.images.tolist() == [32, 64]
    assert curve.values.tolist() == [1.0, 3.0]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "gan", "images_seen": 32, "seconds": 1, "loss/x": 1.0}\n{"stage": "gan", "imag')
    assert read_history(path).images == {"gan": 32}


def test_an_absent_file_is_an_empty_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.jsonl").stages == {}


def test_nan_is_kept_out_of_the_curves_and_remembered(history_of) -> None:
    rows = [
        {"stage": "gan", "images_seen": i, "seconds": 1.0, "validation/dice": v}
        for i, v in ((1, 0.5), (2, float("nan")))
    ]
    history = history_of(rows)
    assert history.curve("gan", "validation/dice").values.tolist() == [0.5]
    assert history.broken == {("gan", "validation/dice"): 2}


def test_smoothing_keeps_length_and_mean_of_a_constant(history_of) -> None:
    rows = [{"stage": "gan", "images_seen": i, "seconds": 1.0, "loss/x": 4.0} for i in range(1, 40)]
    curve = history_of(rows).curve("gan", "loss/x")
    assert len(curve.smoothed(9)) == len(curve)
    assert np.allclose(curve.smoothed(9), 4.0)


def test_elapsed_time_leaves_out_the_pause_between_interruption_and_resume() -> None:
    first = [1.7e9 + 10 * i for i in range(20)]
    second = [1.7e9 + 7200 + 10 * i for i in range(20)]
    assert abs(elapsed(first + second) - 400) < 1
    assert elapsed([5.0, 12.5]) == 12.5  # a running total is taken as it is


def test_unknown_names_count_as_losses_and_known_ones_do_not(gan_log, history_of) -> None:
    gan_log[0]["cross_entropy"] = 1.0
    names = set(history_of(gan_log).losses("gan"))
    assert "cross_entropy" in names and "image_critic" in names
    assert not any(name.startswith(("score", "r1", "labels", "frechet", "images_per")) for name in names)
