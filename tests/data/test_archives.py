import errno
import io
import os
import shutil
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan.data import archives
from semgan.data.archives import unpack
from semgan.download import NoSpace

FILES = {"set/a.png": b"a" * 100, "set/deep/b.txt": b"b", "set/empty": b""}
KINDS = ("zip", "tar", "tar.gz")


def packed(path, files, kind="zip"):
    """An archive of names and contents; a content may be a ready ZipInfo or TarInfo."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(content if isinstance(content, zipfile.ZipInfo) else name, content_of(content))
    else:
        with tarfile.open(path, {"tar.gz": "w:gz", "tar.xz": "w:xz"}.get(kind, "w")) as file:
            for name, content in files.items():
                info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
                info.size = len(content_of(content))
                file.addfile(info, io.BytesIO(content_of(content)))
    return path


def content_of(content) -> bytes:
    return content if isinstance(content, bytes) else b"target"


def tree(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive, folder, message, error=ValueError):
    with pytest.raises(error, match=message):
        unpack(archive, folder / "out")
    assert sorted(os.listdir(folder)) == sorted({archive.name} if archive.parent == folder else [])
    assert not (folder.parent / "evil").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_root_folder_is_lifted_and_several_entries_stay_as_they_are(tmp_path, kind):
    assert unpack(packed(tmp_path / "one", FILES, kind), tmp_path / "out") == 3
    assert tree(tmp_path / "out") == {name.removeprefix("set/"): content for name, content in FILES.items()}
    unpack(packed(tmp_path / "two", FILES | {"readme": b"!"}, kind), tmp_path / "both")
    assert tree(tmp_path / "both") == FILES | {"readme": b"!"}
    assert sorted(os.listdir(tmp_path)) == ["both", "one", "out", "two"]


names = st.lists(st.sampled_from(["a", "b", "ä", "x y", "c.png"]), min_size=1, max_size=3).map("/".join)


@settings(max_examples=30, deadline=None)
@given(files=st.dictionaries(names, st.binary(max_size=50), min_size=2), kind=st.sampled_from(KINDS))
def test_what_was_packed_comes_out_or_the_archive_contradicts_itself(tmp_path_factory, files, kind):
    folder = tmp_path_factory.mktemp("any")
    archive = packed(folder / "archive", {f"root/{name}": content for name, content in files.items()}, kind)
    clash = any(other.startswith(name + "/") for name in files for other in files)
    if clash:
        refused(archive, folder, "damaged, or holds what cannot be written|twice")
    else:
        unpack(archive, folder / "out")
        assert tree(folder / "out") == files


OUTSIDE = ("../evil", "a/../../evil", "/evil", "C:/evil", "..\\evil", "\\\\server\\evil", "C:evil")


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", KINDS)
def test_paths_that_lead_outside_are_refused(tmp_path, kind, name):
    (tmp_path / "in").mkdir()
    archive = packed(tmp_path / "in" / "archive", {"good": b"1", name: b"2"}, kind)
    refused(archive, tmp_path / "in", "points outside its folder; nothing was unpacked")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_archives_are_refused(tmp_path, kind):
    special = tarfile.TarInfo("special")
    special.type, special.linkname = kind, "../evil"
    refused(packed(tmp_path / "x.tar", {"good": b"1", "special": special}, "tar"), tmp_path, "'special', a link or dev")


def test_links_in_zip_archives_are_refused(tmp_path):
    link = zipfile.ZipInfo("special")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(packed(tmp_path / "x.zip", {"good": b"1", "special": link}), tmp_path, "'special', a link or device")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused(tmp_path, kind):
    archive = packed(tmp_path / "bomb", {"zeros": bytes(archives.RATIO_FREE + 1)}, kind)
    assert archive.stat().st_size < 200_000
    refused(archive, tmp_path, "over 200 times its size: it looks like a decompression bomb")


def test_a_bomb_in_a_header_is_refused(tmp_path):
    """tarfile reads such a header into the memory before anybody is asked."""
    with tarfile.open(tmp_path / "bomb", "w:gz", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"comment": "0" * (2 * archives.MAX_HEADER)}
        file.addfile(info)
    refused(tmp_path / "bomb", tmp_path, "a member's header is over 1 MB: it is damaged, or a bomb")


def test_many_small_members_are_a_bomb_too(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "RATIO_FREE", 10_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 2)
    for kind in ("zip", "tar.gz"):
        archive = packed(tmp_path / "bomb", {f"{number}": bytes(1000) for number in range(100)}, kind)
        refused(archive, tmp_path, "decompression bomb")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 50)
    for kind in ("zip", "tar.gz"):
        archive = packed(tmp_path / "bomb", {f"{number}": b"" for number in range(100)}, kind)
        refused(archive, tmp_path, "over 50")


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_the_disk_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1000, 900, 100))
    archive = packed(tmp_path / "x", {"a": b"1" * 60, "b": b"2" * 60}, kind)
    refused(archive, tmp_path, r"would unpack to 120 bytes or more, and the disk has 100 free", NoSpace)


def test_a_disk_that_fills_up_meanwhile_is_reported_as_that(tmp_path, monkeypatch):
    def full(source, file, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    refused(packed(tmp_path / "x.zip", FILES), tmp_path, "No space left", OSError)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_damaged_archives_leave_nothing(tmp_path, kind):
    whole = packed(tmp_path / "whole", {"a": os.urandom(5000), "b": os.urandom(5000)}, kind).read_bytes()
    (tmp_path / "whole").unlink()
    damaged = bytearray(whole)
    damaged[3000:3010] = bytes(10)
    for content in (whole[: len(whole) // 2], bytes(damaged), b"", b"PK\3\4 nothing more"):
        (tmp_path / "x").write_bytes(content)
        refused(tmp_path / "x", tmp_path, "x is (damaged|no zip and no tar)")


def test_a_web_page_in_place_of_an_archive_is_called_that(tmp_path):
    (tmp_path / "x").write_bytes(b"\n<!DOCTYPE html><html>sign in</html>")
    refused(tmp_path / "x", tmp_path, "no zip and no tar archive but a web page")


def test_an_archive_with_a_password_is_refused(tmp_path):
    packed(tmp_path / "x.zip", {"a": b"1"})
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    content[6] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", tmp_path, "needs a password")


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for _ in range(2):
            file.addfile(tarfile.TarInfo("a"), io.BytesIO())
    refused(tmp_path / "x.tar", tmp_path, "holds a twice")


def test_an_empty_archive_is_refused(tmp_path):
    refused(packed(tmp_path / "x.zip", {}), tmp_path, "holds no files")


def test_side_files_of_a_desktop_are_left_out(tmp_path):
    unpack(packed(tmp_path / "x.zip", FILES | {"__MACOSX/set/._a.png": b"?", "set/.DS_Store": b"?"}), tmp_path / "out")
    assert len(tree(tmp_path / "out")) == len(FILES)


def test_permissions_in_the_archive_do_not_count(tmp_path):
    locked = tarfile.TarInfo("set/a")
    locked.mode = 0o6000
    unpack(packed(tmp_path / "x.tar", {"set/a": locked}, "tar"), tmp_path / "out")
    mode = (tmp_path / "out" / "a").stat().st_mode
    assert mode & stat.S_IRUSR and not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


def test_a_folder_that_exists_is_never_touched_and_remains_of_a_killed_run_are_no_obstacle(tmp_path):
    archive = packed(tmp_path / "x.zip", FILES)
    (tmp_path / ".out.unpacking").mkdir()
    (tmp_path / ".out.unpacking" / "half").write_bytes(b"?")
    unpack(archive, tmp_path / "out")
    with pytest.raises(FileExistsError, match="new folder only"):
        unpack(archive, tmp_path / "out")
    assert len(tree(tmp_path / "out")) == len(FILES)


def test_progress_reaches_the_end(tmp_path):
    seen = []
    unpack(packed(tmp_path / "x.tar", FILES, "tar"), tmp_path / "out", progress=lambda *row: seen.append(row))
    assert seen[-1] == (1, 1, "unpacking x.tar, MB")


def test_a_tar_that_breaks_off_between_two_files_is_no_shorter_tar(tmp_path):
    whole = packed(tmp_path / "whole.tar", {f"set/{number}": bytes([number]) * 512 for number in range(10)}, "tar")
    content, broken = whole.read_bytes(), tmp_path / "broken.tar"
    damages = {
        "cut off": content[: 5 * 1024],
        "header is damaged": content[: 5 * 1024] + b"?" + content[5 * 1024 + 1 :],
        "goes on": content[: 5 * 1024] + bytes(512) + content[5 * 1024 + 512 :],  # a hole of a resumed download
        "several tars": content + content,
    }
    for message, damaged in damages.items():
        broken.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            unpack(broken, tmp_path / "out")
        assert sorted(os.listdir(tmp_path)) == ["broken.tar", "whole.tar"]


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_tar_whose_last_file_is_a_zip_is_a_tar(tmp_path, kind):
    inner = packed(tmp_path / "inner.zip", FILES).read_bytes()
    files = {"first.png": b"1", "inner.zip": inner}
    unpack(packed(tmp_path / "in", files, kind), tmp_path / "out")
    assert tree(tmp_path / "out") == files
