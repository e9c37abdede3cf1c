"""Closed test sets and equal conditions: a method that looks at a test label is caught, however it looks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from semgan import methods
from semgan.benchmark.fairness import Conditions, Guard, TestSetOpened, check_separate, closed, guard_of, unfairness
from semgan.benchmark.rows import Budget
from semgan.benchmark.run import benchmark
from semgan.data.folder import Dataset
from semgan.data.readers import read_label
from semgan.scoring import HeldOut

pytestmark = pytest.mark.usefixtures("without_reports")


@pytest.fixture
def mask(tmp_path) -> Path:
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks" / "a.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def guard(folder=None, file=None) -> Guard:
    return Guard(
        frozenset([os.path.realpath(folder)] if folder else []), frozenset([os.path.realpath(file)] if file else [])
    )


def through_a_link(path):
    (path.parents[1] / "innocent").symlink_to(path.parent)
    return read_label(path.parents[1] / "innocent" / path.name)


WAYS = {
    "read_label": read_label,
    "open": lambda path: open(path, "rb").close(),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "copy": lambda path: shutil.copy(path, path.parents[1] / "copy.png"),
    "relative": lambda path: open(os.path.relpath(path), "rb").close(),
    "link": through_a_link,
    "numpy": lambda path: np.fromfile(path),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_closed_file_cannot_be_opened_in_any_way(mask, way):
    with pytest.raises(TestSetOpened, match="Training opened files of a test set: .*a.png"), closed(guard(mask.parent)):
        WAYS[way](mask)


def test_a_swallowed_error_is_told_at_the_end(mask):
    with pytest.raises(TestSetOpened, match="a.png"), closed(guard(file=mask.with_suffix(""))):
        try:
            read_label(mask)
        except (OSError, ValueError):
            pass


def test_other_files_of_the_folder_stay_open_and_everything_does_afterwards(mask):
    other = mask.with_name("b.png")
    shutil.copy(mask, other)
    with closed(guard(file=mask.with_suffix(""))):
        read_label(other)
    read_label(mask)


def test_a_datasets_own_test_cases_are_closed_too(tiny_dataset, tmp_path):
    folder = shutil.copytree(tiny_dataset, tmp_path / "dataset")
    dataset = Dataset.open(folder)
    stem = dataset.pool()[0]
    lists = json.loads((folder / "splits.json").read_text()) if (folder / "splits.json").is_file() else {}
    (folder / "splits.json").write_text(json.dumps(lists | {"test": [stem], "pool": dataset.pool()[1:]}))
    found = guard_of([HeldOut("far", tmp_path / "far" / "images", tmp_path / "far" / "masks")], Dataset.open(folder))
    assert found.closes(str(folder / "labelsTr" / f"{stem}.png"))
    assert found.closes(str(folder / "imagesTr" / f"{stem}_0000.png"))
    assert found.closes(str(tmp_path / "far" / "masks" / "x.png")) and found.closes(str(folder / "labelsTs" / "x.png"))
    assert not found.closes(str(folder / "labelsTr" / f"{dataset.pool()[1]}.png"))


def test_a_test_set_that_shares_cases_with_training_is_refused(tiny_dataset, tmp_path):
    dataset = Dataset.open(tiny_dataset)
    inside = HeldOut("inside", dataset.path / "imagesTr", dataset.path / "labelsTr", only=(dataset.pool()[0],))
    with pytest.raises(ValueError, match=f"'inside' names 1 cases of the training pool.*{dataset.pool()[0]}"):
        check_separate([inside], dataset, [])
    whole = dataclasses.replace(inside, only=None)
    with pytest.raises(ValueError, match="names 9 cases"):
        check_separate([whole], dataset, [])
    same_names_elsewhere = dataclasses.replace(inside, images=tmp_path)
    check_separate([same_names_elsewhere], dataset, [])


def test_a_case_that_is_a_link_is_closed_where_it_leads_to(tmp_path):
    """A test set of some cases only, in a folder of links to a data set that lies elsewhere."""
    for folder in ("elsewhere", "links", "dataset"):
        (tmp_path / folder).mkdir()
    for link, target in (("a.png", "17.png"), ("b.png", "18.png")):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "elsewhere" / target)
        (tmp_path / "links" / link).symlink_to(tmp_path / "elsewhere" / target)
    held_out = HeldOut("far", tmp_path / "links", tmp_path / "links", only=("a",))
    found = guard_of([held_out], SimpleNamespace(path=tmp_path / "dataset", splits={}))
    for path in (tmp_path / "links" / "a.png", tmp_path / "elsewhere" / "17.png"):
        with pytest.raises(TestSetOpened), closed(found):
            read_label(path)
        found.attempts.clear()
    with closed(found):
        read_label(tmp_path / "links" / "b.png")


@pytest.mark.parametrize("only", [None, ("p1__a", "p2__c")])
def test_a_test_set_of_folders_is_closed_wherever_they_lie(tmp_path, only):
    """a.png in a folder of the test set, c.png in one that a link leads to."""
    for place in ("test/p1/a.png", "test/p1/b.png", "elsewhere/c.png", "train/c.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / place)
    (tmp_path / "test" / "p2").symlink_to(tmp_path / "elsewhere")
    held_out = HeldOut("far", tmp_path / "test", tmp_path / "test", only=only)
    found = guard_of([held_out], SimpleNamespace(path=tmp_path / "dataset", splits={}))
    for path in ("test/p1/a.png", "test/p2/c.png", "elsewhere/c.png"):
        assert found.closes(str(tmp_path / path)), path
    assert found.closes(str(tmp_path / "test/p1/b.png")) == (only is None)
    assert not found.closes(str(tmp_path / "train/c.png"))


def test_a_test_set_of_folders_that_training_was_prepared_from_is_refused(tmp_path):
    for place in ("mine/p1/a.png", "mine/p2/b.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / place)
    data = SimpleNamespace(
        path=tmp_path / "dataset", files={"imagesUn": {}}, pool=lambda: ["p1__a"], validation=lambda: []
    )
    whole = HeldOut("own", tmp_path / "mine", tmp_path / "mine")
    for held_out in (whole, dataclasses.replace(whole, only=("p1__a",))):
        with pytest.raises(ValueError, match="'own' names 1 cases of the training pool.*p1__a"):
            check_separate([held_out], data, [tmp_path / "mine"])
    check_separate([dataclasses.replace(whole, only=("p2__b",))], data, [tmp_path / "mine"])
    shutil.copy(tmp_path / "mine/p1/a.png", tmp_path / "test.png")  # beside pictures, sub-folders are not scored
    check_separate([HeldOut("own", tmp_path, tmp_path)], data, [tmp_path / "mine"])


def test_only_the_cases_own_names_are_closed(tmp_path):
    """With or without a channel, with dots and without a suffix as DICOM has them; others are not accused."""
    held_out = HeldOut("own", tmp_path, tmp_path, only=("p1", "1.2.840.7"))
    found = guard_of([held_out], SimpleNamespace(path=tmp_path / "dataset", splits={}))
    for name in ("p1.png", "p1.nii.gz", "p1_0000.png", "p1_0003.tif", "1.2.840.7", "1.2.840.7.dcm"):
        assert found.closes(str(tmp_path / name)), name
    for name in ("p1.2.png", "p10.png", "p1_left.png", "1.2.840.8", "1.2.840"):
        assert not found.closes(str(tmp_path / name)), name


def test_a_test_set_of_links_to_training_images_is_refused(tiny_dataset, tmp_path):
    dataset = Dataset.open(tiny_dataset)
    stem = dataset.pool()[0]
    (tmp_path / "mine.png").symlink_to((dataset.path / "imagesTr" / f"{stem}_0000.png").resolve())
    with pytest.raises(ValueError, match=f"'far' names 1 cases of the training pool.*{stem}"):
        check_separate([HeldOut("far", tmp_path, tmp_path)], dataset, [])


def cheat_with(monkeypatch, look):
    """The method unet, which looks at a test label first."""
    honest = methods.METHODS["unet"]

    def train(job):
        look(job)
        return honest.train(job)

    monkeypatch.setitem(methods.METHODS, "unet", dataclasses.replace(honest, train=train))


@pytest.mark.parametrize("is_sly", [False, True])
def test_a_method_that_looks_at_a_test_label_fails_and_the_other_cells_go_on(
    grids, phantoms, tmp_path, monkeypatch, is_sly
):
    label = next((phantoms / "test" / "standard" / "labels").iterdir())

    def look(job):
        try:
            read_label(label)
        except (OSError, ValueError):
            if not is_sly:
                raise

    cheat_with(monkeypatch, look)
    path = grids.write(lambda grid: grid.update(methods=["unet", "unet-strong"]))
    result = benchmark(path, tmp_path / "out", device="cpu")
    cheating, honest = result.cells
    assert cheating.status == "failed" and honest.status == "done" and not cheating.fault
    assert "test set" in (cheating.problem or "") and label.name in (cheating.problem or "")
    assert not (tmp_path / "out" / "cells" / cheating.name / "scores.csv").exists()
    assert cheating.name.split("-")[2] not in {
        line.split(",")[6] for line in (tmp_path / "out" / "scores.csv").read_text().split()
    }


# ---------------------------------------------------------------- equal conditions


def test_cells_that_were_scored_on_other_cases_or_masks_are_told(grids, tmp_path):
    """The list of a test set's cases is a file of its own, which may change between two cells."""
    path = grids.write(lambda grid: grid.update(methods=["unet", "unet-strong"]))
    benchmark(path, tmp_path / "out", device="cpu")
    cases = tmp_path / "out" / "cells" / "chests-4-unet-strong-seed0" / "cases.csv"
    *lines, last = cases.read_text().splitlines()
    *others, truth = last.split(",")
    cases.write_text("\n".join([*lines, ",".join([*others, str(int(truth) + 1)])]) + "\n")
    result = benchmark(path, tmp_path / "out", device="cpu")
    told = "chests-4-unet-strong-seed0 and chests-4-unet-seed0 differ in cases or masks of test set 'inverted'"
    assert result.unfair == [told] and f"Not equal: {told}." in (tmp_path / "out" / "tables.md").read_text()
    compared = (tmp_path / "out" / "comparisons.csv").read_text()
    assert "standard" in compared and "inverted" not in compared


