"""Random numbers that belong to one object and leave the global generator alone.

Functions:
    seeded_initialization: build modules from a seed.
    seeded_torch: let others draw from torch's global generators, which are put back.
    derived_seed: a seed for one purpose out of a run's seed.
    random_index, index_by_weight: draw places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = [
    "derived_seed",
    "index_by_weight",
    "random_index",
    "seeded_initialization",
    "seeded_torch",
]


@contextmanager
def seeded_initialization(seed: int) -> Iterator[None]:
    """Seed torch's initializers inside the block and restore the global state after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    """Seed torch's global generators, of all devices, inside the block and restore them after it.

    SB3 draws actions from them.
    """
    with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        yield


def random_index(high: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` numbers in [0, high), int64, with repetition."""
    return torch.randint(high, (count,), generator=generator, device=generator.device)


def index_by_weight(cumulative: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` places by their weights, int64, with repetition.

    Inverts the cumulative sum: torch.multinomial would not take so many entries.

    Args:
        cumulative: (N,) float64, the cumulative sum of the weights.
        count: How many.
        generator: On the same device.
    """
    uniform = torch.rand(count, generator=generator, device=generator.device)
    place = torch.searchsorted(cumulative, uniform.double() * cumulative[-1], right=True)
    return place.clamp(max=len(cumulative) - 1)


def derived_seed(seed: int, *purpose: object) -> int:
    """Give a seed in [0, 2**63) that depends on `seed` and `purpose` alone.

    >>> derived_seed(0, "tokenizer") == derived_seed(0, "tokenizer")
    True
    >>> derived_seed(0, "tokenizer") == derived_seed(1, "tokenizer")
    False
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
