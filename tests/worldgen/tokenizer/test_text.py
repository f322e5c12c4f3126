"""Text as tokens: exact, whatever the words."""

from __future__ import annotations

import string
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

import worldgen
from worldgen import Tokenizer, TokenizerConfig
from worldgen.data import EnvironmentSpec, Episodes
from worldgen.envs import TokenObservation
from worldgen.errors import DatasetError, ShapeError, SpaceError
from worldgen.tokenizer.text import TextCodec

SPACE = spaces.Text(200, min_length=0, charset=string.printable)
COLORS = ("red", "green", "blue", "purple")
MISSIONS = np.array([f"go to the {color} {thing}" for color in COLORS for thing in ("key", "ball")])
DOORKEY = EnvironmentSpec(id="MiniGrid-DoorKey-5x5-v0", text=True)


def codec(texts: np.ndarray = MISSIONS, num_tokens: int = 16) -> TextCodec:
    made = TextCodec("mission", SPACE, 8, num_tokens)
    made.fit(texts)
    return made


def test_missions_seen_often_are_few_tokens_and_exact() -> None:
    made = codec()
    codes = made.encode(MISSIONS)
    assert np.array_equal(made.decode(codes), MISSIONS)
    assert int((codes > 0).sum(1).max()) <= 2


def test_words_never_seen_come_back() -> None:
    made = codec()
    new = np.array(["go to the crimson key", "GO", ""])
    assert np.array_equal(made.decode(made.encode(new)), new)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_every_text_comes_back(text: str) -> None:
    space = spaces.Text(200, min_length=0, charset=frozenset(text))
    made = TextCodec("text", space, 4, 300)
    made.fit(MISSIONS)
    assert made.decode(made.encode(np.array([text], dtype=object)))[0] == text


def test_the_first_join_is_the_commonest_pair() -> None:
    made = codec(np.array(["abab", "abc"]))
    assert made.merges[0].tolist() == [ord("a") + 1, ord("b") + 1]
    assert made.pieces()[257] == "ab"


def test_a_text_that_needs_too_many_tokens_is_refused() -> None:
    with pytest.raises(ShapeError, match="'mission' must be text of at most 4 tokens, got 'xyz"):
        codec(num_tokens=4).encode(np.array(["xyzxyzxyz"]))


def test_tokens_that_say_nonsense_still_decode_into_the_space() -> None:
    made = codec()
    codes = torch.randint(0, 512, (50, 16), generator=torch.Generator().manual_seed(0))
    assert all(SPACE.contains(str(text)) for text in made.decode(codes))


def test_an_episode_keeps_its_missions(tmp_path: Path) -> None:
    episodes = worldgen.collect(DOORKEY, 60, seed=0, path=tmp_path / "data", progress=False)
    mission = "use the key to open the door and then get to the goal"
    again = Episodes.load(tmp_path / "data")
    for first, second in zip(episodes, again, strict=True):
        assert np.array_equal(first.observations["mission"], second.observations["mission"])
        assert set(second.observations["mission"]) == {mission}


def test_an_environment_with_its_mission_in_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.for_env(DOORKEY, TokenizerConfig(hidden=16), device="cpu")
    assert list(tokenizer.token_slices) == ["direction", "image", "mission"]
    episodes = worldgen.collect(DOORKEY, 200, seed=0, progress=False)
    tokenizer.fit(episodes, gradient_steps=100)
    tokenizer.save(tmp_path / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "tokenizer", device="cpu")
    flat = episodes[0].observations
    tokens = loaded.encode_flat(flat)
    assert torch.equal(tokens, tokenizer.encode_flat(flat))
    decoded = loaded.decode_flat(tokens)
    assert np.array_equal(decoded["mission"], flat["mission"])
    assert np.array_equal(decoded["direction"], flat["direction"])
    for mode in ("tokens", "embeddings"):
        env = TokenObservation(gym.make(DOORKEY.id), loaded, mode=mode)
        check_env(env)
        assert env.reset(seed=0)[0].shape == env.observation_space.shape


def test_more_data_does_not_change_what_pieces_mean() -> None:
    space = spaces.Dict({"text": SPACE})
    tokenizer = Tokenizer.for_space(space, device="cpu")
    tokenizer.fit({"text": MISSIONS})
    before = tokenizer.encode({"text": MISSIONS})
    tokenizer.fit({"text": np.array(["something else entirely"] * 9)})
    assert torch.equal(tokenizer.encode({"text": MISSIONS}), before)


def test_a_world_model_of_text_is_refused() -> None:
    with pytest.raises(SpaceError, match="does not dream text yet, got mission"):
        worldgen.WorldModel.for_env(DOORKEY)


def test_wrong_text_is_refused() -> None:
    with pytest.raises(SpaceError, match="can only be 'text'"):
        Tokenizer.for_space(SPACE, TokenizerConfig(modalities={"observation": "vector"}))
    observations: dict[str, Any] = {"observation": np.array(["a" * 300, "b"])}
    episode = worldgen.Episode(
        observations=observations,
        actions=np.zeros(1, np.int64),
        rewards=np.zeros(1, np.float32),
        terminated=np.zeros(1, bool),
        truncated=np.zeros(1, bool),
    )
    with pytest.raises(DatasetError, match="must have 0 to 200 characters"):
        Episodes(SPACE, spaces.Discrete(2)).append(episode)
