"""SB3's own PPO on imagined environments, for an agent that lives outside.

Classes:
    DreamProgress: a callback that shows how far the dream is.
    MemoryRelease: a callback that gives freed memory back before each rollout.

Functions:
    train_in_dream: improve an agent's policy in a dream.
    learner_for: the PPO that improves an agent's policy.
    whole_rollouts: rounds a number of steps up.
    training_means: what SB3 logged of a learner's updates.
    is_paid: whether real rewards tell what to do.
    best_gain: how much better than usual a real reward was.
    shrink_logits: let a policy try again what it gave up.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.distributions import (
    DiagGaussianDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from worldgen.data.episode import Episode
from worldgen.memory import release_memory
from worldgen.progress import Progress

__all__ = [
    "DreamProgress",
    "MemoryRelease",
    "best_gain",
    "is_paid",
    "learner_for",
    "shrink_logits",
    "train_in_dream",
    "training_means",
    "whole_rollouts",
]

_EPISODES_IN_MEANS = 500


class DreamProgress(BaseCallback):
    """Show the imagined environment steps and the mean return of the dreams.

    Args:
        bar: Whose total is that of the first rollouts; it grows when the dream goes on.
    """

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar, self._begun = bar, False

    def _on_training_start(self) -> None:
        if self._begun:
            learner = self.model
            assert isinstance(learner, PPO)
            wanted = self.locals["total_timesteps"] - learner.num_timesteps
            self._bar.extend(whole_rollouts(wanted, learner.n_steps * learner.n_envs))
        self._begun = True

    def _on_step(self) -> bool:
        recent = self.model.ep_info_buffer
        quantities = {"return": safe_mean([info["r"] for info in recent])} if recent else {}
        self._bar.update(self.training_env.num_envs, **quantities)
        return True


class MemoryRelease(BaseCallback):
    """Give freed memory back before each rollout: a long dream holds no more than a short one."""

    def _on_rollout_start(self) -> None:
        release_memory()

    def _on_step(self) -> bool:
        return True


def train_in_dream(
    agent: PPO,
    dream: VecEnv,
    timesteps: int,
    *,
    imagined_timesteps: int,
    most: int = 0,
    callback: BaseCallback | None = None,
) -> tuple[int, dict[str, float]]:
    """Improve the policy of `agent` by plain PPO on `dream`.

    Policy and optimizer are the agent's own objects, and its hyper-parameters are used as they
    stand, schedules at the agent's progress in real environment steps.

    The dream goes on by `timesteps` at a time, at least once, as long as the newest of its episodes
    brought more than those before them, and as long as it does not go beyond `most`.

    Args:
        agent: Whose policy learns.
        dream: The imagined environment.
        timesteps: Imagined environment steps, rounded up to whole rollouts.
        imagined_timesteps: Those that were made before.
        most: Imagined environment steps beyond which the dream does not go on, not rounded.
        callback: Called at each step of `dream`.

    Returns:
        Imagined environment steps made so far, and the means of "dream/..." and "train/...".
    """
    learner = learner_for(agent, dream)
    learner.num_timesteps = imagined_timesteps
    returned, before, asked_for = _dream_on(learner, timesteps, callback), -np.inf, timesteps
    while returned > before and asked_for + timesteps <= most:
        returned, before = _dream_on(learner, timesteps, callback), returned
        asked_for += timesteps
    agent._n_updates = learner._n_updates
    metrics = training_means(learner)
    recent = learner.ep_info_buffer
    if recent:
        metrics["dream/ep_rew_mean"] = float(safe_mean([info["r"] for info in recent]))
        metrics["dream/ep_len_mean"] = float(safe_mean([info["l"] for info in recent]))
        if "bonus" in recent[0]:
            metrics["dream/ep_bonus_mean"] = float(safe_mean([info["bonus"] for info in recent]))
    metrics["dream/timesteps"] = float(learner.num_timesteps - imagined_timesteps)
    metrics["dream/imagined_timesteps"] = float(learner.num_timesteps)
    return learner.num_timesteps, metrics


def whole_rollouts(timesteps: int, rollout: int) -> int:
    """Round imagined environment steps up to whole rollouts.

    >>> whole_rollouts(20_000, 2_048)
    20480
    """
    return -(-timesteps // rollout) * rollout


def _dream_on(learner: PPO, timesteps: int, callback: BaseCallback | None) -> float:
    """Learn from `timesteps` more; give the mean return of the newest episodes that ended."""
    if learner.ep_info_buffer:
        learner.ep_info_buffer.clear()
    callbacks = CallbackList([MemoryRelease(), *([] if callback is None else [callback])])
    learner.learn(
        timesteps, callback=callbacks, log_interval=sys.maxsize, reset_num_timesteps=False
    )
    _forget(callbacks)
    assert learner.ep_info_buffer is not None
    returns = [info["r"] for info in learner.ep_info_buffer]
    return float(np.mean(returns)) if returns else -np.inf


def _forget(callback: BaseCallback) -> None:
    """Let a callback forget the training that is over.

    SB3 gives it all that is known at a step, itself included. In this circle the learner, its
    rollouts and the dream would wait until Python looks for circles, which takes it a quarter of a
    second, and which it does the more rarely the more objects there are.
    """
    callback.locals, callback.globals = {}, {}
    for child in getattr(callback, "callbacks", ()):
        _forget(child)


def training_means(learner: PPO) -> dict[str, float]:
    """Give the means of "train/..." that SB3 logged of a learner's last update."""
    logged = learner.logger.name_to_value.items()
    return {name: float(value) for name, value in logged if name.startswith("train/")}


