"""The clerk: stops at any step, goes on to the bit, keeps the last good checkpoint, writes an honest diary."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from fake_stage import BATCH, SETTINGS, TOTAL, FakeStage, train

from semgan.artifacts import RunFolder, load_checkpoint, read_metrics, save_checkpoint
from semgan.runtime.deadline import Deadline
from semgan.runtime.loop import StageResult, TrainingDiverged, run_stage

HERE = Path(__file__).parent


@pytest.fixture
def whole(tmp_path):
    """An uninterrupted run's stage; its folder is ``whole``."""
    stage = FakeStage()
    assert train(tmp_path / "whole", stage) == StageResult(TOTAL, finished=True)
    return stage


def same(first, second):
    return torch.equal(first.weights, second.weights) and torch.equal(first.momentum, second.momentum)


def checkpoint(folder):
    return folder / "checkpoints" / "gan.safetensors"


def rows(folder):
    """Lines of metrics.jsonl without what depends on the clock."""
    timing = ("seconds", "images_per_second", "cpu_seconds")
    lines = read_metrics(RunFolder(folder).metrics)
    return [{name: value for name, value in line.items() if name not in timing} for line in lines]


def press(key):
    return lambda: os.kill(os.getpid(), key)


# ---------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("stop", [0, 4, 16, 20, 60])
@pytest.mark.parametrize("clock", ["monotonic", "process_time"])
def test_a_run_out_of_time_and_resumed_equals_an_uninterrupted_run(tmp_path, monkeypatch, whole, stop, clock):
    first = FakeStage()
    with monkeypatch.context() as patch:
        patch.setattr(time, clock, lambda: BATCH * first.steps)
        limit = {"monotonic": "wall", "process_time": "cpu"}[clock]
        assert train(tmp_path / "a", first, deadline=Deadline(**{limit: stop})) == StageResult(stop, finished=False)
    assert checkpoint(tmp_path / "a").is_file() == (stop > 0)
    second = FakeStage()
    assert train(tmp_path / "a", second) == StageResult(TOTAL, finished=True)
    assert same(second, whole) and second.steps == (TOTAL - stop) // BATCH


class Clock:
    """Seconds that training and previews take, of both clocks."""

    def __init__(self, monkeypatch, step_s=1.0, preview_s=3.0):
        self.now, self.step_s, self.preview_s, self.seen = 100.0, step_s, preview_s, []
        for name in ("monotonic", "process_time"):
            monkeypatch.setattr(time, name, lambda: self.now)

    def work(self):
        self.now += self.step_s

    def preview(self, images_seen):
        self.now += self.preview_s
        self.seen.append(images_seen)
        return {"validation/dice": 0.5}

    @property
    def stage(self):
        return FakeStage(dict.fromkeys(range(0, TOTAL, BATCH), self.work))


@pytest.mark.parametrize("limit", [{"wall": 115}, {"cpu": 115}, {"wall": 1000, "cpu": 115}])
def test_a_clock_that_ends_the_training_leaves_time_for_a_last_preview(tmp_path, monkeypatch, limit):
    """8 steps of a second, a preview of 3, then one step at 111 s and the last preview, which begins at 112."""
    clock = Clock(monkeypatch)
    options = {"deadline": Deadline(**limit, final=True), "preview": clock.preview, "keeps_best": True}
    assert train(tmp_path / "a", clock.stage, **options) == StageResult(36, finished=False, ended=True)
    assert clock.seen == [32, 36] and clock.now == 115
    assert [row["images_seen"] for row in rows(tmp_path / "a") if "validation/dice" in row] == [32, 36]


@pytest.mark.parametrize(
    ("final", "keeps_best", "previews"), [(False, True, [32]), (True, False, [32]), (False, False, [32])]
)
def test_a_pause_has_no_preview_of_its_own_nor_has_a_stage_whose_last_weights_are_its_model(
    tmp_path, monkeypatch, final, keeps_best, previews
):
    clock = Clock(monkeypatch)
    options = {"deadline": Deadline(wall=115, final=final), "preview": clock.preview, "keeps_best": keeps_best}
    assert train(tmp_path / "a", clock.stage, **options) == StageResult(48, finished=False, ended=final)
    assert clock.seen == previews and clock.now == 115


