"""Counts of codes against naive ones, over every kind of leaf."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from worldgen import Tokenizer, TokenizerConfig
from worldgen import spaces as space_tools
from worldgen.data import Episode
from worldgen.errors import ConfigError, DatasetError, ShapeError
from worldgen.inspection import code_cards, measure_codes, patch_layout
from worldgen.tokenizer import QuantizerConfig

SPACE = spaces.Dict(
    grid=spaces.Box(0, 3, (4, 6), np.uint8),
    numbers=spaces.Box(-1, 1, (3,), np.float32),
    picture=spaces.Box(0, 255, (16, 24, 3), np.uint8),
    pair=spaces.MultiDiscrete([3, 5]),
    said=spaces.Text(5, charset="ab"),
)


def episodes(space: spaces.Space[Any], lengths: tuple[int, ...]) -> list[Episode]:
    space.seed(0)
    return [episode(space, length) for length in lengths]


def episode(space: spaces.Space[Any], length: int) -> Episode:
    empty = gym.vector.utils.create_empty_array(space, length + 1)
    samples = [space.sample() for _ in range(length + 1)]
    batch = gym.vector.utils.concatenate(space, samples, empty)
    flags = np.zeros(length, bool)
    return Episode(
        observations=dict(space_tools.flatten(space, batch)),
        actions=np.zeros(length, np.int64),
        rewards=np.zeros(length, np.float32),
        terminated=flags,
        truncated=flags,
    )


def fitted(kind: Any, data: list[Episode]) -> Tokenizer:
    config = TokenizerConfig(
        hidden=16, quantizer=QuantizerConfig(kind=kind, num_codes=16, dim=4, levels=(3, 3))
    )
    tokenizer = Tokenizer.for_space(SPACE, config, device="cpu")
    tokenizer.fit(data, gradient_steps=3)
    return tokenizer


@pytest.mark.parametrize("kind", ["vq", "residual", "fsq"])
def test_counts_are_those_of_a_naive_count(kind: Any) -> None:
    data = episodes(SPACE, (7, 1, 20))
    tokenizer = fitted(kind, data)
    usage = measure_codes(tokenizer, data)
    frames = {
        path: np.concatenate([one.observations[path] for one in data])
        for path in data[0].observations
    }
    tokens = tokenizer.encode_flat(frames).numpy()
    decoded = tokenizer.decode_flat(tokenizer.encode_flat(frames))
    assert usage.num_frames == len(tokens) == 31
    assert usage.num_tokens == tokens.shape[1]
    books = [book for leaf in usage.leaves.values() for book in leaf.codebooks]
    assert [book.first_token for book in books] == [b.first_token for b in tokenizer.codebooks]
    for book, codebook in zip(books, tokenizer.codebooks, strict=True):
        for position in range(codebook.num_tokens):
            naive = Counter(tokens[:, codebook.first_token + position].tolist())
            counted = book.counts[position]
            assert {code: counted[code] for code in np.flatnonzero(counted)} == naive
        everywhere = Counter(tokens[:, codebook.tokens].ravel().tolist())
        assert book.in_use == len(everywhere)
        assert [book.totals[code] for code in book.ranked] == sorted(everywhere.values())[::-1]
        shares = np.array(list(everywhere.values())) / sum(everywhere.values())
        assert book.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    for path in ("pair", "said"):
        same = np.array(
            [np.array_equal(*two) for two in zip(frames[path], decoded[path], strict=True)]
        )
        assert same.all()
        assert usage.leaves[path].exact_share == 1
    patches, back = (tokenizer.patches("grid", part["grid"]).numpy() for part in (frames, decoded))
    same = (patches == back).all(-1)
    assert usage.leaves["grid"].exact_share == pytest.approx(same.mean())
    assert usage.exact_frames <= same.all(1).mean()
    assert usage.leaves["picture"].tolerance
    assert not usage.leaves["grid"].tolerance
    numbers = usage.to_dict()
    assert numbers["leaves"]["grid"]["codebooks"][0]["counts"] == {
        str(code): int(books[0].totals[code]) for code in books[0].ranked
    }


def test_seen_patches_chose_their_code() -> None:
    data = episodes(SPACE, (30,))
    tokenizer = fitted("vq", data)
    leaf = measure_codes(tokenizer, data).leaves["grid"]
    book = leaf.codebooks[0]
    frames = {path: values.copy() for path, values in data[0].observations.items()}
    patches = tokenizer.patches("grid", frames["grid"]).numpy()  # (frames, patches, P)
    tokens = tokenizer.encode_flat(frames).numpy()[:, tokenizer.token_slices["grid"]]
    for code, seen in book.seen.items():
        chose = patches[tokens == code]
        assert sum(patch.count for patch in seen) == len(chose)
        for patch in seen:
            assert (chose == patch.values).all(-1).sum() == patch.count
            assert patch.exact == np.array_equal(book.decoded[code], patch.values)
    cards = list(code_cards(tokenizer, leaf, book, examples=2))
    assert [card.code for card in cards] == book.ranked
    assert sum(card.share for card in cards) == pytest.approx(1)
    assert all(1 <= len(card.seen) <= 2 for card in cards)


def test_it_stops_after_so_many_frames() -> None:
    data = episodes(SPACE, (5, 5))
    assert measure_codes(fitted("vq", data), data, max_frames=8).num_frames == 8


def test_words_are_written_out() -> None:
    data = episodes(SPACE, (30,))
    tokenizer = fitted("vq", data)
    labels = measure_codes(tokenizer, data).leaves["pair"].codebooks[1].labels
    assert labels == {code: str(code) for code in range(5)}
    said = measure_codes(tokenizer, data).leaves["said"].codebooks[0].labels
    assert set("".join(text for code, text in said.items() if code)) <= set("ab")


def test_patches_lie_where_they_are_drawn() -> None:
    tokenizer = fitted("vq", episodes(SPACE, (3,)))
    assert patch_layout(tokenizer, "grid").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert patch_layout(tokenizer, "picture").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert patch_layout(tokenizer, "numbers") is None
    assert patch_layout(tokenizer, "said") is None


def test_errors() -> None:
    data = episodes(SPACE, (3,))
    tokenizer = fitted("vq", data)
    with pytest.raises(DatasetError, match="at least one episode"):
        measure_codes(tokenizer, [])
    with pytest.raises(ConfigError, match="`max_frames` must be at least 1"):
        measure_codes(tokenizer, data, max_frames=0)
    with pytest.raises(ShapeError, match="must hold 'grid'"):
        measure_codes(tokenizer, episodes(spaces.Dict(other=spaces.Discrete(2)), (3,)))
    with pytest.raises(ConfigError, match="'gaussian', which has none"):
        measure_codes(fitted("gaussian", data), data)
