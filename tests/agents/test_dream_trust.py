"""How far `DreamPPO` lets its dreams go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agents.small_agents import (
    DICT,
    GRID,
    VECTOR,
    Diary,
    make_agent,
    some_episodes,
    some_model,
)
from worldgen import WorldModel, collect
from worldgen.agents.dream_trust import foreseen, trusted_horizon
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
