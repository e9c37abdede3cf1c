"""`semgan evaluate` from files: which cases, which classes, which errors, and the numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from volume_files import oblique, save

from semgan.evaluate import evaluate

SQUARE = np.zeros((6, 8), np.uint8)
SQUARE[1:5, 2:6] = 1  # 16 px
SHIFTED = np.roll(SQUARE, 1, axis=1)  # 12 px in common
EMPTY = np.zeros_like(SQUARE)


def write(folder: Path, masks: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        Image.fromarray(mask.astype(np.uint8)).save(folder / (name if "." in name else f"{name}.png"))
    return folder


def write_manifest(path: Path, rows: list[tuple[str, str]], column: str = "patient") -> Path:
    path.write_text(f"stem,{column}\n" + "".join(f"{stem},{group}\n" for stem, group in rows))
    return path


@pytest.fixture
def binary(tmp_path: Path) -> tuple[Path, Path]:
    """a: Dice 0.75, b: 1, c: empty against empty."""
    labels = write(tmp_path / "labels", {"a": SQUARE, "b": SQUARE, "c": EMPTY})
    return write(tmp_path / "predictions", {"a": SHIFTED, "b": SQUARE, "c": EMPTY}), labels


@pytest.mark.parametrize(
    ("metric", "expected"), [("dice", (0.75 + 1 + 1) / 3), ("jaccard", (12 / 20 + 1 + 1) / 3), ("miou", 28 / 36)]
)
def test_foreground_score_of_binary_masks(binary, metric, expected):
    result = evaluate(*binary, metric=metric)
    assert result.mean == pytest.approx(expected)
    assert result.mean_over == ["foreground"]
    assert (result.n, result.images, result.per) == (3, 3, "image")


def test_masks_of_0_and_255_mean_the_same_as_0_and_1(binary, tmp_path):
    predictions, labels = binary
    bright = write(tmp_path / "bright", {"a": SQUARE * 255, "b": SQUARE * 255, "c": EMPTY})
    assert evaluate(predictions, bright, metric="dice").classes == evaluate(predictions, labels, metric="dice").classes


def test_scores_and_cases_are_written_beside_the_predictions(binary):
    predictions, labels = binary
    result = evaluate(predictions, labels, metric="dice")
    assert json.loads((predictions / "scores.json").read_text()) == json.loads(json.dumps(result.to_json()))
    with open(predictions / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2
    row = next(row for row in rows if row["stem"] == "a" and row["class"] == "foreground")
    assert (row["intersection"], row["prediction"], row["truth"]) == ("12", "16", "16")
    assert float(row["score"]) == 0.75


def test_results_can_be_written_elsewhere_and_the_predictions_left_as_they_are(binary, tmp_path):
    predictions, labels = binary
    evaluate(predictions, labels, metric="dice", out=tmp_path / "scores")
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["cases.csv", "scores.json"]
    assert not (predictions / "scores.json").exists()


def test_evaluating_twice_gives_the_same_files(binary):
    predictions, labels = binary
    files = []
    for _ in range(2):
        evaluate(predictions, labels, metric="dice")
        files.append([(predictions / name).read_bytes() for name in ("scores.json", "cases.csv")])
    assert files[0] == files[1]


def test_missing_predictions_are_all_named_and_nothing_is_written(binary, tmp_path):
    predictions, labels = binary
    (predictions / "a.png").unlink()
    (predictions / "c.png").unlink()
    with pytest.raises(ValueError, match=r"no prediction for 2 of 3 labelled cases: a, c"):
        evaluate(predictions, labels, metric="dice")
    assert not (predictions / "scores.json").exists()


def test_missing_predictions_named_like_dataset_images_get_a_hint(tmp_path):
    labels = write(tmp_path / "labels", {"a": SQUARE})
    with pytest.raises(ValueError, match="STEM_0000"):
        evaluate(write(tmp_path / "p", {"a_0000": SQUARE}), labels, metric="dice")


def test_further_predictions_and_other_files_are_reported_or_left_alone(binary):
    predictions, labels = binary
    write(predictions, {"z": SQUARE})
    (predictions / "segmentation.csv").write_text("stem,steps\n")
    (predictions / "overlays").mkdir()
    (predictions / "._a.png").write_bytes(b"not a mask")
    result = evaluate(predictions, labels, metric="dice")
    assert result.extra_predictions == ["z"]
    assert result.images == 3


def test_only_the_cases_asked_for_are_scored(binary):
    predictions, labels = binary
    (predictions / "c.png").unlink()
    result = evaluate(predictions, labels, metric="dice", stems=["a"])
    assert result.mean == 0.75 and result.extra_predictions == ["b"]
    with pytest.raises(ValueError, match="no mask for 1 of the cases asked for: nobody"):
        evaluate(predictions, labels, metric="dice", stems=["a", "nobody"])


def test_sizes_must_be_equal_and_every_odd_file_is_named(binary):
    predictions, labels = binary
    write(predictions, {"a": SQUARE[:4], "b": SQUARE[:, :4]})
    with pytest.raises(ValueError, match=r"a\.png is 8 x 4 px.*8 x 6 px.*b\.png is 4 x 6 px"):
        evaluate(predictions, labels, metric="dice")


def test_patients_pool_the_pixels_of_their_images(binary, tmp_path):
    manifest = write_manifest(tmp_path / "m.csv", [("a", "ann"), ("b", "bob"), ("c", "ann"), ("unused", "eve")])
    write(binary[0], {"c": SQUARE})  # 16 false pixels for ann
    result = evaluate(*binary, metric="dice", manifest=manifest, per="patient")
    assert result.groups["ann"]["foreground"] == pytest.approx(2 * 12 / (32 + 16))
    assert result.mean == pytest.approx((0.5 + 1) / 2)
    assert (result.n, result.images) == (2, 3)
    with open(binary[0] / "cases.csv", newline="") as file:
        assert {row["stem"]: row["group"] for row in csv.DictReader(file)} == {"a": "ann", "b": "bob", "c": "ann"}


def test_patient_may_be_called_group_in_the_manifest(binary, tmp_path):
    manifest = write_manifest(tmp_path / "m.csv", [("a", "1"), ("b", "1"), ("c", "1")], column="group")
    assert evaluate(*binary, metric="dice", manifest=manifest, per="patient").n == 1


@pytest.mark.parametrize(
    ("rows", "column", "per", "message"),
    [
        ([("a", "1")], "patient", "patient", "no patient for 2 labelled cases: b, c"),
        ([("a", "1")], "patient", "hospital", "needs the columns stem and hospital; it has stem, patient"),
        ([("a", "1"), ("a", "2")], "patient", "patient", "puts 'a' into two groups"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(binary, tmp_path, rows, column, per, message):
    manifest = write_manifest(tmp_path / "m.csv", rows, column)
    with pytest.raises(ValueError, match=message):
        evaluate(*binary, metric="dice", manifest=manifest, per=per)


def test_scores_per_patient_need_a_manifest(binary):
    with pytest.raises(ValueError, match="need a manifest"):
        evaluate(*binary, metric="dice", per="patient")


def test_unknown_metric_and_missing_folders_are_refused(binary, tmp_path):
    with pytest.raises(ValueError, match="Unknown metric 'f1'"):
        evaluate(*binary, metric="f1")
    with pytest.raises(FileNotFoundError, match="not a folder"):
        evaluate(tmp_path / "nowhere", binary[1], metric="dice")
    (tmp_path / "void").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no masks"):
        evaluate(binary[0], tmp_path / "void", metric="dice")


def test_two_masks_of_one_stem_are_refused(binary):
    write(binary[1], {"a.bmp": SQUARE})
    with pytest.raises(ValueError, match=r"two masks for 'a': a\.bmp and a\.png"):
        evaluate(*binary, metric="dice")


def test_a_damaged_mask_is_named(binary):
    (binary[1] / "b.png").write_bytes((binary[1] / "b.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"labels/b\.png"):
        evaluate(*binary, metric="dice")


# ---------------------------------------------------------------- intervals, mIoU per case, surfaces


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "cases.csv", newline="") as file:
        return list(csv.DictReader(file))


def random_masks(tmp_path: Path, number: int = 8) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    truths = {f"{index:02}": random.integers(0, 3, (6, 7)) for index in range(number)}
    found = {stem: np.where(random.random(truth.shape) < 0.7, truth, 1) for stem, truth in truths.items()}
    return write(tmp_path / "found", found), write(tmp_path / "true", truths)


@pytest.mark.parametrize("metric", ["dice", "jaccard", "miou", "miou-per-case"])
def test_the_interval_lies_around_the_mean_and_in_the_file(tmp_path, metric):
    result = evaluate(*random_masks(tmp_path), metric=metric)
    assert result.interval is not None
    low, high = result.interval
    assert 0 < low < result.mean < high < 1
    assert json.loads((tmp_path / "found" / "scores.json").read_text())["interval"] == [low, high]


def test_the_interval_draws_groups_where_groups_are_the_cases(tmp_path):
    folders = random_masks(tmp_path)
    stems = [f"{index:02}" for index in range(8)]
    alone = write_manifest(tmp_path / "alone.csv", [(stem, stem) for stem in stems])
    halves = write_manifest(tmp_path / "halves.csv", [(stem, str(int(stem) // 4)) for stem in stems])
    one = write_manifest(tmp_path / "one.csv", [(stem, "ann") for stem in stems])
    per_image = evaluate(*folders, metric="miou").interval
    assert evaluate(*folders, metric="miou", manifest=alone, per="patient").interval == per_image
    two = evaluate(*folders, metric="dice", manifest=halves, per="patient")
    scores = [np.mean([scores[name] for name in two.mean_over]) for scores in two.groups.values()]
    assert two.interval == pytest.approx((min(scores), max(scores)))
    assert evaluate(*folders, metric="miou", manifest=one, per="patient").interval is None


def test_names_of_the_files_and_so_their_order_change_no_number(tmp_path):
    found, true = random_masks(tmp_path)
    before = evaluate(found, true, metric="dice", surface=True)
    for folder in (found, true):
        for index in range(8):
            (folder / f"{index:02}.png").rename(folder / f"x{index * 5 % 8}.png")
    after = evaluate(found, true, metric="dice", surface=True)
    assert after.mean == pytest.approx(before.mean, rel=1e-12)
    assert after.interval == before.interval
    assert {name: summary.interval for name, summary in after.surface.items()} == {
        name: summary.interval for name, summary in before.surface.items()
    }


def test_miou_per_case_counts_a_class_only_where_it_occurs(tmp_path):
    labels = write(tmp_path / "l", {"a": np.array([[0, 1, 2, 2]]), "b": np.array([[0, 0, 1, 1]]), "c": EMPTY})
    found = write(tmp_path / "p", {"a": np.array([[0, 1, 2, 1]]), "b": np.array([[0, 0, 1, 1]]), "c": EMPTY})
    names = ["background", "left", "right"]
    result = evaluate(found, labels, metric="miou-per-case", classes=names)
    assert result.mean == pytest.approx((0.5 + 1) / 2)  # a: 1/2 and 1/2; b: left alone; c: does not count
    assert result.classes == {"background": 1, "left": 0.75, "right": 0.5}
    assert (result.n, result.images) == (2, 3)
    assert "1 of 3 cases have none of the classes" in result.warnings[0]
    scores = {(row["stem"], row["class"]): row["score"] for row in rows_of(found)}
    assert scores["b", "right"] == scores["c", "left"] == "" and float(scores["b", "left"]) == 1
    manifest = write_manifest(tmp_path / "m.csv", [("a", "ann"), ("b", "bob"), ("c", "eve")])
    per_patient = evaluate(found, labels, metric="miou-per-case", classes=names, manifest=manifest, per="patient")
    assert per_patient.groups["bob"] == {"background": 1, "left": 1, "right": None}


def test_false_pixels_of_an_empty_slice_count_in_its_patients_dice(tmp_path):
    labels = write(tmp_path / "l", {"full": SQUARE, "empty": EMPTY})
    found = write(tmp_path / "p", {"full": SQUARE, "empty": SQUARE})
    manifest = write_manifest(tmp_path / "m.csv", [("full", "ann"), ("empty", "ann")])
    assert evaluate(found, labels, metric="dice", manifest=manifest, per="patient").mean == pytest.approx(2 / 3)
    write(found, {"empty": EMPTY})
    assert evaluate(found, labels, metric="dice", manifest=manifest, per="patient").mean == 1


def test_surfaces_are_measured_only_when_asked_for(binary):
    predictions, labels = binary
    result = evaluate(predictions, labels, metric="dice")
    assert result.surface == {}
    assert list(rows_of(predictions)[0]) == ["stem", "group", "class", "intersection", "prediction", "truth", "score"]


def test_surfaces_are_in_mm_with_a_spacing_and_else_named_as_pixels(binary):
    pixels = evaluate(*binary, metric="dice", surface=True).surface
    assert list(pixels) == ["hd95_px", "assd_px", "area_difference_px", "area_difference_relative"]
    assert pixels["hd95_px"].classes["foreground"] == pytest.approx(1 / 3)  # a: shifted by one column
    mm = evaluate(*binary, metric="dice", surface=True, spacing_mm=[3.0, 0.5]).surface
    assert mm["hd95_mm"].mean == pytest.approx(0.5 / 3)
    row = next(row for row in rows_of(binary[0]) if (row["stem"], row["class"]) == ("a", "foreground"))
    assert (row["hd95_mm"], row["area_difference_mm2"]) == ("0.500000", "0.000000")
    stored = json.loads((binary[0] / "scores.json").read_text())["surface"]["hd95_mm"]
    assert stored["mean"] == mm["hd95_mm"].mean and stored["n"] == 3


def test_distances_of_a_patients_images_are_averaged_before_the_patients(binary, tmp_path):
    manifest = write_manifest(tmp_path / "m.csv", [("a", "ann"), ("b", "bob"), ("c", "bob")])
    hd95 = evaluate(*binary, metric="dice", manifest=manifest, per="patient", surface=True).surface["hd95_px"]
    assert (hd95.mean, hd95.n, hd95.interval) == (pytest.approx((1 + 0) / 2), 2, (0, 1))


def test_a_missed_mask_has_no_distance_and_is_counted_not_dropped(binary):
    predictions, labels = binary
    write(predictions, {"b": EMPTY})
    result = evaluate(predictions, labels, metric="dice", surface=True)
    hd95 = result.surface["hd95_px"]
    assert (hd95.n, hd95.undefined, hd95.mean) == (2, {"background": 0, "foreground": 1}, pytest.approx(0.5))
    assert any("hd95_px (foreground in 1 images)" in warning for warning in result.warnings)
    rows = {(row["stem"], row["class"]): row for row in rows_of(predictions)}
    assert rows["b", "foreground"]["hd95_px"] == "nan"
    assert float(rows["b", "foreground"]["area_difference_relative"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing_mm": [1.0]}, "Only surface distances use a spacing"),
        ({"surface": True, "spacing_mm": [1.0, 1.0, 2.0]}, r"^A spacing of 1, 1, 2 mm .* 2 axes; [^;]*$"),
        ({"surface": True, "spacing_mm": [0.0]}, "one positive number"),
    ],
)
def test_spacings_that_do_not_fit_are_refused_once(binary, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*binary, metric="dice", **options)
    assert not (binary[0] / "scores.json").exists()


def test_the_command_prints_intervals_and_surfaces(binary, capsys):
    from semgan.cli import main

    folders = [str(folder) for folder in binary]
    options = ["--metric", "dice", "--surface", "--spacing-mm", "3", "--spacing-mm", "0.5"]
    with pytest.raises(SystemExit) as leave:
        main(["evaluate", *folders, *options])
    assert not leave.value.code
    printed = capsys.readouterr().out
    assert "interval" in printed and "(95 %)" in printed
    assert "hd95_mm (n = 3 per image, not defined: 0)" in printed
    with pytest.raises(SystemExit):
        main(["evaluate", *folders, *options, "--json"])
    assert json.loads(capsys.readouterr().out)["surface"]["assd_mm"]["undefined"]["foreground"] == 0


# ---------------------------------------------------------------- classes

STRIPES = np.repeat(np.array([0, 1, 2, 3], np.uint8), 2)[None].repeat(4, 0)
SWAPPED = np.array([0, 2, 1, 3], np.uint8)[STRIPES]


def test_class_names_come_from_the_dataset_and_its_ignore_value_is_left_out(tmp_path):
    truth = STRIPES.copy()
    truth[0] = 255
    labels = write(tmp_path / "data" / "labelsTs", {"a": truth})
    names = {"background": 0, "ear": 1, "eye": 2, "nose": 3, "ignore": 255}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": names}))
    prediction = STRIPES.copy()
    prediction[0] = 3  # wrong, but ignored
    result = evaluate(write(tmp_path / "p", {"a": prediction}), labels, metric="miou")
    assert result.classes == {"background": 1, "ear": 1, "eye": 1, "nose": 1}


def test_masks_of_a_published_test_set_have_the_classes_of_their_dataset(tmp_path):
    """DATASET/test_sets/NAME/labels, where `data prepare` links them; a class that occurs nowhere is a class."""
    truth = STRIPES.copy()
    truth[0], truth[truth == 3] = 255, 2
    labels = write(tmp_path / "data" / "test_sets" / "far" / "labels", {"a": truth})
    names = {"background": 0, "ear": 1, "eye": 2, "nose": 3, "ignore": 255}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": names}))
    result = evaluate(write(tmp_path / "p", {"a": np.where(truth == 255, 3, truth)}), labels, metric="miou")
    assert set(result.classes) == {"background", "ear", "eye", "nose"}


def test_labels_named_by_channel_are_told(tmp_path):
    labels, ours = write(tmp_path / "labels", {"a_0000": STRIPES}), write(tmp_path / "p", {"a": STRIPES})
    with pytest.raises(ValueError, match="predictions named as these without _0000: rename the labels to STEM"):
        evaluate(ours, labels, metric="dice")


def test_regions_of_several_values_in_a_dataset_json_name_no_class(tmp_path):
    """nnU-Net's region-based training: {"whole tumour": [1, 2]}."""
    labels = write(tmp_path / "data" / "labelsTs", {"a": STRIPES})
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "ignore": 255}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": regions}))
    result = evaluate(write(tmp_path / "p", {"a": SWAPPED}), labels, metric="jaccard")
    assert result.mean_over == ["class 1", "class 2", "class 3"]


