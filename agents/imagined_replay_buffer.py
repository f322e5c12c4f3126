"""A replay buffer that imagines a share of what it gives.

Classes:
    ImaginedReplayBuffer: in place of SB3's `ReplayBuffer` and `DictReplayBuffer`.

MBPO, Janner et al. 2019, https://arxiv.org/abs/1906.08253: short rollouts of the current policy
in a learned model, from states that were really visited, mixed into an off-policy agent's batches.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from worldgen.agents.configured import configured
from worldgen.agents.imagined_replay_config import (
    ImaginedReplayConfig,
    only_reals,
    refuse_gradient_steps,
    replay_model_config,
)
from worldgen.agents.replay_store import ReplayView, Samples, join_samples, make_store
from worldgen.agents.rollout_actions import rollout_actions
from worldgen.config import require
from worldgen.data.token_dataset import TokenDataset
from worldgen.envs.dream_rows import DreamRows
from worldgen.errors import DatasetError
from worldgen.seeding import derived_seed
from worldgen.world_model import WorldModel, WorldModelConfig

__all__ = ["ImaginedReplayBuffer"]

logger = logging.getLogger(__name__)


class ImaginedReplayBuffer(ReplayBuffer):
    """Mix transitions that a world model imagines into those that were really made.

    As SB3 adds transitions, the buffer fits a `WorldModel` to them again and again, imagines
    short rollouts from real moments, and fills `imagined_share` of each batch with these. An
    `ImaginedReplayCallback` in `learn` lets rollouts follow the agent's policy; without one
    they act at random.

    >>> from stable_baselines3 import SAC
    >>> from worldgen.agents import ImaginedReplayCallback
    >>> agent = SAC("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", learning_starts=32,
    ...     replay_buffer_class=ImaginedReplayBuffer,
    ...     replay_buffer_kwargs={"imagined_share": 0.5, "first_fit": 32, "tokenizer_steps": 5,
    ...         "first_model_steps": 2, "rollouts": 16})
    >>> agent = agent.learn(40, callback=ImaginedReplayCallback())
    >>> agent.replay_buffer.size(), agent.replay_buffer.imagined.size()
    (40, 3)

    Equal seeds of the agent give equal results. `save_replay_buffer` keeps transitions, world
    model and counters; a loaded buffer goes on where the saved one was.

    Args:
        buffer_size: Most real transitions, all rows together.
        observation_space: Of the environment, as SB3 has it.
        action_space: Of the environment: Discrete or Box.
        device: Of the batches and of the world model.
        n_envs: Rows of the environment.
        optimize_memory_usage: Must be False.
        handle_timeout_termination: Must be True.
        config: Numbers of the buffer; single ones may be given as keywords instead.
        model_config: Settings of the world model; None takes those of `replay_model_config`.
            The numbers of gradient steps are those of `config`.
        seed: Of the world model and of the rollouts; None draws one from the global generator,
            which SB3 has seeded by the agent's seed.
        **overrides: Fields of `ImaginedReplayConfig`.

    Attributes:
        config: Numbers of the buffer.
        real: Real transitions, in SB3's own buffer; this buffer's arrays are its arrays.
        imagined: Imagined transitions, not normalised, as the real ones.
        world_model: The model of the environment.
        real_steps: Real transitions that were added so far.
        metrics: What the last fit found, by name.

    Raises:
        ConfigError: If an argument is out of range, unknown, or not supported.
        SpaceError: If a space is not supported.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        config: ImaginedReplayConfig | None = None,
        model_config: WorldModelConfig | None = None,
        seed: int | None = None,
        **overrides: Any,
    ) -> None:
        rule = "be False, since both observations of a transition are needed"
        require(not optimize_memory_usage, "optimize_memory_usage", rule, optimize_memory_usage)
        rule = "be True, since the world model must tell time limits from ends"
        given = handle_timeout_termination
        require(given, "handle_timeout_termination", rule, given)
        self.config = configured(
            "ImaginedReplayBuffer", config or ImaginedReplayConfig(), overrides
        )
        refuse_gradient_steps(model_config or WorldModelConfig())
        # Not the next __init__, which would make arrays of its own.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.optimize_memory_usage, self.handle_timeout_termination = False, True
        self._view = ReplayView(observation_space, action_space)
        self.real = make_store(buffer_size, observation_space, action_space, self.device, n_envs)
        self.buffer_size = self.real.buffer_size
        for name in _ARRAYS:
            setattr(self, name, getattr(self.real, name))
        size, rows = self.config.imagined_size, self.config.rollouts
        self.imagined = make_store(size, observation_space, action_space, self.device, rows)
        self.seed = int(np.random.randint(2**31)) if seed is None else seed  # noqa: NPY002
        self.world_model = WorldModel.for_spaces(
            self._view.observation_space,
            action_space,
            config=model_config or replay_model_config(self._view.observation_space),
            seed=derived_seed(self.seed, "world model"),
            device=self.device,
        )
        self.real_steps, self.metrics = 0, dict[str, float]()
        self._next_fit, self._next_rollouts, self._num_rollouts = self.config.first_fit, 0, 0
        self._starts: TokenDataset | None = None
        self._rows: DreamRows | None = None
        self._agent: OffPolicyAlgorithm | None = None

    def attach(self, agent: OffPolicyAlgorithm | None) -> None:
        """Let rollouts follow the policy of `agent`, or act at random with None."""
        self._agent = agent

    @property
    def is_imagining(self) -> bool:
        """Whether batches hold imagined transitions by now."""
        return self.imagined.size() > 0 and self.config.imagined_share > 0

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Add a real transition of each row; fit and imagine where that is due."""
        self.real.add(obs, next_obs, action, reward, done, infos)
        self.pos, self.full = self.real.pos, self.real.full
        self.real_steps += self.n_envs
        if self.config.imagined_share == 0:
            return
        if self.real_steps >= self._next_fit:
            self.fit()
            self._next_fit = self.real_steps + self.config.fit_every
            self._next_rollouts = self.real_steps
        if self.world_model.is_fitted and self.real_steps >= self._next_rollouts:
            self.imagine()
            self._next_rollouts = self.real_steps + self.config.imagine_every

    def fit(self) -> None:
        """Fit the world model to the real transitions, going on from its weights.

        Raises:
            DatasetError: If there are no transitions.
        """
        if not self.size():
            raise DatasetError("the buffer must hold a real transition before a fit, got none")
        episodes = self._view.episodes(self.real, self.config.fit_on)
        first = not self.world_model.is_fitted
        if not first and only_reals(self._view.observation_space):
            # Numbers that the agent has only now begun to reach would be shown as the nearest
            # ones of the first fit. What the dynamics know of numbers does not hang on codes.
            seed = derived_seed(self.seed, "tokenizer", self.world_model.num_fits)
            steps = self.config.tokenizer_steps
            self.world_model.tokenizer.fit(episodes, gradient_steps=steps, seed=seed)
        result = self.world_model.fit(
            episodes,
            tokenizer_steps=self.config.tokenizer_steps,
            dynamics_steps=self.config.first_model_steps
            if first
            else self.config.model_steps_per_fit,
            progress=False,
        )
        self.metrics = dict(result.metrics)
        self._starts, self._rows = self.world_model.dataset(episodes), None
        logger.info("fitted to %d real transitions: %s", self.size(), self.metrics)

    def imagine(self) -> None:
        """Imagine a batch of rollouts from real moments.

        A row in which the model predicts termination begins again at another moment. The end of
        a rollout is no end of an episode: values are bootstrapped there.

        Raises:
            DatasetError: If the model has not been fitted.
        """
        rows, count = self._dream_rows(), self.config.rollouts
        if self._agent is None and self._num_rollouts == 0:
            logger.warning(
                "imagined rollouts act at random: pass ImaginedReplayCallback() to `learn`, or "
                "call `attach`, so that they follow the agent's policy"
            )
        seed = derived_seed(self.seed, "rollouts", self._num_rollouts)
        generator = np.random.default_rng(derived_seed(seed, "actions"))
        self._num_rollouts += 1
        rows.seed(seed)
        decode = self.world_model.tokenizer.decode_flat
        now = self._view.shown(decode(rows.restart()))
        space: Any = self.action_space
        for _ in range(self.config.horizon_at(self.real_steps)):
            actions = rollout_actions(
                self._agent, space, now, count, self.config.exploration, generator
            )
            step = rows.advance(actions)
            then = self._view.shown(decode(step.tokens))
            stored = self._view.stored_actions(actions)
            self.imagined.add(now, then, stored, step.rewards, step.terminated, [{}] * count)
            over, tokens = np.flatnonzero(step.terminated), step.tokens
            if over.size:
                tokens = tokens.clone()
                tokens[torch.from_numpy(over).to(tokens.device)] = rows.restart_rows(over)
                then = self._view.shown(decode(tokens))
            now = then

    def _dream_rows(self) -> DreamRows:
        if self._starts is None:
            raise DatasetError("the world model has not been fitted: call `fit` first")
        if self._rows is None:
            self._rows = DreamRows(
                self.world_model,
                self._starts,
                num_rows=self.config.rollouts,
                horizon=self.config.final_horizon or self.config.horizon,
                sampler=None,
                seed=self.seed,
            )
        return self._rows

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Any:
        """Draw a batch, `imagined_share` of it imagined once there is a model.

        Args:
            batch_size: Transitions.
            env: Normalises observations and rewards, real and imagined ones.
        """
        imagined = round(self.config.imagined_share * batch_size) if self.is_imagining else 0
        counts = ((self.real, batch_size - imagined), (self.imagined, imagined))
        parts: list[Samples] = []
        for store, count in counts:
            store.device = self.device  # which SB3 sets when it loads a buffer
            if count:
                parts.append(store.sample(count, env))
        return join_samples(parts)

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Any:
        return self.real._get_samples(batch_inds, env)

    def reset(self) -> None:
        """Forget all transitions; the world model stays."""
        super().reset()
        self.real.reset()
        self.imagined.reset()

    def __getstate__(self) -> dict[str, Any]:
        """Give all but the agent, on the CPU."""
        state = {**vars(self), "_agent": None, "_rows": None}
        model = state.pop("world_model")
        state["_model_config"] = model.config
        state["_model_state"] = _on_cpu(model.state_dict())
        state["_starts"] = None if self._starts is None else _on_cpu(self._starts.state_dict())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the model where the device is, or on the CPU where that is not here."""
        state = dict(state)
        config, weights = state.pop("_model_config"), state.pop("_model_state")
        starts = state.pop("_starts")
        vars(self).update(state)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            self.device = torch.device("cpu")
        self.world_model = WorldModel.for_spaces(
            self._view.observation_space,
            self.action_space,
            config=config,
            seed=derived_seed(self.seed, "world model"),
            device=self.device,
        )
        self.world_model.load_state_dict(weights)
        self._starts = None
        if starts is not None:
            self._starts = TokenDataset.from_state(starts, self.world_model.device)


_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def _on_cpu(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().cpu() if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }
