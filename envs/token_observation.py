"""Real environments that show a world model's tokens.

Classes:
    TokenObservation: around a Gymnasium environment.
    VecTokenObservation: around an SB3 `VecEnv`; encodes a whole batch at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnv,
    VecEnvObs,
    VecEnvStepReturn,
    VecEnvWrapper,
)
from torch import Tensor

from worldgen.data.environment import prepare_env
from worldgen.envs.observation_view import ObservationMode, ObservationView, load_tokenizer
from worldgen.envs.real_rows import RealRows, load_model_with_memory
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
        memory: Whether the model's own summary of the episode so far is shown too, as in
            `ImaginedVecEnv(..., memory=True)`. It needs the whole world model, and begins anew
            where that is trained further.

    Raises:
        SpaceError: If the model was built for another observation space; with memory, also for
            another action space.
        ConfigError: If `mode` is unknown, the tokenizer is not trained, or the environment is of
            the other kind, or `memory` is asked of a tokenizer alone.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: WorldModel | Tokenizer | str | Path,
        mode: ObservationMode = "tokens",
        memory: bool = False,
    ) -> None:
        if not isinstance(env, gym.Env):
            remedy = "put `VecTokenObservation` around a VecEnv"
            if not isinstance(env, VecEnv):
                remedy = "make it by `worldgen.make_env(...)`"
            raise ConfigError(f"`env` must be a gymnasium.Env, got {type(env).__name__}: {remedy}")
        gym.utils.RecordConstructorArgs.__init__(
            self, model=model, mode=mode, memory=memory, _disable_deepcopy=True
        )
        whole = load_model_with_memory(model) if memory else None
        tokenizer = load_tokenizer(whole or model)
        text = any(isinstance(leaf, spaces.Text) for leaf in leaves(tokenizer.space).values())
        gym.ObservationWrapper.__init__(self, prepare_env(env, text=text))
        self._shown = _Shown(tokenizer, mode, self.env.observation_space, whole)
        self._rows = RealRows.of(self.env, whole) if whole else None
        self.observation_space = self._shown.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; its memory is all zeros."""
        if self._rows is None:
            return super().reset(seed=seed, options=options)
        observation, info = self.env.reset(seed=seed, options=options)
        tokens = self._shown.encode_one(observation)
        self._rows.restart(tokens)
        return self._shown.first(self._shown.flat(tokens, self._rows.memory)), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an environment step."""
        if self._rows is None:
            return super().step(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        tokens = self._shown.encode_one(observation)
        self._rows.advance(np.asarray(action)[None], tokens)
        shown = self._shown.first(self._shown.flat(tokens, self._rows.memory))
        return shown, reward, terminated, truncated, info

    def observation(self, observation: Any) -> Any:
        """Turn one observation of the environment into what is shown, with the memory as it is."""
        return self._shown.one(observation, self._rows.memory if self._rows else None)


class VecTokenObservation(VecEnvWrapper):
    """Show an SB3 `VecEnv` as its world model sees it, `terminal_observation`s too.

    Args:
        venv: The vector environment, in the observation space that the model was built for.
        model: A trained world model, a tokenizer, or the folder of either.
        mode: What is shown, as in `TokenObservation`.
        memory: Whether the model's summary of each row's episode so far is shown too.

    Raises:
        SpaceError: If the model was built for another observation space; with memory, also for
            another action space.
        ConfigError: If `mode` is unknown, the tokenizer is not trained, or the environment is of
            the other kind or has observations that VecNormalize changes, or `memory` is asked of a
            tokenizer alone.
    """

    def __init__(
        self,
        venv: VecEnv,
        model: WorldModel | Tokenizer | str | Path,
        mode: ObservationMode = "tokens",
        memory: bool = False,
    ) -> None:
        if not isinstance(venv, VecEnv):
            raise ConfigError(
                f"`venv` must be a Stable-Baselines3 VecEnv, got {type(venv).__name__}: put "
                "`TokenObservation` around a single environment"
            )
        beneath = unwrap_vec_normalize(venv)
        if beneath is not None and beneath.norm_obs:
            raise ConfigError(
                "`venv` must show the observations that the tokenizer was trained on, got those "
                'that VecNormalize changes: put VecNormalize around this, with mode="embeddings" '
                "or norm_obs=False"
            )
        whole = load_model_with_memory(model) if memory else None
        self._shown = _Shown(load_tokenizer(whole or model), mode, venv.observation_space, whole)
        self._rows = RealRows.of(venv, whole) if whole else None
        super().__init__(venv, observation_space=self._shown.space)

    def reset(self) -> VecEnvObs:
        """Begin all rows."""
        observations = self.venv.reset()
        if self._rows is None:
            return self._nested(self._shown.batch(observations))
        tokens = self._shown.encode(observations)
        self._rows.restart(tokens)
        return self._nested(self._shown.flat(tokens, self._rows.memory))

    def step_async(self, actions: np.ndarray) -> None:
        """Begin an environment step of all rows."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Encode the observations of all rows, and those at the end of an episode."""
        observations, rewards, dones, infos = self.venv.step_wait()
        over = np.flatnonzero(dones)
        if self._rows is None:
            memory, shown = None, self._shown.batch(observations)
        else:
            tokens = self._shown.encode(observations)
            self._rows.advance(self._actions, tokens)
            memory = self._rows.memory
            if over.size:  # they show the first frames of their next episodes already
                self._rows.restart_rows(over, tokens[over])
            shown = self._shown.flat(tokens, self._rows.memory)
        for row in over:
            if "terminal_observation" in infos[row]:
                known = None if memory is None else memory[row : row + 1]
                last = self._shown.one(infos[row]["terminal_observation"], known)
                infos[row] = {**infos[row], "terminal_observation": last}
        return self._nested(shown), rewards, dones, infos

    def _nested(self, flat: dict[str, np.ndarray]) -> VecEnvObs:
        batch: VecEnvObs = unflatten(self.observation_space, flat)
        return batch


