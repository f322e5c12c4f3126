"""In a world of chance, what is rewarded and what ends goes with what happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import worldgen
from worldgen import SamplerConfig, WorldModel, WorldModelConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.errors import ConfigError
from worldgen.rollout import Rollout
from worldgen.transformer import TransformerConfig

ICE = "FrozenLake-v1"  # One slips to either side of where one goes, with a third each.
HOLES, GOAL, RIGHT = (5, 7, 11, 12), 15, 2
ROWS = 600


@pytest.fixture(scope="module")
def episodes() -> worldgen.Episodes:
    return worldgen.collect(ICE, 6_000, seed=0, progress=False)


def fitted(episodes: worldgen.Episodes, outcome_from: Any) -> WorldModel:
    config = WorldModelConfig(
        dynamics=DynamicsConfig(
            context=1,
            transformer=TransformerConfig(width=32, layers=1, heads=2),
            outcome_from=outcome_from,
        ),
        training=DynamicsTrainingConfig(
            batch_size=64, window=2, learning_rate=5e-3, draft_share=0.0, corrupted_share=0.0
        ),
    )
    model = WorldModel.for_env(ICE, config=config, device="cpu")
    model.fit(episodes, tokenizer_steps=100, dynamics_steps=400, progress=False)
    return model


@pytest.fixture(scope="module")
def model(episodes: worldgen.Episodes) -> WorldModel:
    return fitted(episodes, "next_frame")


def to_the_right(model: WorldModel, places: list[int]) -> Rollout:
    """Dream one step from each of `places`, `ROWS` times."""
    starts = np.repeat(places, ROWS)
    context = model.first_frames(model.encode(starts))
    actions = np.full((len(starts), 1), RIGHT)
    return model.imagine(context, actions, sampler=SamplerConfig(min_probability_ratio=0.05))


def test_who_falls_in_the_dream_has_fallen(model: WorldModel) -> None:
    places = [4, 6, 10]
    dream = to_the_right(model, places)
    arrived = dream.observations.reshape(len(places), ROWS)
    ended = dream.terminated.reshape(arrived.shape)
    assert (ended == np.isin(arrived, HOLES)).mean() > 0.99
    assert abs(ended[0].mean() - 1 / 3) < 0.12  # The others are rarely seen.


def test_the_reward_goes_with_the_goal(model: WorldModel) -> None:
    dream = to_the_right(model, [14])
    there = dream.observations.flatten() == GOAL
    assert 0.15 < there.mean() < 0.5
    assert np.allclose(dream.rewards.flatten(), there, atol=0.1)
    assert np.array_equal(dream.terminated.flatten(), there)


def test_by_the_action_alone_one_ends_or_not_wherever_one_went(
    episodes: worldgen.Episodes,
) -> None:
    dream = to_the_right(fitted(episodes, "action"), [4])
    fallen = np.isin(dream.observations, HOLES)
    assert 0.2 < fallen.mean() < 0.5
    assert not dream.terminated.any()


def test_an_unknown_origin_is_refused() -> None:
    with pytest.raises(ConfigError, match="`outcome_from` must be 'action' or 'next_frame'"):
        DynamicsConfig(outcome_from="frame")  # type: ignore[arg-type]
