"""MiniGrid's whole state as an observation.

Classes:
    FullyObservedMiniGrid.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from worldgen.data.prepared_observation import is_minigrid
from worldgen.errors import SpaceError
from worldgen.minigrid_state import NUM_CARRIED, carried_number, whole_grid_space

__all__ = ["FullyObservedMiniGrid"]

_EMPTY = (1, 0, 0)
"""How MiniGrid encodes a cell with nothing in it."""


class FullyObservedMiniGrid(
    gym.ObservationWrapper[dict[str, Any], Any, Any], gym.utils.RecordConstructorArgs
):
    """Show the whole grid, the agent and what it carries.

    The next observation depends on this one and the action alone, as far as the simulator is
    deterministic. MiniGrid's own `FullyObsWrapper` leaves out what is carried and hides the
    thing that the agent stands on.

    The observation is a Dict of
    - "image": object, color and state of each cell, Box uint8 (W, H, 3), without the agent;
    - "agent": MultiDiscrete x, y and direction (0 right, 1 down, 2 left, 3 up);
    - "carrying": Discrete, 0 for nothing, else 1 + 6 * kind + color, where kind is 0 for a key,
      1 for a ball, 2 for a box and color is MiniGrid's number.

    Three things stay hidden: what is inside a closed box, the mission (which decides what is
    rewarded where it differs between episodes: put `NumberedMission` around this), and the clock,
    on which the size of MiniGrid's reward depends.

    >>> import minigrid  # registers its ids
    >>> env = FullyObservedMiniGrid(gym.make("MiniGrid-DoorKey-5x5-v0"))
    >>> observation, _ = env.reset(seed=0)
    >>> observation["image"].shape, observation["agent"], int(observation["carrying"])
    ((5, 5, 3), array([1, 3, 2]), 0)

    Args:
        env: Any MiniGrid environment, wrapped or not.

    Raises:
        SpaceError: If it is none, or, while playing, if the agent carries something that is no
            key, ball or box.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        if not is_minigrid(env):
            raise SpaceError(
                f"`env` must be a MiniGrid environment, got {type(env.unwrapped).__name__}: leave "
                "FullyObservedMiniGrid away"
            )
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        base: Any = env.unwrapped
        self._base = base
        width, height = base.width, base.height
        # A list, since a Dict made from a dictionary sorts its keys.
        self.observation_space = spaces.Dict(
            [
                ("image", whole_grid_space(width, height)),
                ("agent", spaces.MultiDiscrete([width, height, 4])),
                ("carrying", spaces.Discrete(NUM_CARRIED)),
            ]
        )

    def observation(self, observation: Any) -> dict[str, Any]:
        """Read the simulator's state; `observation` is what it would have shown."""
        base = self._base
        return {
            "image": _cells(base.grid),
            "agent": np.array([*base.agent_pos, base.agent_dir], np.int64),
            "carrying": np.int64(_carried(base.carrying)),
        }


def _cells(grid: Any) -> np.ndarray:
    # MiniGrid keeps its cells row by row, and encodes them with x first.
    cells = [_EMPTY if item is None else item.encode() for item in grid.grid]
    rows = np.array(cells, np.uint8).reshape(grid.height, grid.width, 3)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


def _carried(item: Any) -> int:
    if item is None:
        return 0
    kind, color, _ = item.encode()
    number = carried_number(kind, color)
    if number is None:
        raise SpaceError(
            f"the agent may carry keys, balls and boxes in MiniGrid's colors, got a {item.color} "
            f"{item.type}: FullyObservedMiniGrid does not know how to show it"
        )
    return number
