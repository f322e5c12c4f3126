"""What simple predictors say of cells that come into sight.

Classes:
    CellBaselines: marginal frequencies, and copying the last frame.
"""

from __future__ import annotations

import numpy as np

__all__ = ["CellBaselines", "smooth"]

_BACKGROUND = 1e-4
"""Probability that every predictor leaves for all contents together, so that no surprise is
infinite."""
_PRIOR = 10.0
"""Observations that the frequencies over all cells count for, beside those of one cell."""


def smooth(probabilities: np.ndarray, num_possible: int) -> np.ndarray:
    """Mix in a little of the uniform distribution over all possible contents."""
    smoothed: np.ndarray = (1 - _BACKGROUND) * probabilities + _BACKGROUND / num_possible
    return smoothed


class CellBaselines:
    """Two predictors of the cells of a view, learned by counting.

    *Marginal*: the frequency of each content at this place of the view, drawn towards that over
    all places. *Copy*: the last frame's content at this place with the probability that this is
    right, and else the marginal.

    Args:
        last: (N,) contents at the place one frame before.
        real: (N,) contents.
        place: (N,) places of the view, 0..M-1.
        num_cells: M.
        num_possible: Contents of a cell.
    """

    def __init__(
        self,
        last: np.ndarray,
        real: np.ndarray,
        place: np.ndarray,
        num_cells: int,
        num_possible: int,
    ) -> None:
        self._num_possible = num_possible
        counts = np.zeros((num_cells, num_possible))
        np.add.at(counts, (place, real), 1)
        overall = counts.sum(0) / max(len(real), 1)
        each = counts.sum(1, keepdims=True)
        self._marginal = (counts + _PRIOR * overall) / np.maximum(each + _PRIOR, 1e-9)
        self._stays = ((last == real).sum() + 1) / (len(real) + 2)

    def marginal(self, real: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Give the probability of each real content (N,)."""
        return smooth(self._marginal[place, real], self._num_possible)

    def copy(self, last: np.ndarray, real: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Give the probability of each real content (N,), where `last` was there before."""
        copied = self._stays * (last == real)
        rest = (1 - self._stays) * self._marginal[place, real]
        return smooth(copied + rest, self._num_possible)
