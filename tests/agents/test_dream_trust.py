"""How far `DreamPPO` lets its dreams go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agents.small_agents import (
    DICT,
    GRID,
    VECTOR,
    Diary,
    Paid,
    an_episode,
    gone_on_with,
    make_agent,
    some_episodes,
    some_model,
)
from worldgen import WorldModel, collect
from worldgen.agents import PhaseCallback, train_offline
from worldgen.agents.dream_trust import dreamt_returns, foreseen, returns_ahead, trusted_horizon
from worldgen.errors import ConfigError


@given(
    st.dictionaries(st.integers(1, 64), st.floats(0, 1), max_size=6),
    st.floats(0.01, 1),
    st.integers(1, 8),
)
def test_no_horizon_is_trusted_behind_one_that_is_not(right, least, shortest):
    trusted = trusted_horizon(right, 64, least, shortest)
    assert shortest <= trusted <= 64
    bad = [horizon for horizon, share in right.items() if share < least]
    if not bad:
        assert trusted == 64
    elif trusted > shortest:
        assert trusted < min(bad)
        assert right[trusted] >= least


@pytest.mark.parametrize("env_id", [GRID, VECTOR, DICT])
def test_shares_fall_with_the_horizon_of_an_untrained_model(env_id):
    right = foreseen(some_model(env_id), some_episodes(env_id), 6, seed=0)
    assert set(right) <= {1, 4, 6}
    assert all(0 <= share <= 1 for share in right.values())
    assert right == foreseen(some_model(env_id), some_episodes(env_id), 6, seed=0)


@pytest.mark.slow
def test_a_model_that_knows_its_world_is_trusted_all_the_way():
    model = WorldModel.for_env(GRID, seed=0, device="cpu")
    model.fit(collect(GRID, 4000, seed=0, progress=False), dynamics_steps=600, progress=False)
    right = foreseen(model, collect(GRID, 400, seed=1, progress=False), 8, seed=0)
    assert trusted_horizon(right, 8, 0.9, 1) == 8


def test_dreams_are_cut_where_the_model_is_not_right():
    diary = Diary()
    agent = make_agent(horizon=16, shortest_horizon=2, least_right=1.0)
    agent.learn(96, callback=diary)
    first, second = (
        m for phase, m in zip(diary.phases, diary.metrics, strict=True) if phase == "collect"
    )
    assert "dream/horizon" not in first  # there was no model yet
    assert any(name.startswith("unseen/right_after_") for name in second)
    assert second["dream/horizon"] == agent.dream_horizon == 2


def test_without_a_least_share_dreams_keep_their_horizon():
    agent = make_agent(horizon=16, least_right=0.0).learn(96)
    assert agent.dream_horizon == 16


def test_the_least_share_is_a_share():
    with pytest.raises(ConfigError, match=r"`least_right` must be in \[0, 1\], got 2"):
        make_agent(least_right=2)


@pytest.mark.parametrize(
    ("rewards", "terminated", "horizon", "ahead"),
    [
        ([1, 2, 4, 8], False, 2, [3, 6, 12]),
        ([1, 2, 4, 8], True, 2, [3, 6, 12, 8]),
        ([1, 2, 4, 8], False, 4, [15]),
        ([1, 2, 4, 8], False, 5, []),
        ([1, 2, 4, 8], True, 5, [15, 14, 12, 8]),
        ([1], False, 1, [1]),
    ],
)
def test_what_real_moments_brought_is_known_as_far_as_episodes_go(
    rewards, terminated, horizon, ahead
):
    episode = an_episode(rewards, terminated)
    assert returns_ahead([episode], horizon).tolist() == ahead
    assert returns_ahead([episode, episode], horizon).tolist() == 2 * ahead
    assert returns_ahead([], horizon).tolist() == []


class Countdown:
    """Rows that pay 1 a step and end after 1, 2, 3 steps, and begin again."""

    num_envs = 3

    def reset(self):
        self.left = np.array([1, 2, 3])
        return np.zeros((3, 1), np.float32)

    def step(self, actions):
        assert actions.tolist() == [7, 7, 7]
        self.left -= 1
        dones = self.left == 0
        self.left[dones] = 5
        return np.zeros((3, 1), np.float32), np.ones(3, np.float32), dones, [{}] * 3


class Sevens:
    def predict(self, observations, deterministic):
        assert not deterministic
        return np.full(len(observations), 7), None


def test_one_dream_of_each_row_counts():
    assert dreamt_returns(Sevens(), Countdown()).tolist() == [1, 2, 3]


@pytest.fixture
def promised(monkeypatch):
    """Let dreams promise what is asked for; gives the gradient steps of each fit."""
    fitted = []
    fit = WorldModel.fit

    def noted(self, *args, **kwargs):
        fitted.append(kwargs["dynamics_steps"])
        return fit(self, *args, **kwargs)

    def promise(much):
        monkeypatch.setattr(
            "worldgen.agents.dream_ppo.dreamt_returns", lambda policy, dream: np.full(4, much)
        )
        return fitted

    monkeypatch.setattr(WorldModel, "fit", noted)
    return promise


STEPS = {"initial_model_steps": 3, "model_steps_per_round": 2, "doubted_model_steps": 4}


def test_a_model_that_promises_too_much_is_fitted_longer(promised):
    fitted, diary = promised(1e6), Diary()
    agent = make_agent(Paid, horizon=4, **STEPS)
    agent.learn(128, callback=diary)
    assert fitted == [3, 4, 4]
    first, second, _ = (
        m for phase, m in zip(diary.phases, diary.metrics, strict=True) if phase == "collect"
    )
    assert not any(name.startswith("unseen/") for name in first)
    assert (second["unseen/doubted"], second["unseen/dreamt_return"]) == (1, 1e6)
    assert 0 < second["unseen/real_return"] < 8
    assert train_offline(agent, 1).round == 4
    assert fitted == [3, 4, 4, 2]  # what was doubted before is forgotten


@pytest.mark.parametrize(
    ("much", "fields", "pay"),
    [
        (0.0, {}, 2.0),
        (1e6, {"doubted_model_steps": 0}, 2.0),
        (1e6, {"doubted_model_steps": 1}, 2.0),
        (1e6, {}, 0.0),  # nothing is better than usual: there is no measure
    ],
)
def test_other_models_are_not(promised, much, fields, pay):
    fitted = promised(much)
    make_agent(lambda: Paid(pay), horizon=4, **{**STEPS, **fields}).learn(128)
    assert fitted == [3, 2, 2]


def test_an_agent_knows_after_loading_that_its_model_is_doubted(promised, tmp_path):
    class Stop(PhaseCallback):
        def on_phase_end(self, phase, metrics):
            return phase != "collect" or self.model.round == 0

    fitted = promised(1e6)
    agent = make_agent(Paid, horizon=4, **STEPS)
    agent.learn(128, callback=Stop())
    assert fitted == [3]
    gone_on_with(agent, tmp_path / "agent.zip", 96)
    assert fitted == [3, 4]


@pytest.mark.parametrize("memory", [False, True])
def test_dreams_of_the_newest_moments_are_compared_with_what_came(memory):
    agent = make_agent(horizon=4, memory=memory, **STEPS).learn(128)
    real, dreamt = (agent.round_metrics[f"unseen/{name}_return"] for name in ("real", "dreamt"))
    assert np.isfinite([real, dreamt]).all()
