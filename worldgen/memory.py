"""Memory that is no longer needed, back to the system.

Functions:
    release_memory: what the C library keeps of freed tensors.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

__all__ = ["release_memory"]


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
