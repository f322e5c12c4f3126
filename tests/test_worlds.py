"""The environments that other tests learn from keep their promises."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import worlds
from gymnasium.utils.env_checker import check_env

from worldgen.spaces import flatten


@pytest.mark.parametrize("name", worlds.__all__)
def test_gymnasium_accepts_it(name):
    check_env(getattr(worlds, name)(), skip_render_check=True)


def _key(space, observation):
    return b"|".join(np.asarray(part).tobytes() for part in flatten(space, observation).values())


@pytest.mark.parametrize("name", ["Grid", "Dict", "Image", "Room"])
def test_what_happens_depends_on_observation_and_action_alone(name):
    env = gym.make(f"worlds/{name}-v0", max_episode_steps=-1)
    env.action_space.seed(0)
    outcomes, seen_twice = {}, 0
    for seed in range(20):
        before = _key(env.observation_space, env.reset(seed=seed)[0])
        for _ in range(200):
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            after = _key(env.observation_space, observation)
            seen_twice += (before, action) in outcomes
            expected = outcomes.setdefault((before, action), (after, reward, terminated))
            assert (after, reward, terminated) == expected
            assert not truncated
            before = after
            if terminated:
                break
    assert seen_twice > 200


@pytest.fixture
def grid_with_key_below():
    """A grid whose agent stands in the first cell, above the key."""
    env = worlds.GridWorld()
    for seed in range(2000):
        grid, _ = env.reset(seed=seed)
        if grid[0, 0, 1] == 1 and grid[1, 0, 0] == worlds.KEY:
            return env
    raise AssertionError("no seed gives this start")


RIGHT, DOWN, LEFT, UP, WAIT = range(5)


def test_the_grid_is_won_through_the_door(grid_with_key_below):
    env = grid_with_key_below
    held = [int(env.step(action)[0][..., 1].max()) for action in (WAIT, LEFT, UP, DOWN)]
    assert held == [1, 1, 1, 2]
    path = [DOWN, RIGHT, RIGHT, RIGHT, RIGHT, DOWN]
    assert [env.step(action)[1:3] for action in path] == [(0.0, False)] * 6
    observation, reward, terminated, *_ = env.step(DOWN)
    assert (reward, terminated) == (1.0, True)
    assert observation[4, 4].tolist() == [worlds.GOAL, 1]
    assert not np.isin([worlds.DOOR, worlds.KEY], observation[..., 0]).any()


def test_the_door_is_shut_without_the_key_and_the_pit_is_deep(grid_with_key_below):
    env = grid_with_key_below
    for action in (RIGHT, DOWN, DOWN, RIGHT, RIGHT):
        observation, reward, terminated, *_ = env.step(action)
        assert (reward, terminated) == (0.0, False)
    assert observation[2, 1, 1] == 1
    for action in (LEFT, UP, DOWN, RIGHT, RIGHT, RIGHT, RIGHT, UP):
        env.step(action)
    _, reward, terminated, *_ = env.step(UP)
    assert (reward, terminated) == (-1.0, True)
