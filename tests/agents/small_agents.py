"""Agents small enough to be trained in a test."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import worlds  # registers the ids

from worldgen import Episode, Episodes, WorldModel, WorldModelConfig, collect
from worldgen.agents import DreamPPO, PhaseCallback
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.transformer import TransformerConfig

GRID, VECTOR, DICT, IMAGE = (f"worlds/{name}-v0" for name in ("Grid", "Vector", "Dict", "Image"))
assert worlds

TINY = WorldModelConfig(
    dynamics=DynamicsConfig(transformer=TransformerConfig(width=32, layers=1, heads=2), context=3),
    training=DynamicsTrainingConfig(batch_size=8),
)
SHORT = {
    "initial_steps": 64,
    "steps_per_round": 32,
    "tokenizer_steps": 10,
    "initial_model_steps": 3,
    "model_steps_per_round": 2,
    "doubted_model_steps": 0,
    "initial_dream_steps": 32,
    "dream_steps_per_round": 32,
    "dream_envs": 8,
    "horizon": 3,
    "n_steps": 4,
    "batch_size": 16,
    "n_epochs": 1,
}


def make_agent(env: Any = GRID, policy: str | None = None, **arguments: Any) -> DreamPPO:
    usual = {"seed": 0, "device": "cpu", "model_config": TINY, "n_envs": 8, **SHORT}
    arguments = {**usual, **arguments}
    return DreamPPO(
        policy or ("MultiInputPolicy" if env == DICT else "MlpPolicy"), env, **arguments
    )


@functools.cache
def some_episodes(env_id: str = GRID) -> Episodes:
    return collect(env_id, 80, seed=0, num_envs=4, progress=False)


@functools.cache
def some_model(env_id: str = GRID) -> WorldModel:
    model = WorldModel.for_env(env_id, config=TINY, seed=0, device="cpu")
    model.fit(some_episodes(env_id), tokenizer_steps=20, dynamics_steps=3, progress=False)
    return model


def an_episode(rewards: Sequence[float], terminated: bool = False) -> Episode:
    count = len(rewards)
    ends = np.zeros(count, bool)
    ends[-1] = terminated
    return Episode(
        observations={"observation": np.zeros((count + 1, 1), np.float32)},
        actions=np.zeros(count, np.int64),
        rewards=np.array(rewards, np.float32),
        terminated=ends,
        truncated=np.zeros(count, bool),
    )


class Paid(gym.Wrapper[Any, Any, Any, Any]):
    """Action 0 is paid, so that what is usual is not to be."""

    def __init__(self, pay: float = 2.0) -> None:
        super().__init__(gym.make(GRID))
        self._pay = pay

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, self._pay if action == 0 else 0.0, terminated, truncated, info


def weights(agent: DreamPPO) -> dict[str, torch.Tensor]:
    policy = {f"policy.{name}": value for name, value in agent.policy.state_dict().items()}
    return {**policy, **agent.world_model.state_dict()}


def assert_equal_weights(left: DreamPPO, right: DreamPPO) -> None:
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def gone_on_with(agent: DreamPPO, path: Path, timesteps: int) -> DreamPPO:
    """Save an agent amid its training, load it, and train it up to `timesteps`."""
    agent.save(path)
    loaded = DreamPPO.load(
        path,
        env=agent.env,
        device="cpu",
        force_reset=False,
        episodes=copy.deepcopy(agent.episodes),
    )
    return loaded.learn(timesteps - agent.num_timesteps, reset_num_timesteps=False)


class Diary(PhaseCallback):
    """Notes the phases; stops after the phase `stop_after`."""

    def __init__(self, stop_after: tuple[int, str] | None = None) -> None:
        super().__init__()
        self.phases: list[str] = []
        self.metrics: list[dict[str, float]] = []
        self.timesteps: list[int] = []
        self.begun: list[str] = []
        self._stop_after = stop_after

    def on_phase_start(self, phase):
        self.begun.append(phase)
        self._round = self.model.round

    def on_phase_end(self, phase, metrics):
        self.phases.append(phase)
        self.metrics.append(dict(metrics))
        return (self._round, phase) != self._stop_after

    def _on_step(self):
        self.timesteps.append(self.num_timesteps)
        return True
