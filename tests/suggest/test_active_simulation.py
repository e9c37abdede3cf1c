"""results/active-64/simulate.py from the first list to the table, on small chests."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from semgan.artifacts import read_json, write_json
from semgan.data.folder import Dataset
from semgan.results import read_rows

SCRIPT = Path(__file__).parents[2] / "results" / "active-64" / "simulate.py"


@pytest.fixture(scope="module")
def simulate():
    spec = importlib.util.spec_from_file_location("simulate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(dataset, plain, quick, tmp_path):
    test_set = ["--test-set", "chests", str(plain / "images"), str(plain / "labels")]
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    options = ["--task", "chests", "--recipe", "debug", "--method", "unet", "--seeds", "0", "--device", "cpu"]
    changes = [word for change in quick for word in ("--set", change)]
    return [str(dataset), *folders, *options, *test_set, *changes]


def test_every_strategy_grows_its_own_lists_and_a_stopped_simulation_goes_on(
    simulate, words, dataset, tmp_path, monkeypatch
):
    train, trained = simulate.train, []

    def counted(path, run, **options):
        trained.append(str(Path(run).relative_to(tmp_path / "work")))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(path, run, **options)

    monkeypatch.setattr(simulate, "train", counted)
    diverse = [*words, "--by", "diversity", "--sizes", "3", "4", "5"]
    with pytest.raises(KeyboardInterrupt):
        simulate.main(diverse)
    simulate.main(diverse)
    once = ["seed0/start/run-3", "seed0/diversity/run-4", "seed0/diversity/run-5"]
    assert trained == [*once, once[-1]]
    simulate.main(diverse)
    assert len(trained) == 4  # all is there: nothing is trained again
    simulate.main([*words, "--by", "diversity", "random", "--sizes", "3", "4"])
    assert trained[4:] == ["seed0/random/run-4"]

    rows = read_rows(tmp_path / "out" / "scores.csv")
    assert {(row.method, row.labels) for row in rows} == {
        ("unet", 3), ("unet+diversity", 4), ("unet+diversity", 5), ("unet+random", 4)
    }  # fmt: skip
    lists, opened = read_json(tmp_path / "out" / "lists.json")["seed0"], Dataset.open(dataset)
    first, pool = set(opened.splits["labelled_3_seed0"]), set(opened.pool())
    assert first < set(lists["diversity"]["4"]) < set(lists["diversity"]["5"]) <= pool
    assert first < set(lists["random"]["4"]) <= pool
    for by, size in (("diversity", "5"), ("random", "4")):
        own = Dataset.open(tmp_path / "work" / "seed0" / by / "data").splits
        assert own[f"labelled_{size}_seed0"] == lists[by][size]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| 5 | diversity | 1 | " in page and "| 3 | the given list | 1 |" in page
    assert (tmp_path / "out" / "curves.png").stat().st_size > 5000


def test_scores_without_their_runs_are_made_again(simulate, words, tmp_path, monkeypatch):
    """A folder of results alone holds no model to go on from."""
    more = [*words, "--by", "random", "--sizes", "3", "4"]
    simulate.main(more)
    scores, rows = tmp_path / "out" / "scores.csv", read_rows(tmp_path / "out" / "scores.csv")
    shutil.rmtree(tmp_path / "work")
    trained = []
    monkeypatch.setattr(
        simulate, "train", lambda *given, train=simulate.train, **own: trained.append(train(*given, **own))
    )
    simulate.main(more)
    assert len(trained) == 2 and len(read_rows(scores)) == len(rows)


@pytest.mark.parametrize(
    "other",
    [
        ["--set", "baseline.images=8"],
        ["--method", "unet-strong"],
        ["--recipe", "phantoms"],
        ["--sizes", "3", "5"],
    ],
)
def test_other_settings_and_sizes_are_refused_where_results_lie(simulate, words, tmp_path, monkeypatch, other):
    first = [*words, "--by", "random", "--sizes", "3"]
    simulate.main(first)
    monkeypatch.setattr(simulate, "train", lambda *given, **own: pytest.fail("it trains"))
    simulate.main(first)  # the very same is there
    longer = [*words, "--by", "random", "--sizes", "3", "4", "5"]
    for folder in ("work", "out"):
        path = tmp_path / folder / "settings.json"
        write_json(path, read_json(path) | {"sizes": [3, 4, 5]})
    simulate.claim(tmp_path / "out", simulate.arguments(longer), "scores.csv")
    assert str(tmp_path) not in (tmp_path / "out" / "settings.json").read_text()
    with pytest.raises(ValueError, match="other settings .*give other --work and --out"):
        simulate.main([*longer, *other])
    elsewhere = [*longer, *other, "--work", str(tmp_path / "fresh")]
    with pytest.raises(ValueError, match="other settings"):
        simulate.main(elsewhere)  # its scores would join those of the others
    (tmp_path / "out" / "settings.json").unlink()
    with pytest.raises(ValueError, match="no settings.json says what made them"):
        simulate.main(longer)


def test_a_view_counts_labels_as_its_dataset_does_and_notices_other_lists(simulate, dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    lists = read_json(copy / "splits.json")
    counted = lists | {"labels_counted_in": "group"}
    write_json(copy / "splits.json", counted)
    view = simulate.view(copy, tmp_path / "view", 3, 0)
    assert Dataset.open(view).splits["labels_counted_in"] == "group"
    assert simulate.view(copy, view, 3, 0) == view
    write_json(copy / "splits.json", counted | {"labelled_3_seed0": lists["pool"][-3:]})
    with pytest.raises(ValueError, match="other lists .labelled_3_seed0"):
        simulate.view(copy, view, 3, 0)


def test_the_table_compares_with_random_choice_of_the_same_seed(simulate):
    from semgan.results import ScoreRow

    def row(method, seed, value):
        return ScoreRow("t", "dice", 64, 18, seed, seed, method, "own", "mean", 0, 1, 10, value, "c")

    rows = [row("unet+random", 0, 0.5), row("unet+random", 1, 0.7)]
    rows += [row("unet+entropy", 0, 0.6), row("unet+entropy", 1, 0.9)]
    lines = simulate.table(rows).splitlines()
    assert lines[2] == "| 18 | entropy | 2 | 0.7500 (+0.1500 ± 0.0707) |" and lines[3] == "| 18 | random | 2 | 0.6000 |"
