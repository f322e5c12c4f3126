"""How likely masked diffusion finds a frame: a bound on its nats.

Classes:
    MaskDraw: masks, and what each counts.

Functions:
    draw_masks: numbers of masked tokens spread evenly over 1..K, or every mask there is.
    masked_nats: the bound's term of one mask.
    likelihood_bound: the bound itself, for any network that scores masked tokens.

With a linear schedule the bound of masked diffusion is an integral over the masked share t of
1 / t times the cross-entropy of the masked tokens (Eq. 10 of MDLM, Sahoo et al. 2024,
https://arxiv.org/abs/2406.07524). Without any reference to time it is a mean over the number n
of masked tokens, each as likely as any other,

    -log p(x) <= E_{n ~ 1..K} E_{M, |M| = n} [ K / n  sum_{i in M} -log p(x_i | x_{not M}) ],

which is what drawing token after token in a random order costs (Hoogeboom et al. 2021,
https://arxiv.org/abs/2110.02037). It is an equation where the network's conditionals belong
to one joint distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from worldgen.config import require

__all__ = ["MaskDraw", "draw_masks", "likelihood_bound", "masked_nats"]


class MaskDraw(NamedTuple):
    """S masks for each of some frames."""

    masked: Tensor
    """(S, ..., K) bool."""
    weights: Tensor
    """(S,) float32, which add up to 1."""


def draw_masks(shape: tuple[int, ...], num_samples: int, generator: torch.Generator) -> MaskDraw:
    """Draw which tokens of each frame are masked.

    The numbers of masked tokens are stratified: sample s of S takes its number from the s-th
    of S equal parts of 1..K. Which tokens it is, is drawn anew each time. Where S is at least the
    number 2^K - 1 of all masks, each of them is taken instead, with its own probability: the
    bound of short frames has no error of sampling.

    Args:
        shape: (..., K), of the frames' tokens.
        num_samples: S.
        generator: On the device where the masks are wanted.
    """
    require(num_samples >= 1, "num_samples", "be at least 1", num_samples)
    device, num_tokens = generator.device, shape[-1]
    if num_tokens < 16 and num_samples >= 2**num_tokens - 1:
        return _every_mask(shape, device)
    frames = (num_samples, *shape[:-1])
    stratum = torch.arange(num_samples, device=device).view(-1, *(1 for _ in shape[:-1]))
    place = (stratum + torch.rand(frames, generator=generator, device=device)) / num_samples
    count = 1 + (place * num_tokens).long().clamp(max=num_tokens - 1)
    noise = torch.rand((num_samples, *shape), generator=generator, device=device)
    rank = noise.argsort(-1).argsort(-1)
    weights = torch.full((num_samples,), 1 / num_samples, device=device)
    return MaskDraw(rank < count.unsqueeze(-1), weights)


def _every_mask(shape: tuple[int, ...], device: torch.device) -> MaskDraw:
    num_tokens = shape[-1]
    number = torch.arange(1, 2**num_tokens, device=device)
    masks = (number.unsqueeze(-1) >> torch.arange(num_tokens, device=device)) & 1 == 1
    sizes = masks.sum(-1)
    weights = 1.0 / (num_tokens * torch.bincount(sizes)[sizes].float())
    spread = masks.view(-1, *(1 for _ in shape[:-1]), num_tokens)
    return MaskDraw(spread.expand(-1, *shape), weights)


def masked_nats(nats: Tensor, masked: Tensor) -> Tensor:
    """Give the bound's term of a mask: K / n times the sum over its n tokens.

    Args:
        nats: (..., K) -log probability of each true token, given those that are not masked.
        masked: (..., K) bool, at least one true a frame.

    Returns:
        (...) nats a frame.
    """
    return nats.shape[-1] * (nats * masked).sum(-1) / masked.sum(-1)


def likelihood_bound(
    score: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    num_samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Bound -log p of frames from above, in nats a frame.

    Args:
        score: From masks (..., K) to the -log probability of each true token (..., K), of which
            only the masked ones are read.
        shape: (..., K).
        num_samples: Masks a frame; the error falls with its root.
        generator: Of the masks.

    Returns:
        (...) float32.
    """
    draw = draw_masks(shape, num_samples, generator)
    total = torch.zeros(shape[:-1], device=generator.device)
    for masked, weight in zip(draw.masked, draw.weights, strict=True):
        total += weight * masked_nats(score(masked), masked)
    return total
