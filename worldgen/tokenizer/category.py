"""Discrete, MultiDiscrete and MultiBinary leaves: their values are tokens already.

Classes:
    CategoryCodec.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from worldgen.codes import Codebook
from worldgen.errors import SpaceError
from worldgen.spaces import category_sizes

__all__ = ["CategoryCodec"]


class CategoryCodec(nn.Module):
    """One token for each value, exact, with fixed random vectors as embeddings.

    Args:
        space: The leaf.
        dim: E, entries of an embedding.
    """

    encodes_few = decodes_few = True
    start: Tensor
    vectors: Tensor

    def __init__(
        self, space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary, dim: int
    ) -> None:
        super().__init__()
        self._shape = space.shape or ()
        sizes, start = category_sizes(space)
        self._sizes = np.asarray(sizes, np.int64)
        self.sizes = tuple(int(size) for size in sizes)
        self.num_tokens = len(self.sizes)
        self._start = start
        self.register_buffer("start", torch.from_numpy(start), persistent=False)
        self.register_buffer("vectors", torch.randn(self.num_tokens, max(self.sizes), dim))

    def codebooks(self, first_token: int) -> list[Codebook]:
        """Describe the codebooks, one a value, from position `first_token` on."""
        dim = self.vectors.shape[-1]
        return [
            Codebook(size, first_token + k, 1, dim, numbers=False)
            for k, size in enumerate(self.sizes)
        ]

    def vectors_by_codebook(self) -> list[Tensor]:
        """Give the (V, E) vectors of each value."""
        return [self.vectors[k, :size] for k, size in enumerate(self.sizes)]

    def code_contents(self) -> list[Tensor]:
        """Describe categories by their vectors, having nothing else."""
        return self.vectors_by_codebook()

    def encode(self, observations: Tensor) -> Tensor:
        """Values (B, ...) to codes (B, K) int64."""
        codes = observations.reshape(len(observations), self.num_tokens).long() - self.start
        self.check(codes.cpu().numpy())
        return codes

    def encode_few(self, observations: np.ndarray) -> np.ndarray:
        """Values (B, ...) to codes (B, K) int64, without torch."""
        values = observations.reshape(len(observations), self.num_tokens).astype(np.int64)
        codes: np.ndarray = values - self._start
        self.check(codes)
        return codes

    def check(self, codes: np.ndarray) -> None:
        """Refuse codes (B, K) of values that the space does not have.

        Raises:
            SpaceError: If there are any.
        """
        if len(codes) and (codes.min() < 0 or (codes >= self._sizes).any()):
            low, high = (codes + self._start).min(0), (codes + self._start).max(0)
            raise SpaceError(
                f"must be from {self._start.tolist()} to "
                f"{(self._start + self._sizes - 1).tolist()}, got {low.tolist()} to {high.tolist()}"
            )

    def decode_few(self, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Codes (B, K) to values (B, *shape), without torch."""
        values: np.ndarray = (codes + self._start).reshape(len(codes), *shape)
        return values

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, K) to values (B, ...)."""
        return (codes + self.start).reshape(len(codes), *self._shape)

    def embed(self, codes: Tensor) -> Tensor:
        """Look the fixed vectors up: (B, K) -> (B, K, E)."""
        return self.vectors[torch.arange(self.num_tokens, device=codes.device), codes]

    def reconstruct(self, observations: Tensor) -> Tensor:
        """Give the values (B, ...) as they are."""
        return observations.long()

    def embed_observations(self, observations: Tensor) -> Tensor:
        """Give the vectors of values (B, ...): (B, K, E)."""
        return self.embed(self.encode(observations))
