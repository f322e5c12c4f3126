"""The world model with Gaussian diffusion and two frames in flight, over every kind of space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import DictWorld, GridWorld, ImageWorld, VectorWorld

import worldgen
from worldgen import Episodes, SamplerConfig, WorldModel, WorldModelConfig
from worldgen.diffusion.frame_sampler import Process
from worldgen.dynamics import DynamicsConfig
from worldgen.errors import ConfigError
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig
from worldgen.transformer import TransformerConfig


def fitted(world: Any, process: Process = "gaussian") -> tuple[WorldModel, Episodes]:
    episodes = worldgen.collect(world, 300, seed=0, progress=False)
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=64, quantizer=QuantizerConfig(num_codes=64)),
        dynamics=DynamicsConfig(
            context=2,
            transformer=TransformerConfig(width=32, layers=1),
            process=process,
            frames_in_flight=2,
        ),
    )
    model = WorldModel.for_env(world, config=config, seed=0, device="cpu")
    model.fit(episodes, tokenizer_steps=20, dynamics_steps=3, progress=False)
    return model, episodes


def start(episodes: Episodes) -> Any:
    first = {path: values[:1] for path, values in episodes[0].observations.items()}
    return first if len(first) > 1 else next(iter(first.values()))


@pytest.mark.parametrize("world", [GridWorld, VectorWorld, ImageWorld, DictWorld])
def test_every_space_is_dreamed(world: Any) -> None:
    model, episodes = fitted(world)
    space = model.dynamics.code_space
    assert space.points.isfinite().all()
    actions = episodes[0].actions[None, :3]
    for settings in ({}, {"denoising_steps": 3}, {"frames_in_flight": 2}):
        sampler = SamplerConfig(**settings)
        rollout = model.imagine(start(episodes), actions, sampler=sampler)
        assert rollout.tokens.shape == (1, actions.shape[1], model.dynamics.num_tokens)
        assert np.isfinite(rollout.rewards).all()


@pytest.mark.parametrize("process", ["masked", "gaussian"])
def test_a_loaded_model_dreams_the_same(process: Process, tmp_path: Path) -> None:
    model, episodes = fitted(GridWorld, process)
    model.save(tmp_path / "model")
    loaded = WorldModel.load(tmp_path / "model", device="cpu")
    actions = episodes[0].actions[None, :4]
    for settings in ({"denoising_steps": 3}, {"frames_in_flight": 2}):
        sampler = SamplerConfig(**settings)
        first, second = (
            each.imagine(start(episodes), actions, sampler=sampler) for each in (model, loaded)
        )
        assert torch.equal(first.tokens, second.tokens)
        assert np.array_equal(first.rewards, second.rewards)


def test_two_trainings_are_equal() -> None:
    first, second = (fitted(GridWorld)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_policy_cannot_have_two_frames_in_flight() -> None:
    model, episodes = fitted(GridWorld)
    with pytest.raises(ConfigError, match="`frames_in_flight` must be 1 with a policy, got 2"):
        model.imagine(
            start(episodes),
            policy=lambda observations: np.zeros(1, np.int64),
            horizon=2,
            sampler=SamplerConfig(frames_in_flight=2),
        )
