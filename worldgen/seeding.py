"""Random numbers that belong to one object and leave the global generator alone.

Functions:
    seeded_initialization: build modules from a seed.
    derived_seed: a seed for one purpose out of a run's seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["derived_seed", "seeded_initialization"]


@contextmanager
def seeded_initialization(seed: int) -> Iterator[None]:
    """Seed torch's initializers inside the block and restore the global state after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def derived_seed(seed: int, *purpose: object) -> int:
    """Give a seed in [0, 2**63) that depends on `seed` and `purpose` alone.

    >>> derived_seed(0, "tokenizer") == derived_seed(0, "tokenizer")
    True
    >>> derived_seed(0, "tokenizer") == derived_seed(1, "tokenizer")
    False
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
