"""Telling that memory was not enough, in whatever words it is said."""

from __future__ import annotations


def was_full(error: BaseException) -> bool:
    """Whether an error says that this machine's memory (not a GPU's) could not hold what was asked for.

    torch says so with a RuntimeError that only its text tells from others.
    """
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
