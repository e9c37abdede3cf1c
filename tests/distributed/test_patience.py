"""Processes wait for one that is slow at what has no sums in it: it is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_several_processes import environment, free_port


def run_in_two_processes(script: str, *words: object) -> list[str]:
    """What each printed; both must end well."""
    port, command = free_port(), [sys.executable, str(Path(__file__).with_name(script)), *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env=environment(rank, port), **pipes) for rank in range(2)]
    try:
        said = [process.communicate(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(errors for _, errors in said)
    return [printed for printed, _ in said]


@pytest.mark.timeout(300)
def test_a_slow_process_is_not_taken_for_a_lost_one(tmp_path):
    """At the start of a stage, at a preview, and where the first process has the word."""
    assert run_in_two_processes("unequal.py", tmp_path) == ["finished\n"] * 2
