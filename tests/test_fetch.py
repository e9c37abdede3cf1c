"""`semgan data fetch`, against a server on this machine: whole, resumed, refused, and never half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from publisher import reachable, zipped

from semgan.cli import main
from semgan.data import archives, sets
from semgan.data.sets import Archive, DataSet
from semgan.data.tree import WRITTEN
from semgan.fetch import fetch, is_fetched

IMAGES = zipped({f"Images/{name}.png": os.urandom(200_000) for name in "abc"}, zipfile.ZIP_STORED)
MASKS = zipped({f"Masks/{name}_mask.png": name.encode() for name in "abc"})


@pytest.fixture
def publisher(monkeypatch):
    with reachable(monkeypatch) as server:
        server.files |= {"images.zip": IMAGES, "masks.zip": MASKS}
        yield server


@pytest.fixture
def item(publisher, monkeypatch) -> DataSet:
    """A published set of two archives, known to the command line as ``tiny``."""
    return publish(publisher, monkeypatch)


def publish(publisher, monkeypatch, masks_sum: str | None = None, **changes) -> DataSet:
    item = DataSet(
        name="tiny",
        task="skin",
        title="Three pictures",
        page="https://example.org/tiny",
        licence="for tests only",
        citation="Nobody, Nothing, 2026",
        layout="Images/*.png, Masks/*_mask.png",
        about_gb=0.001,
        archives=(
            Archive(publisher.url("images.zip"), "Images", "md5:" + hashlib.md5(IMAGES).hexdigest(), len(IMAGES)),
            Archive(publisher.url("masks.zip"), "Masks", masks_sum),
        ),
        **changes,
    )
    monkeypatch.setitem(sets.SETS, "tiny", item)
    return item


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as leave:
        main(["data", "fetch", *map(str, words)])
    return int(leave.value.code or 0)


def names(folder) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != WRITTEN]
    return sorted(str(path.relative_to(folder)) for path in found)


CONTENT = [*(f"Images/{name}.png" for name in "abc"), *(f"Masks/{name}_mask.png" for name in "abc"), "fetched.json"]


# ---------------------------------------------------------------- from Python


def test_a_set_arrives_unpacked_with_its_terms_and_without_its_archives(publisher, item, tmp_path):
    result = fetch(item, tmp_path / "raw")
    assert result.files == 6 and names(tmp_path) == [f"raw/{name}" for name in CONTENT]
    terms = json.loads((tmp_path / "raw" / "fetched.json").read_text())
    assert terms["licence"] == item.licence and terms["archives"][0]["url"] == publisher.url("images.zip")
    assert result.next == f"semgan data prepare skin {tmp_path / 'raw'} -o DATASET"


def test_a_set_that_is_there_is_not_fetched_again(publisher, item, tmp_path):
    fetch(item, tmp_path / "raw")
    publisher.asked.clear()
    assert is_fetched(item, tmp_path / "raw") and fetch(item, tmp_path / "raw").files == 0
    assert publisher.asked == []


def test_after_a_break_only_what_is_missing_is_fetched(publisher, item, tmp_path):
    del publisher.files["masks.zip"]
    with pytest.raises(ValueError, match=r"404 Not Found\. Try the same command again.*see https://example\.org/tiny"):
        fetch(item, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    publisher.files["masks.zip"] = MASKS
    publisher.asked.clear()
    fetch(item, tmp_path / "raw")
    assert publisher.asked == [("/masks.zip", None)] and names(tmp_path) == [f"raw/{name}" for name in CONTENT]


def test_a_connection_that_breaks_for_good_is_continued_by_the_next_call(publisher, item, tmp_path):
    publisher.breaks = [300_000, 0]
    with pytest.raises(ValueError, match=r"connection broke after \d.*Try the same command again"):
        fetch(item, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    publisher.asked.clear()
    fetch(item, tmp_path / "raw")
    assert publisher.ranges()[0] is not None and names(tmp_path) == [f"raw/{name}" for name in CONTENT]


def test_a_killed_download_goes_on_where_it_was(publisher, item, tmp_path):
    slow = f"""
