"""Policies that act step by step, and what they carry from one step to the next.

Classes:
    Acting: a policy's `predict` with its state kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    >>> [acting(None, np.array(begun)).tolist() for begun in ([True] * 2, [False] * 2)]
    [[0, 0], [1, 1]]
    >>> acting.keep([1])
    >>> acting.state
    (array([[1]]),)

    Args:
        predict: Of the policy.
        state: What the policy is to remember at the first step; None for nothing.
        **settings: Further arguments of `predict`.
    """

    def __init__(
        self, predict: Callable[..., tuple[Any, Any]], state: State | None = None, **settings: Any
    ) -> None:
        self._predict, self._settings, self.state = predict, settings, state

    def __call__(self, observations: Any, begun: np.ndarray) -> Any:
        """Choose an action for each row of a nested batch.

        Args:
            observations: Batch (N, ...).
            begun: (N,) bool, rows whose observations are the first of an episode. At the first
                step without a state, all of them are taken to be.
        """
        past = {} if self.state is None else {"state": self.state, "episode_start": begun}
        actions, self.state = self._predict(observations, **past, **self._settings)
        return actions

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows, in the order given."""
        if self.state is not None:
            self.state = tuple(part[:, list(rows)] for part in self.state)