def cell(name, *, labelled="x", images=32, seconds=60.0, seed=0, **budget) -> Conditions:
    facts = {"labelled list": labelled, "metric": "dice"}
    return Conditions(name, ("lungs", 9, seed), facts, images, seconds, Budget(**budget) if budget else None)


def test_cells_of_equal_conditions_are_fair():
    assert unfairness([cell("a"), cell("b"), cell("c", labelled="y", seed=1)]) == []
    assert unfairness([Conditions("a", ("lungs", 9, 0), {}, 32, 60.0, Budget(images=32))]) == []
    assert unfairness([cell("a", images=5, minutes=1), cell("b", images=9, cpu_minutes=1)]) == []
    assert unfairness([cell("a", images=5), cell("b", seconds=1)]) == []


def test_facts_are_compared_among_those_that_have_them():
    """Cells that repeat another's images have no precision to be equal in, wherever they stand."""

    def of(name, **facts):
        return Conditions(name, ("lungs", 9, 0), {"metric": "dice", **facts}, 32, 60.0)

    known, other, repeats = of("a", precision="float32"), of("b", precision="bfloat16"), of("c")
    for cells in ([known, repeats], [repeats, known], [known, repeats, of("d", precision="float32")]):
        assert unfairness(cells) == []
    for cells in ([known, repeats, other], [repeats, known, other]):
        assert unfairness(cells) == ["b and a differ in precision"]


@pytest.mark.parametrize("lacking", ["a", "b"])
def test_a_fact_that_only_one_cell_has_is_a_difference(lacking):
    cells = [Conditions(name, ("lungs", 9, 0), {"metric": "dice"}, 32, 60.0) for name in "ab"]
    cells = [dataclasses.replace(each, facts={}) if each.cell == lacking else each for each in cells]
    assert unfairness(cells) == ["b and a differ in metric"]


def test_what_was_not_equal_is_told():
    assert unfairness([cell("a"), cell("b", labelled="y")]) == ["b and a differ in labelled list"]
    for seen in (31, 900):
        had = Conditions("a", ("lungs", 9, 0), {}, seen, 60.0, Budget(images=32))
        assert unfairness([had]) == [f"a saw {seen} images instead of 32"]
    assert unfairness([cell("a", seconds=1000.0, minutes=10)]) == ["a trained 1000 s instead of 600 s"]
    assert unfairness([cell("a", seconds=400.0, minutes=10)]) == ["a trained 400 s instead of 600 s"]
    assert unfairness([cell("a", seconds=600.0, minutes=10), cell("b", seconds=1200.0, minutes=20)]) == []