import sys
from semgan import fetch
from semgan.data.sets import Archive, DataSet
item = {item!r}
def dawdle(done, total, what):
    import time
    print("going", flush=True)
    time.sleep(0.2)
fetch.fetch(item, __import__("pathlib").Path({str(tmp_path / "raw")!r}), progress=dawdle)
"""
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE)
    assert process.stdout
    for _ in range(4):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "raw").exists()
    publisher.asked.clear()
    fetch(item, tmp_path / "raw")
    first = publisher.ranges()[0]
    assert first and int(first[6:-1]) >= 2**16 and names(tmp_path) == [f"raw/{name}" for name in CONTENT]


def test_a_wrong_checksum_keeps_nothing_of_the_file(publisher, monkeypatch, tmp_path):
    item = publish(publisher, monkeypatch, masks_sum="md5:" + "0" * 32)
    with pytest.raises(ValueError, match=r"masks\.zip did not come with the published content"):
        fetch(item, tmp_path / "raw")
    assert "Masks" not in "".join(names(tmp_path)) and not (tmp_path / "raw").exists()
    publisher.files["images.zip"] = IMAGES[:-1] + b"?"
    shutil.rmtree(tmp_path / "raw.partial")
    with pytest.raises(ValueError, match=r"images\.zip did not come with"):
        fetch(item, tmp_path / "raw")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({"../evil": b"!"}), "points outside its folder"),
        (zipped({"zeros": bytes(archives.RATIO_FREE + 1)}), "bomb"),
        (b"<!DOCTYPE html>", "but a web page"),
        (MASKS[:200], "no zip and no tar|damaged"),
    ],
    ids=["slip", "bomb", "page", "cut"],
)
def test_an_archive_that_cannot_be_trusted_leaves_nothing(publisher, item, tmp_path, content, message):
    publisher.files["masks.zip"] = content
    with pytest.raises(ValueError, match=rf"masks\.zip: Masks .*({message})"):
        fetch(item, tmp_path / "raw")
    assert names(tmp_path) == ["raw.partial/Images/a.png", "raw.partial/Images/b.png", "raw.partial/Images/c.png"] + [
        "raw.partial/fetched.json"
    ]


def test_foreign_files_and_other_sets_are_never_touched(publisher, item, tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files; give a new folder with -o"):
        fetch(item, tmp_path / "raw")
    (tmp_path / "raw" / "mine.txt").unlink()
    fetch(item, tmp_path / "raw")
    other = publish(publisher, monkeypatch, masks_sum="md5:" + hashlib.md5(MASKS).hexdigest())
    with pytest.raises(FileExistsError, match="holds another data set"):
        fetch(other, tmp_path / "raw")
    assert names(tmp_path / "raw") == CONTENT


def test_too_small_a_disk_is_told_before_anything_is_asked_for(publisher, item, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ValueError, match=r"^tiny needs 1 MB more, .* on another disk\.$"):
        fetch(item, tmp_path / "raw")
    assert publisher.asked == [] and os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_while_unpacking_keeps_the_download(publisher, item, tmp_path, monkeypatch):
    copy = shutil.copyfileobj

    def full(source, file, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(item, tmp_path / "raw")
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    publisher.asked.clear()
    fetch(item, tmp_path / "raw")
    assert publisher.asked == [("/masks.zip", None)]


def test_two_at_once_in_one_folder_are_kept_apart(publisher, item, tmp_path):
    import threading

    publisher.delay_s = 0.5
    first = threading.Thread(target=fetch, args=(item, tmp_path / "raw"))
    first.start()
    while not publisher.asked:
        time.sleep(0.01)
    with pytest.raises(FileExistsError, match="Another process is filling"):
        fetch(item, tmp_path / "raw")
    first.join()
    assert names(tmp_path) == [f"raw/{name}" for name in CONTENT]


# ---------------------------------------------------------------- from the command line


def test_the_licence_is_shown_and_must_be_accepted_first(publisher, item, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    assert run("tiny", "-o", tmp_path / "raw") == 2
    message = capsys.readouterr().err
    assert "licence: for tests only" in message and "--accept-licence" in message
    assert publisher.asked == [] and os.listdir(tmp_path) == []
    assert run("tiny", "-o", tmp_path / "raw", "--accept-licence") == 0
    printed = capsys.readouterr()
    assert "licence: for tests only" in printed.err and "semgan data prepare skin" in printed.out


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_at_a_terminal_the_licence_is_asked_for(publisher, item, tmp_path, monkeypatch, answer, code):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert run("tiny", "-o", tmp_path / "raw") == code
    assert (tmp_path / "raw").exists() == (code == 0)


def test_json_is_one_document_with_what_is_left_to_do(publisher, monkeypatch, tmp_path, capsys):
    publish(publisher, monkeypatch, steps=("Draw more masks.",))
    assert run("tiny", "-o", tmp_path / "raw", "--accept-licence", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["files"] == 6 and result["path"] == str(tmp_path / "raw") and result["steps"] == ["Draw more masks."]


@pytest.mark.parametrize("name", [name for name, item in sets.SETS.items() if item.access == "gated"])
def test_a_gated_set_prints_page_and_steps_and_fetches_nothing(name, tmp_path, capsys):
    assert run(name, "-o", tmp_path / "raw") == 2
    shown = capsys.readouterr().out
    item = sets.SETS[name]
    assert item.page in shown and all(step in shown for step in item.steps) and os.listdir(tmp_path) == []
    assert f"semgan data prepare {item.task} {tmp_path / 'raw'}" in shown and item.layout in shown
    assert run(name, "--json") == 2
    result = json.loads(capsys.readouterr().out)
    assert result["access"] == "gated" and result["steps"] == list(item.steps) and "steps" in result["error"]


def test_a_dry_run_shows_addresses_and_asks_nobody(publisher, item, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("tiny", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert publisher.url("images.zip") in shown and f"{len(IMAGES):,} bytes" in shown
    assert run("tiny", "--dry-run", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["out"] == "raw/tiny" and result["access"] == "open" and result["archives"][1]["checksum"] is None
    assert publisher.asked == [] and os.listdir(tmp_path) == []


def test_the_list_has_every_set_with_task_size_access_and_in_json_licence(capsys):
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(sets.SETS)
    assert lines[list(sets.SETS).index("chaos")].split()[1:5] == ["liver", "0.9", "GB", "open"]
    assert run("--list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["licence"] for row in rows} == {item.name: item.licence for item in sets.SETS.values()}


def test_wrong_names_and_no_name_are_told(capsys):
    assert run("chaso") == 2
    assert "Did you mean chaos?" in capsys.readouterr().err
    assert run() == 2
    assert "--list" in capsys.readouterr().err


def test_offline_is_one_message_and_nothing_is_left(item, tmp_path, capsys, monkeypatch):
    gone = tuple(Archive("http://127.0.0.1:9/x.zip", archive.folder) for archive in item.archives)
    monkeypatch.setitem(sets.SETS, "tiny", DataSet(**(vars(item) | {"archives": gone})))
    assert run("tiny", "-o", tmp_path / "raw", "--accept-licence") == 2
    message = capsys.readouterr().err
    assert message.count("Error:") == 1 and "no connection to 127.0.0.1" in message and "Traceback" not in message
    assert os.listdir(tmp_path) == []


def test_an_interruption_says_how_to_go_on(item, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("semgan.fetch.retrieve", interrupted)
    assert run("tiny", "-o", tmp_path / "raw", "--accept-licence") == 130
    assert "The same command goes on" in capsys.readouterr().err
