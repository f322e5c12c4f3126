"""`ImaginedEnv` as Gymnasium sees it."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from tests.envs.checker_advice import OF_SPACES
from worldgen.envs import IMAGINED_ID, ImaginedEnv
from worldgen.errors import ConfigError, SpaceError

MODES = ("decoded", "tokens", "embeddings")
pytestmark = OF_SPACES


@pytest.mark.parametrize("mode", MODES)
def test_the_checkers_pass(world, mode):
    arguments = {"model": world.model, "starts": world.episodes, "observation": mode}
    check_env(gym.make(IMAGINED_ID, **arguments))
    check_env_for_sb3(ImaginedEnv(**arguments), skip_render_check=False)


def test_gymnasium_makes_it_from_folders(dictionary, tmp_path):
    dictionary.model.save(tmp_path / "model")
    dictionary.episodes.save(tmp_path / "episodes")
    env = gym.make(
        f"worldgen.envs:{IMAGINED_ID}",
        model=str(tmp_path / "model"),
        starts=str(tmp_path / "episodes"),
        horizon=2,
    )
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert env.observation_space == dictionary.model.observation_space
    env.step(0)
    assert env.step(0)[2:4] in ((True, False), (False, True))
    again = env.spec.make()  # a copy that Gymnasium makes from the spec dreams the same
    for part, other in zip(observation.values(), again.reset(seed=0)[0].values(), strict=True):
        np.testing.assert_array_equal(part, other)


def test_the_horizon_truncates_and_termination_ends(endless, mortal, grid):
    env = ImaginedEnv(endless, grid.episodes, horizon=3)
    env.reset(seed=1)
    ends = [env.step(4)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    env.reset()
    assert env.step(4)[2:4] == (False, False)
    env = ImaginedEnv(mortal, grid.episodes, horizon=1)
    env.reset()
    assert env.step(4)[2:4] == (True, False)


def test_values_have_pythons_own_types(world):
    env = ImaginedEnv(world.model, world.episodes)
    env.reset()
    _, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert info == {}


def test_reset_seeds_the_whole_dream(vector):
    env = ImaginedEnv(vector.model, vector.episodes)
    push = np.array([0.5, -0.5], np.float32)
    dreams = []
    for seed in (5, 5, 6):
        frames = [env.reset(seed=seed)[0], *(env.step(push)[0] for _ in range(6))]
        dreams.append(np.stack(frames))
    np.testing.assert_array_equal(dreams[0], dreams[1])
    assert not np.array_equal(dreams[0], dreams[2])


def test_it_draws_itself(world):
    env = ImaginedEnv(world.model, world.episodes, render_mode="rgb_array")
    assert env.render() is None
    env.reset()
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert ImaginedEnv(world.model, world.episodes).render() is None


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_sb3_learns_in_it(dictionary, algorithm):
    env = ImaginedEnv(dictionary.model, dictionary.episodes, horizon=4)
    assert isinstance(env.observation_space, spaces.Dict)
    numbers = {
        PPO: {"n_steps": 8, "batch_size": 8},
        A2C: {"n_steps": 8},
        DQN: {"learning_starts": 4, "buffer_size": 50},
    }[algorithm]
    agent = algorithm("MultiInputPolicy", env, seed=0, device="cpu", **numbers).learn(16)
    assert agent.num_timesteps == 16


def test_errors(grid, vector):
    with pytest.raises(ConfigError, match="`horizon` must be at least 1, got 0"):
        ImaginedEnv(grid.model, grid.episodes, horizon=0)
    with pytest.raises(ConfigError, match="`render_mode` must be None or 'rgb_array', got 'human'"):
        ImaginedEnv(grid.model, grid.episodes, render_mode="human")
    with pytest.raises(SpaceError, match="built for the observation space"):
        ImaginedEnv(grid.model, vector.episodes)
    with pytest.raises(gym.error.ResetNeeded, match="call `reset`"):
        ImaginedEnv(grid.model, grid.episodes).step(0)
