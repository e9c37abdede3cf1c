import csv
import json
import string
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_folders import ready_dataset

from semgan.cli import main
from semgan.data import splits as splits_module
from semgan.data.folder import Dataset, Description
from semgan.data.splits import import_splits, problems_of_splits, write_splits
from semgan.types import LabelSpace

MANIFEST = "stem,patient,hospital\n" + "".join(f"case_{n},p{n // 2},h{n % 3}\n" for n in range(12)) + "extra_0,p0,h0\n"


@pytest.fixture
def path(tmp_path):
    return ready_dataset(tmp_path, count=12, manifest=MANIFEST)


def test_lists_of_one_seed_are_nested_and_of_two_seeds_differ(path):
    for labels in (8, 2, 5):
        write_splits(path, labels, 0)
    lists = write_splits(path, 5, 1)
    assert lists["labelled_8_seed0"][:5] == lists["labelled_5_seed0"]
    assert lists["labelled_5_seed0"][:2] == lists["labelled_2_seed0"]
    assert lists["labelled_5_seed1"] != lists["labelled_5_seed0"]
    assert json.loads((path / "splits.json").read_text()) == lists
    assert [case.stem for case in Dataset.open(path).labelled(5, 1)] == lists["labelled_5_seed1"]


def test_the_same_call_gives_the_same_lists(path):
    assert write_splits(path, 4, 3, "patient", 0.25) == write_splits(path, 4, 3, "patient", 0.25)


def test_validation_is_drawn_once_and_stays(path):
    first = write_splits(path, 4, 0, None, 0.25)["validation"]
    assert len(first) == 2 and write_splits(path, 4, 7)["validation"] == first
    assert write_splits(path, 5, 0, None, 0.25)["validation"] == first


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_another_share_than_that_of_the_validation_list_is_refused_and_not_passed_over(path, share):
    write_splits(path, 4, 0, None, 0.25)
    before = (path / "splits.json").read_bytes()
    with pytest.raises(ValueError, match=r"12 images for validation, and .* already keeps 2.*--redraw"):
        write_splits(path, 5, 0, None, share)
    assert (path / "splits.json").read_bytes() == before


@pytest.mark.parametrize(("before", "after"), [(0.4, 0.2), (0.2, 0.6), (0.0, 0.4)])
def test_redrawn_lists_are_those_of_a_dataset_that_was_never_split(path, before, after):
    fresh = write_splits(path, 4, 3, "patient", after)
    (path / "splits.json").unlink()
    write_splits(path, 4, 0, "patient", before)
    write_splits(path, 3, 1, "patient")
    assert write_splits(path, 4, 3, "patient", after, redraw=True) == fresh
    assert json.loads((path / "splits.json").read_text()) == fresh


def test_redrawing_keeps_the_test_list_and_the_given_pool(path):
    given = {
        "test": ["case_0", "case_1"],
        "pool": [f"case_{n}" for n in range(2, 8)],
        "validation": ["case_8", "case_9"],
    }
    (path / "splits.json").write_text(json.dumps(given))
    lists = write_splits(path, 2, 0, None, 0.5, redraw=True)
    assert lists["test"] == given["test"] and len(lists["validation"]) == 4
    assert sorted(lists["pool"] + lists["validation"]) == sorted(given["pool"] + given["validation"])


def test_redraw_does_not_go_with_given_lists(path, capsys):
    (path / "lists.json").write_text("{}")
    with pytest.raises(SystemExit) as leave:
        main(["data", "split", str(path), "--from", str(path / "lists.json"), "--redraw"])
    assert leave.value.code == 2 and "leave --redraw out" in capsys.readouterr().err


def test_without_room_for_a_whole_group_the_command_says_that_nothing_is_kept(path, capsys):
    patients = "stem,patient\n" + "".join(f"case_{n},p{n // 4}\n" for n in range(12))
    (path / "manifest.csv").write_text(patients)
    with pytest.raises(SystemExit):
        main(["data", "split", str(path), "--labels", "4"])
    assert "Nothing is kept for validation" in capsys.readouterr().err
    (path / "splits.json").unlink()
    with pytest.raises(SystemExit):
        main(["data", "split", str(path), "--labels", "4", "--validation", "0"])
    assert "Nothing is kept" not in capsys.readouterr().err


