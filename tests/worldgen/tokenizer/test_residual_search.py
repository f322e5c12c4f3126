"""Beam search for the codes of a residual quantizer."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldgen.errors import ConfigError
from worldgen.tokenizer.quantizer import QuantizerConfig
from worldgen.tokenizer.residual_quantizer import ResidualQuantizer
from worldgen.tokenizer.residual_search import search_codes


def drawn(stages: int, groups: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(20, groups, 3, generator=generator)
    return latents, torch.randn(stages, groups, size, 3, generator=generator)


def errors_of(latents: Tensor, codebooks: Tensor, codes: Tensor) -> Tensor:
    groups = torch.arange(latents.shape[1])
    vectors = sum(book[groups, codes[..., r]] for r, book in enumerate(codebooks))
    return (latents - vectors).square().sum(-1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 5), st.integers(0, 99))
def test_a_wide_enough_beam_finds_the_best_codes(
    stages: int, groups: int, size: int, seed: int
) -> None:
    latents, codebooks = drawn(stages, groups, size, seed)
    found = search_codes(latents, codebooks, size**stages)
    assert found.shape == (20, groups, stages)
    all_codes = torch.tensor(list(itertools.product(range(size), repeat=stages)))
    every = torch.stack(
        [errors_of(latents, codebooks, codes.expand(20, groups, -1)) for codes in all_codes]
    )
    assert torch.allclose(errors_of(latents, codebooks, found), every.amin(0), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 99))
def test_a_beam_of_one_takes_the_nearest_code_of_each_stage(
    stages: int, groups: int, seed: int
) -> None:
    latents, codebooks = drawn(stages, groups, 6, seed)
    rest, expected = latents, []
    for book in codebooks:
        distances = (rest.unsqueeze(2) - book).square().sum(-1)
        expected.append(distances.argmin(-1))
        rest = rest - book[torch.arange(groups), expected[-1]]
    assert torch.equal(search_codes(latents, codebooks, 1), torch.stack(expected, -1))


def test_the_quantizer_searches_when_asked() -> None:
    latents, codebooks = drawn(3, 1, 6, 0)
    mean_errors = {}
    for width in (1, 4):
        config = QuantizerConfig(
            kind="residual", num_codes=6, dim=3, num_residuals=3, search_width=width
        )
        quantizer = ResidualQuantizer(1, config)
        for stage, book in zip(quantizer._stages(), codebooks, strict=True):
            stage.codebook.copy_(book)
        codes = quantizer.encode(latents)
        assert torch.equal(codes, search_codes(latents, codebooks, width))
        mean_errors[width] = float((quantizer.decode(codes) - latents).square().mean())
    assert mean_errors[4] < mean_errors[1]


def test_many_and_no_latents_can_be_searched_for() -> None:
    codebooks = drawn(2, 1, 6, 0)[1]
    latents = torch.randn(5000, 1, 3, generator=torch.Generator().manual_seed(0))
    codes = search_codes(latents, codebooks, 3)
    assert torch.equal(codes[4000:], search_codes(latents[4000:], codebooks, 3))
    assert search_codes(latents[:0], codebooks, 3).shape == (0, 1, 2)


def test_a_beam_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="`search_width` must be at least 1"):
        QuantizerConfig(search_width=0)
