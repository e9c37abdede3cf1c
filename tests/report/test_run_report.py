"""RUN/report.html: complete, self-contained, safe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semgan.report.run_report import chosen_grids, duration, run_findings, write_run_report
from semgan.report.sources import find_sources


def test_the_report_holds_settings_health_curves_and_samples(make_run, page_of) -> None:
    run = make_run()
    page = page_of(write_run_report(run))
    assert {"Health", "Curves: Joint GAN", "Curves: Encoder", "Samples: Joint GAN", "Settings"} <= set(page.headings)
    assert "longer training pays" in page.text
    assert "learning_rate: 0.002" in page.text  # config.yaml is in there
    assert "data/phantoms-faces" in page.text  # environment.json, too
    assert len(page.images) >= 10 + 4
    assert (run / "curves.png").is_file()


def test_the_report_asks_nothing_of_the_network(make_run, page_of) -> None:
    page = page_of(write_run_report(make_run()))
    assert page.outside == []
    assert "script" not in page.tags


def test_names_from_files_are_escaped(make_run, page_of) -> None:
    report = write_run_report(make_run(recipe="<script>alert(1)</script>"))
    assert "<script>alert" not in report.read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" in page_of(report).text


def test_scores_beside_and_elsewhere_are_shown_with_the_worst_cases(make_run, tmp_path: Path, page_of) -> None:
    run, away = make_run(), tmp_path / "away"
    for folder, mean in ((run / "masks", 0.91), (run / "other" / "masks", 0.73), (away, 0.42)):
        folder.mkdir(parents=True)
        scores = {"metric": "dice", "n": 2, "mean": mean, "classes": {"background": 0.99, "lung": mean}}
        (folder / "scores.json").write_text(json.dumps(scores))
        rows = "stem,group,class,intersection,prediction,truth,score\n"
        rows += "easy,,background,9,9,9,1\neasy,,lung,9,9,9,0.97\nhard,,background,9,9,9,1\nhard,,lung,1,9,9,0.13\n"
        (folder / "cases.csv").write_text(rows)
    text = page_of(write_run_report(run, scores=[away])).text
    assert "0.91" in text and "0.73" in text and "0.42" in text  # two folders have one name
    assert text.index("hard") < text.index("easy")  # lowest first
    with pytest.raises(FileNotFoundError, match="semgan evaluate"):
        write_run_report(run, scores=[tmp_path / "nowhere"])


def test_what_explain_left_in_a_run_is_no_evaluation(make_run, page_of) -> None:
    run = make_run([])
    for name, scores in (("story", {"0": 0.5, "25": 0.6}), ("untrue", {})):
        (run / name).mkdir()
        (run / name / "scores.json").write_text(json.dumps(scores))
    assert "Scores" not in page_of(write_run_report(run)).headings
    assert find_sources([run]).evaluations == {}


def test_the_choice_of_steps_is_shown(make_run, gan_log, page_of) -> None:
    scores = {f"validation/miou/steps_{step}": 0.5 + step / 1000 for step in (0, 25, 100)}
    run = make_run([*gan_log, {"stage": "inversion", "images_seen": 16, "seconds": 0.0, **scores}])
    (run / "model").mkdir()
    (run / "model" / "config.json").write_text('{"inversion": {"chosen_steps": 100}}')
    page = page_of(write_run_report(run))
    assert "chosen on validation: 100" in page.text and "0.6000" in page.text
    assert not any("inversion" in heading for heading in page.headings)  # one line is no curve


def test_the_report_says_which_perceptual_distance_was_used(make_run, page_of) -> None:
    run = make_run()
    (run / "model").mkdir()
    (run / "model" / "config.json").write_text('{"training": {"perceptual_distance": "features of the image critic"}}')
    assert "features of the image critic" in page_of(write_run_report(run)).text


def test_an_unfinished_run_has_a_report_as_well(make_run, page_of) -> None:
    page = page_of(write_run_report(make_run([])))
    assert "No metrics yet" in page.text


def test_a_folder_that_is_no_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.yaml"):
        write_run_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_findings_of_a_run_are_at_hand_without_a_report(make_run) -> None:
    assert any("Fréchet" in finding.text for finding in run_findings(make_run()))


def test_first_middle_and_latest_grids_are_chosen() -> None:
    grids = [(i, Path(str(i))) for i in range(9)]
    assert [images for images, _ in chosen_grids(grids)] == [0, 4, 8]
    assert chosen_grids(grids[:2]) == grids[:2]


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "1 min 0 s"), (12, "12 s"), (4530, "1 h 15 min")])
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
