"""The masked process: frequencies, counts and order."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldgen.diffusion.masked_diffusion import (
    SamplerConfig,
    draw_tokens,
    mask_tokens,
    unmask,
    unmasking_counts,
)
from worldgen.errors import ConfigError


@given(st.integers(1, 40), st.integers(1, 50))
def test_every_token_is_known_at_the_end(tokens: int, passes: int) -> None:
    counts = unmasking_counts(tokens, passes)
    assert counts[-1] == tokens
    assert len(counts) == min(tokens, passes)
    assert all(a < b for a, b in itertools.pairwise(counts))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["random", "confidence"]))
def test_no_known_token_is_masked_again(seed: int, order: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    config = SamplerConfig(denoising_steps=4, order=order)
    known = torch.zeros(5, 9, dtype=torch.bool)
    for count in unmasking_counts(9, 4):
        confidence = torch.rand(5, 9, generator=generator)
        after = unmask(known, confidence, count, config, generator)
        assert (after.sum(1) == count).all()
        assert (after | ~known).all()
        known = after


def test_confidence_order_keeps_the_surest() -> None:
    config = SamplerConfig(order="confidence")
    confidence = torch.tensor([[0.1, 0.9, 0.5]])
    known = torch.zeros(1, 3, dtype=torch.bool)
    kept = unmask(known, confidence, 2, config, torch.Generator())
    assert kept.tolist() == [[False, True, True]]


def test_draws_have_the_probabilities_of_the_logits() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    config = SamplerConfig(min_probability_ratio=0.0)
    logits = probabilities.log().expand(200_000, 4)
    tokens, chosen = draw_tokens(logits, config, torch.Generator().manual_seed(0))
    frequencies = tokens.bincount(minlength=4) / len(tokens)
    assert torch.allclose(frequencies, probabilities, atol=0.005)
    assert torch.allclose(chosen, probabilities[tokens])


def test_unlikely_and_impossible_tokens_are_never_drawn() -> None:
    probabilities = torch.tensor([0.6, 0.35, 0.05, 0.0])
    config = SamplerConfig(min_probability_ratio=0.1)
    logits = probabilities.log().expand(50_000, 4)
    tokens, _ = draw_tokens(logits, config, torch.Generator().manual_seed(0))
    assert set(tokens.tolist()) == {0, 1}
    assert (tokens == 0).float().mean().item() == pytest.approx(0.6 / 0.95, abs=0.01)


def test_temperature_zero_takes_the_most_likely() -> None:
    logits = torch.randn(100, 7)
    tokens, _ = draw_tokens(logits, SamplerConfig(temperature=0.0), torch.Generator())
    assert torch.equal(tokens, logits.argmax(-1))


def test_masking_hides_each_number_of_tokens_equally_often_and_at_least_one() -> None:
    generator = torch.Generator().manual_seed(0)
    masked = mask_tokens((20_000, 4), generator)
    counts = masked.sum(-1).bincount(minlength=5) / 20_000
    # With a uniform probability each number 0..4 has 1/5; none becomes one.
    assert counts.tolist() == pytest.approx([0, 0.4, 0.2, 0.2, 0.2], abs=0.02)


@pytest.mark.parametrize(
    ("field", "value"),
    [("denoising_steps", 0), ("temperature", -1.0), ("order", "raster")],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"`{field}` must be"):
        SamplerConfig(**{field: value})
