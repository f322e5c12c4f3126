"""What a long training holds of memory."""

from __future__ import annotations

import sys
import weakref

import pytest
import torch

from worldgen.memory import release_all_memory, release_memory, resident_mib


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


def test_what_only_itself_refers_to_is_freed():
    class Algorithm:
        def __init__(self) -> None:
            self.callback = Callback(self)

    class Callback:
        def __init__(self, model: Algorithm) -> None:
            self.model = model

    algorithm = Algorithm()
    seen = weakref.ref(algorithm)
    del algorithm
    assert seen() is not None
    release_all_memory()
    assert seen() is None
