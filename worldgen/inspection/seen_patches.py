"""Real patches by the code that they chose.

Classes:
    SeenPatch: one of them.
    SeenPatches: gathers a few different ones for each code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SeenPatch", "SeenPatches"]

_MOST = 24
"""Different patches that are kept for each code."""


@dataclass(eq=False)
class SeenPatch:
    """A real patch that chose a code."""

    values: np.ndarray
    """(P,) in the observation's units."""
    exact: bool
    """Whether it comes back exactly."""
    codes: np.ndarray
    """Its codes up to this codebook's stage."""
    count: int = 0
    """How often it was seen."""


class SeenPatches:
    """Keeps for each code the first 24 different patches, and counts them."""

    def __init__(self) -> None:
        self._by_code: dict[int, dict[int, SeenPatch]] = {}
        self._multipliers: np.ndarray | None = None

    def add(
        self, chosen: np.ndarray, patches: np.ndarray, exact: np.ndarray, codes: np.ndarray
    ) -> None:
        """Take a batch.

        Args:
            chosen: (N,) code of each patch.
            patches: (N, P) values.
            exact: (N,) bool.
            codes: (N, S) codes of each patch up to this stage.
        """
        keys = self._hashes(patches, chosen)
        _, firsts, counts = np.unique(keys, return_index=True, return_counts=True)
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
            kept = self._by_code.setdefault(int(chosen[first]), {})
            key = int(keys[first])
            if key not in kept:
                if len(kept) >= _MOST:
                    continue
                # Copies, lest one patch keep the whole batch in memory.
                kept[key] = SeenPatch(
                    patches[first].copy(), bool(exact[first]), codes[first].copy()
                )
            kept[key].count += count

    def ranked(self) -> dict[int, list[SeenPatch]]:
        """Give the kept patches of each code, the most frequent first."""
        return {
            code: sorted(kept.values(), key=lambda patch: -patch.count)
            for code, kept in self._by_code.items()
        }

    def _hashes(self, patches: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Give one 64-bit number for each code and patch; equal ones have equal numbers."""
        floats = patches.dtype.kind == "f"
        words = (patches.astype(np.float32) + 0).view(np.int32) if floats else patches
        if self._multipliers is None:
            limits = np.iinfo(np.int64)
            self._multipliers = np.random.default_rng(0).integers(
                limits.min, limits.max, words.shape[1] + 1
            )
        # Products and sums wrap around; the multipliers are random in all 64 bits.
        hashes: np.ndarray = words.astype(np.int64) @ self._multipliers[:-1]
        with_code: np.ndarray = hashes + chosen * self._multipliers[-1]
        return with_code