def test_patients_stay_together_and_labelled_lists_prefer_new_ones(path):
    lists = write_splits(path, 4, 0, "patient", 0.4)

    def patients(name):
        return [int(stem.split("_")[1]) // 2 for stem in lists[name]]

    assert len(lists["validation"]) == 4 and not set(patients("validation")) & set(patients("pool"))
    assert len(set(patients("labelled_4_seed0"))) == 4
    assert problems_of_splits(Dataset.open(path)) == []


def test_unlabelled_images_of_validation_patients_are_left_out(path):
    held_out = False
    for share in (0.2, 0.4, 0.6, 0.8):
        (path / "splits.json").unlink(missing_ok=True)
        lists = write_splits(path, 2, 0, "patient", share)
        has_first_patient = bool({"case_0", "case_1"} & set(lists["validation"]))
        assert ("extra_0" in lists["unlabelled_extra"]["stems"]) is not has_first_patient
        assert {"extra_1", "extra_2"} <= set(lists["unlabelled_extra"]["stems"])
        held_out |= has_first_patient
    assert held_out


def test_impossible_requests_are_refused(path):
    with pytest.raises(ValueError, match="13 labelled.*12 for training"):
        write_splits(path, 13, 0)
    with pytest.raises(ValueError, match="no column 'doctor'; it has hospital, patient"):
        write_splits(path, 4, 0, "doctor")
    with pytest.raises(ValueError, match="2 cases or more"):
        write_splits(path, 1, 0)
    assert not (path / "splits.json").exists()


def test_a_group_in_training_and_test_is_refused(path):
    (path / "splits.json").write_text(json.dumps({"test": ["case_0"]}))
    with pytest.raises(ValueError, match="'p0' of training case 'case_1' is in the test list"):
        write_splits(path, 4, 0, "patient")


def test_imported_lists_stay_and_validation_is_drawn_beside_them(path, tmp_path):
    (tmp_path / "lists.json").write_text(
        json.dumps({"labelled_3_seed0": ["case_1", "case_2", "case_3"], "labelled_2_seed0": ["case_5", "case_6"]})
    )
    import_splits(path, tmp_path / "lists.json")
    with pytest.raises(ValueError, match="a list 'labelled_3_seed0' that was not drawn like this .imported.*--redraw"):
        write_splits(path, 3, 0, None, 0.4)
    lists = write_splits(path, 3, 1, None, 0.4)
    dataset = Dataset.open(path)
    used = {dataset.columns[f"case_{number}"]["patient"] for number in (1, 2, 3, 5, 6)}
    assert lists["validation"] and not used & {dataset.columns[stem]["patient"] for stem in lists["validation"]}
    assert lists["labelled_3_seed0"] == ["case_1", "case_2", "case_3"]
    assert [case.stem for case in dataset.labelled(2, 0)] == ["case_5", "case_6"]


def test_a_labelled_list_with_held_out_cases_is_not_trained_on(path):
    lists = write_splits(path, 4, 0, None, 0.25)
    lists["labelled_4_seed0"][0] = lists["validation"][0]
    (path / "splits.json").write_text(json.dumps(lists))
    with pytest.raises(
        ValueError, match=f"'labelled_4_seed0' holds 1 cases of validation or test, {lists['validation'][0]}"
    ):
        Dataset.open(path).labelled(4, 0)


def test_imported_lists_are_taken_as_they_are(path, tmp_path):
    lists = {
        "set": "somewhere",
        "metric": "jaccard",
        "test": ["case_0", "case_1"],
        "validation": ["case_2", "case_3"],
        "pool": [f"case_{n}" for n in range(4, 12)],
        "labelled_2_seed0": ["case_7", "case_4"],
        "unlabelled_extra": {"set": "elsewhere", "stems": ["extra_2"]},
    }
    file = tmp_path / "lists.json"
    file.write_text(json.dumps(lists))
    assert import_splits(path, file) == lists
    dataset = Dataset.open(path)
    assert [case.stem for case in dataset.cases("labelled_2_seed0")] == ["case_7", "case_4"]
    assert [case.stem for case in dataset.unlabelled(2, 0)] == [
        "case_5", "case_6", "case_8", "case_9", "case_10", "case_11", "extra_2",
    ]  # fmt: skip
    assert [case.stem for case in dataset.test()] == ["case_0", "case_1"] and dataset.metric == "jaccard"
    assert [case.stem for case in dataset.validation()] == ["case_2", "case_3"]
    assert [case.stem for case in dataset.unlabelled(None, 0)] == ["extra_2"]


@pytest.mark.parametrize(
    ("change", "complaints"),
    [
        ({"test": ["case_0", "ghost"], "pool": ["case_1", "spectre"]}, ["ghost", "spectre"]),
        ({"pool": ["case_0"], "test": ["case_0"]}, ["leakage", "case_0"]),
        ({"pool": ["case_0"], "test": ["case_1"]}, ["leakage", "p0"]),
        ({"pool": ["case_0"], "labelled_2_seed0": ["case_0"]}, ["labelled_2_seed0", "unlike its name"]),
        ({"pool": ["case_0"], "unlabelled_extra": {"stems": ["wraith"]}}, ["wraith"]),
        ({"pool": "case_0"}, ["'pool' must be a list"]),
        ({"metric": "accuracy", "pool": ["case_0"]}, ["accuracy"]),
        ({"other": 1}, ["none of the lists"]),
    ],
)
def test_lists_that_do_not_fit_are_refused_and_the_old_ones_kept(change, complaints, path, tmp_path):
    rows = list(csv.DictReader((path / "manifest.csv").open()))
    (path / "manifest.csv").write_text("stem,group\n" + "".join(f"{row['stem']},{row['patient']}\n" for row in rows))
    before = write_splits(path, 2, 0, "group", 0.2)
    (tmp_path / "lists.json").write_text(json.dumps(change))
    with pytest.raises(ValueError) as error:
        import_splits(path, tmp_path / "lists.json")
    assert all(complaint in str(error.value) for complaint in complaints)
    assert json.loads((path / "splits.json").read_text()) == before


def test_a_missing_list_comes_with_the_command_that_makes_it(path):
    write_splits(path, 3, 0)
    with pytest.raises(ValueError, match=r"no list 'labelled_9_seed2'.*labelled_3_seed0.*--labels 9 --split-seed 2"):
        Dataset.open(path).labelled(9, 2)


stems = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=4), min_size=4, max_size=30, unique=True)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stems=stems, seed=st.integers(0, 5), share=st.sampled_from([0, 0.1, 0.3]), data=st.data())
def test_any_dataset_is_split_without_leakage_and_nested(stems, seed, share, data, monkeypatch):
    groups = {stem: data.draw(st.sampled_from(["anna", "berta", "carla", "dora", ""])) for stem in stems}
    columns = {stem: {"stem": stem, "patient": group} for stem, group in groups.items()}
    description = Description("set", LabelSpace(("background", "lung")), 1, None, "dice", ".png", None)
    dataset = Dataset(Path("nowhere"), description, {}, columns)
    dataset.__dict__["files"] = {"imagesTr": dict.fromkeys(sorted(stems)), "imagesTs": {}, "imagesUn": {}}
    monkeypatch.setattr(splits_module.Dataset, "open", lambda _: dataset)
    monkeypatch.setattr(splits_module, "write_json", lambda *_: None)
    lists = write_splits("nowhere", 2, seed, "patient", share)
    held_out = {groups[stem] for stem in lists["validation"]} - {""}
    assert not held_out & {groups[stem] for stem in lists["pool"]}
    assert sorted(lists["validation"] + lists["pool"]) == sorted(stems)
    assert len(lists["validation"]) <= round(share * len(stems))
    longest = write_splits("nowhere", len(lists["pool"]), seed, "patient", share)
    order = longest[f"labelled_{len(lists['pool'])}_seed{seed}"]
    assert sorted(order) == sorted(lists["pool"]) and order[:2] == lists["labelled_2_seed" + str(seed)]
    taken = Counter(groups[stem] or stem for stem in order[: len({groups[s] or s for s in lists["pool"]})])
    assert max(taken.values()) == 1
