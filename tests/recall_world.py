"""An environment that asks for what it has shown at the beginning."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

__all__ = ["RecallWorld"]


class RecallWorld(gym.Env[np.ndarray, np.int64]):
    """See one of two cues, then two empty frames, then the question which it was.

    Observation (2, 2, 1) uint8: the cue (1 or 2) in the first frame, 3 in the fourth. Only the
    answer's action counts; the reward is 1 if it is right.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 3, (2, 2, 1), np.uint8)
        self.action_space = spaces.Discrete(2)
        self._cue = self._time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._cue, self._time = int(self.np_random.integers(2)), 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        asked = self._time == 3
        self._time += 1
        right = asked and int(action) == self._cue
        return self._observation(), float(right), asked, False, {}

    def _observation(self) -> np.ndarray:
        cells = np.zeros((2, 2, 1), np.uint8)
        cells[0, 0] = self._cue + 1 if self._time == 0 else 0
        cells[1, 1] = 3 if self._time == 3 else 0
        return cells
