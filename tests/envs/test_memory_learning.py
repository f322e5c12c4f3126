"""An agent that remembers does what was shown to it only at the beginning of the episode."""

from __future__ import annotations

from pathlib import Path

from stable_baselines3 import PPO

from tests.recall_world import RecallWorld
from worldgen import Episodes, WorldModel, WorldModelConfig, collect
from worldgen.agents import evaluate_agent
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.envs import ImaginedVecEnv, TokenObservation
from worldgen.transformer import TransformerConfig


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
    agent.learn(6_144)
    real = TokenObservation(RecallWorld(), model, memory=memory)
    return evaluate_agent(agent, real, 100).mean_return


def test_only_with_memory_is_the_cue_of_the_first_frame_acted_upon(tmp_path: Path):
    episodes = collect(RecallWorld, 1_000, seed=0, num_envs=4, progress=False)
    size = TransformerConfig(width=32, layers=1, heads=2)
    config = WorldModelConfig(
        dynamics=DynamicsConfig(transformer=size, context=4),
        training=DynamicsTrainingConfig(batch_size=16, learning_rate=3e-3),
    )
    model = WorldModel.for_env(RecallWorld, config=config, seed=0, device="cpu")
    model.fit(episodes, tokenizer_steps=100, dynamics_steps=600, progress=False)
    model.save(tmp_path / "model")
    model = WorldModel.load(tmp_path / "model", device="cpu")
    assert 0.3 < learnt_return(model, episodes, memory=False) < 0.7
    assert learnt_return(model, episodes, memory=True) > 0.9
