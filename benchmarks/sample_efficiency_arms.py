"""The agents that `benchmarks.sample_efficiency` compares, on one observation and one network.

Functions:
    train: train one of `ARMS` until its task is solved or its budget used up.
    acting_policy: what plays in an agent's evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.learning_curve import AfterDreams, AfterRollouts, LearningCurve
from benchmarks.sample_efficiency_tasks import Task
from worldgen.agents import DreamPPO, baseline_ppo
from worldgen.agents.baseline import policy_network, standardise_by_buffer
from worldgen.agents.real_env import as_vec_env, policy_name

__all__ = ["ARMS", "acting_policy", "train"]

_SEEDS_APART = 1_000
"""Between the environments' seeds of two runs: no row's seed is another run's."""


def train(arm: str, task: Task, seed: int, curve: LearningCurve) -> None:
    """Train one agent; its evaluations go to `curve`."""
    agent, budget, callback = ARMS[arm](task, _SEEDS_APART * seed, curve)
    try:
        agent.learn(budget, callback=callback)
    finally:
        assert agent.env is not None
        agent.env.close()


Made = tuple[BaseAlgorithm, int, AfterDreams | AfterRollouts]
"""An untrained agent, its budget of real environment steps, and what evaluates it."""


def _dream_ppo(task: Task, seed: int, curve: LearningCurve) -> Made:
    arm = task.dream_ppo
    env = task.environment.make()
    policy = policy_name(env.observation_space)
    env.close()
    agent = DreamPPO(
        policy,
        task.environment,
        config=arm.loop,
        model_config=arm.model,
        n_envs=arm.n_envs,
        policy_kwargs={"net_arch": list(task.ppo.hidden)},
        seed=seed,
        device="cpu",
    )
    return agent, arm.budget, AfterDreams(curve)


def _ppo(task: Task, seed: int, curve: LearningCurve) -> Made:
    agent = baseline_ppo(task.environment, task.ppo, seed=seed)
    return agent, task.budget, AfterRollouts(curve, task.evaluate_every)


def _dqn(task: Task, seed: int, curve: LearningCurve) -> Made:
    config = task.dqn
    env = as_vec_env(task.environment, config.n_envs)
    agent = _StandardisingDqn(
        policy_name(env.observation_space),
        env,
        learning_rate=config.learning_rate,
        buffer_size=config.buffer_size,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        gamma=config.gamma,
        train_freq=config.train_freq,
        gradient_steps=config.gradient_steps,
        target_update_interval=config.target_update_interval,
        exploration_fraction=min(1.0, config.exploration_steps / task.budget),
        exploration_final_eps=config.final_epsilon,
        policy_kwargs=policy_network(config.hidden),
        seed=seed,
        device="cpu",
    )
    return agent, task.budget, AfterRollouts(curve, task.evaluate_every)


class _StandardisingDqn(DQN):
    """Sees numbers in units of their deviation from its first update on, as the others do."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        if self._n_updates == 0:
            buffer: Any = self.replay_buffer
            seen, count = buffer.observations, buffer.pos
            is_dict = isinstance(seen, dict)
            filled = {key: part[:count] for key, part in seen.items()} if is_dict else seen[:count]
            standardise_by_buffer(self.policy, filled)
        super().train(gradient_steps, batch_size)


ARMS: dict[str, Callable[[Task, int, LearningCurve], Made]] = {
    "dream_ppo": _dream_ppo,
    "ppo": _ppo,
    "dqn": _dqn,
}


def acting_policy(agent: BaseAlgorithm, seed: int) -> BaseAlgorithm | Callable[[Any], np.ndarray]:
    """Give what plays in an agent's evaluations: by sampling, as it acts in training.

    DQN takes a random action with its last epsilon, for each episode on its own: SB3's `predict`
    would do so for all at once, with the epsilon of the moment.
    """
    if not isinstance(agent, DQN):
        return agent  # with the state that it may carry
    epsilon, generator = agent.exploration_final_eps, np.random.default_rng(seed)
    assert isinstance(agent.action_space, spaces.Discrete)
    choices = int(agent.action_space.n)

    def act(observations: Any) -> np.ndarray:
        actions, _ = agent.predict(observations, deterministic=True)
        random = generator.random(len(actions)) < epsilon
        return np.where(random, generator.integers(choices, size=len(actions)), actions)

    return act