NAMES = ["sky", "a", "b", "c"]
KEYED = {str(value): name for value, name in enumerate(NAMES)}


@pytest.mark.parametrize("content", [NAMES, KEYED, {"classes": NAMES, "test": ["a"]}, {"classes": KEYED}])
def test_class_names_come_from_classes_json_beside_the_masks(tmp_path, content):
    labels = write(tmp_path / "data" / "masks", {"a": STRIPES})
    (tmp_path / "data" / "classes.json").write_text(json.dumps(content))
    result = evaluate(write(tmp_path / "p", {"a": SWAPPED}), labels, metric="jaccard")
    assert result.classes == {"sky": 1, "a": 0, "b": 0, "c": 1}
    assert result.mean == pytest.approx(1 / 3)


@pytest.mark.parametrize("content", ["text", 3, [["a"], ["b"]], {"0": {"name": "a"}, "1": 5}])
def test_a_classes_json_that_names_nothing_is_passed_over(tmp_path, content):
    labels = write(tmp_path / "data" / "masks", {"a": STRIPES})
    (tmp_path / "data" / "classes.json").write_text(json.dumps(content))
    result = evaluate(write(tmp_path / "p", {"a": SWAPPED}), labels, metric="jaccard")
    assert result.mean_over == ["class 1", "class 2", "class 3"]


