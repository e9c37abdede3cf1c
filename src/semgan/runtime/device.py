"""Where to compute, and in which precision."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional as F

import semgan

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
MMAP_MAX = 65_536  # glibc's own number of blocks that may be mapped
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TRIALS = 7  # convolutions timed in each precision; the fastest counts, as others may use the machine
CLEAR = 3.0  # fastest of two trials so many times apart: no further trial would change the answer
WORTH = 1.1  # so much faster must float32 be: bfloat16 takes half the memory


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


def prepare_cpu(threads: int | None = None, *, training: bool = False) -> None:
    """Settings worth having on every CPU: no subnormal numbers, which make training tens of times slower on shared
    machines, and freed memory kept for the next tensor instead of given back (a fifth of an inversion step).

    training: blocks of 32 MB and more are kept, too, as the same sizes come again at every step; elsewhere, sizes that
    differ would leave gaps.
    """
    torch.set_flush_denormal(True)
    _keep_freed_memory(large=training)
    if threads is not None:
        torch.set_num_threads(threads)
        if hasattr(os, "sched_setaffinity"):  # bound to the first cores, several such runs would share them
            os.sched_setaffinity(0, semgan.CORES)


def _keep_freed_memory(*, large: bool) -> None:
    """glibc returns large blocks at once and gets them back page by page; other C libraries are left as they are."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc takes: beyond, blocks are mapped, not of the heap
        mallopt(M_MMAP_MAX, 0 if large else MMAP_MAX)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for the networks; float32 asks for none, and ``auto`` for `faster_precision`."""
    if precision == "auto":
        precision = faster_precision(device.type)
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


@functools.cache
def faster_precision(kind: str) -> str:
    """``bfloat16``, or ``float32`` where bfloat16 is not the faster of the two; kind: of device, as ``cpu``.

    Processors differ: products of bfloat16 take half the time on some and, emulated or without matrix units, two to
    nine times the time on others, and their flags do not tell. So on a CPU a convolution is timed in both, once in a
    process (about 0.3 s).
    """
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    seconds = dict.fromkeys(("float32", "bfloat16"), float("inf"))
    for trial in range(TRIALS):
        for precision, fastest in seconds.items():
            seconds[precision] = min(fastest, _seconds_of_a_convolution(torch.device(kind), _DTYPES[precision]))
        if trial and max(seconds.values()) > CLEAR * min(seconds.values()):
            break
    return "float32" if seconds["float32"] * WORTH < seconds["bfloat16"] else "bfloat16"


def _seconds_of_a_convolution(device: torch.device, dtype: torch.dtype) -> float:
    """Forward and backward, as wide and large as the networks for 64 px have many of."""
    options = {"dtype": dtype, "device": device}
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        x = torch.ones(8, 64, 32, 32, **options).contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = torch.ones(64, 64, 3, 3, **options).contiguous(memory_format=torch.channels_last).requires_grad_()
        began = time.perf_counter()
        torch.autograd.grad(F.conv2d(x, weight, padding=1).sum(), (x, weight))
    return time.perf_counter() - began
