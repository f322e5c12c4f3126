"""SB3's own PPO in the real environment: what `DreamPPO` is compared with.

Classes:
    BaselineConfig: its numbers.

Functions:
    baseline_ppo: a PPO that reads what `DreamPPO` reads, with the same network.
    policy_network: the network of its policy.
    standardise_by_buffer: let a policy see numbers in units of their deviation in a buffer.
    baseline_result: how good it is after a number of real environment steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from worldgen.agents.evaluation import AgentResult, evaluate_agent
from worldgen.agents.extractors import SymbolicExtractor, standardise_numbers
from worldgen.agents.real_env import as_vec_env, policy_name
from worldgen.config import Config, require
from worldgen.data.environment import EnvLike
from worldgen.spaces import ROOT

__all__ = [
    "BaselineConfig",
    "baseline_ppo",
    "baseline_result",
    "policy_network",
    "standardise_by_buffer",
]


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(Config):
    """Numbers of PPO in the real environment, chosen for few real steps on MiniGrid's DoorKey."""

    n_envs: int = 8
    """Rows of the environment."""
    n_steps: int = 128
    """Environment steps of each row between two updates."""
    batch_size: int = 256
    """Transitions in a minibatch; divides `n_envs * n_steps`."""
    n_epochs: int = 4
    """Passes over each rollout."""
    learning_rate: float = 5e-4
    """Of the policy."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Bias and variance of the advantages (GAE)."""
    clip_range: float = 0.2
    """Of the probability ratio."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the layers over the features, for policy and value each; SB3's default."""

    def __post_init__(self) -> None:
        """Check the ranges that SB3 does not check."""
        for name in ("n_envs", "n_steps", "batch_size", "n_epochs"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        for name in ("gamma", "gae_lambda"):
            require(0 <= getattr(self, name) <= 1, name, "be in [0, 1]", getattr(self, name))
        for name in ("learning_rate", "clip_range"):
            require(getattr(self, name) > 0, name, "be over 0", getattr(self, name))
        require(self.ent_coef >= 0, "ent_coef", "be at least 0", self.ent_coef)


def policy_network(hidden: Sequence[int]) -> dict[str, Any]:
    """Give SB3's `policy_kwargs` of a policy with the eyes of `DreamPPO`.

    Args:
        hidden: Widths of the layers over the features.
    """
    return {"features_extractor_class": SymbolicExtractor, "net_arch": list(hidden)}


def standardise_by_buffer(policy: nn.Module, observations: Any) -> None:
    """Call `standardise_numbers` with what a buffer of SB3 holds.

    Args:
        policy: One that has learned nothing yet.
        observations: (T, N, ...), or a dictionary of these.
    """
    parts = observations if isinstance(observations, dict) else {ROOT: observations}
    shown = {path: part.reshape(-1, *part.shape[2:]) for path, part in parts.items()}
    standardise_numbers(policy, shown)


class _StandardisingPPO(PPO):
    """Sees numbers in units of their deviation, as `DreamPPO` does: from its first update on.

    Its first rollout was made by a policy that saw them raw; so early the two hardly differ.
    """

    def train(self) -> None:
        if self._n_updates == 0:
            standardise_by_buffer(self.policy, self.rollout_buffer.observations)
        super().train()


def baseline_ppo(
    environment: EnvLike,
    config: BaselineConfig | None = None,
    *,
    seed: int | None = None,
    device: torch.device | str = "cpu",
) -> PPO:
    """Make an untrained SB3 PPO for the real environment.

    It sees the environment as `DreamPPO` does, through `SymbolicExtractor`, which standardises
    vectors of numbers by the first rollout. PPO: Schulman et al. 2017,
    https://arxiv.org/abs/1707.06347.

    >>> baseline_ppo("CartPole-v1", seed=0).learn(1000).num_timesteps
    1024

    Args:
        environment: An id, an `EnvironmentSpec` or a function for `config.n_envs` rows.
        config: Its numbers; by default `BaselineConfig()`.
        seed: Of weights, actions and environments; row i is reset with `seed + i`.
        device: A network this small is fastest on the CPU.

    Raises:
        ConfigError: If a rollout is not a whole number of minibatches.
        SpaceError: If SB3's policies cannot read the observations.
    """
    config = config or BaselineConfig()
    env = as_vec_env(environment, config.n_envs)
    rollout = env.num_envs * config.n_steps
    rule = f"divide a rollout of n_steps = {config.n_steps} times {env.num_envs} rows"
    require(rollout % config.batch_size == 0, "batch_size", rule, config.batch_size)
    return _StandardisingPPO(
        policy_name(env.observation_space),
        env,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        policy_kwargs=policy_network(config.hidden),
        seed=seed,
        device=device,
    )


def baseline_result(
    environment: EnvLike,
    timesteps: int,
    config: BaselineConfig | None = None,
    *,
    seed: int | None = None,
    device: torch.device | str = "cpu",
    callback: BaseCallback | None = None,
    num_episodes: int = 100,
    evaluation_seed: int = 1_000_000,
) -> AgentResult:
    """Train the baseline for a number of real environment steps, and let it play.

    >>> result = baseline_result("CartPole-v1", 1000, seed=0, num_episodes=5)
    >>> len(result.returns)
    5

    Args:
        environment: As in `baseline_ppo`; not an environment object.
        timesteps: Real environment steps, rounded up to whole rollouts.
        config: As in `baseline_ppo`.
        seed: As in `baseline_ppo`.
        device: As in `baseline_ppo`.
        callback: Of the training.
        num_episodes: Episodes to play, as training does: by sampling.
        evaluation_seed: First seed of these; `evaluate_agent`'s own by default.

    Raises:
        ConfigError: If a number is out of range.
        SpaceError: If SB3's policies cannot read the observations.
    """
    require(timesteps >= 1, "timesteps", "be at least 1", timesteps)
    agent = baseline_ppo(environment, config, seed=seed, device=device)
    try:
        agent.learn(timesteps, callback=callback)
        return evaluate_agent(agent, environment, num_episodes, seed=evaluation_seed)
    finally:
        assert agent.env is not None
        agent.env.close()
