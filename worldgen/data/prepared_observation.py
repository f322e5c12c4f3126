"""What every environment's observations go through before a world model sees them.

Classes:
    PrepareObservation: a wrapper with true bounds for MiniGrid's symbols, and no text.

Functions:
    prepare_env: put the wrapper on where it changes something.
    prepared_observation_space: the space that it gives.
    without_text, bounded_grid: the two things that it does to a space.
    is_minigrid, wrapper_chain: what an environment is made of.
"""

from __future__ import annotations

import functools
import importlib
import logging
import string
from collections.abc import Iterator
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from worldgen.errors import SpaceError

__all__ = [
    "PrepareObservation",
    "bounded_grid",
    "is_minigrid",
    "prepare_env",
    "prepared_observation_space",
    "without_text",
    "wrapper_chain",
]

logger = logging.getLogger(__name__)

Env: TypeAlias = gym.Env[Any, Any]

_LONGEST_MISSION = 1_000
"""Characters."""
_NOT_CELLS = ("RGB", "SymbolicObs")
"""Parts of the names of MiniGrid wrappers whose image does not hold a grid's cells."""


class PrepareObservation(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Give the observation space of `prepared_observation_space`; values stay as they are.

    Args:
        env: Any environment.
        text: Keep the parts that are text.
    """

    def __init__(self, env: Env, text: bool = False) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, text=text)
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space = prepared_observation_space(env, text=text)

    def observation(self, observation: Any) -> Any:
        """Leave out the parts that the space does not have."""
        return _select(self.observation_space, observation)


def _select(space: spaces.Space[Any], observation: Any) -> Any:
    if not isinstance(space, spaces.Dict):
        return observation
    return {key: _select(child, observation[key]) for key, child in space.items()}


def prepare_env(env: Env, *, text: bool = False) -> Env:
    """Make an environment ready for a world model; one that is ready is given back.

    MiniGrid says that its cells, which are indices of objects, colours and states, are bytes
    as in a picture: they get their true bounds. Text parts of a Dict are left out, unless
    `text` is set: then MiniGrid's missions become Gymnasium's `Text`.
    """
    _refuse_flat_text(env)
    if isinstance(env, PrepareObservation):
        return env
    space = prepared_observation_space(env, text=text)
    _note_missing_mission(env, space)
    return env if space == env.observation_space else PrepareObservation(env, text)


def _note_missing_mission(env: Env, shown: spaces.Space[Any]) -> None:
    """Warn, once an id, where missions differ from episode to episode and are not shown."""
    known = is_minigrid(env) and isinstance(env.unwrapped.observation_space, spaces.Dict)
    if known and not (isinstance(shown, spaces.Dict) and "mission" in shown.spaces):
        space: Any = env.unwrapped.observation_space
        name = env.spec.id if env.spec else str(env)
        _warn_of_mission(name, _varies(space.spaces.get("mission")))


def _varies(mission: Any) -> str:
    """Say how missions differ: "counted" where `NumberedMission` can tell, or "text", or ""."""
    if mission is None or isinstance(mission, spaces.Text):
        return ""
    if type(mission).__name__ != "MissionSpace":  # BabyAI's, with a grammar
        return "text"
    blanks = getattr(mission, "ordered_placeholders", None) or ()
    return "counted" if any(len(words) > 1 for words in blanks) else ""


@functools.cache
def _warn_of_mission(name: str, varies: str) -> None:
    if varies:
        remedy = (
            "worldgen.envs:NumberedMission, behind all other wrappers, shows it as numbers"
            if varies == "counted"
            else "world models and agents cannot read it yet"
        )
        logger.warning(
            "%s: its missions differ between episodes and are left out: %s", name, remedy
        )


def _refuse_flat_text(env: Env) -> None:
    """Refuse MiniGrid's `FlatObsWrapper`: 2,688 of its 2,835 numbers spell the mission."""
    wrapped: Any = env
    while isinstance(wrapped, gym.Wrapper):
        if type(wrapped).__name__ == "FlatObsWrapper":
            raise SpaceError(
                "MiniGrid's FlatObsWrapper is not supported, since most of its vector is the "
                "mission spelt out: leave it away, the grid is read as it is"
            )
        wrapped = wrapped.env


def prepared_observation_space(env: Env, *, text: bool = False) -> spaces.Space[Any]:
    """Give the observation space that `prepare_env(env, text=text)` has."""
    if isinstance(env, PrepareObservation):
        return env.observation_space
    name = env.spec.id if env.spec else str(env)
    if text:
        space = _with_plain_text(env.observation_space)
    else:
        space = without_text(env.observation_space, name)
    shapes = _cell_shapes(env)
    if isinstance(space, spaces.Dict):
        image = space.spaces.get("image")
        if image is not None and _is_unbounded_grid(image, shapes):
            parts = {**space.spaces, "image": bounded_grid(image)}
            return spaces.Dict(list(parts.items()))
    return bounded_grid(space) if _is_unbounded_grid(space, shapes) else space


def without_text(space: spaces.Space[Any], name: str) -> spaces.Space[Any]:
    """Leave out the parts of a Dict that are text, unless all are; `name` is for the log."""
    if not isinstance(space, spaces.Dict):
        return space
    kept = {key: child for key, child in space.spaces.items() if not _is_text(child)}
    if not kept:
        return space
    dropped = tuple(key for key in space.spaces if key not in kept)
    if dropped:
        _log_dropped(name, dropped)
    parts = {key: without_text(child, name) for key, child in kept.items()}
    changed = dropped or any(part is not kept[key] for key, part in parts.items())
    # A list, since a Dict made from a dictionary sorts its keys.
    return spaces.Dict(list(parts.items())) if changed else space


def _with_plain_text(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Turn MiniGrid's missions into Gymnasium's `Text`."""
    if isinstance(space, spaces.Dict):
        parts = {key: _with_plain_text(child) for key, child in space.spaces.items()}
        same = all(part is space.spaces[key] for key, part in parts.items())
        return space if same else spaces.Dict(list(parts.items()))
    if _is_text(space) and not isinstance(space, spaces.Text):
        return spaces.Text(_LONGEST_MISSION, min_length=0, charset=string.printable)
    return space


def _is_text(space: spaces.Space[Any]) -> bool:
    mission = any(kind.__name__ == "MissionSpace" for kind in type(space).__mro__)
    return mission or isinstance(space, spaces.Text)


@functools.cache
def _log_dropped(name: str, keys: tuple[str, ...]) -> None:
    logger.info("%s: text in its observations is left out: %s", name, ", ".join(keys))


def wrapper_chain(env: Env) -> Iterator[Env]:
    """List the environment's layers from the outermost to the base."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def is_minigrid(env: Env) -> bool:
    """Tell whether the base is a MiniGrid environment, without importing MiniGrid."""
    kinds = type(env.unwrapped).__mro__
    return any(k.__name__ == "MiniGridEnv" and k.__module__.startswith("minigrid.") for k in kinds)


def _cell_shapes(env: Env) -> set[tuple[int, ...]]:
    """List the shapes that MiniGrid's cells can have here; none where the image is no grid."""
    if not is_minigrid(env):
        return set()
    layers = list(wrapper_chain(env))
    if any(part in type(layer).__name__ for part in _NOT_CELLS for layer in layers):
        return set()
    views = {vars(layer)["agent_view_size"] for layer in layers if "agent_view_size" in vars(layer)}
    base: Any = env.unwrapped
    return {(base.width, base.height, 3), *((view, view, 3) for view in views)}


def _is_unbounded_grid(space: spaces.Space[Any], shapes: set[tuple[int, ...]]) -> bool:
    return (
        isinstance(space, spaces.Box)
        and space.shape in shapes
        and space.dtype == np.uint8
        and bool((space.high == 255).all())
    )


def bounded_grid(space: spaces.Space[Any]) -> spaces.Box:
    """Give MiniGrid's cells, (width, height, 3) indices, their true bounds."""
    constants = importlib.import_module("minigrid.core.constants")
    highest = (
        max(constants.OBJECT_TO_IDX.values()),
        max(constants.COLOR_TO_IDX.values()),
        # The third channel is the direction where the agent stands.
        max(*constants.STATE_TO_IDX.values(), len(constants.DIR_TO_VEC) - 1),
    )
    high = np.broadcast_to(np.array(highest, np.uint8), space.shape or ()).copy()
    return spaces.Box(np.zeros_like(high), high, dtype=np.uint8)
