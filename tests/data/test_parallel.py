import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

import semgan
from semgan.data.parallel import FEW, available_workers, each, thread_pool


def _double(number):
    return 2 * number


def _fail_at_90(number):
    if number == 90:
        raise ValueError("number 90 is bad")
    return number


def _die_at_70(number):
    if number == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_with_progress(workers):
    steps = []
    numbers = list(range(2 * FEW))
    doubled = list(each(_double, numbers, workers=workers, progress=lambda *step: steps.append(step), what="numbers"))
    assert doubled == [2 * number for number in numbers]
    assert steps == [(done, len(numbers), "numbers") for done in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised(workers):
    with pytest.raises(ValueError, match="number 90"):
        list(each(_fail_at_90, range(2 * FEW), workers=workers))


def test_a_killed_worker_is_explained():
    with pytest.raises(ValueError, match="killed.*memory"):
        list(each(_die_at_70, range(2 * FEW), workers=2))


LOCKED = """
import fcntl, os, sys, time
from semgan.data.parallel import each
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
def slowly(number):
    if number == 0:
        print("at work", flush=True)
    time.sleep(60)
list(each(slowly, range(256), workers=2))
"""


@pytest.mark.timeout(60)
def test_workers_end_with_a_killed_parent_and_give_back_its_locks(tmp_path):
    with subprocess.Popen([sys.executable, "-c", LOCKED, tmp_path / "lock"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"at work\n"
        parent.kill()
        with open(tmp_path / "lock") as file:
            for _ in range(100):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.1)
            else:
                pytest.fail("the lock is held by workers of a dead parent")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_threads_use_every_core_though_torch_bound_their_parent_to_one():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with thread_pool(1) as pool:
            assert pool.submit(os.sched_getaffinity, 0).result() == semgan.CORES
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_workers_are_at_least_one():
    assert available_workers(3) == 3 and available_workers() >= 1
    with pytest.raises(ValueError, match="1 or more"):
        available_workers(0)
