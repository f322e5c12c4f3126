"""Many dreams at once, as a Stable-Baselines3 `VecEnv`.

Classes:
    ImaginedVecEnv.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnv,
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)
from torch import Tensor

from worldgen.config import require
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.envs.dream_rows import DreamRows, Starts, load_model
from worldgen.envs.dream_starts import StartConfig
from worldgen.envs.observation_view import ObservationMode, ObservationView
from worldgen.render import render
from worldgen.spaces import unflatten
from worldgen.world_model import WorldModel

__all__ = ["ImaginedVecEnv"]


class ImaginedVecEnv(VecEnv):
    """A world model that Stable-Baselines3 trains on like on any vector environment.

    A row starts at a random moment of a real episode, with the model's C frames of context. It
    ends when the model predicts termination, and is cut after `horizon` environment steps, with
    `TimeLimit.truncated` and `terminal_observation` in its info as SB3 expects, so that values
    are bootstrapped. Rows that end start again on their own. The info at an end also holds the
    return and the length under "episode", which SB3 logs as `rollout/ep_rew_mean`.

    Seeds act at the next `reset`, as in SB3. After the model or its episodes have changed, call
    `set_starts` and `reset`.

    >>> import worldgen
    >>> from stable_baselines3 import PPO
    >>> episodes = worldgen.collect("CartPole-v1", num_steps=64, seed=0, progress=False)
    >>> model = worldgen.WorldModel.for_env("CartPole-v1", device="cpu")
    >>> _ = model.fit(episodes, tokenizer_steps=5, dynamics_steps=2, progress=False)
    >>> dream = ImaginedVecEnv(model, num_envs=4, horizon=8, starts=episodes)
    >>> agent = PPO("MlpPolicy", dream, n_steps=8, batch_size=32, device="cpu").learn(64)
    >>> agent.num_timesteps
    64

    Args:
        model: A trained world model, or its folder.
        num_envs: B, worlds that are dreamt at once.
        horizon: H, most environment steps of a dream.
        starts: Real episodes to start from, the same tokenized, or their folder.
        observation: What the agent is shown: "decoded" for the environment's own space, so that
            the agent can move to it unchanged; "tokens" or "embeddings" without a decoder in
            the loop, for an agent that acts in a `TokenObservation` of the real environment.
        memory: Whether the model's own summary of the past is shown too, so that what was seen
            some steps ago still counts: a Dict has "memory" beside its parts, anything else
            becomes a Dict of "observation" and "memory", a Box of D entries. An agent acts with
            it in a `TokenObservation(..., memory=True)`; see `WorldModel.summarise`.
        seed: Of starts and dreams, until `seed` is called.
        sampler: How frames are sampled; None takes the model's.
        novelty: Weight of a bonus for tokens that few real episodes have shown and actions that
            few have tried in front of them, once an imagined episode; see `TokenNovelty`. Rewards
            are then task plus bonus, with both parts in the infos as "task_reward" and "bonus".
        novelty_repeats: Whether it is paid each time, in place of once an imagined episode.
        start_config: Which moments dreams start at; None takes any.
        render_mode: "rgb_array" or None.

    Raises:
        ConfigError: If a number is out of range or the model is not trained.
        SpaceError: If `starts` comes from an environment with other spaces than the model's.
    """

    def __init__(
        self,
        model: WorldModel | str | Path,
        num_envs: int = 64,
        horizon: int = 32,
        *,
        starts: Starts,
        observation: ObservationMode = "decoded",
        memory: bool = False,
        seed: int = 0,
        sampler: SamplerConfig | None = None,
        novelty: float = 0.0,
        novelty_repeats: bool = False,
        start_config: StartConfig | None = None,
        render_mode: str | None = None,
    ) -> None:
        modes = (None, "rgb_array")
        require(render_mode in modes, "render_mode", "be None or 'rgb_array'", render_mode)
        self.model = load_model(model)
        self._rows = DreamRows(
            self.model,
            starts,
            num_rows=num_envs,
            horizon=horizon,
            sampler=sampler,
            seed=seed,
            novelty=novelty,
            novelty_repeats=novelty_repeats,
            start_config=start_config,
            memory=memory,
        )
        size = self.model.summary_size if memory else 0
        self._view = ObservationView(self.model.tokenizer, observation, memory=size)
        self.render_mode, self._novelty = render_mode, novelty
        super().__init__(num_envs, self._view.space, self.model.action_space)
        self._actions: np.ndarray | None = None
        self._returns = np.zeros(num_envs, dtype=np.float64)
        self._bonuses = np.zeros(num_envs, dtype=np.float64)
        self._lengths = np.zeros(num_envs, dtype=np.int64)

    def set_starts(self, starts: Starts) -> None:
        """Let rows that begin from now on begin in `starts`, tokenized by the model as it is."""
        self._rows.set_starts(starts)

    def reset(self) -> VecEnvObs:
        """Begin all rows; gives a nested batch of observations."""
        if self._seeds[0] is not None:
            self._rows.seed(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0
        self._bonuses[:] = 0
        self._lengths[:] = 0
        tokens = self._rows.restart()
        return self._nested(self._view.flat(tokens, self._rows.memory))

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (B, *action shape) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Imagine one environment step of all rows and restart those that are over."""
        tokens, rewards, bonuses, terminated, truncated = self._rows.advance(self._actions)
        dones = terminated | truncated
        self._returns += rewards
        self._bonuses += bonuses
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(cut)} for cut in truncated]
        if self._novelty:
            for info, reward, bonus in zip(infos, rewards, bonuses, strict=True):
                info["task_reward"], info["bonus"] = float(reward), float(bonus)
        over = np.flatnonzero(dones)
        shown = self._show_with_first_frames(tokens, over)
        observations = {path: batch[: self.num_envs] for path, batch in shown.items()}
        for row in over:
            last = {path: batch[row].copy() for path, batch in observations.items()}
            infos[row]["terminal_observation"] = self._nested(last)
            infos[row]["episode"] = {"r": float(self._returns[row]), "l": int(self._lengths[row])}
            if self._novelty:
                infos[row]["episode"]["bonus"] = float(self._bonuses[row])
        for path, batch in observations.items():
            batch[over] = shown[path][self.num_envs :]
        self._returns[over] = 0
        self._bonuses[over] = 0
        self._lengths[over] = 0
        return self._nested(observations), rewards + bonuses, dones, infos

    def _show_with_first_frames(self, tokens: Tensor, over: np.ndarray) -> dict[str, np.ndarray]:
        """Restart the R rows in `over`; gives their first frames below the last: (B + R, ...)."""
        memory = self._rows.memory
        if over.size:
            tokens = torch.cat((tokens, self._rows.restart_rows(over)))
            begun = self._rows.memory
            if memory is not None and begun is not None:
                memory = torch.cat((memory, begun[over]))
        return self._view.flat(tokens, memory)

    def _nested(self, flat: dict[str, np.ndarray]) -> VecEnvObs:
        nested: VecEnvObs = unflatten(self.observation_space, flat)
        return nested

    def close(self) -> None:
        """Do nothing; there is nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Give the attribute of this object, which all rows share, once a row."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of this object; rows have none of their own."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of this object once; gives its result once a row."""
        result = getattr(self, method_name)(*method_args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Say that no row is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Draw the current frame of each row, (H, W, 3) uint8."""
        frames = self.model.tokenizer.decode_flat(self._rows.tokens)
        draw = partial(
            render,
            self.model.observation_space,
            modalities=self.model.config.tokenizer.modalities,
        )
        return [
            draw({path: batch[row] for path, batch in frames.items()})
            for row in range(self.num_envs)
        ]