def test_without_names_the_indices_that_occur_are_the_classes(tmp_path):
    labels = write(tmp_path / "labels", {"a": np.array([[0, 2, 4]])})
    result = evaluate(write(tmp_path / "p", {"a": np.array([[0, 2, 2]])}), labels, metric="miou")
    assert result.mean_over == ["class 2", "class 4"]
    assert result.mean == pytest.approx((0.5 + 0) / 2)
    assert "No class names" in result.warnings[0]


def test_two_codes_of_the_same_classes_are_suspected(tmp_path):
    """Labels as the hospital stores them, predictions with the indices that `data prepare` made of them."""
    labels = write(tmp_path / "labels", {"a": np.array([0, 2, 7, 9], np.uint8)[STRIPES]})
    result = evaluate(write(tmp_path / "p", {"a": STRIPES}), labels, metric="dice")
    assert "Values 1, 3 occur in predictions only, and 7, 9 in labels only" in result.warnings[0]


def test_swapped_folders_are_suspected(tmp_path):
    masks = {"a": np.array([0, 1, 1, 0], np.uint8)[STRIPES]}
    ours, labels = write(tmp_path / "ours", masks), write(tmp_path / "labels", masks)
    (ours / "segmentation.csv").write_text("stem\na\n")
    assert not [text for text in evaluate(ours, labels, metric="dice").warnings if "swapped" in text]
    found = evaluate(labels, ours, metric="dice", out=tmp_path / "out").warnings
    assert [text for text in found if "swapped" in text and str(ours) in text]


