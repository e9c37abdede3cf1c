"""Where to compute, and in which precision."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

import semgan

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is one. Raises ValueError for a device this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"Unknown device '{name}'; use auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Device '{name}' is not there: {torch.cuda.device_count()} CUDA devices found. Use --device cpu."
        )
    return device


def prepare_cpu(threads: int | None = None) -> None:
    """Settings worth having on every CPU: no subnormal numbers, which make training tens of times slower on shared
    machines, and freed memory kept for the next tensor instead of given back (a fifth of an inversion step)."""
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
        if hasattr(os, "sched_setaffinity"):  # bound to the first cores, several such runs would share them
            os.sched_setaffinity(0, semgan.CORES)


def _keep_freed_memory() -> None:
    """glibc returns large blocks at once and gets them back page by page; other C libraries are left as they are."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc takes
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for the networks; float32 asks for none."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])
