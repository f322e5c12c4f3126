"""The real environment as `DreamPPO` uses it.

Classes:
    EpisodeRecorder: writes what a vector environment does into episodes.

Functions:
    as_vec_env: anything that names an environment, as an SB3 `VecEnv`.
    check_readable, check_start: whether SB3's policies can read spaces.
    policy_name: SB3's name of the policy for an environment's observations.
    environment_of: how to make it again.
    raw_space, raw_observations: undo SB3's channel-first pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecMonitor,
    VecTransposeImage,
    unwrap_vec_normalize,
)

from worldgen.actions import ActionCodec
from worldgen.config import require
from worldgen.data.environment import (
    EnvironmentSpec,
    EnvLike,
    environment_spec,
    episode_success,
    make_env,
)
from worldgen.data.episode import EpisodeBuilder
from worldgen.data.episodes import Episodes
from worldgen.errors import ConfigError, SpaceError
from worldgen.spaces import flatten, leaves

__all__ = [
    "EpisodeRecorder",
    "as_vec_env",
    "check_readable",
    "check_start",
    "environment_of",
    "policy_name",
    "raw_observations",
    "raw_space",
]

_READABLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def as_vec_env(env: EnvLike | VecEnv, num_envs: int) -> VecEnv:
    """Make the rows of a vector environment, prepared and monitored.

    Args:
        env: An id, an `EnvironmentSpec` or a function for `num_envs` rows; an environment for
            one row; or a `VecEnv`, which is used as it is.
        num_envs: Number of rows.

    Raises:
        ConfigError: If the environment normalises observations or rewards, which the model does.
        SpaceError: If SB3's policies cannot read the observations.
    """
    require(num_envs >= 1, "n_envs", "be at least 1", num_envs)
    if isinstance(env, VecEnv):
        if unwrap_vec_normalize(env) is not None:
            raise ConfigError(
                "`env` must not be a VecNormalize, whose observations and rewards change their "
                "meaning: pass the environment inside it, the world model standardises on its own"
            )
        check_readable(env.observation_space, env.action_space)
        return env
    rows = 1 if isinstance(env, gym.Env) else num_envs
    return DummyVecEnv([partial(_make_row, env) for _ in range(rows)])


def environment_of(env: EnvLike | VecEnv | None) -> EnvironmentSpec | None:
    """Say how to make `env` again, where that is known."""
    while isinstance(env, VecMonitor):
        env = env.venv
    if isinstance(env, DummyVecEnv):
        return environment_spec(env.envs[0])
    return None if env is None or isinstance(env, VecEnv) else environment_spec(env)


def _make_row(env: EnvLike) -> gym.Env[Any, Any]:
    made = make_env(env)
    check_readable(made.observation_space, made.action_space)
    made = _OwnObservation(made)
    return made if _is_monitored(made) else Monitor(made)


class _OwnObservation(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Copy observations, for environments that give the same array each time.

    SB3's `DummyVecEnv` keeps the last observation of an episode over the reset.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)

    def observation(self, observation: Any) -> Any:
        return copy.deepcopy(observation)


def check_readable(space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Refuse what SB3's policies cannot read, in words of our own.

    Raises:
        SpaceError: If that is so.
    """
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else (space,)
    for part in parts:
        check_start("observation", part)
        if not isinstance(part, _READABLE) or (isinstance(part, spaces.Box) and not part.shape):
            raise SpaceError(
                f"SB3 policies cannot read the observation space {part}; supported: Box, Discrete, "
                "MultiDiscrete, MultiBinary and a Dict of these: wrap the environment, for example "
                "in gymnasium.wrappers.FlattenObservation"
            )
    check_start("action", action_space)
    if isinstance(action_space, spaces.Box):
        ActionCodec(action_space)  # says what is wrong with bounds


