"""What an episode must be like to belong to an environment's spaces.

Functions:
    check_spaces: whether episodes of these spaces can be kept at all.
    check_episode: paths, shapes, dtypes and values of one episode.
    first_outside: the first value of a batch that does not lie in a leaf space.
    describe: a space in one line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from worldgen.data.episode import Episode
from worldgen.errors import DatasetError, SpaceError
from worldgen.spaces import leaves

__all__ = ["check_episode", "check_spaces", "describe", "first_outside"]

_NUMERIC = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Check that all parts of both spaces are arrays of numbers, or text in observations.

    Raises:
        SpaceError: If an observation's leaf, or the action space, is of another kind.
    """
    for path, leaf in leaves(observation_space).items():
        if not isinstance(leaf, (*_NUMERIC, spaces.Text)):
            raise SpaceError(
                f"observations must be made of Box, Discrete, MultiDiscrete, MultiBinary and Text "
                f"spaces, got {type(leaf).__name__} at {path!r}: leave it out by a wrapper"
            )
    if not isinstance(action_space, _NUMERIC):
        raise SpaceError(
            f"the action space must be Box, Discrete, MultiDiscrete or MultiBinary, "
            f"got {type(action_space).__name__}: wrap the environment"
        )


def check_episode(
    episode: Episode, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Check an episode against its environment's spaces.

    Reals of an observation may leave their bounds, as many environments let them; symbols and
    actions may not.

    Raises:
        DatasetError: If a path, a shape, a dtype or a value is wrong; the message says which.
    """
    space_of = leaves(observation_space)
    if episode.observations.keys() != space_of.keys():
        raise DatasetError(
            f"an episode's observations must have the paths {', '.join(sorted(space_of))}, "
            f"got {', '.join(sorted(episode.observations)) or 'none'}"
        )
    for path, leaf in space_of.items():
        values = episode.observations[path]
        if isinstance(leaf, spaces.Text):
            _check_text(path, values, leaf)
            continue
        _check_array(path, values, leaf)
        if values.dtype.kind != "f":
            _check_values(path, values, leaf)
    _check_array("actions", episode.actions, action_space)
    _check_values("actions", episode.actions, action_space)
    _check_outcomes(episode)


def _check_outcomes(episode: Episode) -> None:
    rewards = spaces.Box(-np.inf, np.inf, (), np.float32)
    _check_array("rewards", episode.rewards, rewards)
    for name in ("terminated", "truncated"):
        values: np.ndarray = getattr(episode, name)
        if values.dtype != np.bool_ or values.ndim != 1:
            raise DatasetError(
                f"`{name}` must be bool of shape (T,), got {values.dtype} of shape {values.shape}"
            )


def _check_array(name: str, values: np.ndarray, space: spaces.Space[Any]) -> None:
    """Check dtype, shape after the first dimension, and that reals are finite."""
    if values.shape[1:] != space.shape or values.dtype != space.dtype:
        raise DatasetError(
            f"`{name}` must be {space.dtype} with a shape that ends in {space.shape}, as the "
            f"space says, got {values.dtype} of shape {values.shape}"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DatasetError(f"`{name}` must be finite, got {values[~np.isfinite(values)][0]}")


def _check_text(name: str, values: np.ndarray, space: spaces.Text) -> None:
    if values.dtype.kind != "U" or values.ndim != 1:
        raise DatasetError(
            f"`{name}` must be text of shape (T + 1,), got {values.dtype} of shape {values.shape}"
        )
    for text in np.unique(values).tolist():
        if not space.contains(text):
            raise DatasetError(
                f"`{name}` must have {space.min_length} to {space.max_length} characters of the "
                f"space's character set, got {text!r}"
            )


def _check_values(name: str, values: np.ndarray, space: spaces.Space[Any]) -> None:
    outside = first_outside(space, values)
    if outside is not None:
        raise DatasetError(f"`{name}` must lie in {describe(space)}, got {outside}")


def first_outside(space: spaces.Space[Any], values: np.ndarray) -> Any | None:
    """Give the first number of a batch (..., *shape) that is outside, None if there is none.

    >>> first_outside(spaces.Discrete(3, start=-1), np.array([-1, 1])) is None
    True
    >>> int(first_outside(spaces.MultiDiscrete([2, 3]), np.array([[1, 2], [4, 1]])))
    4

    Raises:
        SpaceError: If the space is none of Box, Discrete, MultiDiscrete, MultiBinary.
    """
    match space:
        case spaces.Discrete():
            inside = (values >= space.start) & (values < space.start + space.n)
        case spaces.MultiDiscrete():
            inside = (values >= space.start) & (values < space.start + space.nvec)
        case spaces.MultiBinary():
            inside = (values == 0) | (values == 1)
        case spaces.Box():
            inside = (values >= space.low) & (values <= space.high)
        case _:
            raise SpaceError(f"`space` must be an array of numbers, got {space}")
    return None if np.all(inside) else values[~inside].flat[0]


def describe(space: spaces.Space[Any]) -> str:
    """Write a space in one line, a Box by its widest bounds.

    >>> describe(spaces.Box(0, np.array([10, 5, 3], np.uint8), dtype=np.uint8))
    'Box(0, 10, (3,), uint8)'
    """
    if isinstance(space, spaces.Box) and space.low.size:
        return f"Box({space.low.min()}, {space.high.max()}, {space.shape}, {space.dtype})"
    return " ".join(str(space).split())
