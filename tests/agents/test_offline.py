"""Training on episodes alone: no environment, then one that goes on."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from worlds import GridWorld

from tests.agents.small_agents import (
    DICT,
    GRID,
    IMAGE,
    SHORT,
    TINY,
    VECTOR,
    Diary,
    assert_equal_weights,
    make_agent,
    some_episodes,
)
from worldgen import Episodes
from worldgen.agents import OFFLINE_CONFIG, DreamConfig, DreamPPO, train_offline
from worldgen.errors import ConfigError, DatasetError, SpaceError


class Untouchable(GridWorld):
    """Raises when anybody acts in it."""

    def reset(self, *, seed=None, options=None):
        raise AssertionError("the environment was reset")

    def step(self, action):
        raise AssertionError("the environment was stepped")


def offline_agent(env_id=GRID, **arguments) -> DreamPPO:
    return make_agent(None, _policy(env_id), episodes=some_episodes(env_id), **arguments)


def _policy(env_id):
    return "MultiInputPolicy" if env_id == DICT else "MlpPolicy"


@pytest.mark.parametrize("env_id", [GRID, VECTOR, DICT, IMAGE])
def test_every_kind_of_space_is_learnt_from_without_an_environment(env_id, diary):
    agent = offline_agent(env_id)
    before = copy.deepcopy(agent.policy.state_dict())
    assert train_offline(agent, 2, diary) is agent
    assert diary.phases == ["fit", "dream"] * 2
    assert diary.timesteps == []
    assert (agent.num_timesteps, agent.imagined_timesteps, agent.round) == (0, 64, 2)
    after = agent.policy.state_dict()
    assert not torch.equal(before["action_net.weight"], after["action_net.weight"])
    assert agent.env is None
    env = gym.make(env_id)
    action, _ = agent.predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action[()] if action.ndim == 0 else action)
    env.close()


def test_the_spaces_and_the_environment_are_those_of_the_episodes():
    agent, episodes = offline_agent(IMAGE), some_episodes(IMAGE)
    assert agent.world_model.observation_space == episodes.observation_space
    assert agent.action_space == episodes.action_space
    assert agent.world_model.environment == episodes.environment
    assert agent.world_model.environment.id == IMAGE


def test_an_agent_without_an_environment_has_numbers_of_its_own():
    episodes = some_episodes()
    agent = DreamPPO("MlpPolicy", None, episodes=episodes, device="cpu", gamma=0.9)
    assert agent.config.gamma == 0.9
    assert agent.config.initial_model_steps == OFFLINE_CONFIG.initial_model_steps
    assert agent.config.novelty == 0
    given = DreamConfig(initial_steps=1)
    agent = DreamPPO("MlpPolicy", None, episodes=episodes, device="cpu", config=given)
    assert agent.config == given


def test_an_environment_is_not_touched():
    agent = make_agent(Untouchable, episodes=some_episodes(), n_envs=2)
    train_offline(agent, 1)
    assert agent.round == 1
    with pytest.raises(AssertionError, match="was reset"):
        agent.learn(32)


def test_equal_seeds_give_equal_weights():
    assert_equal_weights(train_offline(offline_agent(), 2), train_offline(offline_agent(), 2))


@pytest.mark.parametrize("pause", [(0, "fit"), (0, "dream"), (1, "fit")])
def test_going_on_equals_never_having_stopped(pause, tmp_path):
    whole = train_offline(offline_agent(), 2)
    part = train_offline(offline_agent(), 2, Diary(stop_after=pause))
    part.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu", episodes=some_episodes())
    train_offline(loaded, 2 - loaded.round)
    assert loaded.round == 2
    assert_equal_weights(whole, loaded)


def test_a_saved_agent_acts_like_any_other(tmp_path):
    agent = train_offline(offline_agent(DICT), 1)
    agent.save(tmp_path / "agent.zip")
    loaded = DreamPPO.load(tmp_path / "agent.zip", device="cpu")
    assert_equal_weights(agent, loaded)
    env = gym.make(DICT)
    observation, _ = env.reset(seed=1)
    env.close()
    pair = [one.predict(observation, deterministic=True)[0] for one in (agent, loaded)]
    assert np.array_equal(*pair)
    with pytest.raises(DatasetError, match="`episodes` to `load`"):
        train_offline(loaded, 1)
    fewer = some_episodes(DICT)[:1]
    loaded.set_episodes(fewer)
    assert loaded.num_timesteps == 0


@pytest.mark.parametrize("saved", [False, True])
def test_it_goes_on_in_an_environment(saved, tmp_path, diary):
    episodes = some_episodes()
    agent = train_offline(offline_agent(), 1)
    if saved:
        agent.save(tmp_path / "agent.zip")
        agent = DreamPPO.load(
            tmp_path / "agent.zip", env=GRID, device="cpu", episodes=episodes[:], n_envs=4
        )
    else:
        agent.set_episodes(episodes[:])
        agent.set_env(GRID)
    agent.learn(32, diary)
    assert diary.phases == ["collect", "fit", "dream"]
    assert agent.num_timesteps == 32
    assert agent.round == 2
    assert agent.episodes.num_steps == episodes.num_steps + 32


def test_learning_needs_an_environment():
    agent = offline_agent()
    with pytest.raises(ConfigError, match="call `set_env`"):
        agent.learn(32)
    with pytest.raises(ConfigError, match="`env` must be given without `episodes`"):
        DreamPPO("MlpPolicy", None)


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="`rounds` must be at least 1, got 0"):
        train_offline(offline_agent(), 0)
    with pytest.raises(ConfigError, match="`n_envs` must be at least 1"):
        offline_agent(n_envs=0)
    with pytest.raises(ConfigError, match="`policy` must be"):
        make_agent(None, "CnnPolicy", episodes=some_episodes(DICT))
    shifted = Episodes(spaces.Box(0, 1, (2,)), spaces.Discrete(3, start=1))
    with pytest.raises(SpaceError, match="SB3 ignores the start of the action space"):
        DreamPPO("MlpPolicy", None, episodes=shifted, model_config=TINY, device="cpu", **SHORT)


def test_the_log_counts_imagined_environment_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    agent = offline_agent(tensorboard_log=str(tmp_path))
    train_offline(agent, 2)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    assert [point.step for point in accumulator.Scalars("time/rounds")] == [32, 64]
    assert "dream/ep_rew_mean" in accumulator.Tags()["scalars"]
