"""What every quantizer of the tokenizer has in common.

Classes:
    QuantizerConfig: which quantizer, and its sizes.
    Quantized: what a forward pass gives.
    Quantizer: protocol of `ResidualQuantizer` (VQ and residual VQ), `FiniteScalarQuantizer`
        and `GaussianBottleneck`.

Symbols: N patches, G independent codebooks of one modality, R codes a patch, V codes in a
codebook, E entries of a code vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from worldgen.config import Config, require

__all__ = ["Quantized", "Quantizer", "QuantizerConfig", "QuantizerKind"]

QuantizerKind = Literal["vq", "fsq", "residual", "gaussian"]


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig(Config):
    """Which quantizer, the size of its codebooks and how they learn."""

    kind: QuantizerKind = "vq"
    """"vq": a codebook learned by moving averages; "residual": several, each for what the one
    before left over; "fsq": a fixed grid; "gaussian": none, a plain VAE to compare with, which
    has no tokens."""
    num_codes: int = 512
    """V, codes in each codebook ("vq", "residual")."""
    dim: int = 16
    """E, entries of a code vector; "fsq" has one for each of its levels instead."""
    decay: float = 0.95
    """Share of the moving average that a gradient step keeps (the paper: 0.99)."""
    commitment: float = 0.25
    """Weight of the loss that pulls latents to their codes (the paper's beta)."""
    num_residuals: int = 2
    """R of "residual", codes a patch."""
    search_width: int = 1
    """Beginnings that "residual" keeps when it searches for codes; 1 takes the nearest code of
    each stage (the paper), as training always does."""
    levels: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    """Values of each entry of a code of "fsq"; their product is V. The paper has fewer and finer
    entries (8, 6, 5 for 2**8 codes), on which few patches are kept apart (docs/decisions/0008)."""
    kl_weight: float = 1e-3
    """Weight of the divergence from the prior, of "gaussian" (the paper's beta is 1)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        kinds = ("vq", "fsq", "residual", "gaussian")
        require(self.kind in kinds, "kind", f"be one of {', '.join(kinds)}", self.kind)
        require(self.num_codes >= 2, "num_codes", "be at least 2", self.num_codes)
        require(self.dim >= 1, "dim", "be at least 1", self.dim)
        require(0 <= self.decay < 1, "decay", "be in [0, 1)", self.decay)
        require(self.commitment >= 0, "commitment", "be at least 0", self.commitment)
        require(self.num_residuals >= 1, "num_residuals", "be at least 1", self.num_residuals)
        require(self.search_width >= 1, "search_width", "be at least 1", self.search_width)
        legal = len(self.levels) >= 1 and all(level >= 3 for level in self.levels)
        require(legal, "levels", "be numbers of at least 3", self.levels)
        require(self.kl_weight >= 0, "kl_weight", "be at least 0", self.kl_weight)

    @property
    def vector_size(self) -> int:
        """E of the code vectors that the kind has."""
        return len(self.levels) if self.kind == "fsq" else self.dim

    @property
    def codebook_size(self) -> int:
        """V of the codebooks that the kind has; 0 without codes."""
        if self.kind == "gaussian":
            return 0
        return math.prod(self.levels) if self.kind == "fsq" else self.num_codes

    @property
    def codes_per_patch(self) -> int:
        """R."""
        return self.num_residuals if self.kind == "residual" else 1


class Quantized(NamedTuple):
    """Result of a quantizer's forward pass."""

    codes: Tensor
    """(N, G, R) int64 in [0, V); (N, G, 0) without codes."""
    vectors: Tensor
    """(N, G, E), which the decoder reads; the gradient reaches the latents."""
    loss: Tensor
    """(N, G), the quantizer's own weighted loss: commitment or divergence."""


class Quantizer(Protocol):
    """Latents (N, G, `latent_size`) to codes and code vectors, and back.

    An `nn.Module`, whose `forward` is `quantize`.
    """

    latent_size: int
    """Width of the encoder's output."""

    def __call__(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Quantize for training; `generator` draws the noise, where there is any."""

    def encode(self, latents: Tensor) -> Tensor:
        """Give the codes of latents: (N, G, R) int64."""

    def decode(self, codes: Tensor) -> Tensor:
        """Give the vectors (N, G, E) of codes (N, G, R)."""

    def project(self, latents: Tensor) -> Tensor:
        """Give the vectors (N, G, E) that stand for latents, without noise."""

    def vectors(self) -> Tensor:
        """Give all code vectors, (R, G, V, E)."""

    def initialize(self, latents: Tensor, generator: torch.Generator) -> None:
        """Start from the latents of data, (N, G, `latent_size`)."""

    def update(self, latents: Tensor, codes: Tensor) -> None:
        """Learn from a batch, where gradients do not do it."""

    def restart_dead(self, latents: Tensor, errors: Tensor) -> int:
        """Put codes that none of the latents chose where errors (N, G) are; say how many."""

    def state_dict(self) -> dict[str, Any]:
        """Weights and statistics."""