def test_the_last_preview_is_not_taken_twice_and_a_pause_before_the_end_is_no_end(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    at_once = {"deadline": Deadline(wall=111, final=True), "preview": clock.preview, "keeps_best": True}
    assert train(tmp_path / "a", clock.stage, **at_once).ended and clock.seen == [32]  # the last step had its own
    paused = at_once | {"deadline": Deadline(wall=104, cpu=1000, final=True)}
    clock.now = 100
    assert train(tmp_path / "b", clock.stage, **paused) == StageResult(16, finished=False) and clock.seen == [32]
    stopped = FakeStage({16: press(signal.SIGTERM)})
    assert not train(tmp_path / "c", stopped, **at_once).over and clock.seen == [32]


def test_a_wish_to_stop_during_the_last_preview_is_heard(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    def pressed(images_seen):
        if images_seen == 36:
            press(signal.SIGTERM)()
        return clock.preview(images_seen)

    options = {"deadline": Deadline(wall=115, final=True), "preview": pressed, "keeps_best": True}
    result = train(tmp_path / "a", clock.stage, **options)
    assert result == StageResult(36, finished=False, interrupted=True) and not result.over


def test_what_was_learnt_is_on_disk_before_the_last_preview(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    def failing(images_seen):
        if images_seen == 36:
            raise MemoryError
        return clock.preview(images_seen)

    options = {"deadline": Deadline(wall=115, final=True), "preview": failing, "keeps_best": True}
    with pytest.raises(MemoryError):
        train(tmp_path / "a", clock.stage, **options)
    assert load_checkpoint(checkpoint(tmp_path / "a"))["images_seen"] == 36


def test_what_the_last_preview_finds_best_is_on_disk_too(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    stage = clock.stage

    def finding(images_seen):
        stage.momentum = torch.full_like(stage.momentum, images_seen)  # as best weights are kept
        return clock.preview(images_seen)

    options = {"deadline": Deadline(wall=115, final=True), "preview": finding, "keeps_best": True}
    assert train(tmp_path / "a", stage, **options).ended
    assert load_checkpoint(checkpoint(tmp_path / "a"))["state"]["momentum"].tolist() == [36] * 3


def test_the_pace_in_the_diary_leaves_previews_out_and_nothing_else(tmp_path, monkeypatch):
    """4 images a second; previews every 12 images, lines every 8."""
    clock = Clock(monkeypatch)
    own = SETTINGS.model_copy(update={"preview_every_images": 12})
    run_stage(clock.stage, RunFolder(tmp_path), own, preview=clock.preview)
    paces = [row["images_per_second"] for row in read_metrics(RunFolder(tmp_path).metrics) if "loss/size" in row]
    assert paces == [pytest.approx(4.0)] * (TOTAL // 8)


@pytest.mark.parametrize("key", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_by_a_signal_and_resumed_equals_an_uninterrupted_run(tmp_path, whole, key):
    before = signal.getsignal(key)
    first = FakeStage({24: press(key)})
    assert train(tmp_path / "a", first) == StageResult(28, finished=False, interrupted=True)
    assert signal.getsignal(key) is before
    assert load_checkpoint(checkpoint(tmp_path / "a"))["images_seen"] == 28
    second = FakeStage()
    assert train(tmp_path / "a", second).finished
    assert same(second, whole)


def test_a_second_ctrl_c_stops_at_once_and_loses_only_the_work_since_the_checkpoint(tmp_path, whole):
    def impatient():
        press(signal.SIGINT)()
        press(signal.SIGINT)()
        time.sleep(1)  # Python delivers signals between two instructions

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", FakeStage({40: impatient}))
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(checkpoint(tmp_path / "a"))["images_seen"] == 32
    second = FakeStage()
    train(tmp_path / "a", second)
    assert same(second, whole) and rows(tmp_path / "a") == rows(tmp_path / "whole")


@pytest.mark.parametrize(("moment", "images_seen"), [("between", 32), ("inside", 16)])
def test_a_killed_run_goes_on_from_its_last_checkpoint_as_if_nothing_had_been(tmp_path, whole, moment, images_seen):
    """kill -9 between two checkpoints, and inside the writing of one."""
    program = [sys.executable, str(HERE / "fake_stage.py"), str(tmp_path / "a"), moment]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load_checkpoint(checkpoint(tmp_path / "a"))["images_seen"] == images_seen
    second = FakeStage()
    assert train(tmp_path / "a", second).finished
    assert same(second, whole) and rows(tmp_path / "a") == rows(tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(tmp_path, whole):
    lines = rows(tmp_path / "whole")
    again = FakeStage()
    assert train(tmp_path / "whole", again) == StageResult(TOTAL, finished=True)
    assert again.steps == 0 and same(again, whole) and rows(tmp_path / "whole") == lines


def test_a_stage_runs_outside_the_main_thread_too(tmp_path, whole):
    """As in a server: signals are then the business of whoever owns the main thread."""
    stage = FakeStage()
    thread = threading.Thread(target=train, args=(tmp_path / "a", stage))
    thread.start()
    thread.join()
    assert same(stage, whole)


# ---------------------------------------------------------------- what goes wrong


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    broken = FakeStage({36: lambda: {"loss/size": torch.tensor(float("nan"))}})
    with pytest.raises(TrainingDiverged, match=r"loss/size not finite near image 40 of stage 'gan'.*last good check"):
        train(tmp_path / "a", broken)
    saved = load_checkpoint(checkpoint(tmp_path / "a"))
    assert saved["images_seen"] == 32 and torch.isfinite(saved["state"]["weights"]).all()
    assert rows(tmp_path / "a")[-1]["images_seen"] == 32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_never_saved(tmp_path, value):
    stage = FakeStage()
    stage.at = {44: lambda: setattr(stage, "momentum", torch.full((3,), value))}
    stage.step = lambda seen, step=stage.step: {"loss/calm": step(seen)["index"]}  # no loss tells of it
    with pytest.raises(TrainingDiverged, match=r"'weights' of stage 'gan' is not finite at image 48"):
        train(tmp_path / "a", stage)
    assert load_checkpoint(checkpoint(tmp_path / "a"))["images_seen"] == 32


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_can_go_on(tmp_path, monkeypatch, whole):
    times = []

    def cut_short(tensors, path, metadata=None):
        times.append(path)
        if len(times) == 2:
            Path(path).write_bytes(b"some bytes")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(tensors, path, metadata=metadata)

    from safetensors.torch import save_file as original

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", cut_short)
        with pytest.raises(OSError, match="space"):
            train(tmp_path / "a", FakeStage())
    assert load_checkpoint(checkpoint(tmp_path / "a"))["images_seen"] == 16
    assert [path.name for path in checkpoint(tmp_path / "a").parent.iterdir()] == ["gan.safetensors"]
    second = FakeStage()
    train(tmp_path / "a", second)
    assert same(second, whole)


def test_a_checkpoint_of_another_stage_is_refused(tmp_path, whole):
    shutil.copy(checkpoint(tmp_path / "whole"), tmp_path / "whole" / "checkpoints" / "encoder.safetensors")
    other = FakeStage()
    other.name = "encoder"
    with pytest.raises(ValueError, match=r"encoder.safetensors is a checkpoint of stage 'gan'; expected .*'encoder'"):
        train(tmp_path / "whole", other)


def test_a_checkpoint_of_other_settings_is_refused_in_one_line(tmp_path, whole):
    before = checkpoint(tmp_path / "whole").read_bytes()
    with pytest.raises(ValueError, match=r"gan.safetensors does not fit these settings \(size mismatch.*-o") as caught:
        train(tmp_path / "whole", FakeStage(width=5))
    assert "\n" not in str(caught.value)
    assert checkpoint(tmp_path / "whole").read_bytes() == before


@pytest.mark.parametrize("damage", ["truncated", "another file"])
def test_a_damaged_checkpoint_is_named(tmp_path, whole, damage):
    path = checkpoint(tmp_path / "whole")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        save_checkpoint(path, {"network": torch.ones(1)})
    with pytest.raises(ValueError, match="gan.safetensors"):
        train(tmp_path / "whole", FakeStage())


# ---------------------------------------------------------------- the diary


def test_lines_hold_the_means_since_the_line_before(tmp_path, whole):
    lines = rows(tmp_path / "whole")
    assert [line["images_seen"] for line in lines] == list(range(8, TOTAL + 1, 8))
    assert [line["index"] for line in lines] == [first + 2 for first in range(0, TOTAL, 8)]  # steps at 0 and 4, ...
    timed = read_metrics(RunFolder(tmp_path / "whole").metrics)
    assert all(line["stage"] == "gan" and line["images_per_second"] > 0 for line in timed)


def test_previews_come_when_due_and_at_the_end_and_change_nothing(tmp_path, whole):
    shown = []
    stage = FakeStage()
    train(tmp_path / "a", stage, preview=lambda seen: shown.append(seen) or {"validation/dice": seen / 100})
    assert shown == [32, 64] and same(stage, whole)
    scores = [(line["images_seen"], line["validation/dice"]) for line in rows(tmp_path / "a") if len(line) == 3]
    assert scores == [(32, 0.32), (64, 0.64)]


def test_a_loss_that_comes_rarely_is_averaged_over_the_steps_that_had_it(tmp_path):
    stage = FakeStage({4: lambda: {"r1": torch.tensor(3.0)}, 12: lambda: {"r1": torch.tensor(5.0)}})
    train(tmp_path / "a", stage)
    assert [line.get("r1") for line in rows(tmp_path / "a")][:3] == [3.0, 5.0, None]


def test_progress_is_told_after_every_step(tmp_path):
    told = []
    train(tmp_path / "a", FakeStage(), progress=lambda *words: told.append(words))
    assert told[0] == (BATCH, TOTAL, "train gan") and told[-1] == (TOTAL, TOTAL, "train gan")
    assert len(told) == TOTAL // BATCH


def test_a_length_that_is_no_multiple_of_the_batch_is_rounded_up(tmp_path):
    stage = FakeStage()
    stage.total_images = 30
    told = []
    result = train(tmp_path / "a", stage, progress=lambda done, total, what: told.append(done))
    assert result == StageResult(32, finished=True) and told[-1] == 30


def test_a_run_folder_without_checkpoints_folder_is_no_obstacle(tmp_path):

    (tmp_path / "a").mkdir()
    assert run_stage(FakeStage(), RunFolder(tmp_path / "a"), SETTINGS).finished
