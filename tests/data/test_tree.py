"""Trees of folders as people have them: patients, days, links to other disks, links in circles."""

import os

import pytest

from semgan.data.tree import files_of, stem_within, walk


@pytest.fixture
def tree(tmp_path):
    for name in ("top/p1/a.png", "top/p1/deep/b.png", "elsewhere/c.png", "top/.cache/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path / "top"


def names(tree):
    return [str(path.relative_to(tree)) for _, files in walk(tree) for path in files]


def test_links_to_folders_elsewhere_are_followed(tree):
    (tree / "p2").symlink_to(tree.parent / "elsewhere")
    assert names(tree) == ["p1/a.png", "p1/deep/b.png", "p2/c.png"]
    (tree.parent / "link").symlink_to(tree)
    assert names(tree.parent / "link") == names(tree)


def test_every_folder_is_met_once_under_its_own_name(tree):
    (tree / "a_link").symlink_to(tree / "p1")
    (tree / "p1" / "back").symlink_to(tree)
    (tree.parent / "elsewhere" / "round").symlink_to(tree.parent)
    (tree / "p2").symlink_to(tree.parent / "elsewhere")
    assert names(tree) == ["p1/a.png", "p1/deep/b.png", "p2/c.png"]


def test_a_link_to_what_is_hidden_or_above_is_told_apart_from_one_that_is_met_anyway(tree):
    (tree / ".store").mkdir()
    (tree / ".store" / "e.png").write_bytes(b"")
    (tree / "p3").symlink_to(tree / ".store")
    (tree / "p1" / "up").symlink_to(tree.parent)
    assert names(tree) == ["p1/a.png", "p1/deep/b.png", "p3/e.png"]


@pytest.mark.parametrize("link", ["p1/gone.png", "p9"])
def test_a_link_to_nowhere_is_no_file_less(tree, link):
    (tree / link).symlink_to(tree.parent / "unmounted" / "x")
    for find in (names, lambda tree: files_of((tree / link).parent, lambda path: True)):
        with pytest.raises(FileNotFoundError, match=f"{link} is a link to what is not there"):
            find(tree)


def test_results_among_the_inputs_are_no_inputs(tree):
    def found(folder):
        return [path.name for path in files_of(folder, lambda path: path.suffix == ".png")]

    for name in ("p1/out.partial/f.png", "p1/out/g.png"):
        (tree / name).parent.mkdir()
        (tree / name).write_bytes(b"")
    assert found(tree) == ["a.png", "b.png", "g.png"]
    (tree / "p1/out/.written.json").write_text("[]")
    assert found(tree) == ["a.png", "b.png"]
    assert found(tree / "p1/out") == ["g.png"]
    (tree / ".written.json").write_text("[]")
    assert found(tree) == []


def test_hidden_files_are_met_where_asked_for(tree):
    (tree / ".DS_Store").write_bytes(b"")
    (tree / ".#a.png").symlink_to("somebody@here.1234")  # as editors lock a file
    found = [path.name for _, files in walk(tree, hidden_files=True) for path in files]
    assert found == [".DS_Store", "a.png", "b.png"]


def test_a_folder_that_cannot_be_read_is_no_empty_one(tree, monkeypatch):
    scan = os.scandir

    def refused(path):
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="deep"):
        names(tree)


def test_folders_left_out_are_not_entered(tree):
    kept = [path.name for _, files in walk(tree, lambda folder: folder.name == "deep") for path in files]
    assert kept == ["a.png"]


def test_the_files_of_sub_folders_stand_in_for_what_a_folder_lacks(tree):
    def is_picture(path):
        return path.suffix == ".png"

    (tree / "list.txt").write_text("")
    assert [path.name for path in files_of(tree, is_picture)] == ["list.txt", "a.png", "b.png"]
    assert [path.name for path in files_of(tree, lambda path: False)] == ["list.txt"]
    (tree / "own.png").write_bytes(b"")
    assert [path.name for path in files_of(tree, is_picture)] == ["list.txt", "own.png"]
    assert stem_within(tree, tree / "p1/deep/b.png", "b") == "p1__deep__b"
    assert stem_within(tree, tree / "own.png", "own") == "own"
