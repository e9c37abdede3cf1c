"""What the curves give reason to say: every kind of trouble is told, and a healthy run is not troubled."""

from __future__ import annotations

import numpy as np
import pytest

from semgan.report.health import Finding, findings


def told(found: list[Finding], level: str, *words: str) -> bool:
    return any(f.level == level and all(word in f.text for word in words) for f in found)


def test_a_healthy_run_is_told_to_go_on(gan_log, history_of) -> None:
    found = findings(history_of(gan_log))
    assert {finding.level for finding in found} == {"good"}
    assert told(found, "good", "Fréchet distance still fell", "longer training pays")


def test_a_distance_that_stands_still_means_stop(gan_log, history_of) -> None:
    for row in gan_log:
        if "frechet_distance_critic_features" in row:
            row["frechet_distance_critic_features"] = max(10.0, 30 - row["images_seen"] / 1000)
    assert told(findings(history_of(gan_log)), "stop", "not improved over the last third", "best 10 at 23k")


def test_a_distance_that_rises_means_stop(gan_log, history_of) -> None:
    for row in gan_log:
        if "frechet_distance_critic_features" in row:
            row["frechet_distance_critic_features"] = 5 + abs(row["images_seen"] - 30_000) / 1000
    assert told(findings(history_of(gan_log)), "stop", "rose from")


def test_a_validation_peak_in_the_past_is_named_with_its_image_count(gan_log, history_of) -> None:
    for row in gan_log:
        if "validation/miou" in row:
            row["validation/miou"] = 0.6 - abs(row["images_seen"] - 38_400) / 500_000
    found = findings(history_of(gan_log))
    assert told(found, "stop", "label branch's validation miou peaked at 38.4k images (0.600)")


def test_a_growing_gap_between_real_and_fake_scores_is_wrong(gan_log, history_of) -> None:
    for row in gan_log:
        if "score/image_real" in row:
            row["score/image_real"] = row["images_seen"] / 5000
    assert told(findings(history_of(gan_log)), "wrong", "image critic is winning", "gan.augment=adaptive")


def test_a_critic_that_sees_no_difference_is_told(gan_log, history_of) -> None:
    for row in gan_log:
        if "score/pair_real" in row:
            row["score/pair_real"] = row["score/pair_fake"]
    assert told(findings(history_of(gan_log)), "watch", "pair critic cannot tell real from fake")


def test_exploding_r1_is_wrong(gan_log, history_of) -> None:
    for row in gan_log:
        if "r1/image" in row and row["images_seen"] > 68_000:
            row["r1/image"] = 5.0
    assert told(findings(history_of(gan_log)), "wrong", "R1 of the image critic is exploding")


@pytest.mark.parametrize(("share", "level", "words"), [(0.0005, "wrong", "missing"), (0.19, "watch", "9.5 times")])
def test_missing_and_overgrown_classes_are_named(gan_log, history_of, share: float, level: str, words: str) -> None:
    for row in gan_log:
        if "labels/eyes_share_samples" in row:
            row["labels/eyes_share_samples"] = share
    assert told(findings(history_of(gan_log)), level, words, "eyes")


def test_augmentation_at_its_ceiling_is_told(gan_log, history_of) -> None:
    lines = [row for row in gan_log if "augment_probability" in row]
    for row, value in zip(lines, np.linspace(0, 0.95, len(lines)), strict=True):
        row["augment_probability"] = float(value)
    assert told(findings(history_of(gan_log)), "watch", "augmentation probability rose to 0.95")


def test_nan_comes_first(gan_log, history_of) -> None:
    gan_log[-1]["validation/miou"] = float("nan")
    assert findings(history_of(gan_log))[0].level == "wrong"
    later = [{"stage": "encoder", "images_seen": 32, "seconds": 1.0, "validation/miou": float("inf")}]
    told = [finding.text for finding in findings(history_of([*gan_log, *later])) if "turned to nan" in finding.text]
    assert len(told) == 2  # of the same name in either stage


def test_nothing_is_claimed_without_data(history_of) -> None:
    assert "No metrics yet" in findings(history_of([]))[0].text
    few = [{"stage": "gan", "images_seen": 32, "seconds": 1.0, "loss/x": 1.0}]
    assert [finding.level for finding in findings(history_of(few))] == ["watch"]
