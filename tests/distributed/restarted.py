"""Run by torchrun in test_restarts.py: the second of two processes is killed at the first start, and all go on."""

import os
import signal

import torch

from semgan import ranks

with ranks.joined():
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    together = float(ranks.total(torch.ones(())))
    if start == 0 and ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()
    print(f"start {start}: {together:g} processes")
