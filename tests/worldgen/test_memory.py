"""What a long training holds of memory."""

from __future__ import annotations

import sys

import pytest
import torch

from worldgen.memory import release_memory, resident_mib


def resident() -> float:
    held = resident_mib()
    assert held is not None
    return held


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_freed_tensors_do_not_stay_with_the_process():
    release_memory()
    before = resident()
    kept, freed = [], []
    for _ in range(2000):  # 100 KiB a piece: too small for a mapping of its own
        freed.append(torch.ones(25_000))
        kept.append(torch.ones(10))
    grown = resident() - before
    freed.clear()
    release_memory()
    assert resident() - before < grown / 4
