"""Archives: the same masks as one by one, in units shared by workers, whatever dies or breaks on the way."""

from __future__ import annotations

import csv
import errno
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

import semgan
from semgan import artifacts, claims
from semgan.archive import plan as plans
from semgan.archive.inputs import Source
from semgan.archive.pipeline import Ahead, Behind
from semgan.archive.plan import joined_plan
from semgan.archive.run import forecast, own_device, segment_archive
from semgan.archive.unit import OpenUnit
from semgan.cli import main
from semgan.config import Preprocessing
from semgan.data import addresses
from semgan.data.transforms import preprocess, to_unit
from semgan.segment import segment
from semgan.types import LabelSpace, Segmentation


class Bright:
    """Bright pixels are foreground; ``refuses`` a batch with a wholly white image, stops after so many batches."""

    labels = LabelSpace(("background", "bright"))
    rules = {"default": Preprocessing(size_px=16, channels=1)}

    def __init__(self, stop_after: int | None = None):
        self.batches: list[int] = []
        self.stop_after = stop_after

    def preprocess(self, image, modality="default"):
        if modality != "default":
            raise ValueError(f"No preprocessing for modality '{modality}'.")
        return to_unit(torch.from_numpy(preprocess(image, self.rules["default"])))

    def segment_batch(self, image, *, steps=None, snapshot_steps=()):
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        if bool((image == 1).flatten(1).all(1).any()):
            raise ValueError("The inversion diverged for image 0.")
        self.batches.append(len(image))
        foreground = torch.sigmoid(20 * image.mean(1, keepdim=True))
        found = torch.cat([1 - foreground, foreground], 1)
        losses = {"loss": torch.zeros(1, len(image))}
        return Segmentation(found, found.amax(1).mean((1, 2)), steps=steps or 0, trace=losses)


def picture(number: int) -> np.ndarray:
    """Dark above a row that says which picture it is, bright below."""
    pixels = np.full((12 + number % 5, 20), 20, np.uint8)
    pixels[3 + number % 7 :] = 230
    return pixels


