"""The memory that this process holds.

Functions:
    resident_mib: how much.
    release_memory: back to the system, what the C library keeps of freed tensors.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable
from pathlib import Path

__all__ = ["release_memory", "resident_mib"]


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


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim  # glibc alone has it
    except (AttributeError, OSError, TypeError):
        return lambda padding: None
    return trim
