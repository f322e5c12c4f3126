"""MiniGrid's whole state as three parts of an observation: the grid, the agent, what it carries.

Classes:
    Agent: where the agent is and what it carries, read from an observation.

Functions:
    whole_grid_space, is_whole_grid: the space of a grid without the agent.
    carried_number, carried_symbols: what is carried, as one number.
    agents: which grids of an observation have an agent beside them.
    read_agent: that agent of one observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

__all__ = [
    "NUM_CARRIED",
    "Agent",
    "agents",
    "carried_number",
    "carried_symbols",
    "is_whole_grid",
    "read_agent",
    "whole_grid_space",
]

_HIGHEST = (9, 5, 2)
"""Largest object (lava; the agent, 10, is no part of the grid), color, and state of a door."""
_FIRST_KIND, _NUM_KINDS, _NUM_COLORS = 5, 3, 6
"""Only keys (5), balls (6) and boxes (7) can be carried, in each of six colors."""
NUM_CARRIED = 1 + _NUM_KINDS * _NUM_COLORS
"""Nothing, or one of 18 things."""


class Agent(NamedTuple):
    """The agent of a MiniGrid environment."""

    x: int
    y: int
    direction: int
    """0 right, 1 down, 2 left, 3 up."""
    carrying: int
    """As `carried_number` gives it."""


def whole_grid_space(width: int, height: int) -> spaces.Box:
    """Give the space of a grid's cells (width, height, 3): object, color, state of each."""
    high = np.broadcast_to(np.array(_HIGHEST, np.uint8), (width, height, 3)).copy()
    return spaces.Box(np.zeros_like(high), high, dtype=np.uint8)


def is_whole_grid(space: spaces.Space[Any]) -> bool:
    """Tell whether `space` is one that `whole_grid_space` gives."""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and space.shape[2:] == (3,)
        and bool((space.low == 0).all() and (space.high == _HIGHEST).all())
    )


def carried_number(kind: int, color: int) -> int | None:
    """Number what is carried: 1 to 18, None for a kind or a color that MiniGrid cannot carry.

    >>> carried_number(5, 4)  # a yellow key
    5
    """
    index = kind - _FIRST_KIND
    if not (0 <= index < _NUM_KINDS and 0 <= color < _NUM_COLORS):
        return None
    return 1 + index * _NUM_COLORS + color


def carried_symbols(number: int) -> tuple[int, int] | None:
    """Undo `carried_number`: the object's kind and color, None for nothing (0).

    >>> carried_symbols(5)
    (5, 4)
    """
    if number == 0:
        return None
    kind, color = divmod(number - 1, _NUM_COLORS)
    return kind + _FIRST_KIND, color


def agents(leaves: Mapping[str, spaces.Space[Any]]) -> dict[str, tuple[str, str]]:
    """Find the whole grids that have an agent beside them.

    Args:
        leaves: Path -> leaf space, from `worldgen.spaces.leaves`.

    Returns:
        Path of a grid -> paths of its agent (x, y, direction) and of what it carries.
    """
    found = {}
    for path, leaf in leaves.items():
        folder = path.rpartition("/")[0]
        prefix = f"{folder}/" if folder else ""
        agent, carrying = f"{prefix}agent", f"{prefix}carrying"
        if (
            is_whole_grid(leaf)
            and leaves.get(agent) == spaces.MultiDiscrete([*(leaf.shape or ())[:2], 4])
            and leaves.get(carrying) == spaces.Discrete(NUM_CARRIED)
        ):
            found[path] = (agent, carrying)
    return found


def read_agent(paths: tuple[str, str], observation: Mapping[str, np.ndarray]) -> Agent:
    """Read the agent from the two parts of a flat observation that `agents` names."""
    x, y, direction = (int(entry) for entry in observation[paths[0]])
    return Agent(x, y, direction, int(observation[paths[1]]))
