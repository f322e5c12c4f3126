"""Waveforms: the lapped transform, and tokenizers of sounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sounds import tones
from worldgen import Tokenizer, TokenizerConfig
from worldgen.envs import TokenObservation
from worldgen.errors import ConfigError, SpaceError
from worldgen.tokenizer.modality import modality_name
from worldgen.tokenizer.quantizer import QuantizerConfig
from worldgen.tokenizer.waveform import Waveform

SIZE = 512
SOUND = spaces.Box(-1, 1, (SIZE,))
SMALL = TokenizerConfig(hidden=32, quantizer=QuantizerConfig(num_codes=128))


def noise(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(3, size, generator=torch.Generator().manual_seed(seed))


def naive_mdct(samples: np.ndarray, first: int, hop: int) -> np.ndarray:
    """The textbook's sum over 2N windowed samples, of which the first has the index `first`."""
    found = np.zeros(hop)
    for k in range(hop):
        for n in range(2 * hop):
            window = math.sin(math.pi / (2 * hop) * (n + 0.5))
            cosine = math.cos(math.pi / hop * (n + 0.5 + hop / 2) * (k + 0.5))
            found[k] += math.sqrt(2 / hop) * window * samples[first + n] * cosine
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 70), st.integers(0, 99))
def test_every_sample_comes_back(size: int, most: int, seed: int) -> None:
    modality, samples = Waveform(spaces.Box(-1, 1, (size,)), most), noise(size, seed)
    patches = modality.patchify(samples)
    assert patches.shape == (3, modality.num_patches, modality.hop)
    assert modality.num_patches <= most
    assert torch.allclose(modality.unpatchify(patches), samples, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 1000), st.integers(1, 40))
def test_the_transform_keeps_energy(size: int, most: int) -> None:
    modality, samples = Waveform(spaces.Box(-1, 1, (size,)), most), noise(size)
    energy = modality.patchify(samples).square().sum((1, 2))
    assert torch.allclose(energy, samples.square().sum(1), rtol=1e-4)


def test_errors_of_coefficients_are_errors_of_samples() -> None:
    modality, samples = Waveform(SOUND, 16), noise(SIZE)
    error = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(1))
    decoded = modality.unpatchify(modality.patchify(samples) + error)
    expected = error.square().sum((1, 2))
    assert torch.allclose((decoded - samples).square().sum(1), expected, rtol=1e-4)


@pytest.mark.parametrize("hop", [16, 32])
def test_inner_frames_are_the_textbooks(hop: int) -> None:
    size = 4 * hop
    modality, samples = Waveform(spaces.Box(-1, 1, (size,)), 4), noise(size)
    patches = modality.patchify(samples)
    assert modality.hop == hop
    for frame in (1, 2):
        expected = naive_mdct(samples[0].double().numpy(), frame * hop - hop // 2, hop)
        np.testing.assert_allclose(patches[0, frame].numpy(), expected, atol=1e-5)


def test_nothing_clicks_where_patches_meet() -> None:
    modality = Waveform(SOUND, 8)
    patches = torch.zeros(1, 8, 64)
    patches[0, 3, 5] = 1.0
    decoded = modality.unpatchify(patches)[0]
    start, end = 3 * 64 - 32, 4 * 64 + 32
    assert (decoded[:start] == 0).all()
    assert (decoded[end:] == 0).all()
    assert decoded[start:end].abs().max() > 0.1
    assert decoded[[start, end - 1]].abs().max() < 0.01


@pytest.mark.parametrize(
    ("space", "declared", "expected"),
    [
        (spaces.Box(-1, 1, (256,)), None, "waveform"),
        (spaces.Box(-np.inf, np.inf, (100_000,)), None, "waveform"),
        (spaces.Box(-1, 1, (255,)), None, "vector"),
        (spaces.Box(-1, 1, (16, 16)), None, "vector"),
        (spaces.Box(0, 255, (300,), np.uint8), None, "vector"),
        (spaces.Box(-1, 1, (256,)), "vector", "vector"),
        (spaces.Box(-1, 1, (20,)), "waveform", "waveform"),
        (spaces.Box(-32768, 32767, (300,), np.int16), "waveform", "waveform"),
    ],
)
def test_spaces_are_recognized(space: spaces.Box, declared: Any, expected: str) -> None:
    assert modality_name("sound", space, declared) == expected


def test_only_one_dimension_is_a_waveform() -> None:
    with pytest.raises(SpaceError, match=r"cannot be 'waveform'; supported: .*waveform"):
        modality_name("sound", spaces.Box(-1, 1, (2, 300)), "waveform")


def test_a_budget_under_one_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match="`max_waveform_tokens` must be at least"):
        TokenizerConfig(max_waveform_tokens=3, waveform_residuals=4)


