"""Probabilities against frequencies: bins, cells, simple predictors, and a small model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from worlds import VectorWorld

import worldgen
from benchmarks.minigrid_player import collect_mixed
from worldgen import Tokenizer, TokenizerConfig, WorldModel, WorldModelConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.errors import DatasetError
from worldgen.evaluation import calibrate
from worldgen.evaluation.baselines import CellBaselines
from worldgen.evaluation.cell_probabilities import CellProbabilities
from worldgen.evaluation.reliability import reliability
from worldgen.spaces import leaves
from worldgen.tokenizer import QuantizerConfig
from worldgen.transformer import TransformerConfig

GRID = "MiniGrid-DoorKey-5x5-v0"


def fitted(env, episodes, **steps):
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=64, quantizer=QuantizerConfig(num_codes=96)),
        dynamics=DynamicsConfig(context=3, transformer=TransformerConfig(width=32, layers=1)),
    )
    model = WorldModel.for_env(env, config=config, device="cpu")
    model.fit(episodes, progress=False, **{"tokenizer_steps": 200, "dynamics_steps": 60, **steps})
    return model


@pytest.fixture(scope="module")
def episodes():
    return collect_mixed(GRID, 2000, seed=0)


@pytest.fixture(scope="module")
def model(episodes):
    return fitted(GRID, episodes)


def naive_error(predicted, happened, num_bins):
    """Sorted, cut into equal parts, by loops."""
    pairs = sorted(zip(predicted, happened, strict=True), key=lambda pair: pair[0])
    size, extra = divmod(len(pairs), num_bins)
    total = place = 0
    for index in range(num_bins):
        part = pairs[place : place + size + (index < extra)]
        place += len(part)
        said = sum(p for p, _ in part) / len(part)
        seen = sum(h for _, h in part) / len(part)
        total += len(part) * abs(said - seen)
    return total / len(pairs)


def test_the_error_is_the_naive_one():
    rng = np.random.default_rng(0)
    predicted = rng.random(997)
    happened = rng.random(997) < predicted**2
    found = reliability(predicted, happened, 10)
    assert found.error == pytest.approx(naive_error(predicted, happened, 10))
    assert sum(found.counts) == 997
    assert max(found.counts) - min(found.counts) <= 1
    assert found.predicted == sorted(found.predicted)


def test_true_probabilities_have_nearly_no_error():
    rng = np.random.default_rng(1)
    predicted = rng.random(50_000)
    assert float(reliability(predicted, rng.random(50_000) < predicted).error) < 0.01
    assert float(reliability(predicted, rng.random(50_000) < 0.5).error) > 0.2
    assert reliability(np.empty(0), np.empty(0)).error is None
    assert reliability(np.array([0.3]), np.array([True])).error == pytest.approx(0.7)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, np.broadcast_to(np.uint8([3, 2]), (3, 5, 2)).copy(), dtype=np.uint8),
        spaces.Box(0, 4, (4, 4), np.uint8),
        spaces.MultiDiscrete([3, 2, 4]),
    ],
)
def test_a_cells_distribution_is_the_sum_over_codes(space):
    rng = np.random.default_rng(0)
    high = space.high if isinstance(space, spaces.Box) else space.nvec - 1
    frames = rng.integers(0, high + 1, (60, *space.shape)).astype(space.dtype)
    config = TokenizerConfig(hidden=32, quantizer=QuantizerConfig(num_codes=32))
    tokenizer = Tokenizer.for_space(space, config, device="cpu")
    tokenizer.fit(frames, gradient_steps=30)
    path, leaf = next(iter(leaves(space).items()))
    assert CellProbabilities.possible(tokenizer, path, leaf)
    cells = CellProbabilities(tokenizer, path, leaf)
    nvec = torch.from_numpy(tokenizer.token_nvec)
    logits = torch.randn(2, tokenizer.num_tokens, int(nvec.max()))
    logits[:, torch.arange(logits.shape[2]) >= nvec.unsqueeze(1)] = -torch.inf
    found = cells(logits.softmax(-1))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, cells.num_cells))
    # Draw whole frames from the codes, decode them, and count what the cells hold.
    draws = torch.distributions.Categorical(logits=logits[0]).sample((20_000,))
    numbers = cells.numbers(tokenizer.decode_flat(draws)[path])
    index, there = cells.known(numbers)
    assert there.all()
    counted = np.stack([np.bincount(c, minlength=len(cells.contents)) for c in index.T]) / 20_000
    np.testing.assert_allclose(found[0].numpy(), counted, atol=0.02)


def test_numbers_tell_contents_apart():
    space = spaces.Box(0, np.broadcast_to(np.uint8([2, 3, 1]), (2, 2, 3)).copy(), dtype=np.uint8)
    config = TokenizerConfig(hidden=16, quantizer=QuantizerConfig(num_codes=8))
    tokenizer = Tokenizer.for_space(space, config, device="cpu")
    every = np.array([(a, b, c) for a in range(3) for b in range(4) for c in range(2)], np.uint8)
    frames = np.broadcast_to(every[:, None, None], (24, 2, 2, 3)).copy()
    tokenizer.fit(frames, gradient_steps=5)
    cells = CellProbabilities(tokenizer, "observation", space)
    assert cells.num_possible == 24
    assert sorted(cells.numbers(frames)[:, 0].tolist()) == list(range(24))


def test_codes_that_only_together_make_a_patch_are_left_out():
    space = spaces.Box(0, 3, (4, 4), np.uint8)
    quantizer = QuantizerConfig(kind="residual", num_codes=16, num_residuals=2)
    tokenizer = Tokenizer.for_space(space, TokenizerConfig(quantizer=quantizer), device="cpu")
    assert not CellProbabilities.possible(tokenizer, "observation", space)


def test_simple_predictors_count():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 3, 20_000)
    place = rng.integers(0, 2, 20_000)
    real[place == 1] = 2
    last = np.where(rng.random(20_000) < 0.4, real, 3)
    baselines = CellBaselines(last, real, place, 2, 4)
    third = baselines.marginal(np.array([0, 1, 2]), np.zeros(3, int))
    np.testing.assert_allclose(third, 1 / 3, atol=0.02)
    assert baselines.marginal(np.array([2]), np.ones(1, int)) == pytest.approx(1, abs=0.01)
    copied = baselines.copy(np.array([1, 3]), np.array([1, 1]), np.zeros(2, int))
    np.testing.assert_allclose(copied, [0.4 + 0.6 / 3, 0.6 / 3], atol=0.02)
    total = sum(
        baselines.copy(np.array([3]), np.array([content]), np.array([0])) for content in range(4)
    )
    assert total == pytest.approx(1, abs=1e-6)


def test_a_partial_view_is_measured_cell_by_cell(model, episodes, tmp_path):
    held_out = collect_mixed(GRID, 1500, seed=9)
    found = calibrate(model, held_out)
    assert set(found.groups) == {"revealed cells", "cells", "tokens"}
    transitions = found.num_transitions
    assert sum(found.groups["tokens"].likeliest.counts) == transitions * model.tokenizer.num_tokens
    assert sum(found.groups["cells"].likeliest.counts) == transitions * 50  # 49, and direction
    revealed = found.groups["revealed cells"].likeliest
    assert sum(revealed.counts) == found.predictors.num_cells
    assert 0 < found.predictors.num_cells < 0.3 * transitions * 49
    assert 0 <= float(revealed.error) < 0.5
    assert found.predictors.model > 0
    assert found.predictors.marginal < found.predictors.copy + 1
    assert calibrate(model, held_out) == found
    other = calibrate(model, held_out, training=episodes)
    assert other.num_transitions > transitions
    found.save(tmp_path / "calibration.json")
    assert json.loads((tmp_path / "calibration.json").read_text()) == found.to_dict()
    assert "revealed cells" in str(found)


def test_numbers_are_calibrated_by_their_tokens():
    episodes = worldgen.collect(VectorWorld, 300, seed=0, progress=False)
    model = fitted(VectorWorld, episodes, tokenizer_steps=20, dynamics_steps=2)
    found = calibrate(model, episodes)
    assert set(found.groups) == {"tokens"}
    assert found.predictors is None


def test_wrong_use_is_explained(episodes):
    with pytest.raises(DatasetError, match="call `fit` first"):
        calibrate(WorldModel.for_env(GRID, device="cpu"), episodes)
