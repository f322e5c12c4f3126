"""A world model of each kind of observation, trained for a moment."""

from __future__ import annotations

import functools
from typing import NamedTuple

import gymnasium as gym
import pytest
import torch
import worlds  # registers the ids

from worldgen import Episodes, WorldModel, WorldModelConfig, collect
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.transformer import TransformerConfig

IDS = {
    "symbolic": "worlds/Grid-v0",
    "vector": "worlds/Vector-v0",
    "dict": "worlds/Dict-v0",
    "image": "worlds/Image-v0",
}
assert worlds

TINY = WorldModelConfig(
    dynamics=DynamicsConfig(transformer=TransformerConfig(width=32, layers=1, heads=2), context=3),
    training=DynamicsTrainingConfig(batch_size=8),
)


class World(NamedTuple):
    """An environment, episodes of it and a model of it."""

    id: str
    episodes: Episodes
    model: WorldModel

    def make(self) -> gym.Env:
        return gym.make(self.id)


@functools.cache
def make_world(kind: str) -> World:
    episodes = collect(IDS[kind], 160, seed=0, num_envs=4, progress=False)
    model = WorldModel.for_env(IDS[kind], config=TINY, seed=0, device="cpu")
    model.fit(episodes, tokenizer_steps=100, dynamics_steps=10, progress=False)
    return World(IDS[kind], episodes, model)


@pytest.fixture(params=IDS)
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param)


@pytest.fixture
def grid() -> World:
    return make_world("symbolic")


@pytest.fixture
def vector() -> World:
    return make_world("vector")


@pytest.fixture
def dictionary() -> World:
    return make_world("dict")


def with_termination(world: World, bias: float) -> WorldModel:
    """A copy of the model whose predicted terminations all have the logit `bias`."""
    model = WorldModel.for_env(world.id, config=TINY, device="cpu")
    model.load_state_dict(world.model.state_dict())
    head = model.dynamics.termination_head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(bias)
    return model


@pytest.fixture
def endless(grid: World) -> WorldModel:
    """A model that never predicts termination."""
    return with_termination(grid, -100)


@pytest.fixture
def mortal(grid: World) -> WorldModel:
    """A model that always predicts termination."""
    return with_termination(grid, 100)


@pytest.fixture
def fickle(grid: World) -> WorldModel:
    """A model that predicts termination about every third time."""
    model = with_termination(grid, 0)
    head = model.dynamics.termination_head
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
    engine = model.imagination(256)
    context = model.dataset(grid.episodes).sample_contexts(256, generator=torch.Generator())
    engine.reset(context)
    predicted = engine.step(model.encode_actions(torch.arange(256).numpy() % 5))
    logits = predicted.termination_probability.logit()
    with torch.no_grad():
        head.bias.fill_(-float(logits.quantile(0.65)))
    return model
