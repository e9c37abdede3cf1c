"""The results tables."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from semgan.results import COLUMNS, ScoreRow, append_rows, read_rows

ROW = ScoreRow("lungs", "dice", 64, 35, 0, 0, "unet", "hannover", "lung", 0, 1, 72, 0.8125, "abc123")


def test_columns_are_those_of_the_published_interface():
    assert COLUMNS == (
        "task", "metric", "resolution", "labels", "split_seed", "seed", "method", "test_set", "class", "steps",
        "chosen", "n", "value", "commit",
    )  # fmt: skip


def test_rows_come_back_as_they_were_written(tmp_path: Path):
    path = tmp_path / "lungs" / "scores.csv"
    other = dataclasses.replace(ROW, class_name="mean", steps=25, chosen=0, value=0.25)
    append_rows(path, [ROW])
    append_rows(path, [other])
    assert read_rows(path) == [ROW, other]
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [item.name for item in path.parent.iterdir()] == ["scores.csv"]


def test_the_same_number_twice_is_an_error_unless_it_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "scores.csv"
    append_rows(path, [ROW])
    again = dataclasses.replace(ROW, value=0.9, commit="def456")
    with pytest.raises(ValueError, match="same number twice"):
        append_rows(path, [again])
    assert read_rows(path) == [ROW]
    append_rows(path, [again], replace=True)
    assert read_rows(path) == [again]
    with pytest.raises(ValueError, match="same number twice"):
        append_rows(path, [again, again], replace=True)


def test_a_model_scored_again_leaves_no_row_of_its_former_self(tmp_path: Path):
    path = tmp_path / "scores.csv"
    stale = dataclasses.replace(ROW, steps=10)
    other = dataclasses.replace(ROW, test_set="kermany")
    append_rows(path, [ROW, stale, other])
    again = dataclasses.replace(ROW, value=0.9)
    append_rows(path, [again], replace=True)
    assert read_rows(path) == [other, again]


def test_writers_side_by_side_lose_no_row(tmp_path: Path):
    path = tmp_path / "scores.csv"
    rows = [dataclasses.replace(ROW, steps=step) for step in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: append_rows(path, [row]), rows))
    assert sorted(row.steps for row in read_rows(path)) == list(range(12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 92.3}, "between 0 and 1"),
        ({"value": float("nan")}, "between 0 and 1"),
        ({"n": 0}, "n in a row"),
        ({"labels": 3.5}, "labels in a row"),
        ({"chosen": 2}, "chosen is 1"),
        ({"metric": "f1"}, "Unknown metric 'f1'"),
        ({"method": " "}, "needs method"),
        ({"commit": ""}, "needs commit"),
    ],
)
def test_rows_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ROW, **change)


def test_a_damaged_table_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "scores.csv"
    path.write_text(",".join(COLUMNS) + "\nlungs,dice,64\n")
    with pytest.raises(ValueError, match=r"scores\.csv, line 2"):
        append_rows(path, [ROW])
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match="expected task, metric"):
        read_rows(path)
