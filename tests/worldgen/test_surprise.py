"""Nats of transitions: windows against single contexts, and a model that learns."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from worlds import DictWorld, GridWorld

import worldgen
from worldgen import Episodes, WorldModel, WorldModelConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.errors import ConfigError, DatasetError
from worldgen.surprise import context_windows, first_pass
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig
from worldgen.transformer import TransformerConfig

CONTEXT = 3


def fitted(world, steps=60) -> tuple[WorldModel, Episodes]:
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=64, quantizer=QuantizerConfig(num_codes=64)),
        dynamics=DynamicsConfig(
            context=CONTEXT,
            precision="float32",
            transformer=TransformerConfig(width=32, layers=1),
        ),
    )
    episodes = worldgen.collect(world, 400, seed=0, progress=False)
    model = WorldModel.for_env(world, config=config, device="cpu")
    model.fit(episodes, tokenizer_steps=60, dynamics_steps=steps, progress=False)
    return model, episodes


@pytest.fixture(scope="module")
def grid():
    return fitted(GridWorld)


def test_each_transition_is_scored_as_from_its_own_context(grid):
    """Frame by frame: a window of the C real frames before it, and nothing else."""
    model, episodes = grid
    dataset = model.dataset(episodes)
    assert max(map(len, episodes)) > 20 + CONTEXT  # Some episodes need several windows.
    found = model.surprise(episodes)
    assert len(found) == episodes.num_steps
    place, firsts = 0, dataset.first_frames.tolist()
    for first, episode in zip(firsts, episodes, strict=True):
        for time in range(len(episode)):
            if place % 7 == 0:
                begin = max(0, time - CONTEXT + 1)
                rows = torch.arange(first + begin, first + time + 2)[None]
                windows = dataset.windows_at(rows[:, 0], rows.shape[1])
                said = first_pass(model.dynamics, windows)
                logs = said.token_logits[0, -1].log_softmax(-1)
                nats = -logs.gather(-1, dataset.tokens[rows[0, -1]].unsqueeze(-1)).sum()
                assert found.first_pass[place] == pytest.approx(float(nats), rel=1e-3, abs=1e-4)
                chance = said.termination_logits[0, -1].sigmoid().detach()
                real = chance if episode.terminated[time] else 1 - chance
                assert found.termination[place] == pytest.approx(float(-real.log()), abs=1e-4)
                reward = episode.rewards[time]
                wanted = model.dynamics.two_hot.encode(torch.tensor([float(reward)]))[0]
                logs = said.reward_logits[0, -1].log_softmax(-1)
                divergence = (wanted * (wanted.clamp(min=1e-30).log() - logs)).sum()
                assert found.reward[place] == pytest.approx(float(divergence), abs=1e-4)
            place += 1
    assert np.allclose(found.total, found.bound + found.reward + found.termination)


def test_windows_hold_every_transition_once(grid):
    model, episodes = grid
    dataset = model.dataset(episodes)
    index = torch.cat([index.flatten() for _, index in context_windows(dataset, 64)])
    index = index[index >= 0]
    assert len(index) == episodes.num_steps
    assert len(index.unique()) == len(index)
    assert not torch.isin(dataset.first_frames, index).any()


def test_one_token_bound_equals_the_first_pass():
    """With K = 1 the bound is the cross-entropy."""

    class Coin(gym.Env):
        observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.time = 0
            return np.int64(self.np_random.integers(2)), {}

        def step(self, action):
            self.time += 1
            return np.int64(self.np_random.integers(2)), 0.0, self.time == 9, False, {}

    model, episodes = fitted(Coin, steps=150)
    found = model.surprise(episodes)
    assert np.allclose(found.bound, found.first_pass, atol=1e-5)
    assert found.num_tokens == 1
    assert found.bound.mean() == pytest.approx(np.log(2), abs=0.1)


def test_what_was_learned_surprises_less(grid):
    model, _ = grid
    untrained, _ = fitted(GridWorld, steps=0)
    held_out = worldgen.collect(GridWorld, 200, seed=9, progress=False)
    assert model.surprise(held_out).total.mean() < 0.5 * untrained.surprise(held_out).total.mean()


def test_equal_seeds_give_equal_nats(grid):
    model, episodes = grid
    first, second = (model.surprise(episodes, seed=3) for _ in range(2))
    assert np.array_equal(first.bound, second.bound)
    other = model.surprise(model.dataset(episodes), seed=4)
    assert not np.array_equal(first.bound, other.bound)
    assert np.array_equal(first.first_pass, other.first_pass)
    cheapest = model.surprise(episodes, num_samples=0)
    assert np.array_equal(cheapest.bound, cheapest.first_pass)
    assert np.array_equal(cheapest.first_pass, first.first_pass)


def test_several_leaves_are_scored_together():
    model, episodes = fitted(DictWorld, steps=2)
    found = model.surprise(episodes, num_samples=2)
    assert np.isfinite(found.total).all()
    assert found.num_tokens == model.tokenizer.num_tokens
    model.fit(episodes, dynamics_steps=2, progress=False)  # Scoring leaves training as it was.


def test_wrong_use_is_explained(grid):
    model, episodes = grid
    with pytest.raises(ConfigError, match="`num_samples` must be at least 0"):
        model.surprise(episodes, num_samples=-1)
    untrained = WorldModel.for_env(GridWorld, device="cpu")
    with pytest.raises(DatasetError, match="call `fit` first"):
        untrained.surprise(episodes)


def test_gaussian_diffusion_has_no_masks_and_gives_the_first_pass():
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=32),
        dynamics=DynamicsConfig(
            process="gaussian", context=1, transformer=TransformerConfig(width=32, layers=1)
        ),
    )
    episodes = worldgen.collect("CartPole-v1", 60, seed=0, progress=False)
    model = WorldModel.for_env("CartPole-v1", config=config, device="cpu")
    model.fit(episodes, tokenizer_steps=20, dynamics_steps=5, progress=False)
    found = model.surprise(episodes, num_samples=3)
    assert np.array_equal(found.bound, found.first_pass)
    assert np.isfinite(found.total).all()
