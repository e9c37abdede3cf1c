"""Claims: one worker per cell; dead and silent ones are replaced; a worker that lost its cell is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from semgan import claims
from semgan.claims import FILE, ClaimLost, claimed, holder


def write_claim(folder, *, age_s=0.0, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"token": "other", "host": "elsewhere", "space": "x", "pid": 1} | changes
    (folder / FILE).write_text(json.dumps(content))
    then = time.time() - age_s
    os.utime(folder / FILE, (then, then))


def test_a_cell_is_held_by_one_and_free_afterwards(tmp_path):
    with claimed(tmp_path) as check:
        assert check is not None
        check()
        assert f"process {os.getpid()}" in (holder(tmp_path) or "")
        with claimed(tmp_path) as second:
            assert second is None
        assert (tmp_path / FILE).is_file()
    assert holder(tmp_path) is None and not (tmp_path / FILE).exists()


def test_a_claim_goes_when_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / FILE).exists()


def test_another_machines_claim_holds_until_it_is_silent_for_long(tmp_path):
    write_claim(tmp_path, age_s=claims.STALE_S / 2)
    with claimed(tmp_path) as check:
        assert check is None
    write_claim(tmp_path, age_s=claims.STALE_S + 30)
    with claimed(tmp_path) as check:
        assert check is not None


def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    write_claim(tmp_path, **(claims._self() | {"pid": process.pid}))
    assert holder(tmp_path) is None
    with claimed(tmp_path) as check:
        assert check is not None


def test_a_living_process_of_this_machine_keeps_its_cell_however_silent(tmp_path):
    parent = {"pid": os.getppid(), "started": claims._state_of(os.getppid())[1]}
    write_claim(tmp_path, age_s=10 * claims.STALE_S, **(claims._self() | parent))
    with claimed(tmp_path) as check:
        assert check is None


@pytest.mark.skipif(not claims._state_of(os.getpid())[1], reason="the system does not tell when a process began")
def test_a_number_that_was_given_to_another_process_and_a_zombie_hold_nothing(tmp_path):
    write_claim(tmp_path, **(claims._self() | {"pid": os.getppid(), "started": "1"}))
    assert holder(tmp_path) is None
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    while claims._state_of(zombie.pid)[0] != "Z":
        time.sleep(0.01)
    write_claim(tmp_path, **(claims._self() | {"pid": zombie.pid, "started": claims._state_of(zombie.pid)[1]}))
    assert holder(tmp_path) is None
    zombie.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}'])
def test_a_damaged_claim_counts_until_it_is_old(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert holder(tmp_path) is not None
    os.utime(tmp_path / FILE, (0, 0))
    with claimed(tmp_path) as check:
        assert check is not None


def test_a_worker_that_was_replaced_stops_and_leaves_the_others_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    with claimed(tmp_path) as check:
        assert check is not None
        write_claim(tmp_path)
        end = time.monotonic() + 5
        with pytest.raises(ClaimLost):
            while time.monotonic() < end:
                check()
                time.sleep(0.01)
    assert json.loads((tmp_path / FILE).read_text())["token"] == "other"


def test_a_held_claim_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    with claimed(tmp_path):
        os.utime(tmp_path / FILE, (0, 0))
        end = time.monotonic() + 5
        while (tmp_path / FILE).stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert time.time() - (tmp_path / FILE).stat().st_mtime < 60
