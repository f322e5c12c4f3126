"""The tasks of `benchmarks.sample_efficiency`, and each arm's settings for them.

To tune an arm for a task, edit its line in `TASKS`.

Classes:
    Task: an environment, budgets and settings.
    DreamArm, DqnConfig: settings of two arms; the third's are `BaselineConfig`.

Functions:
    task_named: a line of `TASKS`, or a task for any Gymnasium id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces

from worldgen.agents import BaselineConfig, DreamConfig, dream_defaults
from worldgen.config import Config, require
from worldgen.data import EnvironmentSpec, episode_success
from worldgen.world_model import WorldModelConfig

__all__ = ["TASKS", "DqnConfig", "DreamArm", "Task", "task_named"]


@dataclass(frozen=True, kw_only=True)
class DreamArm(Config):
    """Settings of `DreamPPO`, which is evaluated after each round."""

    budget: int = 20_000
    """Real environment steps after which a run is given up."""
    n_envs: int = 4
    """Rows of the real environment."""
    loop: DreamConfig = DreamConfig()
    """Rounds, dreams and PPO."""
    model: WorldModelConfig = WorldModelConfig()
    """The world model."""


@dataclass(frozen=True, kw_only=True)
class DqnConfig(Config):
    """Settings of SB3's DQN (Mnih et al. 2013, https://arxiv.org/abs/1312.5602)."""

    n_envs: int = 8
    """Rows of the environment."""
    learning_rate: float = 5e-4
    """Of the Q-network."""
    buffer_size: int = 100_000
    """Transitions that are kept."""
    learning_starts: int = 2_000
    """Environment steps, with random actions, before the first gradient step."""
    batch_size: int = 128
    """Transitions of a gradient step."""
    gamma: float = 0.99
    """Discount."""
    train_freq: int = 1
    """Environment steps of each row between two updates."""
    gradient_steps: int = 2
    """Gradient steps of an update."""
    target_update_interval: int = 1_000
    """Environment steps between two copies to the target network."""
    exploration_steps: int = 50_000
    """Environment steps in which epsilon falls from 1 to `final_epsilon`."""
    final_epsilon: float = 0.05
    """Share of random actions from then on, and in evaluations."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the layers over the features."""


@dataclass(frozen=True, kw_only=True)
class Task(Config):
    """An environment, how far each arm may go in it, and with what settings."""

    environment: EnvironmentSpec
    """What all arms see."""
    solved_return: float | None = None
    """Mean return of a good evaluation, where success is not known."""
    budget: int = 200_000
    """Real environment steps after which PPO and DQN are given up."""
    evaluate_every: int = 2_048
    """Real environment steps from one evaluation of PPO or DQN to the next."""
    dream_ppo: DreamArm = DreamArm()
    """Of `DreamPPO`."""
    ppo: BaselineConfig = BaselineConfig()
    """Of PPO."""
    dqn: DqnConfig = DqnConfig()
    """Of DQN."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("budget", "evaluate_every"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))


def _doorkey(size: int, *wrappers: str) -> EnvironmentSpec:
    return EnvironmentSpec(id=f"MiniGrid-DoorKey-{size}x{size}-v0", wrappers=wrappers)


def _arm(space: spaces.Space[Any]) -> DreamArm:
    """Give `DreamPPO` the settings that suit what the environment shows."""
    suited = dream_defaults(space)
    return DreamArm(n_envs=suited.n_envs, loop=suited.config, model=suited.model_config)


_ZOO_PPO = BaselineConfig(n_envs=16, batch_size=64, learning_rate=3e-4, ent_coef=0.0)
"""RL Baselines3 Zoo's for MountainCar and Acrobot alike, but for its running normalisation."""

TASKS = {
    "doorkey-5x5": Task(
        environment=_doorkey(5),
    ),
    "doorkey-6x6": Task(
        environment=_doorkey(6),
        budget=400_000,
        evaluate_every=4_096,
        dream_ppo=DreamArm(budget=40_000),
    ),
    "doorkey-8x8": Task(
        environment=_doorkey(8),
        budget=800_000,
        evaluate_every=16_384,  # An evaluation of an untrained agent plays 64,000 steps.
        dream_ppo=DreamArm(
            budget=90_000,
            loop=DreamConfig(
                initial_steps=2_000,
                steps_per_round=1_000,
                initial_model_steps=500,
                model_steps_per_round=200,
                initial_dream_steps=40_000,
                dream_steps_per_round=40_000,
                n_epochs=4,
            ),
        ),
    ),
    "doorkey-5x5-rgb": Task(
        environment=_doorkey(5, "minigrid.wrappers:RGBImgPartialObsWrapper"),
    ),
    "gotodoor-5x5": Task(
        environment=EnvironmentSpec(
            id="MiniGrid-GoToDoor-5x5-v0", wrappers=("worldgen.envs:NumberedMission",)
        ),
        budget=800_000,
        evaluate_every=16_384,
    ),
    "cartpole": Task(
        environment=EnvironmentSpec(id="CartPole-v1"),
        solved_return=475.0,
        evaluate_every=1_024,
        dream_ppo=_arm(spaces.Box(-np.inf, np.inf, (4,))),
        ppo=BaselineConfig(  # RL Baselines3 Zoo's, but for its falling rates
            n_steps=32,
            n_epochs=20,
            learning_rate=1e-3,
            gamma=0.98,
            gae_lambda=0.8,
            ent_coef=0.0,
        ),
        dqn=DqnConfig(  # RL Baselines3 Zoo's, its wider network too
            n_envs=1,
            learning_rate=2.3e-3,
            learning_starts=1_000,
            batch_size=64,
            train_freq=256,
            gradient_steps=128,
            target_update_interval=10,
            exploration_steps=8_000,
            final_epsilon=0.04,
            hidden=(256, 256),
        ),
    ),
    "mountaincar": Task(
        environment=EnvironmentSpec(id="MountainCar-v0"),
        solved_return=-110.0,
        budget=1_000_000,
        evaluate_every=16_384,
        dream_ppo=replace(_arm(spaces.Box(-np.inf, np.inf, (2,))), budget=10_000),
        ppo=replace(_ZOO_PPO, n_steps=16, gae_lambda=0.98),
    ),
    "acrobot": Task(
        environment=EnvironmentSpec(id="Acrobot-v1"),
        solved_return=-100.0,
        evaluate_every=4_096,
        dream_ppo=_arm(spaces.Box(-np.inf, np.inf, (6,))),
        ppo=replace(_ZOO_PPO, n_steps=256, gae_lambda=0.94),
    ),
}


def task_named(name: str, solved_return: float | None = None) -> Task:
    """Give a task by its name in `TASKS`, or one with default settings by a Gymnasium id.

    Args:
        name: Of the task, or a Gymnasium id.
        solved_return: Mean return at which an id counts as solved, where success is not known;
            by default the threshold that Gymnasium has for it.

    Raises:
        ConfigError: If an id has neither success nor a threshold.
        EnvironmentIdError: If the name is neither a task's nor a registered id.
    """
    if name in TASKS:
        return TASKS[name]
    environment = EnvironmentSpec(id=name)
    env = environment.make()
    knows_success = episode_success(env, 0.0, 0.0, True) is not None
    registered = env.spec.reward_threshold if env.spec else None
    env.close()
    space = env.observation_space
    threshold = solved_return if solved_return is not None else registered
    if not knows_success:
        rule = f"be given for {name}, which has neither success nor a reward threshold"
        require(threshold is not None, "solved_return", rule, threshold)
    return Task(
        environment=environment,
        solved_return=None if knows_success else threshold,
        dream_ppo=_arm(space),
    )
