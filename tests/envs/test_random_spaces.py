"""Random nested observation spaces: encode, decode, save, load, wrap, and SB3's checker."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env

from worldgen import Tokenizer, TokenizerConfig
from worldgen import spaces as space_tools
from worldgen.envs import TokenObservation
from worldgen.tokenizer import QuantizerConfig


class Noise(gym.Env[Any, Any]):
    """Show samples of a space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def grids() -> st.SearchStrategy[spaces.Space[Any]]:
    sides = st.integers(1, 5)
    shapes = st.one_of(st.tuples(sides, sides), st.tuples(sides, sides, st.integers(1, 3)))
    return st.builds(lambda shape, high: spaces.Box(0, high, shape, np.uint8), shapes, sides)


def vectors() -> st.SearchStrategy[spaces.Space[Any]]:
    return st.builds(lambda size: spaces.Box(-2.0, 3.0, (size,), np.float32), st.integers(1, 9))


def categories() -> st.SearchStrategy[spaces.Space[Any]]:
    return st.one_of(
        st.builds(
            lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-3, 3)
        ),
        st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 6), min_size=1, max_size=3)),
        st.builds(spaces.MultiBinary, st.integers(1, 4)),
    )


def texts() -> st.SearchStrategy[spaces.Space[Any]]:
    """Texts that fit into 16 tokens whatever they say."""
    letters = st.sampled_from(["abc", "a door, 9", "äß€"])
    longest = {"abc": 12, "a door, 9": 9, "äß€": 5}
    return letters.flatmap(
        lambda chars: st.integers(1, longest[chars]).map(
            lambda length: spaces.Text(length, min_length=0, charset=chars)
        )
    )


def nested() -> st.SearchStrategy[spaces.Space[Any]]:
    leaves = st.one_of(grids(), vectors(), categories(), texts())
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(
                st.text("abc_.", min_size=1, max_size=3), inner, min_size=1, max_size=3
            ).map(spaces.Dict),
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        ),
        max_leaves=4,
    )


def batch(space: spaces.Space[Any], count: int) -> Any:
    space.seed(0)
    empty = gym.vector.utils.create_empty_array(space, count)
    return gym.vector.utils.concatenate(space, [space.sample() for _ in range(count)], empty)


# Noise fills every place, and Gymnasium's own spaces warn of what they are made of.
@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=12, deadline=None)
@given(nested(), st.sampled_from(["vq", "residual", "fsq", "gaussian"]))
def test_any_space_is_encoded_decoded_saved_loaded_and_wrapped(
    space: spaces.Space[Any], kind: Any
) -> None:
    config = TokenizerConfig(hidden=16, quantizer=QuantizerConfig(kind=kind, num_codes=16, dim=4))
    tokenizer = Tokenizer.for_space(space, config, device="cpu")
    observations = batch(space, 40)
    tokenizer.fit(observations, gradient_steps=2)
    decoded = space_tools.flatten(space, tokenizer.reconstruct(observations))
    for index in range(40):
        row = {path: value[index] for path, value in decoded.items()}
        assert space.contains(space_tools.unflatten(space, row))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer")
        loaded = Tokenizer.load(Path(folder) / "tokenizer", device="cpu")
    vectors = tokenizer.embed_observations(observations)
    assert vectors.shape == (40, tokenizer.num_tokens, tokenizer.embedding_size)
    assert torch.equal(loaded.embed_observations(observations), vectors)
    check_env(TokenObservation(Noise(space), loaded, mode="embeddings"))
    if tokenizer.is_discrete:
        tokens = tokenizer.encode(observations)
        assert (tokens.numpy() < tokenizer.token_nvec).all()
        assert torch.equal(loaded.encode(observations), tokens)
        one_by_one = [
            loaded.encode_flat({path: value[index : index + 1] for path, value in flat.items()})
            for flat in [space_tools.flatten(space, observations)]
            for index in range(40)
        ]
        assert torch.equal(torch.cat(one_by_one), tokens)  # By memory, and by the encoder.
        few = [tokenizer.decode_flat(tokens[index : index + 1]) for index in range(40)]
        for path, values in decoded.items():
            alone = np.concatenate([frame[path] for frame in few])
            np.testing.assert_array_equal(alone, values)
            assert alone.dtype == values.dtype or alone.dtype.kind == "U"
        check_env(TokenObservation(Noise(space), loaded, mode="tokens"))
