"""Archives: damaged shards, odd names, and workers that were silent while others took over."""

from __future__ import annotations

import json
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from semgan import claims
from semgan.archive import plan as plans
from semgan.archive.inputs import Entry, Item, Source
from semgan.archive.pipeline import Pipeline
from semgan.archive.plan import INPUTS, joined_plan
from semgan.archive.unit import OpenUnit
from semgan.claims import ClaimLost

NAMES = ("a.png", "b.png", "c.png")


def tar(names=NAMES, size=700) -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = size
            file.addfile(info, BytesIO(b"x" * size))
    return packed.getvalue()


def members(folder: Path, content: bytes) -> list[Item]:
    (folder / "shard.tar").write_bytes(content)
    shards = Source(str(folder / "shard.tar"))
    return list(shards.members_of(str(folder / "shard.tar")))


def test_a_whole_shard_has_no_problem_with_any_padding(tmp_path):
    assert [item.problem for item in members(tmp_path, tar() + b"\0" * 5000)] == [None] * 3


def test_a_damaged_header_is_told_and_does_not_end_the_shard_in_silence(tmp_path):
    damaged = bytearray(tar())
    second = damaged.index(b"b.png")
    damaged[second : second + 5] = b"?????"  # its checksum is wrong now
    found = members(tmp_path, bytes(damaged))
    assert [item.name for item in found[:-1]] == ["a"]
    assert "header is damaged" in (found[-1].problem or "")


def test_what_stands_behind_the_mark_of_the_end_is_told(tmp_path):
    found = members(tmp_path, tar() + tar(("d.png",)))
    assert [item.name for item in found[:-1]] == ["a", "b", "c"]
    assert "after its mark of the end" in (found[-1].problem or "")


def test_an_error_of_the_driver_is_a_problem_of_its_shard(tmp_path, monkeypatch):
    def broken(address):
        raise RuntimeError("the store says no")

    monkeypatch.setattr("semgan.data.addresses.open_binary", broken)
    found = members(tmp_path, tar())
    assert [item.name for item in found] == [""] and "the store says no" in (found[0].problem or "")


def test_names_that_are_no_text_and_a_mark_of_byte_order_do_no_harm(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    try:
        (images / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes names of text alone")
    plan = joined_plan(tmp_path / "out", {}, Source(str(images)).entries, unit_images=5)
    assert [entry.name for entry in Source(str(images)).entries()] == ["caf_"]
    name, address = json.loads((plan.out / INPUTS).read_text().splitlines()[0])
    assert (name, address) == ("caf_", str(images / os.fsdecode(b"caf\xe9.png")))
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfpath,stem\nx.png,first\n")
    assert [entry.name for entry in Source(None, str(tmp_path / "list.csv")).entries()] == ["first"]


def test_an_image_that_claims_any_size_is_one_problem():
    def no_room(pixels):
        raise MemoryError

    content = BytesIO()
    Image.new("L", (4, 4)).save(content, "PNG")
    with ThreadPoolExecutor(1) as pool:
        pipeline = Pipeline(no_room, pytest.fail, pytest.fail, batch=1, pool=pool, told=pytest.fail)  # type: ignore[arg-type]
        decoded = pipeline._decoded(Item("a", "a.png", content.getvalue()))
    assert decoded.pixels is None and decoded.problem == "MemoryError"


# ---------------------------------------------------------------- silent workers


def entries(*names: str):
    return lambda: [Entry(name, f"{name}.png") for name in names]


def test_who_lost_the_making_of_the_lists_takes_those_of_the_other(tmp_path, monkeypatch):
    """Lists of a folder's images may differ in order: units of one would mean other images in the other's."""
    out, calls = tmp_path / "out", []
    monkeypatch.setattr(plans, "POLL_S", 0.01)

    def slow():
        calls.append(1)
        for claim in (out / "open" / "plan").glob("claim*.json"):  # another finds us silent
            claim.unlink()
        joined_plan(out, {}, entries("b", "a"), unit_images=1)
        yield from entries("a", "b")()

    plan = joined_plan(out, {}, slow, unit_images=1)
    assert calls == [1]
    assert [json.loads(line)[0] for line in (plan.out / INPUTS).read_text().splitlines()] == ["b", "a"]


def test_the_work_of_a_silent_worker_is_taken_away_whole(tmp_path):
    source = Source(str(tmp_path / "images"))
    plan = joined_plan(tmp_path / "out", {}, entries("a"), unit_images=1)
    first = OpenUnit.open(plan, source, plan.units[0])
    assert first is not None
    for claim in (plan.out / "open" / plan.units[0].name).glob("claim*.json"):
        claim.write_text(json.dumps({"token": "silent", "host": "elsewhere"}))
        os.utime(claim, (time.time() - 10 * claims.STALE_S,) * 2)
    second = OpenUnit.open(plan, source, plan.units[0])
    assert second is not None
    with pytest.raises(FileNotFoundError):
        first.finish()
    assert not plan.done_folder(plan.units[0]).exists()
    with pytest.raises(ClaimLost):
        first.check()
    assert second.finish() and plan.done_folder(plan.units[0]).is_dir()
