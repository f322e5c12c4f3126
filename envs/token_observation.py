"""Real environments that show a world model's tokens.

Classes:
    TokenObservation: around a Gymnasium environment.
    VecTokenObservation: around an SB3 `VecEnv`; encodes a whole batch at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnv,
    VecEnvObs,
    VecEnvStepReturn,
    VecEnvWrapper,
)

from worldgen.data.environment import prepare_env
from worldgen.envs.observation_view import ObservationMode, ObservationView, load_tokenizer
from worldgen.errors import ConfigError, SpaceError
from worldgen.spaces import flatten, in_short, leaves, unflatten
from worldgen.tokenizer import Tokenizer
from worldgen.world_model import WorldModel

__all__ = ["TokenObservation", "VecTokenObservation"]


class TokenObservation(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Show a real environment as its world model sees it.

    An agent that was trained in `ImaginedVecEnv(..., observation="tokens")` acts in
    `TokenObservation(env, model)` without change.

    Args:
        env: The environment, as Gymnasium makes it.
        model: A trained world model, a tokenizer, or the folder of either.
        mode: "tokens" for K token numbers, "embeddings" for their code vectors in one flat
            array, "decoded" for the environment's own observations after a pass through the
            tokenizer, with its mistakes.

    Raises:
        SpaceError: If the model was built for another observation space.
        ConfigError: If `mode` is unknown, the tokenizer is not trained, or the environment is of
            the other kind.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: WorldModel | Tokenizer | str | Path,
        mode: ObservationMode = "tokens",
    ) -> None:
        if not isinstance(env, gym.Env):
            remedy = "put `VecTokenObservation` around a VecEnv"
            if not isinstance(env, VecEnv):
                remedy = "make it by `worldgen.make_env(...)`"
            raise ConfigError(f"`env` must be a gymnasium.Env, got {type(env).__name__}: {remedy}")
        gym.utils.RecordConstructorArgs.__init__(
            self, model=model, mode=mode, _disable_deepcopy=True
        )
        tokenizer = load_tokenizer(model)
        text = any(isinstance(leaf, spaces.Text) for leaf in leaves(tokenizer.space).values())
        gym.ObservationWrapper.__init__(self, prepare_env(env, text=text))
        self._shown = _Shown(tokenizer, mode, self.env.observation_space)
        self.observation_space = self._shown.space

    def observation(self, observation: Any) -> Any:
        """Turn one observation of the environment into what is shown."""
        return self._shown.one(observation)


class VecTokenObservation(VecEnvWrapper):
    """Show an SB3 `VecEnv` as its world model sees it, `terminal_observation`s too.

    Args:
        venv: The vector environment, in the observation space that the model was built for.
        model: A trained world model, a tokenizer, or the folder of either.
        mode: What is shown, as in `TokenObservation`.

    Raises:
        SpaceError: If the model was built for another observation space.
        ConfigError: If `mode` is unknown, the tokenizer is not trained, or the environment is of
            the other kind.
    """

    def __init__(
        self,
        venv: VecEnv,
        model: WorldModel | Tokenizer | str | Path,
        mode: ObservationMode = "tokens",
    ) -> None:
        if not isinstance(venv, VecEnv):
            raise ConfigError(
                f"`venv` must be a Stable-Baselines3 VecEnv, got {type(venv).__name__}: put "
                "`TokenObservation` around a single environment"
            )
        self._shown = _Shown(load_tokenizer(model), mode, venv.observation_space)
        super().__init__(venv, observation_space=self._shown.space)

    def reset(self) -> VecEnvObs:
        """Begin all rows."""
        return self._batch(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        """Encode the observations of all rows, and those at the end of an episode."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for row in np.flatnonzero(dones):
            if "terminal_observation" in infos[row]:
                last = infos[row]["terminal_observation"]
                infos[row] = {**infos[row], "terminal_observation": self._shown.one(last)}
        return self._batch(observations), rewards, dones, infos

    def _batch(self, observations: Any) -> VecEnvObs:
        batch: VecEnvObs = unflatten(self.observation_space, self._shown.batch(observations))
        return batch


class _Shown:
    """Real observations through the tokenizer into a view."""

    def __init__(
        self, tokenizer: Tokenizer, mode: ObservationMode, real_space: spaces.Space[Any]
    ) -> None:
        if tokenizer.space != real_space:
            raise SpaceError(
                f"the model was built for the observation space {in_short(tokenizer.space)}, "
                f"the environment has {in_short(real_space)}: use the model's own environment, or "
                "train a model for this one"
            )
        self._real_space = real_space
        self._view = ObservationView(tokenizer, mode, argument="mode")
        self.space = self._view.space

    def batch(self, observations: Any) -> dict[str, np.ndarray]:
        """Turn a nested batch into a flat one, path -> (B, ...)."""
        return self._view.of_observations(observations)

    def one(self, observation: Any) -> Any:
        """Turn one nested observation into one of the view."""
        flat = flatten(self._real_space, observation)
        batch = unflatten(self._real_space, {path: part[None] for path, part in flat.items()})
        shown = self._view.of_observations(batch)
        return unflatten(self.space, {path: batch[0] for path, batch in shown.items()})
