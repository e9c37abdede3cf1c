"""What one of several processes decides by itself; tests/distributed has several."""

from __future__ import annotations

import pytest
import torch

from semgan import ranks
from semgan.runtime.distributed import by_first, device_of_this_process


@pytest.fixture
def first_of_two(monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 0)


def test_more_processes_than_gpus_are_told_what_to_do(first_of_two, monkeypatch):
    """With torchrun one GPU is too few; with a task per GPU of Slurm each process sees its own as the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="LOCAL_RANK is 1, and this process sees 1 GPUs.*or set LOCAL_RANK=0"):
        device_of_this_process("auto")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert device_of_this_process("auto") == torch.device("cuda:0")


def test_the_first_fault_is_told_where_another_process_is_lost_meanwhile(first_of_two, monkeypatch):
    def wait(failed=False):
        if failed:
            raise ranks.ProcessLost("another one")
        return False

    monkeypatch.setattr(ranks, "wait", wait)
    with pytest.raises(OSError, match="disk is full"):
        by_first(lambda: (_ for _ in ()).throw(OSError("disk is full")))
