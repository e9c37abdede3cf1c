"""Where to compute, and in which precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

import semgan

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
    """Settings worth having on every CPU: subnormal numbers make training tens of times slower on shared machines."""
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
        if hasattr(os, "sched_setaffinity"):  # bound to the first cores, several such runs would share them
            os.sched_setaffinity(0, semgan.CORES)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for the networks; float32 asks for none."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])
