import json

import numpy as np
import pytest
from plain_folders import mask, picture, ready_dataset, save

from semgan.data.check import check_dataset

GROUPS = "stem,group\ncase_0,anna\ncase_1,anna\ncase_2,berta\ncase_3,carla\nextra_0,carla\n"


def problems(path, level="error"):
    return [f"{found.file}: {found.message}" for found in check_dataset(path, workers=1) if found.level == level]


def write_lists(path, **lists):
    (path / "splits.json").write_text(json.dumps(lists))


def test_a_good_dataset_has_no_problems(tmp_path):
    assert check_dataset(ready_dataset(tmp_path, manifest=GROUPS)) == []


def test_everything_wrong_is_told_at_once(tmp_path):
    path = ready_dataset(tmp_path, count=6)
    (path / "imagesTr/case_0_0000.png").write_bytes(b"no picture")
    save(path / "labelsTr", "case_1", mask(1, values=(0, 1, 9)))
    save(path / "labelsTr", "case_2", mask(2, height=3))
    (path / "labelsTr/case_3.png").unlink()
    save(path / "labelsTr", "lonely", mask(4))
    save(path / "imagesUn", "case_4_0000", picture(4))
    whole = (path / "imagesUn/extra_1_0000.png").read_bytes()
    (path / "imagesUn/extra_1_0000.png").write_bytes(whole[: len(whole) // 2])
    (path / "imagesTr/notes.txt").write_text("x")
    write_lists(path, test=["nobody"], pool=["case_5", "case_5"], validation=["case_5"])
    found = "\n".join(problems(path))
    for part in (
        "case_0_0000.png: cannot be read",
        "case_1.png: holds the values [9]",
        "case_2.png: is 10x3 px",
        "case_3_0000.png: has no mask",
        "lonely.png: has no image",
        "case_4_0000.png: its stem is in imagesTr too",
        "extra_1_0000.png: cannot be read",
        "'test' names cases that have no image and mask: nobody",
        "'pool' names a case twice: case_5",
        "leakage: cases in both 'pool' and 'validation': case_5",
    ):
        assert part in found, part
    assert any("notes.txt" in warning for warning in problems(path, "warning"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no dataset.json"),
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ("{}", "lacks channel_names, labels, file_ending"),
        ('{"channel_names": {"0": "grey"}, "labels": {"background": 0, "x": 2}, "file_ending": ".png"}', "gaps"),
        ('{"channel_names": {"0": "grey"}, "labels": {"background": 0}, "file_ending": ".png"}', "2 to 254 classes"),
    ],
)
def test_a_missing_or_wrong_description_is_told_together_with_the_lists(content, complaint, tmp_path):
    path = ready_dataset(tmp_path)
    (path / "dataset.json").unlink()
    if content is not None:
        (path / "dataset.json").write_text(content)
    (path / "splits.json").write_text('{"test": 5}')
    found = problems(path)
    assert complaint in found[0] and "'test' must be a list" in found[1]


def test_the_same_group_in_training_and_test_is_leakage(tmp_path):
    path = ready_dataset(tmp_path, manifest=GROUPS)
    write_lists(path, pool=["case_0", "case_2"], validation=[], test=["case_1", "case_3"])
    assert problems(path) == [f"{path / 'splits.json'}: leakage: groups in both 'pool' and 'test': anna"]
    (warning,) = problems(path, "warning")
    assert "unlabelled images show groups" in warning and "carla" in warning


def test_a_held_out_group_leaks_into_the_pool_that_is_not_written_out(tmp_path):
    path = ready_dataset(tmp_path, manifest=GROUPS)
    write_lists(path, test=["case_1"])
    assert any("leakage: groups in both 'pool' and 'test': anna" in problem for problem in problems(path))


def test_labelled_lists_outside_the_pool_or_of_other_length_are_told(tmp_path):
    path = ready_dataset(tmp_path)
    write_lists(path, pool=["case_0", "case_1"], test=["case_2"], labelled_2_seed0=["case_0", "case_2"],
                labelled_3_seed0=["case_0"])  # fmt: skip
    found = "\n".join(problems(path))
    assert "'labelled_2_seed0' names cases outside the pool: case_2" in found
    assert "'labelled_3_seed0' has 1 cases" in found


def test_a_labelled_list_that_misses_a_class_of_other_masks_is_a_warning(tmp_path):
    path = ready_dataset(tmp_path)
    content = json.loads((path / "dataset.json").read_text())
    content["labels"]["tumour"] = 2
    (path / "dataset.json").write_text(json.dumps(content))
    save(path / "labelsTr", "case_3", mask(3, values=(0, 1, 2)))
    write_lists(path, labelled_2_seed0=["case_0", "case_1"], labelled_2_seed1=["case_3", "case_0"])
    (warning,) = problems(path, "warning")
    assert problems(path) == [] and "labelled_2_seed0" in warning and "tumour" in warning


def test_a_class_that_no_mask_shows_is_a_warning(tmp_path):
    path = ready_dataset(tmp_path)
    content = json.loads((path / "dataset.json").read_text())
    content["labels"]["tumour"] = 2
    (path / "dataset.json").write_text(json.dumps(content))
    assert problems(path) == [] and "tumour" in problems(path, "warning")[0]


def test_channels_unlike_the_description_are_told(tmp_path):
    path = ready_dataset(tmp_path)
    save(path / "imagesTr", "case_0_0000", np.dstack([picture(0)] * 3))
    assert "3 channel(s)" in problems(path, "warning")[0]


def test_fewer_than_two_pairs_are_an_error(tmp_path):
    path = ready_dataset(tmp_path, count=2)
    for name in ("imagesTr/case_0_0000.png", "labelsTr/case_0.png"):
        (path / name).unlink()
    assert any("at least 2" in problem for problem in problems(path))


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    (problem,) = check_dataset(tmp_path / "absent")
    assert problem.level == "error" and "absent" in problem.file
