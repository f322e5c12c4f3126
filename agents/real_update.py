"""PPO on the real environment steps that a policy has just made.

Functions:
    train_on_real: improve an agent's policy by its newest real episodes.
    real_rollout: these episodes as SB3's rollout buffer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecEnv

from worldgen.agents.dream_training import learner_for, training_means
from worldgen.agents.real_memory import RealMemory
from worldgen.agents.remembering_ppo import RememberingPPO
from worldgen.data.episode import Episode
from worldgen.data.episodes import Episodes
from worldgen.envs.observation_view import MEMORY
from worldgen.spaces import unflatten

__all__ = ["real_rollout", "train_on_real"]


def train_on_real(
    agent: RememberingPPO, episodes: Episodes, dream: VecEnv, n_epochs: int
) -> dict[str, float]:
    """Improve the policy of `agent` by PPO on episodes that it has just played.

    Policy, optimizer and hyper-parameters are the agent's own, as in `train_in_dream`.

    Args:
        agent: Whose policy learns, and played.
        episodes: Of its environment.
        dream: The environment of the dream that follows, for its spaces.
        n_epochs: Passes over the episodes.

    Returns:
        The means of SB3's "train/...", named "real_train/...".
    """
    learner = learner_for(agent, dream)
    learner.n_epochs, learner.rollout_buffer = n_epochs, real_rollout(agent, episodes)
    learner.train()
    agent._n_updates = learner._n_updates
    return {f"real_{name}": value for name, value in training_means(learner).items()}


def real_rollout(agent: RememberingPPO, episodes: Episodes) -> RolloutBuffer:
    """Give episodes as the rollout of one row, with values and log-probabilities as they are now.

    Where an episode did not terminate, because of a time limit or of the collection's end, the
    value of its last observation is added to its last reward, as in SB3.

    Args:
        agent: Whose policy played.
        episodes: Of its environment.
    """
    policy = agent.policy
    assert agent.rollout_buffer_class is not None
    rollout = agent.rollout_buffer_class(
        episodes.num_steps,
        policy.observation_space,
        policy.action_space,
        agent.device,
        gae_lambda=agent.gae_lambda,
        gamma=agent.gamma,
    )
    policy.set_training_mode(False)
    for episode in episodes:
        _add(rollout, agent, episode)
    # Nothing follows the last episode: what it would have brought is in its last reward.
    rollout.compute_returns_and_advantage(torch.zeros(1), np.ones(1))
    return rollout


@torch.no_grad()
def _add(rollout: RolloutBuffer, agent: RememberingPPO, episode: Episode) -> None:
    policy, length = agent.policy, len(episode)
    shown, _ = policy.obs_to_tensor(_as_shown(agent, episode))
    before = _each(shown, lambda part: part[:-1])
    actions = torch.as_tensor(episode.actions, dtype=torch.float32, device=agent.device)
    values = policy.predict_values(shown).flatten().cpu()
    log_probs = policy.evaluate_actions(before, actions)[1].cpu()
    seen = _each(before, lambda part: part.cpu().numpy())
    rewards = episode.rewards.copy()
    if not episode.terminated[-1]:
        rewards[-1] += agent.gamma * float(values[-1])
    for step in range(length):
        here = slice(step, step + 1)
        rollout.add(
            _each(seen, operator.itemgetter(here)),
            episode.actions[here],
            rewards[here],
            np.array([step == 0]),
            values[here],
            log_probs[here],
        )


def _as_shown(agent: RememberingPPO, episode: Episode) -> Any:
    """Give what the policy saw, (T + 1, ...)."""
    frames, length = episode.observations, len(episode)
    if not agent.config.memory:
        return unflatten(agent._real_space, frames)
    memory, state, summaries = RealMemory(agent.world_model), None, []
    for time in range(length + 1):
        frame = {path: values[time : time + 1] for path, values in frames.items()}
        summaries.append(memory.read(frame, state, np.array([time == 0])))
        if time < length:
            state = memory.after(episode.actions[time : time + 1])
    return {**frames, MEMORY: np.concatenate(summaries)}


def _each(shown: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to an observation, or to each part of a Dict."""
    if isinstance(shown, dict):
        return {name: change(part) for name, part in shown.items()}
    return change(shown)
