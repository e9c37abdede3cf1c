import hashlib
import os
import shutil
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publisher import publishing, reachable

from semgan import download
from semgan.download import DownloadFailed, NoSpace, retrieve

CONTENT = bytes(range(256)) * 4000  # 1 MB that shows any gap or overlap


@pytest.fixture
def publisher(monkeypatch):
    with reachable(monkeypatch) as server:
        server.files["data"] = CONTENT
        yield server


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_arrives_whole_and_is_not_asked_for_again(publisher, tmp_path, algorithm):
    checksum = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    for _ in range(2):
        assert retrieve(publisher.url("data"), tmp_path / "deep" / "x", checksum=checksum).read_bytes() == CONTENT
    assert len(publisher.asked) == 1 and os.listdir(tmp_path / "deep") == ["x"]


def test_a_broken_download_goes_on_where_it_broke(publisher, tmp_path):
    publisher.breaks = [300_000, 300_000]
    assert retrieve(publisher.url("data"), tmp_path / "x").read_bytes() == CONTENT
    starts = [int(header[6:-1]) for header in publisher.ranges() if header]
    assert len(starts) == 2 and 200_000 < starts[0] <= 300_000 and 400_000 < starts[1] <= 600_000


def test_a_server_without_ranges_is_asked_again_from_the_start(publisher, tmp_path):
    publisher.knows_ranges, publisher.breaks = False, [300_000]
    assert retrieve(publisher.url("data"), tmp_path / "x").read_bytes() == CONTENT


def test_a_server_that_always_breaks_at_one_place_is_given_up(publisher, tmp_path):
    publisher.knows_ranges, publisher.breaks = False, [300_000] * 50
    with pytest.raises(DownloadFailed, match=r"Could not download .*data: the connection broke after \d"):
        retrieve(publisher.url("data"), tmp_path / "x")
    assert len(publisher.asked) <= 2 + download.RETRIES and os.listdir(tmp_path) == []


def test_the_next_call_goes_on_from_the_part_that_a_killed_one_left(publisher, tmp_path):
    publisher.breaks = [400_000, 0]
    with pytest.raises(DownloadFailed):
        retrieve(publisher.url("data"), tmp_path / "x", keep_part=True)
    left = (tmp_path / "x.part").stat().st_size
    assert left > 300_000 and not (tmp_path / "x").exists()
    retrieve(publisher.url("data"), tmp_path / "x", checksum=sha256(CONTENT), keep_part=True)
    assert publisher.ranges()[-1] == f"bytes={left}-" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(("tags", "heeds"), [(('"one"', '"two"'), True), (('"one"', '"two"'), False), (("", ""), True)])
def test_a_part_of_another_version_is_not_continued(publisher, tmp_path, tags, heeds):
    publisher.breaks, publisher.heeds_versions, publisher.tag = [400_000, 0], heeds, tags[0]
    with pytest.raises(DownloadFailed):
        retrieve(publisher.url("data"), tmp_path / "x", keep_part=True)
    publisher.files["data"], publisher.tag = CONTENT[::-1], tags[1]
    assert retrieve(publisher.url("data"), tmp_path / "x", keep_part=True).read_bytes() == CONTENT[::-1]


def test_a_part_that_is_complete_already_only_needs_its_check(publisher, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT)
    retrieve(publisher.url("data"), tmp_path / "x", checksum=sha256(CONTENT))
    assert (tmp_path / "x").read_bytes() == CONTENT


@settings(max_examples=15, deadline=None)
@given(have=st.integers(0, 12), longer=st.integers(0, 3), knows_ranges=st.booleans())
def test_any_part_of_any_length_becomes_the_file(tmp_path_factory, have, longer, knows_ranges):
    folder = tmp_path_factory.mktemp("part")
    content = b"twelve bytes"
    (folder / "x.part").write_bytes((content + b"???")[: have + longer if have == 12 else have])
    with publishing() as server:
        server.files["data"], server.knows_ranges = content, knows_ranges
        assert retrieve(server.url("data"), folder / "x", checksum=sha256(content)).read_bytes() == content
    assert os.listdir(folder) == ["x"]


@pytest.mark.parametrize("keep_part", [True, False])
def test_wrong_content_keeps_nothing(publisher, tmp_path, keep_part):
    with pytest.raises(DownloadFailed, match="did not come with the published content.*thrown away"):
        retrieve(publisher.url("data"), tmp_path / "x", checksum=sha256(b"other"), keep_part=keep_part)
    assert os.listdir(tmp_path) == []


def test_another_length_than_the_published_one_is_refused_before_it_is_downloaded(publisher, tmp_path):
    with pytest.raises(DownloadFailed, match=r"announces 1,024,000 bytes where the published file has 5"):
        retrieve(publisher.url("data"), tmp_path / "x", size=5, keep_part=True)
    assert os.listdir(tmp_path) == []


def test_less_than_announced_is_never_taken_for_the_file(publisher, tmp_path):
    publisher.announces = len(CONTENT) + 10
    with pytest.raises(DownloadFailed, match="connection broke"):
        retrieve(publisher.url("data"), tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_missing_files_and_silent_and_absent_servers_are_named(publisher, tmp_path):
    with pytest.raises(DownloadFailed, match="nowhere: the server answered 404 Not Found"):
        retrieve(publisher.url("nowhere"), tmp_path / "x", keep_part=True)
    with pytest.raises(DownloadFailed, match=r"no connection to 127\.0\.0\.1"):
        retrieve("http://127.0.0.1:9/data", tmp_path / "x", keep_part=True)
    publisher.delay_s = 0.6
    with pytest.raises(DownloadFailed, match=r"no answer within 0\.2 s"):
        retrieve(publisher.url("data"), tmp_path / "x", timeout_s=0.2, keep_part=True)
    assert os.listdir(tmp_path) == []


def test_a_slow_start_within_the_limit_is_waited_for(publisher, tmp_path):
    publisher.delay_s = 0.5
    assert retrieve(publisher.url("data"), tmp_path / "x", timeout_s=5).read_bytes() == CONTENT


def test_a_full_disk_is_told_before_the_download(publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(NoSpace, match=r"x needs 2 MB more, and the disk of .* has 0 MB free\. Free some space"):
        retrieve(publisher.url("data"), tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_progress_counts_up_to_the_whole_and_from_the_part(publisher, tmp_path):
    publisher.files["data"] = CONTENT * 4
    (tmp_path / "x.part").write_bytes((CONTENT * 4)[:3_000_000])
    (tmp_path / "x.part.tag").write_text(publisher.tag)
    seen = []
    retrieve(publisher.url("data"), tmp_path / "x", progress=lambda *row: seen.append(row))
    assert seen[-1] == (5, 5, "x, MB") and seen == sorted(seen) and seen[0][0] == 4


def test_processes_that_want_the_same_file_do_not_disturb_one_another(publisher, tmp_path):
    publisher.delay_s = 0.1
    wanted = (publisher.url("data"), tmp_path / "x")
    threads = [threading.Thread(target=retrieve, args=wanted, kwargs={"checksum": sha256(CONTENT)}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() == CONTENT and len(publisher.asked) == 1 and os.listdir(tmp_path) == ["x"]
