"""Samplers of one frame: they know schedules and a network, never environments.

Classes:
    FrameNetwork: the network as a sampler sees it while it makes a frame.
    FrameSampler: protocol of the samplers.
    MaskedSampler, GaussianSampler.

Functions:
    make_sampler: the sampler of a diffusion process.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from worldgen.diffusion.gaussian_diffusion import Guess, euler_step, heun_step, rho_schedule
from worldgen.diffusion.masked_diffusion import (
    draw_tokens,
    kept_probabilities,
    unmask,
    unmasking_counts,
)
from worldgen.diffusion.sampler_config import SamplerConfig

__all__ = [
    "FrameNetwork",
    "FrameSampler",
    "GaussianSampler",
    "MaskedSampler",
    "Process",
    "make_sampler",
]

Process = Literal["masked", "gaussian"]
"""Which diffusion process makes the frames."""


class FrameNetwork(Protocol):
    """B next frames in the making. Each of the first three methods is one network pass."""

    def first(self) -> Tensor:
        """Score the codes of frames of which nothing is known: logits (B, K, v)."""

    def unmasked(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Score the codes, some tokens (B, K) of the frames being known: logits (B, K, v)."""

    def denoised(self, noisy: Tensor, sigma: float, guess: Guess) -> Tensor:
        """Estimate the clean points of noisy ones, (B, K, E) each, given the first pass's guess."""

    def codes_of(self, choices: Tensor) -> Tensor:
        """Give the codes of places (B, K) in the last dimension of logits."""

    def with_mean_numbers(self, codes: Tensor, weights: Tensor) -> Tensor:
        """Put codes (B, K) that stand for numbers at the means of weights (B, K, v)."""

    def guess(self, weights: Tensor) -> Guess:
        """Give the moments of the codes' points with weights (B, K, v)."""

    def nearest_codes(self, points: Tensor) -> Tensor:
        """Snap points (B, K, E) to codes (B, K)."""

    def live_entries(self) -> Tensor:
        """(K, E) float, 1 where points of a position differ at all, else 0."""


class FrameSampler(Protocol):
    """What turns network passes into frames."""

    def sample(self, frame: FrameNetwork) -> Tensor:
        """Make frames (B, K) int64 in at most S network passes."""


class MaskedSampler:
    """Unmask a frame, some tokens a pass.

    Args:
        config: How.
        num_tokens: K.
        generator: Of the draws.
    """

    def __init__(self, config: SamplerConfig, num_tokens: int, generator: torch.Generator) -> None:
        self.config, self.num_tokens, self.generator = config, num_tokens, generator
        self._counts = unmasking_counts(num_tokens, config.denoising_steps)

    def sample(self, frame: FrameNetwork) -> Tensor:
        """Make frames (B, K) int64."""
        draft, known = self._draw(frame, frame.first())
        if len(self._counts) == 1:
            return draft
        known = unmask(
            torch.zeros_like(draft, dtype=torch.bool),
            known,
            self._counts[0],
            self.config,
            self.generator,
        )
        for count in self._counts[1:]:
            drawn, probability = self._draw(frame, frame.unmasked(draft, ~known))
            draft = torch.where(known, draft, drawn)
            if count < self.num_tokens:
                known = unmask(known, probability, count, self.config, self.generator)
        return draft

    def _draw(self, frame: FrameNetwork, logits: Tensor) -> tuple[Tensor, Tensor]:
        choices, probability = draw_tokens(logits, self.config, self.generator)
        codes = frame.codes_of(choices)
        if self.config.numbers == "mean":
            weights = kept_probabilities(logits, self.config, temperature=1.0)
            codes = frame.with_mean_numbers(codes, weights)
        return codes, probability


class GaussianSampler:
    """Denoise a frame's points along EDM's probability flow, then snap each to a code.

    The first pass is that of masked diffusion. At the largest noise level the noisy points say
    nothing, so that the best denoiser is the mean of the points that the tokens' probabilities
    say; with one denoising step, that mean is snapped.

    Args:
        config: How.
        generator: Of the noise that a frame starts from.
    """

    def __init__(self, config: SamplerConfig, generator: torch.Generator) -> None:
        self.config, self.generator = config, generator
        steps = config.denoising_steps
        if config.solver == "euler" or steps == 1:
            count, self._heun_from = steps, steps
        else:
            # A step of Heun takes two passes. The first step is Euler's: its slope comes from the
            # mean, for which a correction far down the schedule would overshoot. So is the last,
            # to noise level 0, and where that leaves a pass over, the second.
            count, self._heun_from = steps // 2 + 1 + steps % 2, 1 + steps % 2
        self.sigmas = rho_schedule(count, config.sigma_min, config.sigma_max, config.rho)

    def sample(self, frame: FrameNetwork) -> Tensor:
        """Make frames (B, K) int64."""
        logits = frame.first()
        guess = frame.guess(kept_probabilities(logits, self.config, temperature=1.0))
        if len(self.sigmas) == 2:
            return frame.nearest_codes(guess.mean)
        points, denoised = self._noise(guess.mean) * frame.live_entries(), guess.mean
        for index, sigma in enumerate(self.sigmas[:-1]):
            after = self.sigmas[index + 1]
            ahead = euler_step(points, denoised, sigma, after)
            if after == 0:
                break
            there = frame.denoised(ahead, after, guess)
            if index >= self._heun_from:
                ahead = heun_step(points, denoised, ahead, there, sigma, after)
                there = frame.denoised(ahead, after, guess)
            points, denoised = ahead, there
        return frame.nearest_codes(denoised)

    def _noise(self, like: Tensor) -> Tensor:
        noise = torch.randn(like.shape, generator=self.generator, device=like.device)
        return noise * (self.sigmas[0] * self.config.temperature)


def make_sampler(
    process: Process, config: SamplerConfig, num_tokens: int, generator: torch.Generator
) -> FrameSampler:
    """Build the sampler of a diffusion process."""
    if process == "gaussian":
        return GaussianSampler(config, generator)
    return MaskedSampler(config, num_tokens, generator)
