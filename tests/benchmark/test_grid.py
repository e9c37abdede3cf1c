"""Grid files: what is refused and with which words, what is read from elsewhere, and the order of the cells."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from semgan.benchmark.cells import cells_of, identity, selected
from semgan.benchmark.grid import held_out, leaves, read_grid
from semgan.benchmark.parts import class_mapping, class_names, part_of_file
from semgan.methods import METHODS


def task(grid):
    return grid["tasks"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.update(sedes=[1]), "unknown key 'sedes' .did you mean 'seeds'"),
        (lambda g: task(g).update(tset_sets=1), r"unknown key 'tasks.0.tset_sets' .did you mean 'test_sets'"),
        (lambda g: task(g)["test_sets"][0].update(lables="x"), "did you mean 'labels'"),
        (lambda g: g.update(budget={"images": 8, "minutes": 1}), "images, minutes or cpu_minutes"),
        (lambda g: g.update(budget={}), "images, minutes or cpu_minutes"),
        (lambda g: task(g).update(dataset="d"), "either 'dataset'"),
        (lambda g: task(g).pop("prepare"), "either 'dataset'"),
        (lambda g: (task(g).pop("prepare"), task(g).update(dataset="d", splits="s.json")), "'splits' belongs to"),
        (lambda g: task(g)["settings"].update(gan={"images": 5}), "'gan.images' contradicts 'budget'"),
        (lambda g: g.update(settings={"unet": {"baseline.images": 5}}), "'baseline.images' contradicts 'budget'"),
        (lambda g: g.update(settings={"unet": {"preprocessing": {"gamma": 2}}}), "is the same for all methods"),
        (lambda g: task(g)["settings"].update(seed=3), "'seed' is decided by the grid"),
        (lambda g: g.update(settings={"gct": {}}), "'settings' names gct, which is not among the methods"),
        (lambda g: g.update(seeds_of={"gct": [1]}), "'seeds_of' names gct"),
        (lambda g: g.update(reference="gct"), "'reference' names gct"),
        (lambda g: g.update(methods=["unet", "unet"]), "'unet' is named twice"),
        (lambda g: task(g).update(labels=[4, 4]), "'4' is named twice"),
        (lambda g: task(g).update(labels=[1]), "2 cases or more"),
        (lambda g: task(g).update(name="a/b"), "part of a folder's name"),
        (lambda g: task(g)["test_sets"][1].update(name="standard"), "'standard' is named twice"),
        (lambda g: task(g)["test_sets"][1].update(name="validation"), "choose another"),
        (lambda g: g.update(shares={"gna": 1}), "'shares' names gna; there are gan, encoder, steps"),
        (lambda g: g.update(shares={"gan": 0}), "above 0"),
        (lambda g: g.update(variants={"semgan": {"shares": {"gna": 1}}}), "'shares' names gna"),
        (lambda g: g.update(variants={"gct": {}}), "'variants' names gct"),
        (lambda g: g.update(variants={"unet": {"budgets": {}}}), "did you mean 'budget'"),
        (lambda g: g.update(variants={"unet": {"settings": {"metric": "miou"}}}), "not for unet"),
        (lambda g: g.update(variants={"unet": {"settings": {"baseline.images": 5}}}), "contradicts 'budget'"),
        (lambda g: g.update(variants={"unet": {"labels": [7]}}), "'variants.unet' names labels that the grid lacks: 7"),
        (lambda g: g.update(variants={"unet": {"labels": []}}), "'variants.unet.labels"),
        (lambda g: g.update(reference="unet", variants={"unet": {"labels": "smallest"}}), "not all label counts"),
        (lambda g: g.update(priority=[{"methods": ["gct"]}]), "'priority' names methods that the grid lacks: gct"),
        (lambda g: g.update(seeds=[0, 0]), "'seeds': '0' is named twice"),
        (lambda g: g.update(seeds=[-1]), "'seeds.0': .*greater than or equal to 0"),
        (lambda g: g.update(seeds_of={"unet": []}), "'seeds_of.unet': "),
        (lambda g: g.update(seeds_of={"unet": [1, 1]}), "'1' is named twice"),
        (lambda g: task(g).update(steps=[-5]), "'tasks.0.steps.0': .*greater than or equal to 0"),
        (lambda g: task(g)["settings"].update(metric="jaccard"), "'metric' stands beside the task's own"),
        (lambda g: task(g)["settings"].update({"gan.batch": 1, "gan": {"batch": 2}}), "'gan.batch' is given twice"),
        (
            lambda g: g.update(reference="unet", variants={"unet": {"budget": {"images": 64}}}),
            "'reference' is unet, whose budget is another",
        ),
        (lambda g: g.update(priority=[{"seeds": [7]}]), "'priority' names seeds that the grid lacks: 7"),
        (lambda g: g.update(priority=[{"labels": [7]}]), "'priority' names labels that the grid lacks: 7"),
        (lambda g: task(g)["prepare"].update(images="${NO_SUCH_PLACE}/x"), "NO_SUCH_PLACE is not set"),
        (lambda g: task(g).update(published={"file": "f", "task": "t", "sets": {"x": "X"}}), "that the task lacks: x"),
    ],
)
def test_a_wrong_grid_is_refused_with_the_reason(grids, change, message):
    with pytest.raises(ValueError, match=message):
        read_grid(grids.write(change))


def test_all_problems_come_in_one_message(grids):
    with pytest.raises(ValueError, match=r"sedes.*budget|budget.*sedes"):
        read_grid(grids.write(lambda g: g.update(sedes=[1], budget={})))


def test_a_key_that_stands_twice_is_an_error(grids):
    path = grids.write()
    path.write_text(path.read_text() + "seeds: [0]\nseeds: [1]\n")
    with pytest.raises(ValueError, match="'seeds' stands there twice"):
        read_grid(path)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", ""])
def test_what_is_no_grid_is_refused(tmp_path, text):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"grid.yaml (must hold a grid|is not valid YAML)"):
        read_grid(tmp_path / "grid.yaml")


def test_paths_are_relative_to_the_grid_and_lists_come_from_files(grids, tmp_path):
    (tmp_path / "lists.json").write_text(
        json.dumps({"test": ["a", "b"], "to": [0, 1, 1], "names": {"1": "y", "0": "x"}})
    )

    def change(grid):
        task(grid)["test_sets"][0] |= {
            "only": "lists.json:test",
            "mapping": "lists.json:to",
            "classes": "lists.json:names",
        }
        task(grid)["test_sets"][0] |= {"images": "pictures", "mean_over": ["y"]}

    found = held_out(read_grid(grids.write(change)).tasks[0].test_sets[0])
    assert found.only == ("a", "b") and found.mapping == [0, 1, 1] and found.classes == ("x", "y")
    assert found.images == tmp_path / "pictures" and found.mean_over == ("y",)
    assert str(found.labels).endswith("standard/labels") and "$" not in str(found.labels)


def test_a_part_that_a_file_lacks_is_named(tmp_path):
    (tmp_path / "lists.json").write_text('{"test": []}')
    with pytest.raises(ValueError, match="has no 'tset'; it holds test"):
        part_of_file(f"{tmp_path}/lists.json:tset")


def test_mappings_and_names_are_read_in_both_ways():
    assert class_mapping({"13": "1"}) == {13: 1} and class_mapping([0, 2]) == [0, 2] and class_mapping(None) is None
    assert class_names(["a", "b"]) == class_names({"1": "b", "0": "a"}) == ("a", "b")
    assert leaves({"gan": {"batch": 4}, "a.b": 1}) == {"gan.batch": 4, "a.b": 1}


# ---------------------------------------------------------------- cells


def large(grid):
    second = task(grid) | {"name": "more", "labels": [3, 2]}
    grid["tasks"].append(second)
    task(grid)["labels"] = [5, 4]
    grid |= {"seeds_of": {"unet": [0, 1]}}


def test_cells_are_ordered_by_seed_then_label_count_then_method_then_task(grids):
    names = [cell.name for cell in cells_of(read_grid(grids.write(large)))]
    assert names[:5] == [
        "chests-4-semgan-seed0",
        "more-2-semgan-seed0",
        "chests-4-unet-seed0",
        "more-2-unet-seed0",
        "chests-5-semgan-seed0",
    ]
    assert len(names) == 12 and all("unet-seed1" in name for name in names[8:])


def test_priority_puts_cells_first(grids):
    def change(grid):
        large(grid)
        grid["priority"] = [{"labels": "smallest", "methods": ["unet"], "seeds": [0]}, {"tasks": ["more"]}]

    names = [cell.name for cell in cells_of(read_grid(grids.write(change)))]
    assert names[:3] == ["chests-4-unet-seed0", "more-2-unet-seed0", "more-2-semgan-seed0"]
    assert all(name.startswith("more") for name in names[2:7]) and len(set(names)) == 12


def test_patterns_choose_cells(grids):
    cells = cells_of(read_grid(grids.write(large)))
    assert {cell.name for cell in selected(cells, ["chests/4/unet/1", "more/*/semgan"])} == {
        "chests-4-unet-seed1",
        "more-2-semgan-seed0",
        "more-3-semgan-seed0",
    }
    assert selected(cells, []) == cells and len(selected(cells, ["chests"])) == 6
    with pytest.raises(ValueError, match=r"--only chests/9 names no cell; .*chests/4/semgan"):
        selected(cells, ["chests/9"])


def test_a_cells_identity_follows_the_grid_and_not_the_place_of_files(grids, monkeypatch):
    grid = read_grid(grids.write())
    first = identity(cells_of(grid)[0], grid)
    monkeypatch.setenv("PLAIN", "elsewhere")
    moved = read_grid(grids.write())
    assert identity(cells_of(moved)[0], moved) == first
    other = read_grid(grids.write(lambda g: task(g)["settings"].update(data={"mirror": False})))
    assert identity(cells_of(other)[0], other) != first


def test_a_method_that_is_not_installed_here_has_cells_all_the_same(grids, monkeypatch):
    absent = dataclasses.replace(METHODS["nnunet"], needs=("no_such_package", "extra"))
    monkeypatch.setitem(METHODS, "nnunet", absent)
    grid = read_grid(grids.write(lambda g: g.update(methods=["nnunet"], settings={})))
    assert {identity(cell, grid)["method"] for cell in cells_of(grid)} == {"nnunet"}


def test_only_shares_that_a_method_uses_are_part_of_its_cells(grids):
    grid, other = read_grid(grids.write()), read_grid(grids.write(lambda g: g.update(shares={"gan": 9})))
    for ours, theirs in zip(cells_of(grid), cells_of(other), strict=True):
        assert (identity(ours, grid) == identity(theirs, other)) == (ours.method == "unet")


def test_a_relative_path_in_a_variable_starts_where_the_command_runs(grids, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PLAIN", "../plain")
    (entry, *_) = read_grid(grids.write()).tasks[0].test_sets
    assert Path(entry.images).is_relative_to(tmp_path / "plain")


def test_the_grids_of_the_results_folder_are_read(monkeypatch):
    monkeypatch.setenv("DATA", "data")
    files = sorted((Path(__file__).parents[2] / "results").glob("*/grid.yaml"))
    assert files
    for path in files:
        grid = read_grid(path)
        for entry in (each for task in grid.tasks for each in task.test_sets):
            assert held_out(entry).name == entry.name  # lists and mappings are there
        first = cells_of(grid)[0]
        assert first.labels == min(first.task.labels)


def test_a_variant_may_have_cells_of_some_label_counts_only(grids):
    def counts(labels):
        def change(grid):
            grid |= {"methods": ["unet", "longer"], "variants": {"longer": {"method": "unet", "labels": labels}}}
            task(grid)["labels"] = [6, 4]

        return [(cell.method, cell.labels) for cell in cells_of(read_grid(grids.write(change)))]

    assert counts("smallest") == [("unet", 4), ("longer", 4), ("unet", 6)]
    assert counts([6]) == [("unet", 4), ("unet", 6), ("longer", 6)]
