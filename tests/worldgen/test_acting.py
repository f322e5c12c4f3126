"""Policies that carry a state get it back, row by row, from whatever asks them."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from worlds import CountingWorld

from worldgen import collect
from worldgen.acting import Acting
from worldgen.agents import evaluate_agent

LENGTHS = ((3, 1, 4), (2, 5, 1, 1))


class Counts:
    """Counts its steps in each row's episode as the action, in a state of two layers."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic=False
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        rows = len(observation)
        steps = np.zeros((2, rows), int) if state is None else state[0]
        assert steps.shape == (2, rows)
        if episode_start is not None:
            steps = np.where(episode_start, 0, steps)
        return steps[0] % 5, (steps + 1,)


class Shy:
    """A model without a state takes no further arguments."""

    def predict(self, observation: Any, deterministic: bool = False) -> tuple[np.ndarray, None]:
        return np.zeros(len(observation), int), None


@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_collect_hands_the_state_on(mode):
    makers = [lambda lengths=lengths: CountingWorld(lengths) for lengths in LENGTHS]
    env: Any = makers[0] if mode is None else SyncVectorEnv(makers, autoreset_mode=mode)
    episodes = collect(env, 61, Counts(), num_envs=2, progress=False)
    assert len(episodes) > 20
    for episode in episodes:
        np.testing.assert_array_equal(episode.actions, np.arange(len(episode)))


@pytest.mark.parametrize("max_parallel", [1, 3, 7])
def test_evaluation_hands_the_state_on_while_rows_go_on_and_end(max_parallel):
    taken: list[bool] = []

    class Checked(gym.Wrapper):
        def step(self, action):
            time = int(self.env.unwrapped._state[1])
            taken.append(action == time % 5)
            return self.env.step(action)

    made = itertools.count()

    def make() -> gym.Env:
        return Checked(CountingWorld((3 + next(made) % 4,)))

    result = evaluate_agent(Counts(), make, 11, max_parallel=max_parallel)
    assert len(taken) == sum(result.lengths)
    assert all(taken)


def test_models_without_a_state_are_asked_by_observations_alone():
    assert collect(CountingWorld, 9, Shy(), progress=False).num_steps == 9
    assert len(evaluate_agent(Shy(), CountingWorld, 3).returns) == 3


def test_rows_that_are_kept_twice():
    acting, none = Acting(Counts().predict), np.zeros(4, bool)
    acting({"a": np.zeros((4, 2))}["a"], ~none)
    acting.state = (np.array([[0, 1, 2, 3]] * 2),)
    acting.keep([0, 2, 3])
    np.testing.assert_array_equal(acting(np.zeros(3), none[:3]), [0, 2, 3])
    acting.keep([1, 2])
    np.testing.assert_array_equal(acting(np.zeros(2), np.array([False, True])), [3, 0])
