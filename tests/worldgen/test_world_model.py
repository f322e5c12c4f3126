"""The world model as a whole; at its heart, a dream that is exactly right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from worlds import DictWorld, GridWorld, ImageWorld, VectorWorld

import worldgen
from worldgen import Episodes, SamplerConfig, WorldModel, WorldModelConfig
from worldgen.data import Episode
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.errors import CheckpointError, ConfigError, DatasetError, ShapeError, TrainingError
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig
from worldgen.transformer import TransformerConfig

HORIZON = 20


def small_config(**training: Any) -> WorldModelConfig:
    return WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=64, quantizer=QuantizerConfig(num_codes=64)),
        dynamics=DynamicsConfig(context=2, transformer=TransformerConfig(width=32, layers=1)),
        training=DynamicsTrainingConfig(**training),
    )


def fitted(world: Any, *, steps: int = 3, seed: int = 0) -> tuple[WorldModel, Episodes]:
    episodes = worldgen.collect(world, 300, seed=seed, progress=False)
    model = WorldModel.for_env(world, config=small_config(), seed=seed, device="cpu")
    model.fit(episodes, tokenizer_steps=20, dynamics_steps=steps, progress=False)
    return model, episodes


def test_dreams_of_a_determined_world_are_exactly_right() -> None:
    """Cell by cell, reward by reward, end by end, over 20 imagined environment steps."""
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=64, quantizer=QuantizerConfig(num_codes=64)),
        dynamics=DynamicsConfig(context=1, transformer=TransformerConfig(width=64, layers=1)),
        training=DynamicsTrainingConfig(
            batch_size=64,
            window=2,
            learning_rate=5e-3,
            draft_share=0.0,
            corrupted_share=0.0,
        ),
    )
    episodes = worldgen.collect(GridWorld, 20_000, seed=0, progress=False)
    model = WorldModel.for_env(GridWorld, config=config, device="cpu")
    model.fit(episodes, dynamics_steps=600, progress=False)

    held_out = worldgen.collect(GridWorld, 3_000, seed=1_000_000, progress=False)
    moments = [(i, t) for i, e in enumerate(held_out) for t in range(0, len(e), 7)][:256]
    actions = np.zeros((len(moments), HORIZON), np.int64)
    for row, (index, time) in enumerate(moments):
        taken = held_out[index].actions[time : time + HORIZON]
        actions[row, : len(taken)] = taken
    contexts = model.dataset(held_out).contexts_at(*torch.tensor(moments).T)
    dream = model.imagine(contexts, actions, sampler=SamplerConfig(temperature=0.0))

    ends = 0
    for row, (index, time) in enumerate(moments):
        episode = held_out[index]
        length = min(HORIZON, len(episode) - time)
        stretch = slice(time, time + length)
        real = episode.observations["observation"][time + 1 : time + length + 1]
        assert np.array_equal(dream.observations[row, :length], real)
        assert np.allclose(dream.rewards[row, :length], episode.rewards[stretch], atol=0.1)
        assert np.array_equal(dream.terminated[row, :length], episode.terminated[stretch])
        ends += int(episode.terminated[stretch].any())
    assert len(moments) == 256
    assert ends >= 10  # ends and their rewards were among what was compared


@pytest.mark.parametrize("world", [GridWorld, VectorWorld, DictWorld, ImageWorld])
def test_every_kind_of_world_is_encoded_imagined_and_saved(world: Any, tmp_path: Path) -> None:
    model, episodes = fitted(world)
    env = worldgen.make_env(world)
    contexts = model.dataset(episodes).sample_contexts(
        3, generator=torch.Generator().manual_seed(0)
    )
    env.action_space.seed(0)
    actions = np.stack([[env.action_space.sample() for _ in range(4)] for _ in range(3)])
    dream = model.imagine(contexts, actions, seed=1)
    assert dream.tokens.shape == (3, 4, model.tokenizer.num_tokens)
    assert dream.rewards.shape == dream.terminated.shape == (3, 4)
    first = worldgen.spaces.flatten(model.observation_space, dream.observations)
    one = {path: value[0, 0] for path, value in first.items()}
    assert env.observation_space.contains(worldgen.spaces.unflatten(env.observation_space, one))

    model.save(tmp_path / "model")
    loaded = WorldModel.load(tmp_path / "model", device="cpu")
    assert loaded.is_fitted
    again = loaded.imagine(contexts, actions, seed=1)
    assert torch.equal(again.tokens, dream.tokens)
    assert np.array_equal(again.rewards, dream.rewards)
    loaded.check_compatible(env.observation_space, env.action_space)


def test_a_tile_that_was_not_seen_before_is_learned_with_the_next_fit() -> None:
    space = spaces.Box(0, 255, (16, 16, 1), np.uint8)
    model = WorldModel.for_spaces(space, spaces.Discrete(2), config=small_config(), device="cpu")

    def episode(bright: int) -> Episode:
        frames = np.full((31, 16, 16, 1), 40, np.uint8)
        frames[:, :8, :8] = np.arange(31)[:, None, None, None] % 2 * 60
        frames[:, 8:, 8:] += np.uint8(bright)  # One tile of four.
        return Episode(
            observations={"observation": frames},
            actions=np.zeros(30, np.int64),
            rewards=np.zeros(30, np.float32),
            terminated=np.zeros(30, bool),
            truncated=np.zeros(30, bool),
        )

    few = {"tokenizer_steps": 300, "dynamics_steps": 1, "progress": False}
    model.fit([episode(0)] * 4, **few)
    later = episode(12)  # 3 grey levels in the mean of a frame.
    assert np.abs(_round_trip(model, later))[:, 8:, 8:].mean() > 4
    result = model.fit([*[episode(0)] * 4, *[later] * 4], **few)
    assert result.metrics["tokenizer/kept_frames"] == 1.0
    assert np.abs(_round_trip(model, later))[:, 8:, 8:].mean() < 4


def _round_trip(model: WorldModel, episode: Episode) -> np.ndarray:
    frames = episode.observations["observation"]
    lost: np.ndarray = model.decode(model.encode(frames)).astype(int) - frames
    return lost


def test_equal_seeds_give_equal_models() -> None:
    first, second = (fitted(DictWorld, seed=5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = fitted(DictWorld, seed=6)[0].state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_fitting_in_two_calls_equals_saving_and_loading_between_them(tmp_path: Path) -> None:
    model, episodes = fitted(GridWorld)
    model.save(tmp_path / "model")
    loaded = WorldModel.load(tmp_path / "model", device="cpu")
    for each in (model, loaded):
        each.fit(episodes, dynamics_steps=3, progress=False)
    first, second = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tensorboard_files_are_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    episodes = worldgen.collect(GridWorld, 200, seed=0, progress=False)
    model = WorldModel.for_env(GridWorld, config=small_config(), device="cpu")
    model.fit(episodes, tokenizer_steps=25, dynamics_steps=45, log_dir=tmp_path, progress=False)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "dynamics/token_loss" in events.Tags()["scalars"]


def test_a_policy_can_act_in_the_dream() -> None:
    model, episodes = fitted(GridWorld)
    seen: list[Any] = []

    def policy(observations: np.ndarray) -> np.ndarray:
        seen.append(observations)
        return np.full(len(observations), 2)

    start = np.stack([episode.observations["observation"][0] for episode in episodes[:2]])
    dream = model.imagine(start, policy=policy, horizon=3)
    assert (dream.actions == 2).all()
    assert np.array_equal(seen[1], dream.observations[:, 0])
    assert ((dream.lengths >= 1) & (dream.lengths <= 3)).all()


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    model = WorldModel.for_env(GridWorld, config=small_config(), device="cpu")
    with pytest.raises(DatasetError, match="call `fit` first"):
        model.imagination(3)
    with pytest.raises(DatasetError, match="at least one episode"):
        model.fit([])
    other = worldgen.collect(VectorWorld, 50, seed=0, progress=False)
    with pytest.raises(DatasetError, match="must hold 'observation' of shape"):
        model.fit(other)
    model, _ = fitted(GridWorld)
    start = np.zeros((2, 5, 5, 2), np.uint8)
    with pytest.raises(ConfigError, match="either `actions` or `policy`"):
        model.imagine(start)
    with pytest.raises(ConfigError, match="`horizon` must be at least 1, got 0"):
        model.imagine(start, policy=lambda x: x, horizon=0)
    with pytest.raises(ShapeError, match=r"\(B, H, ...\)"):
        model.imagine(start, np.zeros(2, np.int64))
    model.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="overwrite=True"):
        model.save(tmp_path / "model")
    for name in ("report.json", "notes.txt"):
        (tmp_path / "model" / name).write_text("{}")
    model.save(tmp_path / "model", overwrite=True)
    kept = {path.name for path in (tmp_path / "model").iterdir()}
    assert "notes.txt" in kept
    assert "report.json" not in kept, "it was measured on the old weights"
    with pytest.raises(CheckpointError, match="must be a folder"):
        WorldModel.load(tmp_path / "nothing")
    (tmp_path / "model" / "config.json").write_text('{"kind": "world_model", "format_version": 1}')
    with pytest.raises(CheckpointError, match="it lacks 'environment'"):
        WorldModel.load(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"kind": "tokenizer"}')
    with pytest.raises(CheckpointError, match="must hold a world_model, got 'tokenizer'"):
        WorldModel.load(tmp_path / "model")


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_weights() -> None:
    model, episodes = fitted(GridWorld)
    before = {name: value.clone() for name, value in model.dynamics.named_parameters()}
    with torch.no_grad():
        bias = model.dynamics.termination_head.bias
        kept = bias.clone()
        bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="must stay finite"):
        model.fit(episodes, dynamics_steps=2, progress=False)
    with torch.no_grad():
        bias.copy_(kept)
    after = dict(model.dynamics.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