class _Shown:
    """Real observations through the tokenizer into a view, with memory where there is a model."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        mode: ObservationMode,
        real_space: spaces.Space[Any],
        model: WorldModel | None,
    ) -> None:
        if tokenizer.space != real_space:
            raise SpaceError(
                f"the model was built for the observation space {in_short(tokenizer.space)}, "
                f"the environment has {in_short(real_space)}: use the model's own environment, or "
                "train a model for this one"
            )
        self._real_space, self._tokenizer = real_space, tokenizer
        size = model.summary_size if model else 0
        self._view = ObservationView(tokenizer, mode, argument="mode", memory=size)
        self.space, self.flat = self._view.space, self._view.flat

    def batch(self, observations: Any) -> dict[str, np.ndarray]:
        """Turn a nested batch into a flat one, path -> (B, ...), without memory."""
        return self._view.of_observations(observations)

    def encode(self, observations: Any) -> Tensor:
        """Turn a nested batch into tokens (B, K)."""
        return self._tokenizer.encode(observations)

    def encode_one(self, observation: Any) -> Tensor:
        """Turn one nested observation into tokens (1, K)."""
        return self.encode(self._as_batch(observation))

    def first(self, flat: dict[str, np.ndarray]) -> Any:
        """Give the first of a flat batch as a nested observation of the view."""
        return unflatten(self.space, {path: batch[0] for path, batch in flat.items()})

    def one(self, observation: Any, memory: Tensor | None = None) -> Any:
        """Turn one nested observation, and a memory (1, D), into one of the view."""
        batch = self._as_batch(observation)
        if memory is None:
            return self.first(self._view.of_observations(batch))
        return self.first(self.flat(self.encode(batch), memory))

    def _as_batch(self, observation: Any) -> Any:
        flat = flatten(self._real_space, observation)
        return unflatten(self._real_space, {path: part[None] for path, part in flat.items()})
