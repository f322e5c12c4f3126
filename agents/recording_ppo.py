"""PPO whose real environment steps are written into episodes.

Classes:
    RecordingPPO: base of agents that learn from episodes by way of a model.
"""

from __future__ import annotations

import copy
import io
import logging
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from worldgen.agents.offline_env import SpacesOnly
from worldgen.agents.real_env import (
    EpisodeRecorder,
    as_vec_env,
    environment_of,
    policy_name,
    raw_space,
)
from worldgen.config import require
from worldgen.data.environment import EnvLike
from worldgen.data.episodes import Episodes
from worldgen.errors import CheckpointError, ConfigError, DatasetError, SpaceError
from worldgen.progress import Progress
from worldgen.spaces import in_short

__all__ = ["RecordingPPO"]

logger = logging.getLogger(__name__)


class RecordingPPO(PPO):
    """A PPO that acts in a real environment and keeps what it sees as episodes.

    Observations are kept as the environment gives them, before SB3 puts the channels of
    pictures first. The episodes are not part of the saved agent: they have a folder of their
    own, and `load` and `set_episodes` bring them back.

    Args:
        policy: As in SB3.
        env: What `as_vec_env` takes, or None for an agent that is being loaded, or that has the
            spaces of its `episodes` and no environment.
        episodes: Episodes to go on with.
        episodes_path: New folder for the episodes, where there are none to go on with.
        n_envs: Rows of the environment.
        **ppo: Arguments of SB3's PPO.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: EnvLike | VecEnv | None,
        *,
        episodes: Episodes | None,
        episodes_path: str | pathlib.Path | None,
        n_envs: int,
        **ppo: Any,
    ) -> None:
        self._environment = environment_of(env)
        self._round_timesteps, self._recorded_timesteps = 0, 0
        self._episodes: Episodes | None = None
        vec_env = None if env is None else as_vec_env(env, n_envs)
        if env is None and episodes is not None:
            vec_env = SpacesOnly(episodes.observation_space, episodes.action_space, n_envs)
            self._environment = episodes.environment
        if vec_env is not None:
            _check_policy(policy, vec_env.observation_space)
        super().__init__(policy, vec_env, **ppo)  # type: ignore[arg-type]
        if vec_env is not None:
            self._real_space: spaces.Space[Any] = raw_space(vec_env)
            self._set_up_episodes(episodes, episodes_path)
        if env is None:
            self.env = None  # SB3 has its spaces now

    def _set_up_episodes(
        self, episodes: Episodes | None, path: str | pathlib.Path | None = None
    ) -> None:
        if episodes is not None and path is not None:
            raise ConfigError("`episodes_path` must be left out with `episodes`, which have theirs")
        if episodes is not None:
            self._check_episodes(episodes)
        elif path is not None:
            episodes = Episodes.create(
                path, self._real_space, self.action_space, environment=self._environment
            )
        else:
            episodes = Episodes(self._real_space, self.action_space, environment=self._environment)
        self._episodes, self._recorded_timesteps = episodes, episodes.num_steps

    def _check_episodes(self, episodes: Episodes) -> None:
        rule = "`episodes` must come from an environment with the {} space"
        own = self._real_space, self.action_space
        _check_spaces(rule, own, (episodes.observation_space, episodes.action_space))

    @property
    def episodes(self) -> Episodes:
        """The real episodes that were made.

        Raises:
            DatasetError: If the agent was loaded without its episodes.
        """
        if self._episodes is None:
            raise DatasetError(
                "the agent has no episodes: pass `episodes` to `load`, or call `set_episodes`"
            )
        return self._episodes

    def set_episodes(self, episodes: Episodes) -> None:
        """Go on with these episodes: those of an agent that was saved and loaded.

        Environment steps in them that were made after the agent was saved are counted.

        Raises:
            SpaceError: If they come from an environment with other spaces.
        """
        self._check_episodes(episodes)
        unsaved = max(0, episodes.num_steps - self._recorded_timesteps)
        self.num_timesteps += unsaved
        self._round_timesteps += unsaved
        self._episodes, self._recorded_timesteps = episodes, episodes.num_steps

    @property
    def recorded_timesteps(self) -> int:
        """Environment steps of the episodes that the agent knows of."""
        return self._recorded_timesteps

    def _checked_env(self) -> VecEnv:
        """Give the environment of an agent that has everything to learn.

        Raises:
            ConfigError: If it was loaded without an environment.
            DatasetError: If it was loaded without its episodes, or with too few.
        """
        if self.env is None:
            raise ConfigError(
                "the agent has no environment: pass `env` to `load`, or call `set_env`"
            )
        self.check_episodes()
        return self.env

    def check_episodes(self) -> None:
        """Make sure that the agent has all of its episodes.

        Raises:
            DatasetError: If it was loaded without them, or with too few.
        """
        if self.episodes.num_steps < self._recorded_timesteps:
            raise DatasetError(
                f"the agent has made {self._recorded_timesteps} environment steps, its episodes "
                f"hold {self.episodes.num_steps}: load all of them and call `set_episodes`"
            )

    def set_env(self, env: EnvLike | VecEnv, force_reset: bool = True) -> None:
        """Go on in this environment, with as many rows as before.

        Args:
            env: As in the constructor.
            force_reset: Whether `learn` resets it first.

        Raises:
            SpaceError: If it shows or takes something else than what the agent was made for.
        """
        rows = as_vec_env(env, self.n_envs)
        own = self._real_space, self.action_space
        _check_spaces(_SAME_ENV, own, (raw_space(rows), rows.action_space))
        super().set_env(rows, force_reset)
        self._environment = self._environment or environment_of(env)

    def _collect(
        self,
        num_vec_steps: int,
        choose: Callable[[], np.ndarray],
        callback: BaseCallback,
        bar: Progress,
    ) -> bool:
        """Step all rows `num_vec_steps` times; false if the callback broke it off."""
        env = self._checked_env()
        callback.on_rollout_start()
        with EpisodeRecorder(env, self.episodes, self._environment) as recorder:
            recorder.begin(self._last_obs)
            for _ in range(num_vec_steps):
                actions = choose()
                new_obs, rewards, dones, infos = env.step(actions)
                recorder.add(actions, rewards, dones, infos, new_obs)
                self.num_timesteps += env.num_envs
                self._round_timesteps += env.num_envs
                self._recorded_timesteps += env.num_envs
                self._last_obs = new_obs  # type: ignore[assignment]
                self._last_episode_starts = dones
                self._update_info_buffer(infos, dones)
                bar.update(env.num_envs, **self._recent(mean_return="r"))
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
        callback.on_rollout_end()
        return True

    def _recent(self, **keys: str) -> dict[str, float]:
        """Give the means of Monitor's values over the last episodes, name -> key in its info."""
        recent = self.ep_info_buffer
        if not recent:
            return {}
        return {
            name: float(safe_mean([info[key] for info in recent])) for name, key in keys.items()
        }

    def _random_actions(self, seed: int) -> Callable[[], np.ndarray]:
        space = copy.deepcopy(self.action_space)
        space.seed(seed % 2**32)
        return lambda: np.stack([space.sample() for _ in range(self.n_envs)])

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_episodes"]

    @classmethod
    def _changes(cls, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the keywords of `load` into attributes to change."""
        return dict(wanted)

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: EnvLike | VecEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        *,
        episodes: Episodes | str | pathlib.Path | None = None,
        n_envs: int | None = None,
        **kwargs: Any,
    ) -> Self:
        """Read an agent that `save` wrote.

        To act, the file is enough. To go on learning, give the environment and the episodes
        and call `learn(..., reset_num_timesteps=False)`: it goes on with the phase that was
        next when the agent was saved.

        Args:
            path: The file.
            env: As in the constructor.
            device: As in the constructor.
            custom_objects: As in SB3.
            print_system_info: As in SB3.
            force_reset: Whether `learn` resets the environment first.
            episodes: The episodes that the agent has made, or their folder. Environment steps of
                which it does not know are counted as made after it was saved, with a warning.
            n_envs: Rows, where `env` does not say; None for as many as it had.
            **kwargs: Attributes to change; for `DreamPPO`, fields of its config too.

        Raises:
            ConfigError: If there is no attribute of a name in `kwargs`.
            CheckpointError: If there is no agent, or none that can be read.
            SpaceError: If the environment has other spaces than the agent's.
        """
        saved = _saved(path, custom_objects)
        kwargs = cls._changes(saved, kwargs)
        unknown = sorted(set(kwargs) - set(saved))
        if unknown:
            raise ConfigError(f"`{cls.__name__}.load` has no argument {', '.join(unknown)}")
        if isinstance(episodes, str | pathlib.Path):
            episodes = Episodes.load(episodes)
        rows = None if env is None else as_vec_env(env, n_envs or int(saved["n_envs"]))
        if rows is not None:
            own = saved["_real_space"], saved["action_space"]
            try:
                _check_spaces(_SAME_ENV, own, (raw_space(rows), rows.action_space))
            except SpaceError:
                if rows is not env:
                    rows.close()
                raise
        agent = super().load(
            path,
            rows,
            device,
            custom_objects,
            print_system_info,
            force_reset,
            **kwargs,
        )
        if agent._recorded_timesteps:
            agent._episodes = None
        else:
            agent._set_up_episodes(None)
        if episodes is not None:
            more = episodes.num_steps - agent._recorded_timesteps
            agent.set_episodes(episodes)
            if more > 0:
                logger.warning(
                    "%s environment steps of `episodes` are unknown to the agent: they count as "
                    "steps that it made after it was saved",
                    f"{more:,}",
                )
        return agent


_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def _saved(
    path: str | pathlib.Path | io.BufferedIOBase, custom_objects: dict[str, Any] | None
) -> dict[str, Any]:
    """Look up the attributes of a saved agent."""
    try:
        data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=custom_objects)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no saved agent at {path}") from error
    except IsADirectoryError as error:
        inside = sorted(map(str, pathlib.Path(str(path)).glob("*agent*.zip")))
        hint = f": did you mean {' or '.join(inside)}?" if inside else ""
        raise CheckpointError(f"{path} is a folder, and no saved agent{hint}") from error
    except _UNREADABLE as error:
        # Behind the first sentence torch explains how to read files that are not to be trusted.
        reason = str(error).split(". ")[0]
        raise CheckpointError(f"{path} is damaged, or no saved agent: {reason}") from error
    if isinstance(path, io.BufferedIOBase):
        path.seek(0)
    if data is None or "_recorded_timesteps" not in data:
        raise CheckpointError(f"{path} was saved by another algorithm: load it with that one")
    return data


_SAME_ENV = "`env` must have the {} space of the environment that the agent was made for,"


def _check_spaces(
    rule: str,
    own: tuple[spaces.Space[Any], spaces.Space[Any]],
    given: tuple[spaces.Space[Any], spaces.Space[Any]],
) -> None:
    """Refuse observation and action spaces that are not the agent's own.

    Args:
        rule: How the message begins, "{}" where the kind of space stands.
        own: Of the agent.
        given: Of the environment, or of episodes.
    """
    for name, expected, found in zip(("observation", "action"), own, given, strict=True):
        if expected != found:
            described = in_short(expected), in_short(found)
            if described[0] == described[1]:
                described = str(expected), str(found)
            raise SpaceError(f"{rule.format(name)} {described[0]}, got {described[1]}")


def _check_policy(policy: object, space: spaces.Space[Any]) -> None:
    """Refuse SB3's name of a policy for another kind of observation, in words of our own."""
    is_dict = isinstance(space, spaces.Dict)
    known = not isinstance(policy, str) or policy in PPO.policy_aliases
    rule = f"be a class or one of {', '.join(sorted(PPO.policy_aliases))}"
    require(known, "policy", rule, policy)
    wrong = ("MlpPolicy", "CnnPolicy") if is_dict else ("MultiInputPolicy",)
    rule = f'be "{policy_name(space)}" for a {type(space).__name__} observation space'
    require(policy not in wrong, "policy", rule, policy)