def is_paid(episodes: Sequence[Episode], least: float) -> bool:
    """Say whether real rewards tell an agent what to do.

    They do once a reward was more than the usual one, the median: where most rewards are the usual
    one, by however little; else by over `least`. They also do once an episode came to an end of its
    own that is better than going on (its last reward was no less than the usual one, and steps
    cost something), or, where steps usually bring something, came to an end at all.

    Args:
        episodes: The real ones.
        least: In units of the rewards.
    """
    if not episodes:
        return False
    rewards = np.concatenate([episode.rewards for episode in episodes])
    usual, above = float(np.median(rewards)), best_gain(episodes)
    if above > (0 if np.mean(rewards == usual) >= 0.5 else least):
        return True
    last = [float(episode.rewards[-1]) for episode in episodes if episode.terminated[-1]]
    if usual < 0:
        return any(reward >= usual for reward in last)
    return usual > 0 and bool(last)


def best_gain(episodes: Sequence[Episode]) -> float:
    """Give how much better than the usual reward, the median, the best real one was.

    Args:
        episodes: The real ones, at least one.
    """
    rewards = np.concatenate([episode.rewards for episode in episodes])
    return float(rewards.max()) - float(np.median(rewards))


def shrink_logits(policy: ActorCriticPolicy, factor: float) -> bool:
    """Multiply the logits of a policy that chooses: what it had given up becomes likelier again.

    Policy gradients hardly see an action once it has become unlikely. In a dream, trying it again
    costs nothing real. (Shrinking before new data comes: Ash and Adams 2020,
    https://arxiv.org/abs/1910.08475.) A policy of continuous actions is left as it is, and so is
    one whose logits do not come from a linear layer `action_net`, as SB3's do.

    Args:
        policy: Whose last layer is changed.
        factor: In [0, 1].

    Returns:
        Whether anything was changed.
    """
    layer, made = getattr(policy, "action_net", None), getattr(policy, "action_dist", None)
    continuous = isinstance(made, DiagGaussianDistribution | StateDependentNoiseDistribution)
    if factor == 1 or continuous or not isinstance(layer, nn.Linear):
        return False
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(factor)
    return True


def learner_for(agent: PPO, dream: VecEnv) -> PPO:
    """Make a PPO whose policy, optimizer included, is the agent's, and which logs to nowhere.

    Args:
        agent: Whose policy learns.
        dream: Where.
    """
    remaining = agent._current_progress_remaining
    clip_range: Any = agent.clip_range  # a schedule once the agent is set up

    def shared_policy(*args: object, **kwargs: object) -> ActorCriticPolicy:
        return agent.policy

    learner = PPO(
        shared_policy,  # type: ignore[arg-type]
        dream,
        learning_rate=lambda _: agent.lr_schedule(remaining),
        n_steps=agent.n_steps,
        batch_size=agent.batch_size,
        n_epochs=agent.n_epochs,
        gamma=agent.gamma,
        gae_lambda=agent.gae_lambda,
        clip_range=lambda _: clip_range(remaining),
        normalize_advantage=agent.normalize_advantage,
        ent_coef=agent.ent_coef,
        vf_coef=agent.vf_coef,
        max_grad_norm=agent.max_grad_norm,
        target_kl=agent.target_kl,
        stats_window_size=_EPISODES_IN_MEANS,
        device=agent.device,
    )
    learner._n_updates = agent._n_updates
    learner.set_logger(Logger(folder=None, output_formats=[]))
    return learner