def test_names_keyed_by_the_values_of_the_masks_mean_these_values(tmp_path):
    """The classes.json of `data prepare`; by their order alone, value 2 would count as class 2, the kidney."""
    labels = write(tmp_path / "labels", {"a": np.array([0, 2, 2, 0], np.uint8)[STRIPES]})
    predictions = write(tmp_path / "p", {"a": np.array([0, 1, 1, 0], np.uint8)[STRIPES]})
    (tmp_path / "classes.json").write_text(json.dumps({"0": "background", "2": "liver", "7": "kidney"}))
    from semgan.cli import main

    words = ["evaluate", str(predictions), str(labels), "--metric", "dice", "--classes", str(tmp_path / "classes.json")]
    with pytest.raises(SystemExit) as left:
        main(words)
    scores = json.loads((predictions / "scores.json").read_text())["classes"]
    assert not left.value.code and scores["background"] == scores["liver"] == 1


def test_a_mapping_of_data_prepare_leaves_values_out(tmp_path):
    from semgan.cli import main

    truth = np.array([0, 1, 1, 127], np.uint8)[STRIPES]
    labels, ours = write(tmp_path / "labels", {"a": truth}), write(tmp_path / "p", {"a": np.minimum(truth, 1)})
    (tmp_path / "map.json").write_text('{"0": 0, "1": 1, "127": "ignore"}')
    with pytest.raises(SystemExit) as left:
        main(["evaluate", str(ours), str(labels), "--metric", "dice", "--mapping", str(tmp_path / "map.json")])
    assert not left.value.code
    assert json.loads((ours / "scores.json").read_text())["classes"]["background"] == 1


