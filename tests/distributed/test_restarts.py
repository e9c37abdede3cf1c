"""torchrun starts all processes again when one is lost, and they find one another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_several_processes import free_port

from semgan import ranks

SCRIPT = Path(__file__).with_name("restarted.py")
WAYS = {
    "torchrun as it is": lambda port: ["--master-port", str(port)],
    "c10d": lambda port: ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}"],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
def test_processes_started_again_find_one_another(way):
    """Not the dead of the first start, whose addresses torchrun's own store still holds."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    source = str(Path(ranks.__file__).parents[1])
    found = subprocess.run(
        [*torchrun, *WAYS[way](free_port()), str(SCRIPT)],
        env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("start 1: 2 processes") == 2