def test_tones_come_back_and_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    seen, unseen = tones(600, SIZE, generator), tones(60, SIZE, generator)
    tokenizer = Tokenizer.for_space(SOUND, SMALL, device="cpu")
    tokenizer.fit(seen, gradient_steps=30)
    tokens = tokenizer.encode(unseen)
    decoded = tokenizer.decode(tokens)
    assert tokens.shape == (60, 64)
    assert decoded.shape == unseen.shape
    assert decoded.dtype == np.float32
    ratio = (unseen**2).sum() / ((decoded - unseen) ** 2).sum()
    assert 10 * math.log10(ratio) > 10
    tokenizer.save(tmp_path / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "tokenizer", device="cpu")
    assert torch.equal(loaded.encode(unseen), tokens)
    np.testing.assert_array_equal(loaded.decode(tokens), decoded)


@pytest.mark.parametrize("kind", ["vq", "fsq", "gaussian"])
def test_a_waveform_stands_beside_other_leaves(kind: Any) -> None:
    space = spaces.Dict(flag=spaces.Discrete(3), position=spaces.Box(-1, 1, (2,)), sound=SOUND)
    generator = np.random.default_rng(0)
    observations = {
        "flag": generator.integers(0, 3, 64),
        "position": generator.uniform(-1, 1, (64, 2)).astype(np.float32),
        "sound": tones(64, SIZE, generator),
    }
    config = TokenizerConfig(hidden=16, quantizer=QuantizerConfig(kind=kind, num_codes=32))
    if kind == "gaussian":
        space, observations = spaces.Dict(sound=SOUND), {"sound": observations["sound"]}
    tokenizer = Tokenizer.for_space(space, config, device="cpu")
    tokenizer.fit(observations, gradient_steps=3)
    shape = (64, tokenizer.num_tokens, tokenizer.embedding_size)
    assert tokenizer.embed_observations(observations).shape == shape
    decoded = tokenizer.reconstruct(observations)
    assert decoded["sound"].shape == (64, SIZE)
    assert np.isfinite(decoded["sound"]).all()
    if kind != "gaussian":
        assert tokenizer.num_tokens == 1 + 2 + 64
        np.testing.assert_array_equal(decoded["flag"], observations["flag"])


class Hum(gym.Env):
    """A tone whose pitch the agent sets."""

    observation_space = SOUND
    action_space = spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._time = 0
        return self._listen(2), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._time += 1
        return self._listen(action), 0.0, self._time >= 8, False, {}

    def _listen(self, action: int) -> np.ndarray:
        phase = self.np_random.uniform(0, 2 * np.pi)
        return (0.5 * np.sin(0.1 * (action + 1) * np.arange(SIZE) + phase)).astype(np.float32)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
@pytest.mark.parametrize("mode", ["tokens", "embeddings", "decoded"])
def test_an_environment_that_is_heard_passes_the_checker(mode: Any) -> None:
    tokenizer = Tokenizer.for_space(SOUND, SMALL, device="cpu")
    tokenizer.fit(tones(64, SIZE, np.random.default_rng(0)), gradient_steps=2)
    check_env(TokenObservation(Hum(), tokenizer, mode))
