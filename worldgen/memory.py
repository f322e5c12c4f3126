"""The memory that this process holds.

Functions:
    resident_mib: how much.
    release_memory: back to the system, what the C library keeps of freed tensors.
    release_all_memory: the same, after a search for what nobody refers to any more.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import mmap
from collections.abc import Callable
from pathlib import Path

__all__ = ["release_all_memory", "release_memory", "resident_mib"]


def resident_mib() -> float | None:
    """Give the memory that this process holds, in MiB; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * mmap.PAGESIZE / 2**20, 1)


def release_memory() -> None:
    """Give freed memory back, where the C library can.

    Tensors of ever other sizes leave holes between those that stay, which glibc keeps for later:
    a long training would hold more and more of them.
    """
    _trim()(0)


def release_all_memory() -> None:
    """Give back what is freed, and free what nobody but itself refers to.

    An SB3 algorithm and its callbacks refer to each other. Once they are done, rollouts,
    environment and network stay until Python looks for such circles, which it does the more
    rarely the more objects there are.
    """
    gc.collect()
    release_memory()


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim  # glibc alone has it
    except (AttributeError, OSError, TypeError):
        return lambda padding: None
    return trim
