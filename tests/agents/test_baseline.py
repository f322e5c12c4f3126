"""The baseline: SB3's PPO with the eyes and the network of `DreamPPO`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from worlds import DictWorld

from tests.agents.small_agents import DICT, GRID, IMAGE, make_agent
from worldgen.agents import BaselineConfig, baseline_ppo, baseline_result, evaluate_agent
from worldgen.errors import ConfigError

SHORT = BaselineConfig(n_envs=4, n_steps=16, batch_size=32, n_epochs=1)


@pytest.mark.parametrize("env", [GRID, DICT, IMAGE])
def test_the_network_is_that_of_dream_ppo(env):
    ours, theirs = (agent.policy.state_dict() for agent in (make_agent(env), baseline_ppo(env)))
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items()
    }


def test_every_number_of_the_config_reaches_sb3():
    config = BaselineConfig(
        n_envs=2,
        n_steps=8,
        batch_size=4,
        n_epochs=3,
        learning_rate=0.01,
        gamma=0.9,
        gae_lambda=0.8,
        clip_range=0.1,
        ent_coef=0.5,
        hidden=(7, 5),
    )
    agent = baseline_ppo(GRID, config)
    for name in ("n_envs", "n_steps", "batch_size", "n_epochs", "learning_rate", "gamma"):
        assert getattr(agent, name) == getattr(config, name)
    assert (agent.gae_lambda, agent.ent_coef) == (config.gae_lambda, config.ent_coef)
    assert callable(agent.clip_range)
    assert agent.clip_range(1.0) == config.clip_range
    widths = [layer.out_features for layer in agent.policy.mlp_extractor.policy_net[::2]]
    assert widths == [7, 5]
    assert BaselineConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("env", ["MountainCar-v0", DICT])
def test_numbers_are_standardised_by_the_first_rollout(env):
    agent = baseline_ppo(env, SHORT, seed=0)
    seen = {}

    class Noting(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            if not seen:
                observations = self.model.rollout_buffer.observations
                parts = observations if isinstance(observations, dict) else {"": observations}
                seen.update({key: part.copy() for key, part in parts.items()})

    agent.learn(128, callback=Noting())
    layers = dict(zip(seen, agent.policy.features_extractor.layers, strict=True))
    stds = {key: layer.std.numpy() for key, layer in layers.items() if hasattr(layer, "std")}
    assert len(stds) == 1
    for key, std in stds.items():
        np.testing.assert_allclose(std, 3 * seen[key].std((0, 1)), rtol=1e-4)


def test_equal_seeds_give_equal_weights():
    def trained(seed):
        return baseline_ppo(DICT, SHORT, seed=seed).learn(64).policy.state_dict()

    one, same, other = trained(3), trained(3), trained(4)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_result_is_that_of_the_trained_agent_on_held_out_seeds():
    made = []

    class Closing(DictWorld):
        closed = False

        def __init__(self):
            super().__init__()
            made.append(self)

        def close(self):
            self.closed = True

    class Steps(BaseCallback):
        def _on_step(self):
            return True

    steps = Steps()
    result = baseline_result(Closing, 65, SHORT, seed=0, num_episodes=6, callback=steps)
    assert steps.num_timesteps == 128  # whole rollouts of 64
    assert all(env.closed for env in made)
    agent = baseline_ppo(DictWorld, SHORT, seed=0).learn(128)
    assert result == evaluate_agent(agent, DictWorld, 6, seed=1_000_000)


def test_it_learns():
    config = BaselineConfig(n_steps=64, batch_size=128, learning_rate=3e-3)
    result = baseline_result(DICT, 6_000, config, seed=0, num_episodes=20)
    assert result.mean_return == 1.0
    assert result.mean_length < 6 < 12 < evaluate_agent(None, DICT, 20).mean_length


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="`batch_size` must divide a rollout of n_steps = 16"):
        baseline_ppo(GRID, BaselineConfig(n_envs=4, n_steps=16, batch_size=48))
    with pytest.raises(ConfigError, match="times 1 rows, got 32"):
        baseline_ppo(DictWorld(), SHORT)
    with pytest.raises(ConfigError, match="`timesteps` must be at least 1, got 0"):
        baseline_result(GRID, 0)
    for name in ("n_envs", "n_steps", "batch_size", "n_epochs"):
        with pytest.raises(ConfigError, match=f"`{name}` must be at least 1, got 0"):
            BaselineConfig(**{name: 0})
    with pytest.raises(ConfigError, match="`gamma` must be in"):
        BaselineConfig(gamma=1.5)
    with pytest.raises(ConfigError, match="`learning_rate` must be over 0"):
        BaselineConfig(learning_rate=0.0)
    with pytest.raises(ConfigError, match="`ent_coef` must be at least 0"):
        BaselineConfig(ent_coef=-1.0)
