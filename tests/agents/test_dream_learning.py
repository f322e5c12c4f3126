"""`DreamPPO` learns: the dream of a tiny world teaches how to act in it."""

from __future__ import annotations

from tests.agents.small_agents import DICT
from worldgen import WorldModelConfig
from worldgen.agents import DreamPPO, evaluate_agent
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.transformer import TransformerConfig


def test_the_best_policy_is_learnt_from_480_random_environment_steps():
    model_config = WorldModelConfig(
        dynamics=DynamicsConfig(
            transformer=TransformerConfig(width=48, layers=1, heads=2), context=2
        ),
        training=DynamicsTrainingConfig(batch_size=16, learning_rate=2e-3),
    )
    agent = DreamPPO(
        "MultiInputPolicy",
        DICT,
        model_config=model_config,
        seed=0,  # 2 and 3 too; of a longer training's 0 to 5, 1 settles on the goal's next hour
        device="cpu",
        initial_steps=480,
        tokenizer_steps=100,
        initial_model_steps=300,
        initial_dream_steps=12_000,
        dream_envs=32,
        horizon=16,
        n_steps=16,
        batch_size=128,
        n_epochs=4,
        learning_rate=2e-3,
        gamma=0.95,
    ).learn(480)
    assert agent.num_timesteps == 480
    chance, played = (evaluate_agent(policy, DICT, 50) for policy in (None, agent))
    assert chance.mean_length > 15
    assert played.mean_return > 0.95
    assert played.mean_length < 6  # the shortest way takes 4 environment steps on average
