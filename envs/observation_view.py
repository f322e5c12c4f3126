"""What an agent is shown of a frame's tokens.

Classes:
    ObservationMode: the three views.
    ObservationView: tokens to observations of one view.

Functions:
    load_tokenizer: the tokenizer of a model, a tokenizer or a path to either.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from torch import Tensor

from worldgen.config import require
from worldgen.errors import ConfigError
from worldgen.spaces import ROOT
from worldgen.tokenizer import Tokenizer
from worldgen.world_model import WorldModel

__all__ = ["ObservationMode", "ObservationView", "load_tokenizer"]

ObservationMode = Literal["decoded", "tokens", "embeddings"]
"""The environment's own space, token numbers, or the tokens' code vectors."""


class ObservationView:
    """Show tokens as observations of one space.

    Args:
        tokenizer: A trained tokenizer.
        mode: "decoded" for observations in the environment's own space, "tokens" for a
            MultiDiscrete of K token numbers, "embeddings" for their code vectors as one flat
            Box of K * E float32 values.
        argument: Name under which the caller was given `mode`, for the error message.

    Attributes:
        space: Space of the observations.
    """

    def __init__(
        self, tokenizer: Tokenizer, mode: ObservationMode, *, argument: str = "observation"
    ) -> None:
        modes = get_args(ObservationMode)
        require(mode in modes, argument, f"be one of {', '.join(map(repr, modes))}", mode)
        if not tokenizer.is_fitted:
            raise ConfigError("the model has not been trained: call `model.fit(episodes)` first")
        self._tokenizer, self._mode = tokenizer, mode
        self.space = self._make_space()

    def _make_space(self) -> spaces.Space[Any]:
        if self._mode == "decoded":
            return self._tokenizer.space
        if self._mode == "tokens":
            return spaces.MultiDiscrete(self._tokenizer.token_nvec)
        size = self._tokenizer.num_tokens * self._tokenizer.embedding_size
        return spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def flat(self, tokens: Tensor) -> dict[str, np.ndarray]:
        """Show tokens (B, K) as a flat batch, path -> (B, ...), in memory of its own."""
        if self._mode == "decoded":
            return self._tokenizer.decode_flat(tokens)
        if self._mode == "tokens":
            return {ROOT: tokens.cpu().numpy().copy()}
        return {ROOT: self._tokenizer.embed(tokens).flatten(1).cpu().numpy()}


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
        if _kind(Path(source)) == "tokenizer":
            return Tokenizer.load(source)
        return WorldModel.load(source).tokenizer
    raise ConfigError(
        f"`model` must be a WorldModel, a Tokenizer or a path, got {type(source).__name__}"
    )


def _kind(folder: Path) -> str | None:
    """Read which kind of model a folder holds; what is wrong with it, loading will say."""
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return description.get("kind") if isinstance(description, dict) else None
