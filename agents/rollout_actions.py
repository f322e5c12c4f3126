"""Actions of an off-policy agent in imagined rollouts.

Functions:
    rollout_actions: a batch of actions, by the agent or at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from worldgen.seeding import seeded_torch

__all__ = ["rollout_actions"]


def rollout_actions(
    agent: OffPolicyAlgorithm | None,
    space: spaces.Discrete | spaces.Box,
    observations: Any,
    count: int,
    exploration: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Choose an action for each row, in the environment's own space.

    SAC draws from its policy. DQN takes the best action but for a share of random ones, drawn
    for each row, where SB3's `predict` draws once for all; DDPG and TD3 add noise.

    Args:
        agent: Who acts; None acts at random.
        space: Of the actions.
        observations: Batch (B, ...) as SB3 has it, not normalised.
        count: B.
        exploration: Share of random actions, or deviation of the noise on actions in [-1, 1].
        generator: Of the draws, SAC's included.
    """
    random = _random_actions(space, count, generator)
    if agent is None:
        return random
    normalised = agent.get_vec_normalize_env()
    if normalised is not None:
        observations = normalised.normalize_obs(observations)
    discrete = isinstance(space, spaces.Discrete)
    with seeded_torch(int(generator.integers(2**63))):
        actions, _ = agent.predict(observations, deterministic=discrete)
    if discrete:
        return np.where(generator.random(count) < exploration, random, actions)
    assert isinstance(space, spaces.Box)
    if isinstance(agent, TD3):
        half = (space.high - space.low) / 2
        noise = generator.normal(0.0, exploration, actions.shape) * half
        actions = np.clip(actions + noise, space.low, space.high).astype(space.dtype)
    return actions


def _random_actions(
    space: spaces.Discrete | spaces.Box, count: int, generator: np.random.Generator
) -> np.ndarray:
    if isinstance(space, spaces.Discrete):
        return generator.integers(space.n, size=count)
    drawn = generator.uniform(space.low, space.high, (count, *space.shape))
    return drawn.astype(space.dtype)