def test_classes_found_nowhere_are_told(tmp_path):
    labels = write(tmp_path / "labels", {"a": STRIPES % 2})
    names = ["background", "left", "right"]
    result = evaluate(write(tmp_path / "p", {"a": STRIPES % 2}), labels, metric="miou", classes=names)
    assert result.classes["right"] == 1
    assert any("right" in warning for warning in result.warnings)


def test_predictions_and_labels_are_mapped_to_the_test_sets_classes(tmp_path):
    labels = write(tmp_path / "labels", {"a": np.array([[10, 20, 30, 99]])})
    predictions = write(tmp_path / "p", {"a": np.array([[0, 1, 3, 2]])})
    result = evaluate(
        predictions,
        labels,
        metric="miou",
        classes=["background", "hair", "mouth"],
        mapping={10: 0, 20: 1, 30: 2, 99: 255},
        map_predictions=[0, 1, 0, 2],
        mean_over=["mouth"],
    )
    assert result.classes == {"background": 1, "hair": 1, "mouth": 1}
    assert result.mean_over == ["mouth"]


@pytest.mark.parametrize(
    ("label", "prediction", "options", "message"),
    [
        ([[0, 5]], [[0, 1]], {"classes": ["b", "f"]}, r"labels/a\.png has values 5 outside the classes 0 to 1 \(b, f"),
        ([[0, 1]], [[0, 7]], {"classes": ["b", "f", "g"]}, r"p/a\.png has values 7 outside the classes 0 to 2"),
        ([[1, 255]], [[0, 1]], {}, "255"),
        ([[0, 3]], [[0, 1]], {"mapping": {0: 0}}, r"values 3, which the mapping of the labels does not name"),
        ([[0, 1]], [[0, 1]], {"map_predictions": [0, 255]}, r"p/a\.png has values 255 outside"),
        ([[0, 1]], [[0, 1]], {"mean_over": ["nose"]}, "needs names out of: background, foreground"),
        ([[0, 1]], [[0, 1]], {"classes": ["same", "same"]}, "different class names"),
        ([[0, 200, 255]], [[0, 1, 1]], {}, "no class indices.*--classes.*--mapping.*--ignore"),
    ],
)
def test_values_and_names_that_mean_nothing_are_refused(tmp_path, label, prediction, options, message):
    labels, predictions = (
        write(tmp_path / "labels", {"a": np.array(label)}),
        write(tmp_path / "p", {"a": np.array(prediction)}),
    )
    with pytest.raises(ValueError, match=message):
        evaluate(predictions, labels, metric="dice", **options)
    assert not (predictions / "scores.json").exists()


