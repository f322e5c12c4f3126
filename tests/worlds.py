"""Small deterministic environments for the tests, each of them passing `check_env`.

What happens next depends on the observation and the action alone, so that a dream of them can
be exactly right; only where an episode begins is drawn by the seed.

Classes:
    GridWorld: symbols; a key, a door, a goal and a pit.
    VectorWorld: reals and Box actions; a mass to be brought to rest at the origin.
    DictWorld: a Dict of symbols, a Discrete and a vector.
    ImageWorld: a picture of a square to be moved onto another.
    RoomWorld: one square to be moved about; two corners that pay differently.
    CountingWorld: counts episodes and environment steps, to find lost or invented frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

__all__ = ["CountingWorld", "DictWorld", "GridWorld", "ImageWorld", "RoomWorld", "VectorWorld"]

MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
EMPTY, WALL, KEY, DOOR, GOAL, PIT = range(6)


class GridWorld(gym.Env[np.ndarray, np.int64]):
    """Take the key on the left, pass the door in the middle, reach the goal and not the pit.

    An episode begins on either side of the wall.

    Observation (5, 5, 2) uint8: what lies in each cell (0..5), and the agent: 0 elsewhere,
    1 where it stands, 2 where it stands with the key. Actions 0..3 move right, down, left, up,
    4 waits. The reward is 1 at the goal and -1 in the pit, which both end the episode.
    """

    SIZE = 5

    def __init__(self) -> None:
        high = np.broadcast_to(np.array([PIT, 2], np.uint8), (self.SIZE, self.SIZE, 2)).copy()
        self.observation_space = spaces.Box(np.zeros_like(high), high, dtype=np.uint8)
        self.action_space = spaces.Discrete(5)
        self._cells = np.zeros((self.SIZE, self.SIZE), np.uint8)
        self._position = (0, 0)
        self._has_key = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._cells[:] = EMPTY
        self._cells[:, 2] = WALL
        self._cells[2, 2] = DOOR
        self._cells[4, 4], self._cells[0, 4] = GOAL, PIT
        free = self._cells == EMPTY
        self._position = self._draw(free)
        free[self._position] = False
        free[:, 3:] = False
        self._cells[self._draw(free)] = KEY
        self._has_key = False
        return self._observation(), {}

    def _draw(self, allowed: np.ndarray) -> tuple[int, int]:
        row, column = self.np_random.choice(np.argwhere(allowed)).tolist()
        return row, column

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._position = self._target(int(action))
        cell = int(self._cells[self._position])
        if cell in (KEY, DOOR):
            self._cells[self._position] = EMPTY
            self._has_key = cell == KEY  # The door keeps it.
        reward = float(cell == GOAL) - float(cell == PIT)
        return self._observation(), reward, cell in (GOAL, PIT), False, {}

    def _target(self, action: int) -> tuple[int, int]:
        if action == len(MOVES):
            return self._position
        row, column = (a + b for a, b in zip(self._position, MOVES[action], strict=True))
        outside = not (0 <= row < self.SIZE and 0 <= column < self.SIZE)
        if outside or self._cells[row, column] == WALL:
            return self._position
        if self._cells[row, column] == DOOR and not self._has_key:
            return self._position
        return row, column

    def _observation(self) -> np.ndarray:
        agent = np.zeros_like(self._cells)
        agent[self._position] = 2 if self._has_key else 1
        return np.stack([self._cells, agent], axis=-1)


class VectorWorld(gym.Env[np.ndarray, np.ndarray]):
    """Push a mass on the plane until it lies near the origin.

    Observation (4,) float32: position and velocity. Actions (2,) in [-1, 1]: the push. The
    reward is -0.1, and 1 where the episode ends.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-2, 2, (4,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self._state = np.zeros(4, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = np.zeros(4, np.float32)
        self._state[:2] = self.np_random.uniform(-1, 1, 2)
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        velocity = 0.5 * self._state[2:] + 0.2 * np.clip(action, -1, 1)
        position = np.clip(self._state[:2] + velocity, -2, 2)
        self._state = np.concatenate([position, velocity]).astype(np.float32)
        near = bool(np.abs(self._state[:2]).max() < 0.15)
        return self._state.copy(), 1.0 if near else -0.1, near, False, {}


class DictWorld(gym.Env[dict[str, Any], np.int64]):
    """Stand in the last cell of a ring-shaped grid while the clock shows its last hour.

    Observation: `grid` (3, 3, 1) uint8, 1 where the agent stands; `hour`, a Discrete of 4;
    `place` (2,) float32, the row and the column in [0, 1]. Actions: next column, next row,
    wait. The reward is 1 where the episode ends.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {
                "grid": spaces.Box(0, 1, (3, 3, 1), np.uint8),
                "hour": spaces.Discrete(4),
                "place": spaces.Box(0, 1, (2,), np.float32),
            }
        )
        self.action_space = spaces.Discrete(3)
        self._row = self._column = self._hour = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._row, self._column = self.np_random.integers(0, 2, 2).tolist()
        self._hour = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._column = (self._column + int(action == 0)) % 3
        self._row = (self._row + int(action == 1)) % 3
        self._hour = (self._hour + 1) % 4
        won = (self._row, self._column, self._hour) == (2, 2, 3)
        return self._observation(), float(won), won, False, {}

    def _observation(self) -> dict[str, Any]:
        grid = np.zeros((3, 3, 1), np.uint8)
        grid[self._row, self._column] = 1
        place = np.array([self._row / 2, self._column / 2], np.float32)
        return {"grid": grid, "hour": np.int64(self._hour), "place": place}


class ImageWorld(gym.Env[np.ndarray, np.int64]):
    """Move the red square onto the green one.

    Observation (16, 16, 3) uint8, a picture of 4 by 4 places. Actions 0..3 move right, down,
    left, up. The reward is 1 where the episode ends.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
        self.action_space = spaces.Discrete(4)
        self._place = np.zeros(2, np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._place = self.np_random.integers(0, 3, 2)
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._place = np.clip(self._place + MOVES[int(action)], 0, 3)
        won = bool((self._place == 3).all())
        return self._observation(), float(won), won, False, {}

    def _observation(self) -> np.ndarray:
        picture = np.full((16, 16, 3), (20, 20, 60), np.uint8)
        picture[12:, 12:] = (0, 200, 0)
        row, column = (4 * self._place).tolist()
        picture[row : row + 4, column : column + 4] = (220, 40, 40)
        return picture


class RoomWorld(gym.Env[np.ndarray, np.int64]):
    """Go about a room of 4 by 4 places.

    Observation (4, 4, 1) uint8: 1 where the agent is. Actions 0..3 move right, down, left, up,
    4 waits. The lower right corner pays 1, the upper right one 0.3, and both end the episode.
    """

    SIZE = 4
    PAYS = MappingProxyType({(3, 3): 1.0, (0, 3): 0.3})

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (self.SIZE, self.SIZE, 1), np.uint8)
        self.action_space = spaces.Discrete(5)
        self.place = (0, 0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        row, column = self.np_random.integers(0, (self.SIZE, self.SIZE - 1)).tolist()
        self.place = (row, column)
        return self.observation(self.place), {}

    @classmethod
    def target(cls, place: tuple[int, int], action: int) -> tuple[int, int]:
        """Say where an action leads."""
        row, column = np.add(place, (*MOVES, (0, 0))[action]).clip(0, cls.SIZE - 1).tolist()
        return row, column

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place = self.target(self.place, int(action))
        reward = self.PAYS.get(self.place, 0.0)
        return self.observation(self.place), reward, reward > 0, False, {}

    @classmethod
    def observation(cls, place: tuple[int, int]) -> np.ndarray:
        """Show the room with the agent at a place."""
        cells = np.zeros((cls.SIZE, cls.SIZE, 1), np.uint8)
        cells[place] = 1
        return cells


class CountingWorld(gym.Env[np.ndarray, np.int64]):
    """Say which environment step of which episode it is, and what the last action was.

    Observation (3,) float32: number of the episode since the environment was seeded, number
    of the environment step in it, the action that led here (-1 at the start). The reward is
    100 * episode + environment step. Even episodes terminate, odd ones are truncated.

    Args:
        lengths: Environment steps of the episodes, again and again.
        same_memory: Give the same array each time, as some environments do.
    """

    def __init__(self, lengths: Sequence[int] = (3, 1, 4), same_memory: bool = False) -> None:
        self.observation_space = spaces.Box(-1, 1e6, (3,), np.float32)
        self.action_space = spaces.Discrete(5)
        self._lengths, self._same_memory = tuple(lengths), same_memory
        self._state = np.array([-1, 0, -1], np.float32)
        self.steps_taken = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        episode = 0 if seed is not None else self._state[0] + 1
        self._state[:] = episode, 0, -1
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps_taken += 1
        episode, count = int(self._state[0]), int(self._state[1]) + 1
        self._state[1:] = count, action
        over = count == self._lengths[episode % len(self._lengths)]
        terminated, truncated = over and episode % 2 == 0, over and episode % 2 == 1
        return self._observation(), float(100 * episode + count), terminated, truncated, {}

    def _observation(self) -> np.ndarray:
        return self._state if self._same_memory else self._state.copy()


gym.register("worlds/Grid-v0", "worlds:GridWorld", max_episode_steps=60)
gym.register("worlds/Vector-v0", "worlds:VectorWorld", max_episode_steps=50)
gym.register("worlds/Dict-v0", "worlds:DictWorld", max_episode_steps=40)
gym.register("worlds/Image-v0", "worlds:ImageWorld", max_episode_steps=40)
gym.register("worlds/Room-v0", "worlds:RoomWorld", max_episode_steps=40)
gym.register("worlds/Empty-v0", "minigrid.envs:EmptyEnv", kwargs={"size": 5, "max_steps": 20})
gym.register("worlds/Counting-v0", "worlds:CountingWorld")
