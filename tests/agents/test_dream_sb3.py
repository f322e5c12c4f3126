"""What users of SB3 put around `DreamPPO`: its evaluation and its vector environments."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)
from worlds import CountingWorld, GridWorld

from tests.agents.small_agents import GRID, IMAGE, VECTOR, assert_equal_weights, make_agent
from worldgen import EnvironmentSpec
from worldgen.errors import ConfigError, DatasetError, SpaceError

SPEC = EnvironmentSpec(id=f"worlds:{GRID}")


def rows_of(env_id: str = GRID) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(gym.make(env_id))] * 2)


@pytest.mark.parametrize("env_id", [GRID, IMAGE])
def test_evaluate_policy_in_the_agents_own_environment_and_in_another(env_id):
    agent = make_agent(env_id).learn(64)
    for env in (agent.get_env(), rows_of(env_id)):
        returns, lengths = evaluate_policy(agent, env, 3, return_episode_rewards=True)
        assert len(returns) == len(lengths) == 3
    agent.learn(32, reset_num_timesteps=False)
    assert agent.episodes.num_steps == agent.num_timesteps == 96


def test_returns_of_vec_monitor_are_logged():
    agent = make_agent(VecMonitor(DummyVecEnv([CountingWorld] * 2))).learn(64)
    whole = [e for e in agent.episodes if e.terminated[-1] or e.truncated[-1]]
    assert [info["r"] for info in agent.ep_info_buffer] == [e.total_reward for e in whole]


def test_vec_monitor_hides_no_environment():
    rows = VecMonitor(DummyVecEnv([lambda: gym.make(GRID)] * 2))
    agent = make_agent(rows)
    assert agent.episodes.environment == agent.world_model.environment == SPEC


@pytest.mark.slow
def test_rows_in_processes_of_their_own_teach_the_same():
    given = {"env_id": "CartPole-v1", "n_envs": 2, "seed": 0}
    spawned = {"vec_env_cls": SubprocVecEnv, "vec_env_kwargs": {"start_method": "spawn"}}
    apart = make_vec_env(**given, **spawned)
    try:
        assert_equal_weights(
            make_agent(apart).learn(96), make_agent(make_vec_env(**given)).learn(96)
        )
    finally:
        apart.close()


@pytest.mark.parametrize("env_id", [VECTOR, IMAGE])
def test_stacked_frames_are_dreamt_as_one(env_id):
    agent = make_agent(VecFrameStack(rows_of(env_id), 2)).learn(96)
    shape = gym.make(env_id).observation_space.shape
    assert shape is not None
    depth = shape[-1]
    for episode in agent.episodes:
        frames = episode.observations["observation"]
        assert frames.shape[-1] == 2 * depth
        np.testing.assert_array_equal(frames[1:, ..., :depth], frames[:-1, ..., depth:])


@pytest.mark.parametrize("normalised", [{}, {"norm_obs": False}, {"norm_reward": False}])
def test_what_changes_its_meaning_is_refused(normalised):
    rows = VecMonitor(VecNormalize(DummyVecEnv([GridWorld]), **normalised))
    with pytest.raises(ConfigError, match="whose observations and rewards change their meaning"):
        make_agent(rows)


def test_frames_that_sb3_stacks_out_of_their_bounds_are_refused():
    # SB3 repeats each channel's bound, and stacks the channels in turn: 5, 5, 2, 2 for 5, 2, 5, 2.
    with pytest.raises(DatasetError, match="`observation` must lie in"):
        make_agent(VecFrameStack(rows_of(), 2)).learn(64)


@pytest.mark.parametrize("kind", ["action", "observation"])
def test_integers_that_do_not_begin_at_0_are_refused_in_rows_too(kind):
    class Shifted(gym.Env):
        def __init__(self):
            self.action_space = spaces.Discrete(3, start=int(kind == "action"))
            self.observation_space = spaces.Discrete(4, start=int(kind == "observation"))

    with pytest.raises(SpaceError, match=f"ignores the start of the {kind} space"):
        make_agent(DummyVecEnv([Shifted]))
