"""Environments by id, made ready for a world model.

Classes:
    EnvironmentSpec: how to make an environment again.

Functions:
    make_env: an environment from an id, a spec, an object or a function.
    prepare_env: what every environment goes through.
    environment_spec: the spec of an environment, where it has one.
    episode_success: whether an episode reached its goal, where that is known.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import gymnasium as gym

from worldgen.config import Config, require
from worldgen.data.environment_origin import environment_origin
from worldgen.data.prepared_observation import is_minigrid, prepare_env
from worldgen.errors import ConfigError, EnvironmentIdError, MissingDependencyError

__all__ = [
    "EnvLike",
    "EnvironmentSpec",
    "environment_spec",
    "episode_success",
    "make_env",
    "prepare_env",
]

Env: TypeAlias = gym.Env[Any, Any]

_MINIGRID_IDS = ("minigrid", "babyai")


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec(Config):
    """How to make an environment again."""

    id: str
    """Gymnasium id; `module:Id-v0` where a module registers it."""
    wrappers: tuple[str, ...] = ()
    """Wrappers as `module:Class`, applied in this order, before `prepare_env`."""
    text: bool = False
    """Keep the parts of observations that are text, such as MiniGrid's mission."""

    def __post_init__(self) -> None:
        """Check that the id is there and the wrappers are named `module:Class`."""
        require(bool(self.id), "id", "be a Gymnasium environment id", self.id)
        rule = "be a tuple of names, such as ('minigrid.wrappers:ImgObsWrapper',)"
        require(not isinstance(self.wrappers, str), "wrappers", rule, self.wrappers)
        for wrapper in self.wrappers:
            named = len(wrapper.split(":")) == 2 and all(wrapper.split(":"))
            require(named, "wrappers", "be named like 'minigrid.wrappers:ImgObsWrapper'", wrapper)

    def make(self, render_mode: str | None = None) -> Env:
        """Make the environment, wrapped and prepared.

        Args:
            render_mode: As in `gymnasium.make`.

        Raises:
            EnvironmentIdError: If the id is not registered; the message has the closest ids.
            ConfigError: If a wrapper cannot be imported.
            MissingDependencyError: If the environment needs a package that is not there.
        """
        env = _make_registered(self.id, render_mode)
        for wrapper in self.wrappers:
            env = _load_wrapper(wrapper)(env)
        return prepare_env(env, text=self.text)


EnvLike: TypeAlias = str | EnvironmentSpec | Env | Callable[[], Env]
"""An id, a spec, an environment, or a function that makes a new environment."""


def make_env(env: EnvLike, *, wrappers: Sequence[str] = (), text: bool = False) -> Env:
    """Give an environment that is ready for a world model.

    >>> make_env("MiniGrid-Empty-5x5-v0").observation_space["image"].high.max(axis=(0, 1))
    array([10,  5,  3], dtype=uint8)

    Args:
        env: What to make, or an environment object, which is wrapped and not copied.
        wrappers: More wrappers as `module:Class`, applied in this order.
        text: Keep the parts of observations that are text, such as MiniGrid's mission.

    Raises:
        EnvironmentIdError: If the id is not registered; the message has the closest ids.
        ConfigError: If `env` is something else, or a wrapper cannot be imported.
    """
    if isinstance(env, str):
        return EnvironmentSpec(id=env, wrappers=tuple(wrappers), text=text).make()
    if isinstance(env, EnvironmentSpec):
        every = (*env.wrappers, *wrappers)
        return replace(env, wrappers=every, text=env.text or text).make()
    made = env() if callable(env) and not isinstance(env, gym.Env) else env
    require(
        isinstance(made, gym.Env),
        "env",
        "be an id, an EnvironmentSpec, a gymnasium.Env or a function that makes one",
        made,
    )
    for wrapper in wrappers:
        made = _load_wrapper(wrapper)(made)
    return prepare_env(made, text=text)


def _make_registered(env_id: str, render_mode: str | None) -> Env:
    module, _, name = env_id.rpartition(":")
    # An environment that draws nothing need not know the argument.
    arguments: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if name.lower().startswith(_MINIGRID_IDS):
        _register_minigrid()
    if module:
        _import_registering_module(env_id, module)
    try:
        return gym.make(env_id, **arguments)
    except gym.error.DependencyNotInstalled as error:
        raise MissingDependencyError(f"environment {env_id!r} needs more: {error}") from error
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        raise EnvironmentIdError(_unknown_id(env_id, name)) from error
    except gym.error.Error as error:
        raise EnvironmentIdError(f"environment {env_id!r} cannot be made: {error}") from error


def _register_minigrid() -> None:
    """Import MiniGrid, which registers its environments, without pygame's greeting on stdout."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    importlib.import_module("minigrid")


def _import_registering_module(env_id: str, module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # The module is there, and needs another one.
        raise EnvironmentIdError(
            f"environment {env_id!r} cannot be made: there is no module {error.name!r}; "
            "install it, or name its folder in PYTHONPATH"
        ) from error


def _unknown_id(env_id: str, name: str) -> str:
    known = {registered.lower(): registered for registered in gym.registry}
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    remedy = "an id that a package registers needs the package in front: 'package:Name-v0'"
    if close:
        meant = " or ".join(repr(known[match]) for match in close)
        remedy = f"did you mean {meant}? If not, {remedy}"
    return f"environment {env_id!r} is not registered: {remedy}"


def _load_wrapper(name: str) -> Callable[[Env], Env]:
    module, _, attribute = name.partition(":")
    try:
        wrapper: Callable[[Env], Env] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"`wrappers` must name classes to import, got {name!r}: {error}"
        ) from error
    return wrapper


def environment_spec(env: EnvLike) -> EnvironmentSpec | None:
    """Give the spec with which `env` can be made again.

    Returns:
        None where that is not sure: an environment object without a registered id, with
        arguments of its own, or under a wrapper with arguments that are not its defaults.
    """
    if isinstance(env, str):
        return EnvironmentSpec(id=env)
    if isinstance(env, EnvironmentSpec):
        return env
    if isinstance(env, gym.Env):
        return _spec_of_object(env)
    made = env()
    try:
        return _spec_of_object(made)
    finally:
        made.close()


def _spec_of_object(env: Env) -> EnvironmentSpec | None:
    origin = environment_origin(env)
    return None if origin is None else EnvironmentSpec(id=origin[0], wrappers=origin[1])


def episode_success(
    env: EnvironmentSpec | Env | None,
    episode_return: float,
    last_reward: float,
    terminated: bool,
    info: Mapping[str, Any] | None = None,
) -> bool | None:
    """Tell whether a finished episode reached its goal.

    Args:
        env: The environment, or how it is made.
        episode_return: Sum of the episode's rewards.
        last_reward: Reward of its last environment step.
        terminated: Whether it came to a true end there.
        info: The last environment step's info.

    Returns:
        `info["is_success"]` where there is one. In MiniGrid, whether the last step ended the
        episode with a reward. None for other environments.
    """
    if info is not None and "is_success" in info:
        return bool(info["is_success"])
    if isinstance(env, EnvironmentSpec):
        minigrid = env.id.rpartition(":")[2].lower().startswith(_MINIGRID_IDS)
    else:
        minigrid = env is not None and is_minigrid(env)
    return bool(terminated and last_reward > 0) if minigrid else None
