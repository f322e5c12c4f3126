"""What a tokenizer refuses, and with which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldgen import Tokenizer, TokenizerConfig
from worldgen.errors import ConfigError, DatasetError, ShapeError, SpaceError
from worldgen.tokenizer import QuantizerConfig

SPACE = spaces.Dict(
    grid=spaces.Box(0, np.tile([3, 1], (2, 3, 1)).astype(np.uint8), (2, 3, 2), np.uint8),
    turn=spaces.Discrete(4, start=-1),
    speed=spaces.Box(-np.inf, np.inf, (2,), np.float32),
)
CONFIG = TokenizerConfig(hidden=8, quantizer=QuantizerConfig(num_codes=8, dim=2))
COUNTS = pytest.mark.parametrize("count", [3, 50])  # By memory, and by the encoder.


def frames(count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "grid": generator.integers(0, [4, 2], (count, 2, 3, 2)).astype(np.uint8),
        "turn": generator.integers(-1, 3, count),
        "speed": generator.normal(size=(count, 2)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer.for_space(SPACE, CONFIG, device="cpu")
    made.fit(frames(60), gradient_steps=2)
    return made


def with_one(path: str, value: Any) -> Callable[[int], dict[str, np.ndarray]]:
    """Frames of which one value is another."""

    def make(count: int) -> dict[str, np.ndarray]:
        made = frames(count)
        made[path].reshape(count, -1)[1, -1] = value
        return made

    return make


@COUNTS
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_one("grid", 2), r"'grid' must be in 0..\[3, 1\] by channel, got 0..\[3, 2\]"),
        (with_one("turn", 3), r"'turn' must be from \[-1\] to \[2\], got \[-1\] to \[3\]"),
        (with_one("turn", -2), r"'turn' must be from \[-1\] to \[2\]"),
        (with_one("speed", np.nan), "'speed' must be finite"),
        (with_one("speed", np.inf), "'speed' must be finite"),
    ],
)
def test_values_outside_the_space_are_refused(tokenizer, make, message, count) -> None:
    with pytest.raises(SpaceError, match=f"`observations` of {message}"):
        tokenizer.encode(make(count))
    with pytest.raises(SpaceError, match=f"`observations` of {message}"):
        Tokenizer.for_space(SPACE, CONFIG, device="cpu").fit(make(count), gradient_steps=1)


def test_a_refused_frame_is_not_remembered(tokenizer) -> None:
    for _ in range(2):
        with pytest.raises(SpaceError):
            tokenizer.encode(with_one("grid", 9)(3))


@COUNTS
def test_batches_that_do_not_fit_are_refused(tokenizer, count) -> None:
    good = frames(count)
    with pytest.raises(ShapeError, match=f"equally many of each part, got {count} and, of 'turn'"):
        tokenizer.encode({**good, "turn": good["turn"][:-1]})
    with pytest.raises(ShapeError, match="'grid' as whole numbers, uint8, got float64"):
        tokenizer.encode({**good, "grid": good["grid"] / 3})
    with pytest.raises(ShapeError, match="add a batch dimension"):
        tokenizer.encode({path: values[0] for path, values in good.items()})
    with pytest.raises(ShapeError, match=r"must hold 'turn' as its space Dict\('grid': Box\(0, 3,"):
        tokenizer.encode({"grid": good["grid"], "speed": good["speed"]})


def test_no_frames_are_no_tokens(tokenizer) -> None:
    tokens = tokenizer.encode(frames(0))
    assert tokens.shape == (0, tokenizer.num_tokens)
    assert {path: len(values) for path, values in tokenizer.decode(tokens).items()} == {
        "grid": 0, "speed": 0, "turn": 0,
    }  # fmt: skip


@COUNTS
def test_tokens_that_do_not_fit_are_refused(tokenizer, count) -> None:
    tokens = tokenizer.encode(frames(count))
    wrong = {
        r"must have the shape \(B, 5\), got \(\d+, 4\)": tokens[:, :-1],
        r"must have the shape \(B, 5\), got \(5,\)": tokens[0],
        "must be whole numbers, got torch.float32": tokens.float(),
        "must be a tensor or an array, got list": tokens.tolist(),
        r"must be in \[0, 8\) at position 0, got 8": tokens * 0 + 8,
        r"must be in \[0, 8\) at position 0, got -1": tokens * 0 - 1,
    }
    for message, given in wrong.items():
        for function in (tokenizer.decode, tokenizer.embed):
            with pytest.raises(ShapeError, match=f"`tokens` {message}"):
                function(given)
    np.testing.assert_equal(tokenizer.decode(tokens.numpy()), tokenizer.decode(tokens))
    assert torch.equal(tokenizer.embed(tokens.numpy()), tokenizer.embed(tokens))


def test_what_is_not_trained_says_so() -> None:
    made = Tokenizer.for_space(SPACE, CONFIG, device="cpu")
    tokens = torch.zeros(1, made.num_tokens, dtype=torch.int64)
    for function in (made.decode, made.embed):
        with pytest.raises(DatasetError, match="has not been trained"):
            function(tokens)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`quantizer` must be a QuantizerConfig, .* got 'fsq'"):
        TokenizerConfig(quantizer="fsq")  # type: ignore[arg-type]
    with pytest.raises(SpaceError, match="`space` must have at least one part"):
        Tokenizer.for_space(spaces.Dict({}))
    made = Tokenizer.for_space(SPACE, CONFIG, device="cpu")
    with pytest.raises(ConfigError, match="`gradient_steps` must be at least 0, got -1"):
        made.fit(frames(3), gradient_steps=-1)
