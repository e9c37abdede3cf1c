import json

import pytest

from semgan.data.prepare.classes import decide_classes


def test_black_and_white_masks_are_background_and_foreground():
    rule = decide_classes({0, 255}, None, None)
    assert rule.labels.names == ("background", "foreground") and rule.table == {0: 0, 255: 1} and not rule.ignores


def test_indices_without_gaps_are_classes():
    assert decide_classes({0, 1}, None, None).labels.names == ("background", "foreground")
    rule = decide_classes({0, 1, 2, 3}, None, None)
    assert rule.labels.classes == 4 and rule.table == {0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize("found", [{0, 2}, {0, 1, 255}, {1, 2}, {0}, {255}, {0, 127, 255}, {-1, 0, 1}])
def test_other_values_are_listed_with_the_cure(found):
    with pytest.raises(ValueError, match="--mapping") as error:
        decide_classes(found, None, None)
    assert all(str(value) in str(error.value) for value in found)


def test_ignored_values_are_no_classes():
    rule = decide_classes({0, 1, 255}, None, None, ignore=[255])
    assert rule.labels.classes == 2 and rule.table == {0: 0, 1: 1, 255: 255} and rule.ignores
    assert decide_classes({0, 127, 255}, None, None, ignore=[127]).table == {0: 0, 255: 1, 127: 255}


def test_a_mapping_merges_values_and_may_ignore_some():
    rule = decide_classes({0, 1, 2, 9}, None, {"0": 0, "1": 1, "2": 1, "9": "ignore"})
    assert rule.table == {0: 0, 1: 1, 2: 1, 9: 255} and rule.labels.classes == 2 and rule.ignores
    listed = decide_classes({0, 1, 2}, ["background", "organ", "tumour"], [0, 1, 2])
    assert listed.labels.names == ("background", "organ", "tumour")


def test_a_mapping_must_cover_all_values_and_fit_the_names():
    with pytest.raises(ValueError, match="3, which the mapping lacks"):
        decide_classes({0, 1, 3}, None, {"0": 0, "1": 1})
    with pytest.raises(ValueError, match="leads to 3 classes and --classes names 2"):
        decide_classes({0, 1, 2}, ["background", "organ"], [0, 1, 2])


def test_names_may_be_a_list_or_keyed_by_mask_value(tmp_path):
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"classes": {"0": "background", "1": "lung"}, "note": "from a publication"}))
    assert decide_classes({0, 1}, file, None).labels.names == ("background", "lung")
    assert decide_classes({0, 255}, file, None).table[255] == 1  # two classes drawn in black and white
    keyed = decide_classes({0, 128, 255}, {"0": "background", "128": "liver", "255": "tumour"}, None)
    assert keyed.table == {0: 0, 128: 1, 255: 2} and keyed.labels.names == ("background", "liver", "tumour")
    assert decide_classes({0, 1}, ["background", "lung", "heart"], None).labels.classes == 3
    with pytest.raises(ValueError, match="7.*no name"):
        decide_classes({0, 7}, file, None)


def test_the_published_merge_of_19_face_parts_is_understood(tmp_path):
    file = tmp_path / "faces.json"
    merge = [0, 4, 7, 2, 2, 2, 3, 3, 1, 1, 6, 6, 6, 5, 0, 0, 0, 0, 0]
    names = ["background", "ear", "eye", "eyebrow", "skin", "hair", "mouth", "nose"]
    file.write_text(json.dumps({"classes": names, "from_19": merge, "test": ["a"]}))
    rule = decide_classes(range(19), file, file)
    assert rule.labels.names == tuple(names) and [rule.table[value] for value in range(19)] == merge


@pytest.mark.parametrize("content", ["[]", "3", '{"0": 5.5}', '{"a": 1}', '{"0": 0}', '{"0": 0, "1": 255}', '"text"'])
def test_a_useless_mapping_is_refused_with_an_example(content, tmp_path):
    file = tmp_path / "mapping.json"
    file.write_text(content)
    with pytest.raises(ValueError, match="mapping.json.*like"):
        decide_classes({0, 1}, None, file)


@pytest.mark.parametrize("content", ["[]", "3", '["one"]', '["a", "a"]', '{"0": 1, "1": 2}', '"text"'])
def test_useless_class_names_are_refused_with_an_example(content, tmp_path):
    file = tmp_path / "classes.json"
    file.write_text(content)
    with pytest.raises(ValueError, match="classes.json.*like"):
        decide_classes({0, 1}, file, None)


def test_files_that_are_missing_or_no_json_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.json"):
        decide_classes({0, 1}, tmp_path / "absent.json", None)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="binary.json"):
        decide_classes({0, 1}, tmp_path / "binary.json", None)
