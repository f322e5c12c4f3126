"""Policies that act step by step, and what they carry from one step to the next.

Classes:
    Acting: a policy's `predict` with its state kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Acting", "State"]

State = tuple[np.ndarray, ...]
"""What a policy remembers of N environments: arrays (T, N, ...), as sb3-contrib has them."""


class Acting:
    """Ask a policy for actions, and hand it back the state that it gave at the step before.

    Stable-Baselines3's convention: `predict(observation, state, episode_start)` gives actions and
    the next state, or None where the policy carries none. Such a policy is asked by its
    observations alone, so that it needs no further arguments.

    >>> class Counts:
    ...     def predict(self, observation, state=None, episode_start=None):
    ...         steps = np.zeros((1, 2), int) if state is None else state[0] * ~episode_start + 1
    ...         return steps[0], (steps,)
    >>> acting = Acting(Counts().predict)
    >>> [acting(np.zeros(2), np.array(begun)).tolist() for begun in ([True] * 2, [False] * 2)]
    [[0, 0], [1, 1]]
    >>> acting.keep([1])
    >>> acting(np.zeros(1), np.array([False])).tolist()
    [2]

    Args:
        predict: Of the policy.
        state: What the policy is to remember at the first step; None for nothing.
        **settings: Further arguments of `predict`.
    """

    def __init__(
        self, predict: Callable[..., tuple[Any, Any]], state: State | None = None, **settings: Any
    ) -> None:
        self._predict, self._settings, self.state = predict, settings, state
        self._kept: np.ndarray | None = None
        self._num_rows = 0

    def __call__(self, observations: Any, begun: np.ndarray) -> Any:
        """Choose an action for each row of a nested batch.

        Args:
            observations: Batch (N, ...).
            begun: (N,) bool, rows whose observations are the first of an episode. At the first
                step without a state, all of them are taken to be.
        """
        kept = self._kept if self.state is not None else None
        if kept is not None:
            shown = np.zeros(self._num_rows, np.int64)  # rows that are over show the first one's
            shown[kept] = np.arange(len(kept))
            observations, begun = _rows(observations, shown), begun[shown]
        self._num_rows = len(begun)
        past = {} if self.state is None else {"state": self.state, "episode_start": begun}
        actions, self.state = self._predict(observations, **past, **self._settings)
        return actions if kept is None else np.asarray(actions)[kept]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows, in the order given.

        A policy with a state goes on being shown as many rows, whatever its state is made of.
        """
        index = np.asarray(rows, np.int64)
        self._kept = index if self._kept is None else self._kept[index]


def _rows(batch: Any, index: np.ndarray) -> Any:
    """Choose rows of a nested batch."""
    if isinstance(batch, Mapping):
        return {key: _rows(part, index) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_rows(part, index) for part in batch)
    return np.asarray(batch)[index]
