"""An agent that remembers does what was shown to it only at the beginning of the episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO

from worldgen import Episodes, WorldModel, WorldModelConfig, collect
from worldgen.agents import evaluate_agent
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.envs import ImaginedVecEnv, TokenObservation
from worldgen.transformer import TransformerConfig


class RecallWorld(gym.Env[np.ndarray, np.int64]):
    """See one of two cues, then two empty frames, then the question which it was.

    Observation (2, 2, 1) uint8: the cue (1 or 2) in the first frame, 3 in the fourth. Only the
    answer's action counts; the reward is 1 if it is right.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 3, (2, 2, 1), np.uint8)
        self.action_space = spaces.Discrete(2)
        self._cue = self._time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._cue, self._time = int(self.np_random.integers(2)), 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        asked = self._time == 3
        self._time += 1
        right = asked and int(action) == self._cue
        return self._observation(), float(right), asked, False, {}

    def _observation(self) -> np.ndarray:
        cells = np.zeros((2, 2, 1), np.uint8)
        cells[0, 0] = self._cue + 1 if self._time == 0 else 0
        cells[1, 1] = 3 if self._time == 3 else 0
        return cells


def learnt_return(model: WorldModel, episodes: Episodes, memory: bool) -> float:
    """Train in the dream; gives the mean return in the real environment."""
    dream = ImaginedVecEnv(model, 32, 8, starts=episodes, observation="tokens", memory=memory)
    agent = PPO(
        "MultiInputPolicy" if memory else "MlpPolicy",
        dream,
        learning_rate=3e-3,
        n_steps=16,
        batch_size=128,
        n_epochs=4,
        gamma=0.9,
        seed=0,
        device="cpu",
    )
    agent.learn(10_240)
    real = TokenObservation(RecallWorld(), model, memory=memory)
    return evaluate_agent(agent, real, 100).mean_return


def test_only_with_memory_is_the_cue_of_the_first_frame_acted_upon(tmp_path: Path):
    episodes = collect(RecallWorld, 1_500, seed=0, num_envs=4, progress=False)
    size = TransformerConfig(width=32, layers=2, heads=2)
    config = WorldModelConfig(
        dynamics=DynamicsConfig(transformer=size, context=5),
        training=DynamicsTrainingConfig(batch_size=16, learning_rate=3e-3),
    )
    model = WorldModel.for_env(RecallWorld, config=config, seed=0, device="cpu")
    model.fit(episodes, tokenizer_steps=100, dynamics_steps=500, progress=False)
    model.save(tmp_path / "model")
    model = WorldModel.load(tmp_path / "model", device="cpu")
    assert 0.3 < learnt_return(model, episodes, memory=False) < 0.7
    assert learnt_return(model, episodes, memory=True) > 0.9
