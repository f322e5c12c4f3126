"""Masked (absorbing) discrete diffusion over the K tokens of a frame.

Functions:
    mask_tokens: the forward process, for training.
    unmasking_counts: how many tokens are known after each denoising step.
    kept_probabilities: probabilities without their tail.
    draw_tokens: categorical draws.
    unmask: choose which of the drawn tokens to keep.

Simple and Effective Masked Diffusion Language Models, Sahoo et al. 2024,
https://arxiv.org/abs/2406.07524; MaskGIT, Chang et al. 2022, https://arxiv.org/abs/2202.04200.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldgen.diffusion.sampler_config import SamplerConfig

__all__ = [
    "SamplerConfig",
    "draw_tokens",
    "kept_probabilities",
    "mask_tokens",
    "unmask",
    "unmasking_counts",
]


def mask_tokens(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw which tokens of each frame are masked: a uniform probability, at least one a frame.

    Args:
        shape: (..., K).
        generator: On the device where the mask is wanted.

    Returns:
        Bool of the given shape, true where masked.
    """
    share = torch.rand((*shape[:-1], 1), generator=generator, device=generator.device)
    noise = torch.rand(shape, generator=generator, device=generator.device)
    return (noise < share) | (noise == noise.amin(-1, keepdim=True))


def unmasking_counts(num_tokens: int, denoising_steps: int) -> list[int]:
    """How many of K tokens are known after each denoising step, evenly spread.

    >>> unmasking_counts(16, 3)
    [5, 11, 16]
    >>> unmasking_counts(2, 5)
    [1, 2]
    """
    passes = min(num_tokens, denoising_steps)
    return [round(num_tokens * (index + 1) / passes) for index in range(passes)]


def kept_probabilities(logits: Tensor, config: SamplerConfig, temperature: float) -> Tensor:
    """Turn logits (..., V) into probabilities without the tail; they sum to 1 or less."""
    probabilities = (logits.float() / temperature).softmax(-1)
    floor = config.min_probability_ratio * probabilities.amax(-1, keepdim=True)
    return torch.where(probabilities >= floor, probabilities, 0.0)


def draw_tokens(
    logits: Tensor, config: SamplerConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a token from each row of logits (..., V).

    The draw inverts the cumulative distribution with one uniform number, which float32 does
    without the bias of float32 Gumbel noise (https://arxiv.org/abs/2409.02908).

    Returns:
        Tokens (...) int64 and the probability (...) of each, after temperature and cut.
    """
    if config.temperature == 0:
        best = logits.float().softmax(-1).max(-1)
        return best.indices, best.values
    kept = kept_probabilities(logits, config, config.temperature)
    cumulative = kept.cumsum(-1)
    total = cumulative[..., -1:]
    uniform = torch.rand(total.shape, generator=generator, device=generator.device)
    tokens = torch.searchsorted(cumulative, uniform * total, right=True)
    # Rounding can put the draw at the very end, behind the last token that has a share.
    last = logits.shape[-1] - 1 - (kept > 0).flip(-1).byte().argmax(-1, keepdim=True)
    tokens = torch.minimum(tokens, last)
    probability = kept.gather(-1, tokens) / total
    return tokens.squeeze(-1), probability.squeeze(-1)


def unmask(
    known: Tensor, confidence: Tensor, count: int, config: SamplerConfig, generator: torch.Generator
) -> Tensor:
    """Choose which tokens are known after this denoising step.

    Args:
        known: (B, K) bool, tokens known before; these stay known.
        confidence: (B, K) probability of each drawn token.
        count: How many of the K are to be known.
        config: Says the order.
        generator: For the random order.

    Returns:
        (B, K) bool with exactly `count` true in each row.
    """
    if config.order == "random":
        confidence = torch.rand(known.shape, generator=generator, device=known.device)
    ranked = confidence.masked_fill(known, torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(ranked).scatter_(
        -1, ranked, torch.arange(known.shape[-1], device=known.device).expand_as(ranked)
    )
    return rank < count