def test_1_in_one_mask_and_255_in_another_is_a_question_not_a_guess(tmp_path):
    labels = write(tmp_path / "labels", {"a": SQUARE, "b": SQUARE * 255})
    predictions = write(tmp_path / "p", {"a": SQUARE, "b": SQUARE})
    with pytest.raises(ValueError, match=r"use 1 \(a\.png\), some 255 \(b\.png\)"):
        evaluate(predictions, labels, metric="dice")
    assert evaluate(predictions, labels, metric="dice", ignore=[255]).mean == pytest.approx((1 + 1) / 2)


def test_surfaces_of_volumes_are_measured_by_their_own_spacing(tmp_path):
    truth = np.zeros((8, 8, 8), np.uint8)
    truth[2:6, 2:6, 2:5] = 1
    for name, labels in (("true", truth), ("found", np.roll(truth, 1, axis=2))):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "liver.nii.gz", labels, oblique(spacing=(0.7, 0.8, 2.5)))
    folders = tmp_path / "found", tmp_path / "true"
    result = evaluate(*folders, metric="dice", classes=["background", "liver"], surface=True)
    assert result.surface["hd95_mm"].mean == pytest.approx(2.5, rel=1e-4)
    assert result.surface["volume_difference_ml"].mean == pytest.approx(0, abs=1e-9)
    assert result.mean == pytest.approx(2 / 3)
