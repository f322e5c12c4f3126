"""The same dreams with several numbers of denoising steps."""

from __future__ import annotations

import dataclasses

import pytest
from worlds import DictWorld, VectorWorld

import worldgen
from worldgen import WorldModel, WorldModelConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.errors import ConfigError
from worldgen.evaluation import compare_samplers, evaluate
from worldgen.transformer import TransformerConfig


def fitted(world):
    config = WorldModelConfig(
        dynamics=DynamicsConfig(context=2, transformer=TransformerConfig(width=32, layers=1))
    )
    episodes = worldgen.collect(world, 200, seed=0, progress=False)
    model = WorldModel.for_env(world, config=config, device="cpu")
    model.fit(episodes, tokenizer_steps=20, dynamics_steps=5, progress=False)
    return model, episodes


def test_each_number_gets_what_evaluate_finds():
    model, episodes = fitted(DictWorld)
    options = {"horizons": (1, 3), "num_dreams": 30, "seed": 4, "progress": False}
    found = compare_samplers(model, episodes, denoising_steps=(3, 1, 99), **options)
    most = model.tokenizer.num_tokens
    assert list(found.by_denoising_steps) == [1, 3, most]
    for number, entries in found.by_denoising_steps.items():
        sampler = dataclasses.replace(model.config.sampler, denoising_steps=number)
        report = evaluate(model, episodes, sampler=sampler, **options)
        assert entries == report.horizons
    assert found.main_share.startswith("R2")  # A vector is never exactly right.


def test_the_default_goes_up_to_one_token_a_pass():
    model, episodes = fitted(VectorWorld)
    found = compare_samplers(model, episodes, horizons=(1,), num_dreams=5, progress=False)
    assert list(found.by_denoising_steps) == sorted({1, 2, 3, 4, model.tokenizer.num_tokens})
    with pytest.raises(ConfigError, match="`denoising_steps` must all be at least 1"):
        compare_samplers(model, episodes, denoising_steps=(0,), progress=False)
