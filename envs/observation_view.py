"""What an agent is shown of a frame's tokens.

Classes:
    ObservationMode: the three views.
    ObservationView: tokens to observations of one view, and the memory beside them.

Functions:
    standardised_vectors: the code vectors as an agent is shown them.
    with_memory: a space with room for the memory.
    load_tokenizer: the tokenizer of a model, a tokenizer or a path to either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldgen.checkpoint import folder_kind
from worldgen.config import require
from worldgen.errors import ConfigError, SpaceError
from worldgen.spaces import ROOT, flatten
from worldgen.tokenizer import Tokenizer
from worldgen.world_model import WorldModel

__all__ = [
    "MEMORY",
    "ObservationMode",
    "ObservationView",
    "load_tokenizer",
    "standardised_vectors",
    "with_memory",
]

ObservationMode = Literal["decoded", "tokens", "embeddings"]
"""The environment's own space, token numbers, or the tokens' code vectors, standardised."""
MEMORY = "memory"
"""Part of an observation that holds the model's summary of the past."""
_LEAST_DEVIATION = 1e-6
"""Entries of code vectors that differ by less are padding, and are not scaled."""


class ObservationView:
    """Show tokens as observations of one space.

    Args:
        tokenizer: A trained tokenizer.
        mode: "decoded" for observations in the environment's own space, "tokens" for a
            MultiDiscrete of K token numbers, "embeddings" for their `standardised_vectors` as
            one flat Box of K * E float32 values.
        argument: Name under which the caller was given `mode`, for the error message.
        memory: D, entries of the summary of the past that is shown beside it as "memory"; 0 shows
            none. What is no Dict becomes one, with its old self as "observation".

    Attributes:
        space: Space of the observations.

    Raises:
        ConfigError: If `mode` is unknown, or the tokenizer is not trained or has no tokens.
        SpaceError: If the observations have a part "memory" already.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        mode: ObservationMode,
        *,
        argument: str = "observation",
        memory: int = 0,
    ) -> None:
        modes = get_args(ObservationMode)
        require(mode in modes, argument, f"be one of {', '.join(map(repr, modes))}", mode)
        if not tokenizer.is_fitted:
            raise ConfigError(
                "the tokenizer has not been trained: call `fit(episodes)` of it or its model first"
            )
        if mode == "tokens" and not tokenizer.is_discrete:
            raise ConfigError(
                f"`{argument}` must be 'embeddings' or 'decoded', since the quantizer 'gaussian' "
                "has no tokens, got 'tokens'"
            )
        self._tokenizer, self._mode = tokenizer, mode
        self._seen: Tensor | None = None
        self._plain = self._make_space()
        self.space = with_memory(self._plain, memory) if memory else self._plain

    def _make_space(self) -> spaces.Space[Any]:
        if self._mode == "decoded":
            return self._tokenizer.space
        if self._mode == "tokens":
            return spaces.MultiDiscrete(self._tokenizer.token_nvec)
        size = self._tokenizer.num_tokens * self._tokenizer.embedding_size
        return spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def of_observations(self, observations: Any) -> dict[str, np.ndarray]:
        """Show a nested batch of real observations as a flat batch, path -> (B, ...)."""
        if self._tokenizer.is_discrete:
            return self.flat(self._tokenizer.encode(observations))
        if self._mode == "decoded":
            return flatten(self._plain, self._tokenizer.reconstruct(observations))
        vectors = self._tokenizer.embed_observations(observations)
        return {ROOT: vectors.flatten(1).cpu().numpy()}

    def flat(self, tokens: Tensor, memory: Tensor | None = None) -> dict[str, np.ndarray]:
        """Show tokens (B, K) as a flat batch, path -> (B, ...), in arrays of its own.

        Args:
            tokens: As given.
            memory: (B, D) float32 beside them, for a view that was made with memory.
        """
        flat = self._flat_plain(tokens)
        if memory is None:
            return flat
        if isinstance(self._plain, spaces.Tuple):  # its paths are those of "observation" now
            flat = {f"{ROOT}/{path}": part for path, part in flat.items()}
        return {**flat, MEMORY: memory.cpu().numpy()}

    def _flat_plain(self, tokens: Tensor) -> dict[str, np.ndarray]:
        if self._mode == "decoded":
            return self._tokenizer.decode_flat(tokens)
        if self._mode == "tokens":
            return {ROOT: tokens.cpu().numpy().copy()}
        vectors = self._tokenizer.embed_known(tokens)
        if self._tokenizer._code_vectors is not self._seen:  # It was fitted on, or loaded anew.
            self._seen = self._tokenizer._code_vectors
            self._center, self._scale = _center_and_scale(self._tokenizer)
        shown = (vectors - self._center) / self._scale
        return {ROOT: shown.flatten(1).cpu().numpy()}


def with_memory(space: spaces.Space[Any], size: int) -> spaces.Dict:
    """Put a summary of the past of `size` entries beside observations.

    Raises:
        SpaceError: If they have a part "memory" already.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {ROOT: space}
    if MEMORY in parts:
        raise SpaceError(
            f"`memory` adds a part {MEMORY!r} to the observation, which has one already: rename "
            "that, or leave `memory` away"
        )
    box = spaces.Box(-np.inf, np.inf, (size,), np.float32)
    return spaces.Dict([*parts.items(), (MEMORY, box)])


def standardised_vectors(tokenizer: Tokenizer) -> list[Tensor]:
    """Give the (V, E) vectors of each codebook with mean 0 and deviation 1 over its codes.

    A tokenizer is free in the scale of its code vectors. Their norms are about ten times those
    of what policies are used to, in which an agent learns slowly.
    """
    return [
        (vectors - center) / scale
        for vectors in tokenizer.codebook_vectors()
        for center, scale in [_moments(vectors)]
    ]


def _moments(vectors: Tensor) -> tuple[Tensor, Tensor]:
    deviation = vectors.std(0, correction=0)
    ones = torch.ones_like(deviation)
    return vectors.mean(0), torch.where(deviation > _LEAST_DEVIATION, deviation, ones)


def _center_and_scale(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Give the mean and the deviation of the codes at each of the K positions, both (K, E)."""
    books = zip(tokenizer.codebooks, tokenizer.codebook_vectors(), strict=True)
    rows = [_moments(vectors) for book, vectors in books for _ in range(book.num_tokens)]
    centers, scales = zip(*rows, strict=True)
    return torch.stack(centers), torch.stack(scales)


def load_tokenizer(source: Tokenizer | WorldModel | str | Path) -> Tokenizer:
    """Give the tokenizer of `source`: itself, a model's, or that of a saved folder.

    Raises:
        CheckpointError: If a path is no folder of a model or of a tokenizer.
        ConfigError: If `source` is something else.
    """
    if isinstance(source, Tokenizer):
        return source
    if isinstance(source, WorldModel):
        return source.tokenizer
    if isinstance(source, str | Path):
        if folder_kind(source) == "tokenizer":
            return Tokenizer.load(source)
        return WorldModel.load(source).tokenizer
    raise ConfigError(
        f"`model` must be a WorldModel, a Tokenizer or a path, got {type(source).__name__}"
    )