def png(number: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture(number)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def images(tmp_path) -> Path:
    """Ten pictures in two folders of the same file names."""
    for number in range(10):
        path = tmp_path / "images" / f"part{number % 2}" / f"{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(plans, "POLL_S", 0.05)
    monkeypatch.setattr("semgan.archive.run.POLL_S", 0.05)
    monkeypatch.setattr("semgan.archive.tables.POLL_S", 0.05)
    monkeypatch.setattr(addresses, "WAIT_S", 0.0)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"):
        monkeypatch.delenv(name, raising=False)


def shard(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def masks_in(out: Path) -> dict[str, bytes]:
    """unit/name -> PNG of every mask."""
    found = {}
    for path in sorted((out / "units").glob("*/masks.tar")):
        with tarfile.open(path) as file:
            for info in file:
                content = file.extractfile(info)
                assert content is not None
                key = f"{path.parent.name}/{info.name}"
                assert key not in found
                found[key] = content.read()
    return found


def by_name(out: Path) -> dict[str, bytes]:
    return {key.partition("/")[2]: mask for key, mask in masks_in(out).items()}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- results


def test_masks_and_rows_are_those_of_images_segmented_one_by_one(images, tmp_path):
    done = segment_archive(Bright(), Source(str(images)), tmp_path / "out", unit_images=3, batch=2, steps=0)
    assert (done.images, done.failed, done.units, done.own_images) == (10, 0, 4, 10)
    found = by_name(tmp_path / "out")
    rows = {row["stem"]: row for row in table(tmp_path / "out" / "segmentation.csv")}
    for part in ("part0", "part1"):
        plain = segment(Bright(), images / part, tmp_path / part, steps=0)
        for row in plain:
            name = f"{part}/{row['stem']}"
            assert found[f"{name}.png"] == (tmp_path / part / f"{row['stem']}.png").read_bytes()
            assert float(rows[name]["confidence"]) == pytest.approx(row["confidence"])
    assert len(rows) == len(found) == 10
    assert list(next(iter(rows.values()))) == ["stem", "unit", "steps", "confidence", "loss", "seconds"]
    assert not (tmp_path / "out" / "open").exists() and not (tmp_path / "out" / "problems.csv").exists()


def test_shards_give_a_tar_of_masks_each_and_are_never_unpacked(tmp_path):
    for number in range(3):
        members = {f"{number}{key}.png": png(key) for key in range(4)} | {f"{number}0.json": b"{}"}
        shard(tmp_path / "in" / f"shard-{number:03d}.tar", members)
    before = sorted(tmp_path.rglob("*"))
    done = segment_archive(Bright(), Source(str(tmp_path / "in" / "shard-{000..002}.tar")), tmp_path / "out")
    assert (done.images, done.units) == (12, 3)
    assert set(masks_in(tmp_path / "out")) == {f"shard-00{n}/{n}{key}.png" for n in range(3) for key in range(4)}
    assert sorted(path for path in tmp_path.rglob("*") if "out" not in path.parts) == before


def test_a_pattern_of_which_nothing_is_there_begins_nothing(tmp_path):
    pattern = str(tmp_path / "in" / "shard-{000..002}.tar")
    with pytest.raises(FileNotFoundError, match="None of the 3 shards of .* exists; correct the pattern"):
        segment_archive(Bright(), Source(pattern), tmp_path / "out")
    shard(tmp_path / "in" / "shard-001.tar", {"a.png": png(0)})
    assert segment_archive(Bright(), Source(pattern), tmp_path / "out").images == 1


def test_a_compressed_shard_and_a_choice_of_members(tmp_path):
    members = {"a.png": png(1), "a.seg.png": png(2), "deep/b.png": png(3)}
    one = shard(tmp_path / "one.tar.gz", members, "w:gz")
    segment_archive(Bright(), Source(str(one), members="?.png"), tmp_path / "out")
    assert set(masks_in(tmp_path / "out")) == {"one/a.png", "one/deep/b.png"}


def test_a_manifest_gives_paths_and_may_give_stems(images, tmp_path):
    (tmp_path / "list.csv").write_text('stem,path\nx,images/part0/1.png\n"y/z",images/part1/1.png\n')
    segment_archive(Bright(), Source(None, str(tmp_path / "list.csv")), tmp_path / "a")
    assert set(by_name(tmp_path / "a")) == {"x.png", "y/z.png"}
    (tmp_path / "list.txt").write_text("part0/1.png\n\npart1/1.png\n")
    segment_archive(Bright(), Source(str(images), str(tmp_path / "list.txt")), tmp_path / "b")
    assert set(by_name(tmp_path / "b")) == {"part0/1.png", "part1/1.png"}


def test_addresses_are_read_by_fsspec(tmp_path):
    memory = fsspec.filesystem("memory")
    members = io.BytesIO()
    with tarfile.open(fileobj=members, mode="w") as file:
        info = tarfile.TarInfo("k.png")
        info.size = len(png(4))
        file.addfile(info, io.BytesIO(png(4)))
    for number in range(3):
        memory.pipe(f"/bucket/pictures/{number % 2}/{number}.png", png(number))
    memory.pipe("/bucket/shards/a-0.tar", members.getvalue())
    memory.pipe("/bucket/list.txt", b"pictures/0/0.png\n")
    segment_archive(Bright(), Source("memory://bucket/pictures"), tmp_path / "folder")
    assert set(by_name(tmp_path / "folder")) == {"0/0.png", "1/1.png", "0/2.png"}
    segment_archive(Bright(), Source("memory://bucket/shards/*.tar"), tmp_path / "shards")
    assert set(masks_in(tmp_path / "shards")) == {"a-0/k.png"}
    segment_archive(Bright(), Source(None, "memory://bucket/list.txt"), tmp_path / "list")
    assert by_name(tmp_path / "list")["pictures/0/0.png"] == by_name(tmp_path / "folder")["0/0.png"]


# ---------------------------------------------------------------- what breaks


def test_what_cannot_be_segmented_is_listed_and_the_rest_is_done(images, tmp_path):
    (images / "part0" / "cut.png").write_bytes(png(1)[:40])
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(images / "part1" / "white.png")
    lines = sorted(str(path.relative_to(tmp_path)) for path in images.rglob("*.png"))
    (tmp_path / "list.txt").write_text("\n".join([*lines, "images/gone.png", lines[0]]))
    done = segment_archive(Bright(), Source(None, str(tmp_path / "list.txt")), tmp_path / "out")
    assert (done.images, done.failed) == (10, 4)
    problems = {row["stem"]: row for row in table(tmp_path / "out" / "problems.csv")}
    assert set(problems) == {"images/part0/cut", "images/part1/white", "images/gone", "images/part0/0"}
    assert "cannot be read" in problems["images/part0/cut"]["problem"]
    assert "diverged" in problems["images/part1/white"]["problem"]
    assert "same name" in problems["images/part0/0"]["problem"]
    assert problems["images/gone"]["source"] == str(tmp_path / "images" / "gone.png")


@pytest.mark.parametrize("unit_images", [2, 3, 100])
def test_a_name_that_comes_twice_is_a_problem_however_the_list_is_cut(images, tmp_path, unit_images):
    lines = sorted(str(path.relative_to(tmp_path)) for path in images.rglob("*.png"))
    (tmp_path / "list.txt").write_text("\n".join([*lines, "images/part0/0.jpg", lines[0]]))
    source, out = Source(None, str(tmp_path / "list.txt")), tmp_path / "out"
    done = segment_archive(Bright(), source, out, unit_images=unit_images)
    assert (done.images, done.failed) == (len(lines), 2)
    problems = table(out / "problems.csv")
    assert {Path(row["source"]).name for row in problems} == {"0.jpg", "0.png"}
    assert all("an image before it in the list has the same name" in row["problem"] for row in problems)
    assert len(table(out / "segmentation.csv")) == len({row["stem"] for row in table(out / "segmentation.csv")})


@pytest.mark.parametrize("lost", ["rows.csv", "unit.json"])
def test_a_unit_that_lost_its_rows_is_named_and_made_again_once_it_is_removed(images, tmp_path, lost):
    out = tmp_path / "out"

    def run():
        return segment_archive(Bright(), Source(str(images)), out, unit_images=3)

    before = run()
    rows = table(out / "segmentation.csv")
    for path in ("segmentation.csv", "summary.json", f"units/000001/{lost}"):
        (out / path).unlink()
    with pytest.raises(ValueError, match=f"000001/{lost} is missing. Remove the folder .*000001, and"):
        run()
    shutil.rmtree(out / "units" / "000001")
    assert run().images == before.images
    assert [row["stem"] for row in table(out / "segmentation.csv")] == [row["stem"] for row in rows]


def test_a_cut_off_shard_gives_what_comes_before_the_cut(tmp_path):
    whole = shard(tmp_path / "in" / "a.tar", {f"{key}.png": png(key) for key in range(6)}).read_bytes()
    (tmp_path / "in" / "a.tar").write_bytes(whole[:2500])
    shard(tmp_path / "in" / "b.tar", {"x.png": png(0)})
    done = segment_archive(Bright(), Source(str(tmp_path / "in" / "{a,b,c}.tar")), tmp_path / "out")
    assert done.images == 3 and done.failed == 2
    assert [row["unit"] for row in table(tmp_path / "out" / "problems.csv")] == ["a", "c"]


def test_members_that_point_outside_or_are_links_do_no_harm(tmp_path):
    path = shard(tmp_path / "a.tar", {"../../up.png": png(1), "/root.png": png(2)})
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    segment_archive(Bright(), Source(str(path)), tmp_path / "out")
    assert set(masks_in(tmp_path / "out")) == {"a/up.png", "a/root.png"}


def test_a_network_that_breaks_now_and_then_is_asked_again(tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    memory.pipe("/flaky/1.png", png(1))
    real, calls = type(memory).open, []

    def flaky(self, path, *args, **options):
        calls.append(path)
        if len(calls) % 3:
            raise ConnectionResetError("reset by peer")
        return real(self, path, *args, **options)

    monkeypatch.setattr(type(memory), "open", flaky)
    done = segment_archive(Bright(), Source("memory://flaky"), tmp_path / "out", threads=1)
    assert (done.images, done.failed) == (1, 0)


def test_a_folder_that_cannot_be_listed_is_asked_again_and_never_left_out(monkeypatch):
    memory = fsspec.filesystem("memory")
    for name in ("a/1.png", "b/2.png", "b/.hidden/3.png"):
        memory.pipe(f"/broken/{name}", png(1))
    real, calls = type(memory).ls, []

    def flaky(self, path, *args, **options):
        calls.append(path)
        if path.rstrip("/").endswith("/b") and calls.count(path) < good_at:
            raise ConnectionResetError("reset by peer")
        return real(self, path, *args, **options)

    monkeypatch.setattr(type(memory), "ls", flaky)
    good_at = 3
    assert sorted(name for name, _ in addresses.walk("memory://broken")) == ["a/1.png", "b/2.png"]
    calls, good_at = [], 99
    with pytest.raises(ValueError, match="memory://.*broken/b cannot be read, after 3 tries: reset by peer"):
        list(addresses.walk("memory://broken"))
    with pytest.raises(FileNotFoundError, match="memory://nowhere.csv was not found; check the address"):
        addresses.open_binary("memory://nowhere.csv")


@pytest.mark.parametrize(
    ("content", "match"), [("file\na.png\n", "columns file"), ("path,stem\n,x\n", "row 2"), ("", "columns none")]
)
def test_a_bad_manifest_is_one_error_and_nothing_is_written(content, match, tmp_path):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(ValueError, match=match):
        segment_archive(Bright(), Source(None, str(tmp_path / "list.csv")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_segment_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (Source(str(tmp_path / "empty")), Source(str(tmp_path / "none-*.tar")), Source(str(tmp_path / "x"))):
        with pytest.raises(FileNotFoundError):
            segment_archive(Bright(), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_only_leave_the_losses_out_and_need_steps_0(images, tmp_path):
    class Quick(Bright):
        def masks_only(self, image):
            found = super().segment_batch(image)
            return Segmentation(found.probabilities, found.confidence)

    segment_archive(Quick(), Source(str(images)), tmp_path / "out", steps=0, masks_only=True)
    assert list(table(tmp_path / "out" / "segmentation.csv")[0]) == ["stem", "unit", "steps", "confidence", "seconds"]
    segment_archive(Bright(), Source(str(images)), tmp_path / "rival", steps=0, masks_only=True)
    assert by_name(tmp_path / "rival") == by_name(tmp_path / "out")
    with pytest.raises(ValueError, match="--steps 0"):
        segment_archive(Quick(), Source(str(images)), tmp_path / "x", masks_only=True)


def test_an_unknown_modality_is_one_error(images, tmp_path):
    with pytest.raises(ValueError, match="modality 'xr'"):
        segment_archive(Bright(), Source(str(images)), tmp_path / "out", modality="xr")
    assert not (tmp_path / "out").exists()


def test_other_results_and_foreign_files_are_left_alone(images, tmp_path):
    segment_archive(Bright(), Source(str(images)), tmp_path / "out", unit_images=5)
    with pytest.raises(FileExistsError, match="other options"):
        segment_archive(Bright(), Source(str(images)), tmp_path / "out", unit_images=5, steps=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="thesis"):
        segment_archive(Bright(), Source(str(images)), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


# ---------------------------------------------------------------- many workers, stops, kills


def test_a_stopped_worker_leaves_whole_units_only_and_the_next_goes_on(images, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        segment_archive(Bright(stop_after=3), Source(str(images)), out, unit_images=2, batch=2)
    first = masks_in(out)
    assert 2 <= len(first) <= 6 and len(first) % 2 == 0 and not (out / "segmentation.csv").exists()
    assert not list((out / "open").rglob("claim*.json"))
    second = Bright()
    segment_archive(second, Source(str(images)), out, unit_images=2, batch=2)
    assert sum(second.batches) == 10 - len(first)
    assert len(table(out / "segmentation.csv")) == 10 and first.items() <= masks_in(out).items()


def test_the_same_command_again_does_nothing(images, tmp_path):
    segment_archive(Bright(), Source(str(images)), tmp_path / "out", unit_images=4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = Bright()
    done = segment_archive(again, Source(str(images)), tmp_path / "out", unit_images=4)
    assert again.batches == [] and (done.images, done.own_images) == (10, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_unit_that_was_removed_is_done_again_and_the_table_with_it(images, tmp_path):
    source, out = Source(str(images)), tmp_path / "out"
    segment_archive(Bright(), source, out, unit_images=4)
    rows = table(out / "segmentation.csv")
    shutil.rmtree(out / "units" / "000001")
    (out / "segmentation.csv").write_text("old\n")
    worker = Bright()
    segment_archive(worker, source, out, unit_images=4)
    assert sum(worker.batches) == 4
    assert [row["stem"] for row in table(out / "segmentation.csv")] == [row["stem"] for row in rows]


def test_workers_at_the_same_time_share_the_units(images, tmp_path, monkeypatch):
    workers, errors = [Bright() for _ in range(3)], []

    def work(model):
        try:
            segment_archive(model, Source(str(images)), tmp_path / "out", unit_images=1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sum(sum(model.batches) for model in workers) == 10  # no image twice
    assert len(by_name(tmp_path / "out")) == len(table(tmp_path / "out" / "segmentation.csv")) == 10


def _kill_in_the_middle(images: str, out: str) -> None:
    class Deadly(Bright):
        def segment_batch(self, image, *, steps=None, snapshot_steps=()):
            if len(self.batches) == 2:
                os.kill(os.getpid(), 9)
            return super().segment_batch(image, steps=steps)

    segment_archive(Deadly(), Source(images), Path(out), unit_images=4, batch=2)


def test_a_killed_worker_costs_its_unit_only_and_leaves_nothing_half_done(images, tmp_path):
    out = tmp_path / "out"
    process = multiprocessing.get_context("spawn").Process(target=_kill_in_the_middle, args=(str(images), str(out)))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert list((out / "open").rglob("claim.json"))  # of the dead
    done = segment_archive(Bright(), Source(str(images)), out, unit_images=4, batch=2)
    assert done.images == len(table(out / "segmentation.csv")) == len(by_name(out)) == 10
    assert not (out / "open").exists()


def test_of_two_that_finish_the_same_unit_one_result_is_kept(images, tmp_path):
    source, out = Source(str(images)), tmp_path / "out"
    plan = joined_plan(out, {}, source.entries, unit_images=5)
    units = []
    for number in range(2):
        unit = OpenUnit.open(plan, source, plan.units[0])
        assert unit is not None
        unit.add(next(unit.items()), {"steps": number}, png(number))
        units.append(unit)
        for claim in (out / "open" / plan.units[0].name).glob("claim*.json"):
            os.utime(claim, (0, 0))
            claim.write_text(json.dumps({"token": "silent", "host": "elsewhere"}))
            os.utime(claim, (0, 0))
        if number == 0:  # the second worker would clear our files away, as those of the dead
            kept = units[0]._folder
            shutil.move(kept, tmp_path / "kept")
    shutil.move(tmp_path / "kept", units[0]._folder)
    assert units[1].finish() and not units[0].finish()
    assert [row["steps"] for row in table(plan.done_folder(plan.units[0]) / "rows.csv")] == ["1"]


def test_a_worker_that_lost_its_claim_leaves_the_unit_to_the_other(images, tmp_path, monkeypatch):
    def lost():
        raise claims.ClaimLost("silent")

    real, seen = OpenUnit.open.__func__, []

    def opened(cls, plan, source, span):
        unit = real(cls, plan, source, span)
        if unit is not None and not seen:
            seen.append(span.name)
            unit.check = lost
        return unit

    monkeypatch.setattr(OpenUnit, "open", classmethod(opened))
    done = segment_archive(Bright(), Source(str(images)), tmp_path / "out", unit_images=4)
    assert done.images == 10 and len(table(tmp_path / "out" / "segmentation.csv")) == 10


# ---------------------------------------------------------------- memory, threads, forecast


def test_memory_does_not_grow_with_the_list(tmp_path):
    def peak(count: int) -> int:
        manifest = tmp_path / f"{count}.txt"
        manifest.write_text("".join(f"folder/with/a/name/{number:09d}.png\n" for number in range(count)))
        tracemalloc.start()
        plan = joined_plan(tmp_path / str(count), {}, Source(None, str(manifest)).entries, unit_images=500)
        assert sum(1 for unit in plan.units for _ in plan.entries(unit)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(500)
    assert peak(6_000) < peak(1_000) + 60_000


def test_a_reader_ahead_waits_for_its_reader_and_stops_when_told():
    taken = []
    ahead = Ahead((taken.append(number) or number for number in range(1000)), 2)
    numbers = iter(ahead)
    assert [next(numbers) for _ in range(5)] == [0, 1, 2, 3, 4]
    ahead.close()
    assert len(taken) <= 9


def test_errors_of_the_threads_reach_the_caller():
    def broken():
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(Ahead(broken(), 2))
    writer = Behind(lambda value: 1 // value, 2)
    writer.put(0)
    with pytest.raises(ZeroDivisionError):
        writer.close()


def test_a_full_disk_ends_the_worker_with_that_error(images, tmp_path, monkeypatch):
    def full(self, item, row, mask):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OpenUnit, "add", full)
    with pytest.raises(OSError, match="No space"):
        segment_archive(Bright(), Source(str(images)), tmp_path / "out", unit_images=4)
    assert not list((tmp_path / "out").rglob("claim*.json")) and not masks_in(tmp_path / "out")


def test_a_forecast_counts_and_writes_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    told = forecast(Bright(), Source(str(images)), tmp_path / "out", unit_images=3)
    assert (told.units, told.images, told.done_units, told.workers) == (4, 10, 0, 4)
    assert told.images_per_second > 0 and told.expected_seconds is not None
    assert not (tmp_path / "out").exists()
    path = shard(tmp_path / "a.tar", {"x.png": png(0)})
    assert forecast(Bright(), Source(str(path)), tmp_path / "out").images is None


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("plain.tar", ["plain.tar"]),
        ("{3..1}.tar", ["3.tar", "2.tar", "1.tar"]),
    ],
)
def test_braces_stand_for_what_shells_make_of_them(pattern, found):
    assert addresses.expanded(pattern) == found


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("s3://bucket/a/1.PNG", "bucket/a/1"),
        ("/data/../x/./1.v2.jpg", "data/x/1.v2"),
        ("1.2.840", "1.2.840"),
        ("zip://in/1.png::s3://b/z.zip", "in/1"),
        ("a\tb.png", "a_b"),
        ("..", "_"),
        ("a/...png", "a/...png"),  # not "a/.."
        ("a/.png", "a/.png"),
    ],
)
def test_names_of_results_stay_inside_their_folder(path, name):
    assert addresses.plain_name(path, (".png", ".jpg")) == name


# ---------------------------------------------------------------- command line


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    artifacts.save_model(tmp_path / "model", {"method": "bright"}, {}, "card")
    monkeypatch.setattr(semgan, "load", lambda path, device="auto": Bright(), raising=False)
    return tmp_path / "model"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    return int(leave.value.code or 0)


def test_the_command_takes_archives_and_says_what_failed(model_folder, images, tmp_path, capsys):
    (images / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    words = ("segment", "-m", model_folder, "-i", images, "-o", out, "--archive", "--unit-images", 4)
    assert run(*words, "--dry-run") == 0 and not out.exists()
    assert run(*words, "--json") == 2
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout.splitlines()[-1])["summary"]["failed"] == 1 and "bad.png" in stderr
    assert len(by_name(out)) == 10


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert own_device("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert own_device("auto") == "cuda:2" and own_device("cpu") == "cpu"


def test_torchrun_on_a_folder_works_in_units(model_folder, images, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run("segment", "-m", model_folder, "-i", images / "part0", "-o", tmp_path / "out") == 0
    assert set(masks_in(tmp_path / "out")) == {f"000000/{number}.png" for number in range(5)}


def test_what_an_archive_does_not_do_is_refused(model_folder, images, tmp_path, capsys):
    assert run("segment", "-m", model_folder, "-i", images, "-o", tmp_path / "out", "--archive", "--overlay") == 2
    assert "--overlay" in capsys.readouterr().err
    assert run("segment", "-m", model_folder, "-o", tmp_path / "out") == 2
    assert "--manifest" in capsys.readouterr().err


def test_an_address_without_its_driver_names_it(tmp_path):
    program = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from semgan.data.addresses import open_binary\n"
        "try: open_binary('s3://bucket/x')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "semgan[archive]" in done.stdout
    with pytest.raises(ValueError, match="Protocol not known|cannot be opened"):
        addresses.open_binary("nosuch://bucket/x")


def test_a_full_temporary_folder_is_told_as_a_full_disk():
    names = plans._Names()
    names._database.execute("PRAGMA max_page_count = 3")
    with pytest.raises(OSError, match="full") as told:
        for number in range(10_000):
            names.has(f"image {number}")
    assert told.value.errno == errno.ENOSPC and told.value.filename
