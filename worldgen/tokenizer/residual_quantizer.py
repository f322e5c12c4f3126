"""Vector quantization in one or more stages, each of what the one before left over.

Classes:
    ResidualQuantizer.

SoundStream, Zeghidour et al. 2021, https://arxiv.org/abs/2107.03312 (algorithm 1). One stage
is the plain vector quantization of https://arxiv.org/abs/1711.00937.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from worldgen.tokenizer.quantizer import Quantized, QuantizerConfig
from worldgen.tokenizer.residual_search import search_codes
from worldgen.tokenizer.vector_quantizer import VectorQuantizer

__all__ = ["ResidualQuantizer"]


class ResidualQuantizer(nn.Module):
    """R stages of G codebooks.

    Args:
        num_codebooks: G.
        config: Sizes and rates; R is its `codes_per_patch`.
    """

    def __init__(self, num_codebooks: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.latent_size = config.dim
        self._commitment = config.commitment
        self._search_width = config.search_width
        self.stages = nn.ModuleList(
            VectorQuantizer(num_codebooks, config.num_codes, config.dim, config.decay)
            for _ in range(config.codes_per_patch)
        )

    def _stages(self) -> list[VectorQuantizer]:
        return cast(list[VectorQuantizer], list(self.stages))

    def encode(self, latents: Tensor) -> Tensor:
        """Give the codes of latents, (N, G, E) -> (N, G, R) int64, by search where it is asked.

        Raises:
            ShapeError: If the last two dimensions are not (G, E).
        """
        if self._search_width > 1 and len(self.stages) > 1:
            return search_codes(latents, self.vectors(), self._search_width)
        return self._nearest(latents)

    def _nearest(self, latents: Tensor) -> Tensor:
        """Give the nearest codes stage by stage: (N, G, R)."""
        codes, rest = [], latents
        for stage in self._stages():
            codes.append(stage.encode(rest))
            if len(codes) < len(self.stages):
                rest = rest - stage.decode(codes[-1])
        return torch.stack(codes, -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Sum the stages' vectors: (N, G, R) -> (N, G, E)."""
        vectors = [stage.decode(codes[..., r]) for r, stage in enumerate(self._stages())]
        return torch.stack(vectors).sum(0) if len(vectors) > 1 else vectors[0]

    def project(self, latents: Tensor) -> Tensor:
        """Give the sum of the nearest codes' vectors."""
        return self.decode(self.encode(latents))

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Quantize with a straight-through gradient (Eq. 3 of the VQ-VAE)."""
        codes = self._nearest(latents.detach())  # Searching here too is slow and gains nothing.
        vectors = self.decode(codes)
        loss = self._commitment * (latents - vectors).square().mean(-1)
        return Quantized(codes, latents + (vectors - latents).detach(), loss)

    def vectors(self) -> Tensor:
        """Give all code vectors, (R, G, V, E)."""
        first, *rest = (stage.codebook.unsqueeze(0) for stage in self._stages())
        return torch.cat([first, *rest]) if rest else first

    @torch.no_grad()
    def initialize(self, latents: Tensor, generator: torch.Generator) -> None:
        """Start each stage by k-means on what the stages before it leave over."""
        rest = latents
        for stage in self._stages():
            stage.initialize(rest, generator)
            rest = rest - stage.decode(stage.encode(rest))

    @torch.no_grad()
    def settle(self, latents: Tensor) -> None:
        """Move each stage's codes to where their squared error is smallest."""
        rest = latents
        for stage in self._stages():
            stage.settle(rest)
            rest = rest - stage.decode(stage.encode(rest))

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Move the codes in use towards what chose them."""
        rest = latents
        for r, stage in enumerate(self._stages()):
            vectors = stage.decode(codes[..., r])  # Before the update, as when they were chosen.
            stage.update(rest, codes[..., r])
            rest = rest - vectors

    @torch.no_grad()
    def restart_dead(self, latents: Tensor, errors: Tensor) -> int:
        """Move the unused codes of each stage to the worst reconstructed latents."""
        moved, rest = 0, latents
        for stage in self._stages():
            moved += stage.restart_dead(rest, errors)
            rest = rest - stage.decode(stage.encode(rest))
        return moved
