"""`evaluate_agent`: one episode for each held-out seed."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from worlds import CountingWorld, DictWorld, GridWorld

from tests.agents.small_agents import DICT, IMAGE, make_agent
from worldgen.agents import evaluate_agent
from worldgen.errors import ConfigError


class Seeded(CountingWorld):
    """An episode as long as the last digit of its seed; the return is the seed."""

    seeds: list[int] = []  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self._seed, self._left = seed, seed % 10
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self._left -= 1
        observation = super().step(action)[0]
        over = self._left < 1
        return observation, float(self._seed) if over else 0.0, over, False, {"is_success": over}


@pytest.mark.parametrize("max_parallel", [1, 3, 50])
def test_each_seed_is_played_once_and_reported_in_order(max_parallel):
    Seeded.seeds.clear()
    result = evaluate_agent(None, Seeded, 12, seed=101, max_parallel=max_parallel)
    assert sorted(Seeded.seeds) == list(range(101, 113))
    assert result.returns == tuple(float(seed) for seed in range(101, 113))
    assert result.lengths == (1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 2)
    assert result.mean_return == np.mean(result.returns)
    assert result.std_return == pytest.approx(np.std(result.returns))
    assert result.mean_length == np.mean(result.lengths)
    assert result.success_rate == 1.0


def test_deterministic_play_does_not_depend_on_how_many_play_at_once():
    agent = make_agent(DICT)
    results = [
        evaluate_agent(agent, DICT, 6, deterministic=True, max_parallel=parallel)
        for parallel in (1, 4)
    ]
    assert results[0] == results[1]


def test_it_is_repeatable_and_leaves_the_global_generator_alone():
    agent = make_agent(IMAGE)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = evaluate_agent(agent, IMAGE, 8)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert one == evaluate_agent(agent, IMAGE, 8)
    assert one != evaluate_agent(agent, IMAGE, 8, seed=7)
    assert one != evaluate_agent(None, IMAGE, 8)


def test_policies_of_every_kind():
    def winner(batch):
        row, column = batch["place"].T
        return np.where(column < 1, 0, np.where(row < 1, 1, 2))

    best = evaluate_agent(winner, DictWorld, 10)
    assert best.mean_return == 1.0
    assert best.success_rate is None
    sb3 = PPO("MultiInputPolicy", DictWorld(), n_steps=2, batch_size=2, device="cpu")
    for policy in (sb3, sb3.policy, None):
        played = evaluate_agent(policy, DictWorld, 10)
        assert len(played.returns) == 10
        assert played.mean_length > best.mean_length
    with pytest.raises(ConfigError, match="`policy` must be None, callable or have `predict`"):
        evaluate_agent(3, DictWorld, 1)


def test_minigrid_success_is_a_rewarding_end():
    result = evaluate_agent(None, "MiniGrid-Empty-5x5-v0", 6)
    assert result.success_rate == np.mean([value > 0 for value in result.returns])
    assert result.to_dict()["success_rate"] == result.success_rate


def test_one_environment_object_is_played_and_left_open():
    class Open(GridWorld):
        closed = False

        def close(self):
            self.closed = True

    env = Open()
    result = evaluate_agent(None, gym.wrappers.TimeLimit(env, 5), 3)
    assert max(result.lengths) <= 5
    assert not env.closed


def test_environments_without_a_limit_are_broken_off():
    result = evaluate_agent(lambda batch: np.full(len(batch), 4), GridWorld, 2, max_episode_steps=9)
    assert result.lengths == (9, 9)


@pytest.mark.parametrize("name", ["num_episodes", "max_parallel", "max_episode_steps"])
def test_wrong_numbers_are_named(name):
    with pytest.raises(ConfigError, match=f"`{name}` must be at least 1, got 0"):
        evaluate_agent(None, GridWorld, **{name: 0})
