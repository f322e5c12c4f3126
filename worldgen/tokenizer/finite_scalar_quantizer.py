"""Finite scalar quantization: the codes are a fixed grid, and nothing can collapse onto one.

Classes:
    FiniteScalarQuantizer.

Finite Scalar Quantization: VQ-VAE Made Simple, Mentzer et al. 2023,
https://arxiv.org/abs/2309.15505.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from worldgen.tokenizer.quantizer import Quantized, QuantizerConfig

__all__ = ["FiniteScalarQuantizer"]

_EDGE = 1e-3
"""By how much the bounded latents may pass the outermost levels (the paper's epsilon)."""


class FiniteScalarQuantizer(nn.Module):
    """Round each latent entry to one of a few levels.

    The first entry is the fastest digit of the code's number. The latents are standardised
    with the mean and the deviation that `initialize` saw and lie around the middle of the
    levels, so that an encoder fresh from its random start reaches all of them about evenly.

    Args:
        num_codebooks: G; all share the one grid, and have statistics of their own.
        config: The levels.
    """

    center: Tensor
    scale: Tensor
    levels: Tensor
    place: Tensor
    grid: Tensor

    def __init__(self, num_codebooks: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.latent_size = len(config.levels)
        levels = torch.tensor(config.levels)
        place = torch.tensor([math.prod(config.levels[:i]) for i in range(len(config.levels))])
        codes = torch.arange(config.codebook_size).unsqueeze(-1)
        half = levels // 2
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("grid", (codes // place % levels - half) / half, persistent=False)
        self.register_buffer("center", torch.zeros(num_codebooks, self.latent_size))
        self.register_buffer("scale", torch.ones(num_codebooks, self.latent_size))

    def _bound(self, latents: Tensor) -> Tensor:
        """Squash latents into the range of the levels (the paper's appendix A.1)."""
        standard = (latents - self.center) / self.scale
        half_width, offset, shift = self._shape()
        return (standard + shift).tanh() * half_width - offset

    def _shape(self) -> tuple[Tensor, Tensor, Tensor]:
        """Give the half width of the levels, and what even numbers of them are moved by."""
        half_width = (self.levels - 1) * (1 + _EDGE) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return half_width, offset, (offset / half_width).atanh()

    def encode(self, latents: Tensor) -> Tensor:
        """Round to the grid: (N, G, E) -> (N, G, 1) int64."""
        digits = self._bound(latents).round().long() + self.levels // 2
        return (digits * self.place).sum(-1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Give the grid's points in [-1, 1]: (N, G, 1) -> (N, G, E)."""
        return self.grid[codes.squeeze(-1)]

    def project(self, latents: Tensor) -> Tensor:
        """Give the nearest points of the grid."""
        return self.decode(self.encode(latents))

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Quantize with a straight-through gradient; there is no loss of its own."""
        bounded = self._bound(latents)
        half = self.levels // 2
        rounded = bounded + (bounded.round() - bounded).detach()
        codes = ((rounded.detach().long() + half) * self.place).sum(-1, keepdim=True)
        return Quantized(codes, rounded / half, latents.new_zeros(latents.shape[:2]))

    def vectors(self) -> Tensor:
        """Give the grid for each of the codebooks, (1, G, V, E)."""
        return self.grid.expand(1, len(self.center), -1, -1)

    @torch.no_grad()
    def initialize(self, latents: Tensor, generator: torch.Generator) -> None:
        """Take the mean and the deviation of the latents as statistics.

        The paper maps 0 to the level 0, from which an even number of levels is lopsided; here
        the mean goes to the middle.
        """
        deviation = latents.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))
        _, _, shift = self._shape()
        self.center.copy_(latents.mean(0) + shift * self.scale)

    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Do nothing: the grid is fixed."""

    def restart_dead(self, latents: Tensor, errors: Tensor) -> int:
        """Do nothing: the grid is fixed."""
        return 0
