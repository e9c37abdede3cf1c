"""What docs/suggest.md tells people to type, typed: the longer list is there, and a model is trained on it."""

from __future__ import annotations

import csv

from typed_pages import run_programs, typed

from semgan.artifacts import read_json
from semgan.config import load
from semgan.data.folder import Dataset


def test_every_command_of_the_page_suggests_and_the_list_is_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_programs("suggest.md")
    typed("suggest.md")
    lists = Dataset.open(tmp_path / "dataset").splits
    suggested = [row["stem"] for row in csv.DictReader((tmp_path / "next" / "suggestions.csv").open())]
    assert set(lists["labelled_8_seed0"]) == {*lists["labelled_4_seed0"], *suggested} and len(suggested) == 4
    assert load(tmp_path / "run-8" / "config.yaml").labels == 8
    assert "semgan train dataset --labels 8 --split-seed 0" in capsys.readouterr().err
    for name, count in (("new-faces", 3), ("alone", 3), ("strange", 3), ("doubtful", 2)):
        assert len(read_json(tmp_path / name / "suggestions.json")["suggestions"]) == count
        assert (tmp_path / name / "sheet.png").is_file()
    assert (tmp_path / "new-faces" / "splits.json").is_file() and not (tmp_path / "alone" / "splits.json").exists()
