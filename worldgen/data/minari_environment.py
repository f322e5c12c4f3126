"""How Minari writes down an environment, and what worldgen makes of its observations.

Functions:
    environment_of_dataset: from Minari's record of an environment to ours.
    spec_for_dataset: from ours to Minari's.
    dataset_space: the observation space that `prepare_env` would give.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from worldgen.data.environment import EnvironmentSpec
from worldgen.data.environment_origin import id_with_package, is_transparent
from worldgen.data.prepared_observation import bounded_grid, without_text
from worldgen.errors import EnvironmentIdError, MissingDependencyError
from worldgen.spaces import ROOT, leaves

__all__ = ["dataset_space", "environment_of_dataset", "spec_for_dataset"]


def environment_of_dataset(recorded: EnvSpec | None) -> EnvironmentSpec | None:
    """Say how to make the environment again, without making it.

    Returns:
        None where that is not sure: no record, an environment with arguments of its own or
        another time limit than its id has, or a wrapper with arguments.
    """
    if recorded is None or not isinstance(recorded.entry_point, str):
        return None
    if _is_minigrid(recorded):
        importlib.import_module("minigrid")  # registers its ids
    registered = gym.registry.get(recorded.id)
    usual: tuple[dict[str, Any], int | None] = ({}, recorded.max_episode_steps)
    if registered is not None:
        usual = (registered.kwargs, registered.max_episode_steps)
    arguments = {key: value for key, value in recorded.kwargs.items() if key != "render_mode"}
    if (arguments, recorded.max_episode_steps) != usual:
        return None
    wrappers = [one for one in recorded.additional_wrappers if not is_transparent(one.entry_point)]
    if any(wrapper.kwargs != {} for wrapper in wrappers):
        return None
    names = tuple(wrapper.entry_point for wrapper in wrappers)
    return EnvironmentSpec(id=id_with_package(recorded), wrappers=names)


def spec_for_dataset(environment: EnvironmentSpec | None) -> EnvSpec | None:
    """Write down an environment for Minari; None where it cannot be made or written.

    The wrapper that prepares observations for worldgen is left out, so that others can make the
    environment without it.
    """
    if environment is None:
        return None
    try:
        env = environment.make()
    except (EnvironmentIdError, MissingDependencyError):
        return None
    made = env.unwrapped.spec  # without its time limit, which a wrapper has taken over
    env.close()
    spec = None if made is None else copy.deepcopy(gym.registry.get(made.id))
    if spec is None or not isinstance(spec.entry_point, str):
        return None
    spec.additional_wrappers = tuple(
        WrapperSpec(name=name.rpartition(":")[2], entry_point=name, kwargs={})
        for name in environment.wrappers
    )
    return spec


def dataset_space(
    space: spaces.Space[Any],
    recorded: EnvSpec | None,
    frames: Iterable[Mapping[str, np.ndarray]],
    name: str,
) -> spaces.Space[Any]:
    """Leave text parts of a Dict out, and give MiniGrid's cells their true bounds.

    Args:
        space: Of the observations as they are kept.
        recorded: Minari's record of the environment.
        frames: Path -> values of each episode, which tell cells from pictures.
        name: What to call the dataset in the log.
    """
    space = without_text(space, name)
    path = "image" if isinstance(space, spaces.Dict) else ROOT
    leaf = leaves(space).get(path)
    if recorded is None or leaf is None or not (_is_minigrid(recorded) and _may_be_cells(leaf)):
        return space
    cells = bounded_grid(leaf)
    if any((frame[path] > cells.high).any() for frame in frames):
        return space
    if not isinstance(space, spaces.Dict):
        return cells
    return spaces.Dict([*{**space.spaces, path: cells}.items()])


def _is_minigrid(recorded: EnvSpec) -> bool:
    entry = recorded.entry_point
    return isinstance(entry, str) and entry.startswith("minigrid.")


def _may_be_cells(space: spaces.Space[Any]) -> bool:
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[-1] == 3
        and bool((space.high == 255).all())
    )