def check_start(kind: str, space: spaces.Space[Any]) -> None:
    """Refuse integers that do not begin at 0: SB3 takes no notice of a space's `start`.

    Args:
        kind: "observation" or "action".
        space: A Discrete or MultiDiscrete space; others pass.

    Raises:
        SpaceError: If they do not.
    """
    starts = isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start)
    if starts:
        raise SpaceError(
            f"SB3 ignores the start of the {kind} space {space}: shift it to begin at 0, for "
            f"example in gymnasium.wrappers.Transform{kind.capitalize()}"
        )


def policy_name(space: spaces.Space[Any]) -> str:
    """Name SB3's policy for an observation space.

    >>> policy_name(spaces.Discrete(3)), policy_name(spaces.Dict({"place": spaces.Discrete(3)}))
    ('MlpPolicy', 'MultiInputPolicy')
    """
    return "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"


def _is_monitored(env: gym.Env[Any, Any]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Monitor):
            return True
        env = env.env
    return False


def raw_space(env: VecEnv) -> spaces.Space[Any]:
    """Give the observation space below SB3's `VecTransposeImage`."""
    return (env.venv if isinstance(env, VecTransposeImage) else env).observation_space


def raw_observations(env: VecEnv, observations: Any) -> Any:
    """Put channels last again where SB3's `VecTransposeImage` put them first."""
    if not isinstance(env, VecTransposeImage) or env.skip:
        return observations
    if isinstance(observations, dict):
        return {
            key: np.moveaxis(value, -3, -1) if key in env.image_space_keys else value
            for key, value in observations.items()
        }
    return np.moveaxis(observations, -3, -1)


class EpisodeRecorder:
    """Write what the rows of a vector environment do into episodes.

    Finished episodes are appended at once, unfinished ones when the recorder is left as a
    context manager. What the rows do next becomes episodes of its own, which begin there.

    Args:
        env: The vector environment.
        episodes: Where episodes go.
        environment: How `env` was made, where that is known.
    """

    def __init__(
        self, env: VecEnv, episodes: Episodes, environment: EnvironmentSpec | None
    ) -> None:
        self._env, self._episodes, self._environment = env, episodes, environment
        self._space = raw_space(env)
        self._leaves = leaves(self._space)
        self._builder = EpisodeBuilder(env.num_envs)

    def begin(self, observations: Any) -> None:
        """Begin an episode in each row at its current observation."""
        self._begin_rows(range(self._env.num_envs), self._flat(observations))

    def _begin_rows(self, rows: Sequence[int], flat: dict[str, np.ndarray]) -> None:
        for row in rows:
            self._builder.begin(row, {path: batch[row] for path, batch in flat.items()})

    def add(
        self,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
        observations: Any,
    ) -> None:
        """Record what `env.step(actions)` gave.

        Infos of ended episodes receive "is_success" where the environment has an idea of it.
        """
        flat = self._flat(observations)
        for row, info in enumerate(infos):
            over = bool(dones[row])
            truncated = over and bool(info.get("TimeLimit.truncated", False))
            if over:
                following = self._flat(info["terminal_observation"])
            else:
                following = {path: batch[row] for path, batch in flat.items()}
            episode = self._builder.add(
                row,
                np.asarray(actions[row]).astype(self._env.action_space.dtype, copy=False),
                float(rewards[row]),
                over and not truncated,
                truncated,
                following,
            )
            if episode is not None:
                self._episodes.append(episode)
                self._note_success(info, episode.total_reward, float(rewards[row]), not truncated)
        self._begin_rows([int(row) for row in np.flatnonzero(dones)], flat)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Append the unfinished episodes of all rows, even where a collection breaks off."""
        self._episodes.extend(self._builder.cut())

    def _note_success(
        self, info: dict[str, Any], total: float, last_reward: float, terminated: bool
    ) -> None:
        success = episode_success(self._environment, total, last_reward, terminated, info)
        if success is not None:
            info["is_success"] = success

    def _flat(self, observations: Any) -> dict[str, np.ndarray]:
        flat = flatten(self._space, raw_observations(self._env, observations))
        return {
            path: flat[path].astype(leaf.dtype, copy=False) for path, leaf in self._leaves.items()
        }
