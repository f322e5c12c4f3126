"""Tokenizers over every supported space: what comes back, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldgen import Tokenizer, TokenizerConfig
from worldgen import spaces as space_tools
from worldgen.errors import CheckpointError, ConfigError, DatasetError, ShapeError, SpaceError
from worldgen.tokenizer import QuantizerConfig
from worldgen.tokenizer.image import Image
from worldgen.tokenizer.symbolic_grid import SymbolicGrid
from worldgen.tokenizer.vector import Vector

GRID = spaces.Box(0, np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3)), dtype=np.uint8)
SMALL = TokenizerConfig(hidden=32)


def batch(space: spaces.Space[Any], count: int, seed: int = 0) -> Any:
    """Nested batch of `count` samples."""
    space.seed(seed)
    return gym.vector.utils.concatenate(
        space,
        [space.sample() for _ in range(count)],
        gym.vector.utils.create_empty_array(space, count),
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 99),
)
def test_grid_patches_come_back(
    height: int, width: int, channels: int, patch: tuple[int, int], seed: int
) -> None:
    space = spaces.Box(0, 6, (height, width, channels), np.uint8, seed=seed)
    modality = SymbolicGrid(space, patch)
    grids = torch.from_numpy(np.stack([space.sample() for _ in range(3)]))
    patches = modality.patchify(grids)
    assert patches.shape[:2] == (3, modality.num_patches)
    assert torch.equal(modality.unpatchify(patches), grids.long())


@pytest.mark.parametrize("shape", [(56, 56, 3), (20, 33, 3), (3, 17, 40), (64, 48), (84, 84, 4)])
def test_image_patches_come_back(shape: tuple[int, ...]) -> None:
    modality = Image(spaces.Box(0, 255, shape, np.uint8), 16)
    pictures = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    assert modality.num_patches <= 16
    assert torch.equal(modality.unpatchify(modality.patchify(pictures)), pictures)


@pytest.mark.parametrize("size", [1, 3, 8, 11, 128])
def test_vector_groups_come_back(size: int) -> None:
    modality = Vector(spaces.Box(-1, 1, (size,)), 8)
    vectors = torch.randn(4, size)
    assert modality.num_patches <= 8
    assert torch.equal(modality.unpatchify(modality.patchify(vectors)), vectors)


def test_symbolic_loss_is_the_cross_entropy_of_every_value() -> None:
    modality = SymbolicGrid(GRID, (1, 1))
    patches = torch.tensor([[[2, 5, 0]], [[10, 0, 3]]])
    outputs = torch.randn(2, 1, 21)
    expected = []
    for index in range(2):
        parts = outputs[index, 0].split([11, 6, 4])
        targets = patches[index, 0]
        expected.append(
            sum(
                torch.nn.functional.cross_entropy(part.unsqueeze(0), target.unsqueeze(0))
                for part, target in zip(parts, targets, strict=True)
            )
        )
    assert torch.allclose(modality.loss(outputs, patches).flatten(), torch.stack(expected))


def test_rare_patches_come_back_exactly() -> None:
    grids = np.zeros((2000, 7, 7, 3), np.uint8)
    rng = np.random.default_rng(0)
    grids[..., 0] = rng.integers(1, 3, grids.shape[:3])
    grids[7, 3, 2] = (5, 4, 0)  # one key in 98,000 cells
    grids[8, 0, 6] = (4, 4, 2)  # and one locked door
    tokenizer = Tokenizer.for_space(GRID, SMALL, device="cpu")
    tokenizer.fit(grids, gradient_steps=600)
    assert np.array_equal(tokenizer.decode(tokenizer.encode(grids)), grids)


def test_vectors_come_back_closely() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(8000, 4)) * [1, 100, 0.01, 3] + [0, 50, 0, 0]).astype(np.float32)
    space = spaces.Box(-np.inf, np.inf, (4,))
    tokenizer = Tokenizer.for_space(space, SMALL, device="cpu")
    tokenizer.fit(vectors, gradient_steps=300)
    fresh = (rng.normal(size=(2000, 4)) * [1, 100, 0.01, 3] + [0, 50, 0, 0]).astype(np.float32)
    decoded = tokenizer.decode(tokenizer.encode(fresh))
    r_squared = 1 - ((decoded - fresh) ** 2).sum(0) / ((fresh - fresh.mean(0)) ** 2).sum(0)
    assert tokenizer.num_tokens == 4
    assert (r_squared > 0.999).all()


SPACES = {
    "grid": GRID,
    "image": spaces.Box(0, 255, (20, 24, 3), np.uint8),
    "vector": spaces.Box(-2, 3, (5,)),
    "integers": spaces.Box(0, 255, (6,), np.uint8),
    "discrete": spaces.Discrete(5, start=-2),
    "multi_discrete": spaces.MultiDiscrete([3, 7]),
    "multi_binary": spaces.MultiBinary(4),
    "nested": spaces.Dict(
        {
            "b.c": spaces.Tuple([spaces.Discrete(3), GRID]),
            "a_d": spaces.Dict(x=spaces.Box(-1, 1, (2,)), y=spaces.MultiBinary([2, 2])),
        }
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_space_round_trips(name: str, tmp_path: Path) -> None:
    space = SPACES[name]
    observations = batch(space, 64)
    tokenizer = Tokenizer.for_space(space, SMALL, device="cpu")
    tokenizer.fit(observations, gradient_steps=5)
    tokens = tokenizer.encode(observations)
    assert tokens.shape == (64, tokenizer.num_tokens)
    assert tokens.dtype == torch.int64
    assert (tokens >= 0).all()
    assert (tokens.numpy() < tokenizer.token_nvec).all()
    assert tokenizer.embed(tokens).shape == (64, tokenizer.num_tokens, tokenizer.embedding_size)
    decoded = tokenizer.decode(tokens)
    flat = space_tools.flatten(space, decoded)
    for index in range(64):
        row = {path: value[index] for path, value in flat.items()}
        assert space.contains(space_tools.unflatten(space, row))
    if name in ("discrete", "multi_discrete", "multi_binary"):
        assert np.array_equal(decoded, observations)
    tokenizer.save(tmp_path / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "tokenizer", device="cpu")
    assert torch.equal(loaded.encode(observations), tokens)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            loaded.decode_flat(tokens).values(), tokenizer.decode_flat(tokens).values(), strict=True
        )
    )


def test_episodes_observations_are_encoded_as_they_are() -> None:
    tokenizer = Tokenizer.for_space(spaces.Discrete(5), SMALL, device="cpu")
    tokenizer.fit(np.arange(5), gradient_steps=1)
    assert torch.equal(
        tokenizer.encode({"observation": np.arange(5)}), tokenizer.encode(np.arange(5))
    )
    with pytest.raises(ShapeError, match=r"of shape \(B\), got one of shape \(\): add a batch"):
        tokenizer.encode(3)


@pytest.mark.parametrize("shape", [(4,), (10, 10, 4)])
def test_booleans_come_back(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    observations = np.zeros((400, math.prod(shape)), bool)
    observations[np.arange(400), rng.integers(0, math.prod(shape), 400)] = True
    observations = observations.reshape(400, *shape)
    tokenizer = Tokenizer.for_space(
        spaces.Box(0, 1, shape, np.bool_), TokenizerConfig(hidden=64), device="cpu"
    )
    tokenizer.fit(observations, gradient_steps=600)
    decoded = tokenizer.decode(tokenizer.encode(observations))
    assert decoded.dtype == np.bool_
    assert (decoded == observations).mean() > 0.9995


def test_four_times_the_codes_round_numbers_four_times_as_finely() -> None:
    numbers = np.random.default_rng(0).normal([0, 5], [1, 20], (20_000, 2)).astype(np.float32)
    space = spaces.Box(-np.inf, np.inf, (2,))
    lost = []
    for codes in (64, 256):
        config = TokenizerConfig(quantizer=QuantizerConfig(num_codes=codes))
        tokenizer = Tokenizer.for_space(space, config, device="cpu")
        tokenizer.fit(numbers)
        error = tokenizer.decode(tokenizer.encode(numbers)) - numbers
        assert np.abs(error.mean(0)).max() < 1e-3 * numbers.std(0).max()
        lost.append(error.std(0) / numbers.std(0))
    assert (lost[1] < lost[0] / 3).all()


def test_new_vectors_are_learned_behind_many_old_ones() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=(18_000, 2)).astype(np.float32)
    new = rng.normal(6, 1, size=(4_000, 2)).astype(np.float32)
    tokenizer = Tokenizer.for_space(spaces.Box(-np.inf, np.inf, (2,)), SMALL, device="cpu")
    tokenizer.fit(old, gradient_steps=50)
    tokenizer.fit(np.concatenate([old, new]), gradient_steps=200)
    assert np.abs(tokenizer.decode(tokenizer.encode(new)) - new).mean() < 0.05


@pytest.mark.parametrize("gradient_steps", [1, 19, 20])
def test_any_number_of_gradient_steps_will_do(gradient_steps: int) -> None:
    tokenizer = Tokenizer.for_space(GRID, SMALL, device="cpu")
    tokenizer.fit(batch(GRID, 8), gradient_steps=gradient_steps)
    assert tokenizer.is_fitted


def test_equal_seeds_give_equal_tokenizers() -> None:
    observations = batch(GRID, 50)
    states = []
    for _ in range(2):
        tokenizer = Tokenizer.for_space(GRID, SMALL, seed=3, device="cpu")
        tokenizer.fit(observations, gradient_steps=30, seed=4)
        states.append(tokenizer.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Graph(spaces.Discrete(2), None), "Graph.* is not supported; supported: image"),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "could be symbols or a small picture"),
        (spaces.Sequence(spaces.Discrete(3)), "Sequence.* is not supported"),
        (spaces.Box(0, 1, (64, 64, 3)), "too large for a vector"),
        (spaces.Box(-1, 5, (4, 4), np.int8), "has negative integers"),
    ],
)
def test_unsupported_spaces_are_refused_by_name(space: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Tokenizer.for_space(spaces.Dict(good=spaces.Discrete(2), bad=space))


def test_ambiguous_grids_can_be_declared() -> None:
    space = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    config = TokenizerConfig(modalities={"observation": "symbolic"})
    assert Tokenizer.for_space(space, config).num_tokens == 14
    with pytest.raises(ConfigError, match="the space's leaves are"):
        Tokenizer.for_space(space, TokenizerConfig(modalities={"image": "symbolic"}))


def test_symbols_are_never_taken_for_a_picture() -> None:
    space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    symbols = np.random.default_rng(0).integers(0, 11, (20, 16, 16, 3)).astype(np.uint8)
    with pytest.raises(SpaceError, match="these look like symbols"):
        Tokenizer.for_space(space).fit(symbols)


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    tokenizer = Tokenizer.for_space(GRID, SMALL)
    with pytest.raises(DatasetError, match="call `fit` first"):
        tokenizer.encode(np.zeros((2, 7, 7, 3), np.uint8))
    tokenizer.fit(batch(GRID, 4), gradient_steps=1)
    with pytest.raises(ShapeError, match=r"\(B, 7, 7, 3\), got \(2, 7, 7\)"):
        tokenizer.encode(np.zeros((2, 7, 7), np.uint8))
    with pytest.raises(ShapeError, match=r"add a batch dimension, `observation\[None\]`"):
        tokenizer.encode(np.zeros((7, 7, 3), np.uint8))
    tokenizer.save(tmp_path / "t")
    with pytest.raises(CheckpointError, match="exists already"):
        tokenizer.save(tmp_path / "t")
    (tmp_path / "t" / "tokenizer.safetensors").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="damaged"):
        Tokenizer.load(tmp_path / "t")
