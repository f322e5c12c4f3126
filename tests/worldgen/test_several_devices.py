"""Two processes over gloo end with the weights of one process on the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from worlds import GridWorld

import worldgen
from worldgen import WorldModel, WorldModelConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training import DynamicsTrainingConfig
from worldgen.errors import ConfigError, TrainingError
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig
from worldgen.training_state import load_state
from worldgen.transformer import TransformerConfig


def make_model(batch_size: int = 8) -> WorldModel:
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=16, quantizer=QuantizerConfig(num_codes=32)),
        dynamics=DynamicsConfig(
            context=2,
            precision="float32",
            transformer=TransformerConfig(width=16, layers=2, heads=2),
        ),
        training=DynamicsTrainingConfig(batch_size=batch_size),
    )
    return WorldModel.for_env(GridWorld, config=config, device="cpu")


@pytest.fixture(scope="module")
def episodes():
    return worldgen.collect(GridWorld, 300, seed=0, progress=False)


def fit(model: WorldModel, episodes, **arguments):
    return model.fit(
        episodes, tokenizer_steps=25, dynamics_steps=20, progress=False, **arguments
    ).metrics


def test_two_processes_equal_one(episodes, tmp_path):
    one, two = make_model(), make_model()
    expected = fit(one, episodes, checkpoint=tmp_path / "one", checkpoint_every=7)
    found = fit(
        two,
        episodes,
        checkpoint=tmp_path / "two",
        checkpoint_every=7,
        devices=2,
        log_dir=tmp_path / "log",
    )
    assert found == pytest.approx(expected, rel=1e-4)
    # Not weight by weight: some directions change nothing (a constant on all logits), and Adam
    # makes whole steps there out of the rounding errors of gradients that are nearly 0.
    for name in ("bound", "reward", "termination"):
        nats = [getattr(model.surprise(episodes), name) for model in (one, two)]
        assert np.abs(nats[0] - nats[1]).max() < 1e-3
        assert np.ptp(nats[0]) > 0.1
    # The hard windows, which decide what is drawn next, are the same too.
    priorities = [load_state(tmp_path / name)["trainer"]["priority"] for name in ("one", "two")]
    assert torch.allclose(*priorities, rtol=1e-3)
    assert priorities[0].std() > 0
    assert list((tmp_path / "log").glob("events.out.tfevents.*"))
    assert two.num_fits == 1
    assert not two.dynamics.training
    assert two.imagine(episodes[0].observations["observation"][:1], np.zeros((1, 3), int))


def test_a_process_that_fails_ends_the_fit(episodes):
    model = make_model()
    fit(model, episodes)
    before = {name: value.clone() for name, value in model.dynamics.named_parameters()}
    episodes = worldgen.collect(GridWorld, 60, seed=1, progress=False)
    for episode in episodes:
        episode.rewards[:] = np.nan
    with pytest.raises(TrainingError, match=r"one of 2 processes failed: .*must stay finite"):
        fit(model, episodes, devices=2)
    for name, value in model.dynamics.named_parameters():
        assert torch.equal(value, before[name]), name


def test_wrong_numbers_are_refused_before_anything_is_done(episodes):
    with pytest.raises(ConfigError, match="`devices` must be at least 1, got 0"):
        fit(make_model(), episodes, devices=0)
    with pytest.raises(ConfigError, match="`batch_size` must be a multiple of devices = 2, got 5"):
        fit(make_model(batch_size=5), episodes, devices=2)
    with pytest.raises(ConfigError, match="`on_log` must be None with several devices"):
        fit(make_model(), episodes, devices=2, on_log=print)
