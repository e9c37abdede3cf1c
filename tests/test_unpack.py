"""`semgan data unpack`: downloads by hand become folders for prepare; bad ones are told, and the others go on."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from publisher import zipped

from semgan.cli import main
from semgan.data import archives
from semgan.download import NoSpace
from semgan.unpack import unpack


def run(*words: object, capsys) -> tuple[int, dict, str]:
    """Exit code, the JSON document, and what people see."""
    with pytest.raises(SystemExit) as leave:
        main(["data", "unpack", *map(str, words), "--json"])
    out, err = capsys.readouterr()
    return int(leave.value.code or 0), json.loads(out), err


def put(path, files: dict[str, bytes]):
    path.write_bytes(zipped(files))
    return path


def put_tar(path, files: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def names(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_each_archive_gets_a_folder_and_roots_keep_names_that_say_something(tmp_path):
    faces = put(tmp_path / "faces.zip", {"CelebA-HQ-img/0.jpg": b"0"})
    batch = put_tar(tmp_path / "Training_Batch1.TAR.GZ", {"Training_Batch1/volume-0.nii": b"1", "._junk": b"?"})
    bare = put(tmp_path / "download", {"a.png": b"2", "Thumbs.db": b"?", "__MACOSX/x": b"?"})
    result = unpack([faces, batch, bare], tmp_path / "raw")
    assert result.done == {"faces.zip": 1, "Training_Batch1.TAR.GZ": 1, "download": 1} and not result.failed
    assert names(tmp_path / "raw") == [
        "Training_Batch1/volume-0.nii", "download.unpacked/a.png", "faces/CelebA-HQ-img/0.jpg", "unpacked.json",
    ]  # fmt: skip


def test_the_same_call_again_unpacks_only_what_is_missing(tmp_path, monkeypatch):
    first, second = (put(tmp_path / f"{name}.zip", {name: b"1"}) for name in "ab")
    unpack([first], tmp_path / "raw")
    (tmp_path / "raw/.b.unpacking").mkdir()  # of a process that was killed
    (tmp_path / "raw/.b.unpacking/half").write_bytes(b"?")
    result = unpack([first, second], tmp_path / "raw")
    assert result.already == ("a.zip",) and result.done == {"b.zip": 1}
    assert names(tmp_path / "raw") == ["a/a", "b/b", "unpacked.json"]
    assert unpack([first, second], tmp_path / "raw").already == ("a.zip", "b.zip")


def test_two_that_unpack_into_one_folder_keep_both_records(tmp_path):
    first, second = put(tmp_path / "a.zip", {"a": b"1"}), put(tmp_path / "b.zip", {"b": b"2"})
    begun = []

    def other(*_):  # another process, in the middle of the first
        if not begun:
            begun.append(unpack([second], tmp_path / "raw"))

    unpack([first], tmp_path / "raw", progress=other)
    assert unpack([first, second], tmp_path / "raw").already == ("a.zip", "b.zip")


def test_an_interruption_leaves_nothing_half_written(tmp_path, monkeypatch):
    packed = put(tmp_path / "a.zip", {"1": b"1", "2": b"2"})

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack([packed], tmp_path / "raw", progress=interrupted)
    assert names(tmp_path / "raw") == []
    assert unpack([packed], tmp_path / "raw").done == {"a.zip": 2}


def locked(content: bytes) -> bytes:
    """The zip archive with its first file marked as encrypted."""
    changed = bytearray(content)
    changed[6] |= 1
    changed[changed.rindex(b"PK\1\2") + 8] |= 1
    return bytes(changed)


BAD = {
    "slip.zip": (zipped({"../evil": b"!"}), "points outside its folder"),
    "bomb.zip": (zipped({"zeros": bytes(archives.RATIO_FREE + 1)}), "decompression bomb"),
    "locked.zip": (locked(zipped({"a": b"1"})), "needs a password"),
    "PH2Dataset.rar": (b"Rar!\x1a\x07\x00" + bytes(60), "is a RAR archive; unpack it by hand"),
    "set.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(60), "is a 7z archive"),
    "cut.zip": (zipped({"a": bytes(range(256)) * 40}, zipfile.ZIP_STORED)[:4000], "damaged|no zip and no tar"),
    "page.zip": (b"<!DOCTYPE html><html>sign in", "but a web page"),
    "empty.zip": (zipped({}), "holds no files"),
}


def test_bad_archives_are_told_one_by_one_and_the_others_go_on(tmp_path, capsys):
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    good = put(tmp_path / "zz.zip", {"a.png": b"1"})
    code, result, seen = run(*(tmp_path / name for name in BAD), good, "-o", tmp_path / "raw", capsys=capsys)
    assert code == 2 and result["done"] == {"zz.zip": 1} and f"{len(BAD)} archive(s)" in result["error"]
    for name, (_, reason) in BAD.items():
        assert any(word in result["failed"][name] for word in reason.split("|")), name
        assert seen.count(f"error: {name}") == 1
    assert names(tmp_path / "raw") == ["unpacked.json", "zz/a.png"] and not (tmp_path / "evil").exists()


def test_nothing_remains_where_nothing_could_be_unpacked(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    assert unpack([tmp_path / "a.zip"], tmp_path / "raw").failed and not (tmp_path / "raw").exists()


def test_other_peoples_folders_are_left_alone(tmp_path):
    packed = put(tmp_path / "a.zip", {"a.png": b"1"})
    (tmp_path / "raw/a").mkdir(parents=True)
    (tmp_path / "raw/a/thesis.txt").write_text("years of work")
    assert "holds other files" in unpack([packed], tmp_path / "raw").failed["a.zip"]
    assert names(tmp_path / "raw") == ["a/thesis.txt"]


def test_a_changed_archive_of_the_same_name_does_not_count_as_unpacked(tmp_path):
    packed = put(tmp_path / "a.zip", {"a.png": b"1"})
    unpack([packed], tmp_path / "raw")
    put(packed, {"a.png": b"1", "b.png": b"2"})
    assert "holds other files" in unpack([packed], tmp_path / "raw").failed["a.zip"]


def test_wrong_words_are_told_before_anything_is_written(tmp_path):
    packed = put(tmp_path / "a.zip", {"a.png": b"1"})
    (tmp_path / "other").mkdir()
    twin = put_tar(tmp_path / "other/a.tar.gz", {"b.png": b"1"})
    with pytest.raises(ValueError, match="would both be unpacked into the folder a"):
        unpack([packed, twin], tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match=r"gone\.zip does not exist"):
        unpack([packed, tmp_path / "gone.zip"], tmp_path / "raw")
    with pytest.raises(ValueError, match="other is a folder"):
        unpack([tmp_path / "other"], tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_a_full_disk_ends_the_batch_and_keeps_what_is_whole(tmp_path, monkeypatch):
    first, second = (put(tmp_path / f"{name}.zip", {name: b"1" * 9}) for name in "ab")
    unpack([first], tmp_path / "raw")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1})())
    with pytest.raises(NoSpace):
        unpack([first, second], tmp_path / "raw")
    assert names(tmp_path / "raw") == ["a/a", "unpacked.json"]


def test_archives_in_archives_are_pointed_at(tmp_path, capsys):
    packed = put(tmp_path / "LiTS.zip", {"Training_Batch1.zip": zipped({"volume-0.nii": b"1"}), "volume.nii.gz": b"1"})
    code, result, seen = run(packed, "-o", tmp_path / "raw", capsys=capsys)
    assert code == 0 and result["inner"] == {"LiTS": 1} and "holds 1 archive(s) itself" in seen


def test_prepare_takes_what_unpack_gave_and_sends_archives_there(tmp_path, capsys):
    def png(pixels) -> bytes:
        memory = io.BytesIO()
        Image.fromarray(pixels).save(memory, "PNG")
        return memory.getvalue()

    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 5:12] = 255
    images = {f"CXR_png/MCUCXR_000{n}_0.png": png(np.full((16, 16), 60 * n, np.uint8) + mask // 9) for n in (1, 2, 3)}
    sides = {
        f"ManualMask/{side}/MCUCXR_000{n}_0.png": png(mask) for n in (1, 2, 3) for side in ("leftMask", "rightMask")
    }
    packed = put(tmp_path / "NLM-MontgomeryCXRSet.zip", {f"MontgomerySet/{k}": v for k, v in (images | sides).items()})
    words = ["data", "prepare", "chest-xray", "-o", str(tmp_path / "dataset"), "--use", "montgomery=train"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, str(packed)])
    assert f"semgan data unpack {packed}" in capsys.readouterr().err
    unpack([packed], tmp_path / "raw")
    with pytest.raises(SystemExit, match="0"):
        main([*words, str(tmp_path / "raw"), "--workers", "1"])
