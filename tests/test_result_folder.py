"""Results appear whole, and what others put beside them stays."""

import os
import shutil
from pathlib import Path

import pytest

from semgan.data.tree import WRITTEN
from semgan.result_folder import ResultFolder, copy_whole


def written(out, names, request, **options):
    """A finished folder of one request whose results are the named files."""
    folder = ResultFolder(out, "marker.json", {"asked": request}, **options)
    folder.begin(overwrite=True)
    folder.reopen()
    for name in names:
        path = folder.partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{request}: {name}")
    folder.finish()
    return out


def texts(out):
    return {
        path.relative_to(out).as_posix(): path.read_text()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("marker.json", WRITTEN)
    }


def test_files_of_others_outlive_the_results_they_lie_among_and_old_results_do_not(tmp_path):
    out = written(tmp_path / "out", ["a.png", "sheets/a.png"], 1)
    (out / "sheets" / "notes.txt").write_text("mine")
    (out / "thesis").mkdir()
    (out / "thesis" / "b.png").write_text("mine, too")
    (out / "link").symlink_to("nowhere")
    for request in (2, 3):
        written(out, ["c.png"], request)
        mine = {"sheets/notes.txt": "mine", "thesis/b.png": "mine, too"}
        assert texts(out) == {"c.png": f"{request}: c.png", **mine} and (out / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_stays_one_and_results_lie_where_it_leads(tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk")
    for request in (1, 2):
        written(tmp_path / "out", ["a.png"], request)
        assert (tmp_path / "out").is_symlink()
        assert texts(tmp_path / "large disk") == {"a.png": f"{request}: a.png"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large disk", "out"]


def test_a_result_never_takes_the_place_of_anothers_file(tmp_path):
    out = written(tmp_path / "out", ["a.png"], 1)
    (out / "b.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"b\.png was put there by others.*move it away"):
        written(out, ["b.png", "c.png"], 2)
    assert texts(out) == {"a.png": "1: a.png", "b.png": "mine"}
    (out / "b.png").rename(tmp_path / "b.png")
    assert ResultFolder(out, "marker.json", {"asked": 2}).is_finished()  # without doing the work again
    assert texts(out) == {"b.png": "2: b.png", "c.png": "2: c.png"} and (tmp_path / "b.png").read_text() == "mine"


def test_what_is_derived_ends_with_the_results(tmp_path):
    out = written(tmp_path / "out", ["a.png"], 1)
    (out / "cache").mkdir()
    (out / "cache" / "a.npy").write_text("of the old a")
    (out / ".b.npy.tmp-7").write_text("left by a killed writer")
    written(out, ["a.png"], 2, derived="cache/.*")
    assert texts(out) == {"a.png": "2: a.png"}


def test_a_folder_without_a_note_of_what_was_written_is_replaced_as_a_whole(tmp_path):
    out = written(tmp_path / "out", ["a.png"], 1)
    for damage in ("", "{", "7"):
        (out / WRITTEN).write_text(damage)
        assert texts(written(out, ["b.png"], 2 + len(damage))) == {"b.png": f"{2 + len(damage)}: b.png"}


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    done = written(tmp_path / "shut" / "done", ["a.png"], 1)
    access = os.access  # a superuser may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut" and access(path, mode))
    with pytest.raises(PermissionError, match="shut cannot be written, so .*out cannot be made"):
        ResultFolder(tmp_path / "shut" / "new" / "out", "marker.json", {})
    ResultFolder(tmp_path / "out", "marker.json", {})
    assert ResultFolder(done, "marker.json", {"asked": 1}).is_finished()  # there is nothing to write


@pytest.mark.parametrize(("mine", "result"), [("draws", "draws/a.png"), ("a.png/notes.txt", "a.png")])
def test_a_file_in_the_way_of_a_folder_is_told_like_any_other_and_the_other_way_round(tmp_path, mine, result):
    out = written(tmp_path / "out", ["b.png"], 1)
    (out / mine).parent.mkdir(exist_ok=True)
    (out / mine).write_text("mine")
    with pytest.raises(FileExistsError, match="was put there by others.*move it away"):
        written(out, [result], 2)
    assert texts(out) == {"b.png": "1: b.png", mine: "mine"}


@pytest.mark.parametrize("renamed", [0, 1])
def test_files_of_others_stay_theirs_after_a_kill_while_results_take_their_name(tmp_path, monkeypatch, renamed):
    out = written(tmp_path / "out", ["a.png"], 1)
    (out / "notes.txt").write_text("mine")
    replace, calls = os.replace, []

    def killed(source, target):
        if Path(source) in (out, out.with_name("out.partial")):
            calls.append(source)
            if len(calls) > renamed:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        written(out, ["b.png"], 2)
    assert ResultFolder(out, "marker.json", {"asked": 2}).is_finished()
    assert texts(out) == {"b.png": "2: b.png", "notes.txt": "mine"}
    assert texts(written(out, ["c.png"], 3)) == {"c.png": "3: c.png", "notes.txt": "mine"}


def test_results_that_grow_are_gone_on_with_and_files_of_others_stay_theirs(tmp_path, monkeypatch):
    out = written(tmp_path / "out", ["a.png"], 1)
    (out / "notes.txt").write_text("mine")
    replace = os.replace

    def killed(source, target):
        if Path(source) == out:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        written(out, ["b.png"], 2, grows=True)
    grown = texts(written(out, ["c.png"], 2, grows=True))
    assert grown == {"b.png": "2: b.png", "c.png": "2: c.png", "notes.txt": "mine"}
    assert texts(written(out, ["d.png"], 3)) == {"d.png": "3: d.png", "notes.txt": "mine"}


def test_files_that_came_into_a_new_folder_while_work_went_on_stay(tmp_path):
    folder = ResultFolder(tmp_path / "out", "marker.json", {})
    folder.begin()
    (folder.partial / "a.png").write_text("a")
    folder.out.mkdir()
    (folder.out / "notes.txt").write_text("mine")
    folder.finish()
    assert texts(folder.out) == {"a.png": "a", "notes.txt": "mine"}


def test_unfinished_work_on_another_request_is_dropped_only_when_asked(tmp_path):
    def begun(request, **options):
        folder = ResultFolder(tmp_path / "out", "marker.json", {"asked": request})
        folder.begin(**options)
        return folder

    begun(1)
    (begun(2).partial / "hours.png").write_text("of work")  # of the first there was nothing but its marker
    with pytest.raises(FileExistsError, match="unfinished work.*--overwrite"):
        begun(3)
    assert texts(begun(2).partial) == {"hours.png": "of work"}
    assert texts(begun(3, overwrite=True).partial) == {}


def test_names_that_are_not_unicode_are_noted(tmp_path):
    for request in (1, 2):
        folder = ResultFolder(tmp_path / "out", "marker.json", {"asked": request})
        folder.begin(overwrite=True)
        (folder.partial / os.fsdecode(b"caf\xe9.png")).write_text(str(request))
        folder.finish()
    assert [path.read_text() for path in folder.out.glob("*.png")] == ["2"]


def test_work_that_waits_for_its_name_never_replaces_what_came_since(tmp_path):
    out = written(tmp_path / "out", ["a.png"], 1)
    (out / "b.png").write_text("mine")
    with pytest.raises(FileExistsError, match="put there by others"):
        written(out, ["b.png"], 2)
    shutil.rmtree(out)
    os.rename(written(tmp_path / "later", ["c.png"], 3), out)
    os.utime(out / "marker.json", ns=(2**62, 2**62))
    with pytest.raises(FileExistsError, match="--overwrite"):
        ResultFolder(out, "marker.json", {"asked": 2}).begin()
    assert texts(out) == {"c.png": "3: c.png"}


def test_a_copy_is_whole_or_not_there(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("whole")

    def cut_off(source, target, **options):
        Path(target).write_text("wh")
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", cut_off)
        with pytest.raises(OSError, match="full"):
            copy_whole(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    copy_whole(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "whole"
