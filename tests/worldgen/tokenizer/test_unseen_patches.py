"""Patches that training did not show, or that the codebook has no room for."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldgen import Tokenizer, TokenizerConfig
from worldgen.errors import ConfigError
from worldgen.tokenizer import QuantizerConfig
from worldgen.tokenizer.plausible_patches import plausible_patches
from worldgen.tokenizer.symbolic_grid import patch_shape

STRIP = spaces.Box(0, 4, (1, 4), np.uint8)


def neighbours(patch: tuple[int, ...], seen: set[tuple[int, ...]]) -> int:
    return sum(sum(a != b for a, b in zip(patch, other, strict=True)) == 1 for other in seen)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=20), st.integers(0, 30))
def test_plausible_patches_have_the_most_seen_neighbours(
    seen: set[tuple[int, int, int]], count: int
) -> None:
    found = plausible_patches(torch.tensor(sorted(seen)), 1, count).tolist()
    at_place = [{patch[place] for patch in seen} for place in range(3)]
    scores = {
        patch: neighbours(patch, seen)
        for patch in itertools.product(*at_place)
        if patch not in seen
    }
    candidates = sorted((score for score in scores.values() if score), reverse=True)
    assert [scores[tuple(patch)] for patch in found] == candidates[:count]
    assert len({tuple(patch) for patch in found}) == len(found)


def test_cells_of_several_values_change_together() -> None:
    seen = torch.tensor([[1, 1, 5, 5], [1, 1, 6, 6], [2, 2, 5, 5]])
    assert plausible_patches(seen, 2, 9).tolist() == [[2, 2, 6, 6]]


def test_spare_codes_bring_unseen_patches_back() -> None:
    every = np.array(list(itertools.product(range(3), repeat=4)), np.uint8)[:, None, :]
    rng = np.random.default_rng(0)
    shown = rng.permutation(81)
    training, unseen = every[shown[:60]], every[shown[60:]]
    kept = {}
    for num_codes in (60, 128):
        config = TokenizerConfig(quantizer=QuantizerConfig(num_codes=num_codes))
        tokenizer = Tokenizer.for_space(STRIP, config, device="cpu")
        tokenizer.fit(np.repeat(training, 20, 0), gradient_steps=600)
        assert np.array_equal(tokenizer.reconstruct(training), training)
        kept[num_codes] = (tokenizer.reconstruct(unseen) == unseen).all((1, 2)).mean()
    assert kept[128] > 0.9
    assert kept[60] == 0


def test_a_patch_without_a_code_keeps_its_rarest_cell() -> None:
    # 3 is rare, 1 and 2 are common; the codebook is full, and (3, 2, 1, 1) was never seen.
    common = np.array(list(itertools.product((1, 2), repeat=4)), np.uint8)[:, None, :]
    rare = np.array([[[3, 1, 1, 1]]], np.uint8)
    config = TokenizerConfig(quantizer=QuantizerConfig(num_codes=17))
    tokenizer = Tokenizer.for_space(STRIP, config, device="cpu")
    tokenizer.fit(np.concatenate([np.repeat(common, 50, 0), rare]), gradient_steps=800)
    back = tokenizer.reconstruct(np.array([[[3, 2, 2, 1]]], np.uint8))
    assert back[0, 0, 0] == 3


def test_vectors_somewhat_beyond_the_seen_ones_have_codes() -> None:
    space = spaces.Box(-np.inf, np.inf, (2,))
    rng = np.random.default_rng(0)
    tokenizer = Tokenizer.for_space(space, device="cpu")
    tokenizer.fit(rng.normal(size=(4000, 2)).astype(np.float32), gradient_steps=300)
    far = np.array([[5.0, -5.0]], np.float32)  # Seen ones end at about 3.6.
    assert np.abs(tokenizer.reconstruct(far) - far).max() < 0.5


def test_plausible_vectors_keep_to_the_bounds_of_their_space() -> None:
    space = spaces.Box(-1.0, 1.0, (1,))
    tokenizer = Tokenizer.for_space(space, device="cpu")
    values = np.linspace(-1, 1, 2000, dtype=np.float32)[:, None]
    tokenizer.fit(values, gradient_steps=50)
    decoded = tokenizer.decode(torch.arange(512)[:, None])
    assert np.abs(decoded).max() <= 1.0


def test_few_frames_are_encoded_as_many_are() -> None:
    space = spaces.Box(0, 4, (5, 6, 2), np.uint8)
    frames = np.random.default_rng(0).integers(0, 5, (100, 5, 6, 2)).astype(np.uint8)
    tokenizer = Tokenizer.for_space(space, TokenizerConfig(hidden=16), device="cpu")
    tokenizer.fit(frames, gradient_steps=3)
    many = tokenizer.encode(frames)
    for _ in range(2):  # Learned, then remembered.
        few = torch.cat([tokenizer.encode(frames[i : i + 1]) for i in range(100)])
        assert torch.equal(few, many)
    tokenizer.fit(frames, gradient_steps=3)
    again = torch.cat([tokenizer.encode(frames[i : i + 1]) for i in range(100)])
    assert torch.equal(again, tokenizer.encode(frames))  # Nothing is remembered of before.


@pytest.mark.parametrize("dtype", [np.bool_, np.uint16, np.int8])
def test_few_frames_of_any_integers(dtype: Any) -> None:
    space = spaces.Box(0, 1, (3, 5), dtype)
    frames = np.random.default_rng(0).integers(0, 2, (50, 3, 5)).astype(dtype)
    tokenizer = Tokenizer.for_space(space, device="cpu")
    tokenizer.fit(frames, gradient_steps=200)
    assert np.array_equal(tokenizer.reconstruct(frames[:1]), frames[:1])
    assert torch.equal(tokenizer.encode(frames[:1]), tokenizer.encode(frames)[:1])


@pytest.mark.parametrize(
    ("size", "shape"),
    [((7, 7), (1, 4)), ((8, 8), (1, 8)), ((6, 6), (1, 3)), ((11, 6), (1, 6)), ((25, 25), (1, 7))],
)
def test_strips_fit_the_grid(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert patch_shape(*size, 14) == shape


def test_the_patch_can_be_chosen() -> None:
    space = spaces.Box(0, 10, (7, 7, 3), np.uint8)
    assert Tokenizer.for_space(space, TokenizerConfig(patch_shape=(2, 2))).num_tokens == 16
    with pytest.raises(ConfigError, match="`patch_shape` must be two numbers"):
        TokenizerConfig(patch_shape=(0, 2))
