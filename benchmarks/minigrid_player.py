"""A scripted player for any MiniGrid environment, for data that random play never sees.

Classes:
    MiniGridPlayer: walks to things and uses them, with a share of random actions.

Functions:
    collect_mixed: episodes of mixed random and scripted play.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import worldgen
from worldgen.data import EnvironmentSpec, Episodes

__all__ = ["MiniGridPlayer", "collect_mixed"]

_TURN_LEFT, _TURN_RIGHT, _FORWARD, _PICK_UP, _DROP, _TOGGLE = range(6)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
_MOST_PATIENT = 60
"""Actions after which a plan is given up."""


class MiniGridPlayer:
    """Play one MiniGrid environment by its true state.

    It chooses a thing that it can reach (goal, door, key, ball, box), goes there and uses it,
    then chooses again. A share of its actions is random.

    Args:
        env: Any wrapping of a MiniGrid environment.
        random_share: Probability of a random action, in [0, 1].
        generator: Draws actions and plans.
    """

    def __init__(
        self, env: gym.Env[Any, Any], random_share: float, generator: np.random.Generator
    ) -> None:
        self._env: Any = env.unwrapped
        self._random_share, self._generator = random_share, generator
        self._plan: tuple[int, int] | None = None
        self._patience = 0
        self._step_count = -1

    def act(self) -> int:
        """Give the next action."""
        env = self._env
        if env.step_count <= self._step_count:
            self._plan = None  # A new episode.
        self._step_count = env.step_count
        if self._generator.random() < self._random_share:
            return int(self._generator.integers(env.action_space.n))
        self._patience -= 1
        if self._plan is None or self._patience < 0 or self._use(self._plan) is None:
            self._plan, self._patience = self._choose(), _MOST_PATIENT
        if self._plan is None:
            return int(self._generator.integers(3))
        path = self._path(self._plan)
        if path is None:
            self._plan = None
            return int(self._generator.integers(3))
        return self._follow(path)

    def _follow(self, path: list[tuple[int, int]]) -> int:
        """Turn to the next cell and go there, or use what is in the last one."""
        env = self._env
        x, y = path[0]
        wanted = _STEPS.index((x - env.agent_pos[0], y - env.agent_pos[1]))
        if wanted != env.agent_dir:
            return _TURN_RIGHT if (wanted - env.agent_dir) % 4 == 1 else _TURN_LEFT
        if len(path) > 1:
            return _FORWARD
        assert self._plan is not None
        action = self._use(self._plan)
        self._plan = None
        return _FORWARD if action is None else action

    def _choose(self) -> tuple[int, int] | None:
        """Draw a useful cell within reach; goals and doors are likelier than the rest."""
        cells, weights = [], []
        for x in range(self._env.width):
            for y in range(self._env.height):
                if self._use((x, y)) is not None and self._path((x, y)) is not None:
                    cells.append((x, y))
                    weights.append(self._weight((x, y)))
        if not cells:
            return None
        weights_array = np.array(weights) / sum(weights)
        return cells[int(self._generator.choice(len(cells), p=weights_array))]

    def _weight(self, cell: tuple[int, int]) -> float:
        item = self._env.grid.get(*cell)
        if item is None:
            return 1.0 / float(self._env.width * self._env.height)  # Drop something here.
        if item.type == "goal":
            return 4.0
        if item.type == "door":
            return 0.1 if item.is_open else 4.0
        return 2.0

    def _use(self, cell: tuple[int, int]) -> int | None:
        """Say which action uses the cell; None where there is nothing to be done."""
        item, carrying = self._env.grid.get(*cell), self._env.carrying
        if item is None:
            return _DROP if carrying is not None else None
        if item.type == "goal":
            return _FORWARD
        if item.type == "door":
            has_key = carrying is not None and carrying.type == "key"
            locked_out = item.is_locked and not (has_key and carrying.color == item.color)
            return None if locked_out else _TOGGLE
        if item.type == "box" and self._generator.random() < 0.5:
            return _TOGGLE
        return _PICK_UP if item.can_pickup() and carrying is None else None

    def _path(self, target: tuple[int, int]) -> list[tuple[int, int]] | None:
        """Find the shortest way to `target` over free cells; the start is left out."""
        grid = self._env.grid
        start = (int(self._env.agent_pos[0]), int(self._env.agent_pos[1]))
        came_from: dict[tuple[int, int], tuple[int, int]] = {start: start}
        waiting = deque([start])
        while waiting:
            cell = waiting.popleft()
            for step in _STEPS:
                beside = (cell[0] + step[0], cell[1] + step[1])
                if beside in came_from:
                    continue
                if beside == target:
                    path = [beside]
                    while cell != start:
                        path.append(cell)
                        cell = came_from[cell]
                    return path[::-1]
                if not (0 <= beside[0] < grid.width and 0 <= beside[1] < grid.height):
                    continue
                item = grid.get(*beside)
                if item is None or item.type == "floor" or (item.type == "door" and item.is_open):
                    came_from[beside] = cell
                    waiting.append(beside)
        return None


def collect_mixed(
    environment: EnvironmentSpec | str,
    num_steps: int,
    *,
    seed: int,
    num_envs: int = 8,
    lowest_share: float = 0.05,
    max_episode_steps: int | None = None,
    path: str | Path | None = None,
    progress: bool = False,
) -> Episodes:
    """Collect episodes of players whose share of random actions goes from `lowest_share` to 1.

    With `max_episode_steps`, an episode is broken off after so many environment steps, which
    leaves the rewards as they are.
    """
    spec = EnvironmentSpec(id=environment) if isinstance(environment, str) else environment

    def make() -> gym.Env[Any, Any]:
        env = spec.make()
        return gym.wrappers.TimeLimit(env, max_episode_steps) if max_episode_steps else env

    rows = gym.vector.SyncVectorEnv([make] * num_envs)
    shares = np.linspace(lowest_share, 1.0, num_envs)
    players = [
        MiniGridPlayer(env, share, np.random.default_rng([seed, row]))
        for row, (env, share) in enumerate(zip(rows.envs, shares, strict=True))
    ]
    return worldgen.collect(
        rows,
        num_steps,
        lambda _: np.array([player.act() for player in players]),
        seed=seed,
        path=path,
        progress=progress,
    )
