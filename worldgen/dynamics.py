"""The dynamics: a diffusion transformer that predicts the next frame's tokens.

Classes:
    DynamicsConfig, Dynamics, Prediction.

A frame is a block of K + 1 tokens: first the action that led to it, then its K tokens. The
first one's output says the transition's reward and termination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from worldgen.actions import ActionCodec, ActionEmbedding
from worldgen.config import Config, require
from worldgen.data.token_dataset import Windows
from worldgen.device import Precision, resolve_precision
from worldgen.ordinal_head import OrdinalHead
from worldgen.transformer import Transformer, TransformerConfig, block_diffusion_mask
from worldgen.two_hot import TwoHot

__all__ = ["Dynamics", "DynamicsConfig", "Prediction"]

_OCTAVES = 6
"""Sines and cosines, an octave apart, by which the network reads codes that are numbers."""


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(Config):
    """Size of the dynamics."""

    transformer: TransformerConfig = TransformerConfig()
    """Size of the transformer."""
    context: int = 4
    """C, frames of the past that a prediction sees."""
    precision: Precision = "auto"
    """Of the matrix products: "auto" is bfloat16 where the processor has it, else float32."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(1 <= self.context <= 256, "context", "be in [1, 256]", self.context)


class Prediction(NamedTuple):
    """What the network says of noised frames; "..." are leading dimensions."""

    token_logits: Tensor
    """(..., K, V), -inf at codes that a position does not have."""
    reward_logits: Tensor
    """(..., bins) of `Dynamics.two_hot`."""
    termination_logits: Tensor
    """(...)."""


class Dynamics(nn.Module):
    """Predict masked frames from clean past frames and actions.

    Args:
        config: Size.
        token_nvec: (K,) number of codes at each position.
        codebook_of_token: (K,) positions with equal entries share embeddings and output head.
        code_dim: E, entries of a code vector.
        code_values: For each codebook, how many numbers its codes stand for; 0 where codes are
            names rather than numbers.
        codec: Of the actions.
    """

    code_vectors: Tensor
    code_values: Tensor
    code_waves: Tensor
    token_offsets: Tensor

    def __init__(
        self,
        config: DynamicsConfig,
        token_nvec: np.ndarray,
        codebook_of_token: np.ndarray,
        code_dim: int,
        code_values: Sequence[int],
        codec: ActionCodec,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_tokens = len(token_nvec)
        self.frame_size = self.num_tokens + 1
        width = config.transformer.width
        self._place_codebooks(token_nvec, codebook_of_token)
        total = sum(self._codebook_sizes)
        self._num_values = tuple(code_values)
        self.register_buffer("code_vectors", torch.zeros(total, code_dim))
        self.register_buffer("code_values", torch.zeros(total, max(code_values)))
        self.register_buffer("code_waves", torch.zeros(total, 2 * _OCTAVES * max(code_values)))
        self.token_table = nn.Embedding(total, width)
        features = code_dim + 2 * _OCTAVES * max(code_values)
        self.code_projection = nn.Linear(features, width)
        self.action_embedding = ActionEmbedding(codec, width)
        self.mask_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(self.frame_size, width) * 0.5)
        self.streams = nn.Parameter(torch.randn(2, width) * 0.02)
        self.transformer = Transformer(config.transformer, config.context)
        self.token_heads = nn.ModuleList(
            OrdinalHead(width, size, count) if count else nn.Linear(width, size)
            for size, count in zip(self._codebook_sizes, code_values, strict=True)
        )
        self.two_hot = TwoHot()
        self.reward_head = nn.Linear(width, self.two_hot.num_bins)
        self.termination_head = nn.Linear(width, 1)
        nn.init.normal_(self.token_table.weight, std=0.5)
        for codebook, count in enumerate(code_values):
            if count:  # numbers are read from their waves, names from the table
                nn.init.zeros_(self.token_table.weight[self._codes(codebook)])
        for head in (*self.token_heads, self.reward_head, self.termination_head):
            if isinstance(head, nn.Linear):
                nn.init.normal_(head.weight, std=0.02)
                nn.init.zeros_(head.bias)
        with torch.no_grad():  # most transitions bring neither reward nor termination
            self.reward_head.bias[self.two_hot.num_bins // 2] = 5.0
            self.termination_head.bias.fill_(-4.0)
        self._masks: dict[int, Tensor] = {}

    def _place_codebooks(self, token_nvec: np.ndarray, codebook_of_token: np.ndarray) -> None:
        self._codebook_sizes: list[int] = []
        self._codebook_slices: list[slice] = []
        for codebook in range(int(codebook_of_token.max()) + 1):
            places = np.flatnonzero(codebook_of_token == codebook)
            self._codebook_sizes.append(int(token_nvec[places[0]]))
            self._codebook_slices.append(slice(int(places[0]), int(places[-1]) + 1))
        first_code = np.cumsum([0, *self._codebook_sizes[:-1]])
        offsets = torch.from_numpy(first_code[codebook_of_token])
        self.register_buffer("token_offsets", offsets, persistent=False)
        self._widest = max(self._codebook_sizes)

    @torch.no_grad()
    def set_codes(self, vectors: Sequence[Tensor], values: Sequence[Tensor | None]) -> None:
        """Take the tokenizer's codes.

        Args:
            vectors: A (V, E) tensor a codebook.
            values: A (V, P) tensor a codebook of numbers, None for the others.
        """
        self.code_vectors.copy_(torch.cat(list(vectors)))
        for index, part in enumerate(values):
            if part is not None:
                self.code_values[self._codes(index), : part.shape[1]] = part
                waves = part.unsqueeze(-1) * 2.0 ** torch.arange(_OCTAVES, device=part.device)
                waves = torch.cat([waves.sin(), waves.cos()], -1).flatten(1)
                self.code_waves[self._codes(index), : waves.shape[1]] = waves

    def _codes(self, codebook: int) -> slice:
        first = sum(self._codebook_sizes[:codebook])
        return slice(first, first + self._codebook_sizes[codebook])

    def embed(
        self, tokens: Tensor, actions: Tensor, *, masked: Tensor | None, noised: bool
    ) -> Tensor:
        """Embed frames.

        Args:
            tokens: (..., K) int64.
            actions: (..., A) encoded, that led to each frame.
            masked: (..., K) bool, tokens hidden from the network; None hides none.
            noised: Whether these are frames in the making.

        Returns:
            (..., K + 1, D).
        """
        features = torch.cat([self.code_vectors, self.code_waves], 1)
        table = self.token_table.weight + self.code_projection(features)  # (codes, D)
        embedded = nn.functional.embedding(tokens + self.token_offsets, table)
        if masked is not None:
            embedded = torch.where(masked.unsqueeze(-1), self.mask_vector, embedded)
        action = self.action_embedding(actions).unsqueeze(-2)
        frame = torch.cat([action, embedded + action], -2)
        return frame + self.positions + self.streams[int(noised)]

    def read_out(self, hidden: Tensor, previous: Tensor) -> Prediction:
        """Turn the outputs of noised frames into predictions.

        Args:
            hidden: (..., K + 1, D).
            previous: (..., K) int64, the tokens of the frames before.
        """
        tokens, outcome = hidden[..., 1:, :], hidden[..., 0, :]
        return Prediction(
            self._token_logits(tokens, previous),
            self.reward_head(outcome),
            self.termination_head(outcome).squeeze(-1),
        )

    def _token_logits(self, hidden: Tensor, previous: Tensor) -> Tensor:
        parts = []
        for codebook, (head, place) in enumerate(
            zip(self.token_heads, self._codebook_slices, strict=True)
        ):
            if isinstance(head, OrdinalHead):
                values = self.code_values[self._codes(codebook), : self._num_values[codebook]]
                logits = head(hidden[..., place, :], previous[..., place], values)
            else:
                logits = head(hidden[..., place, :])
            padding = self._widest - logits.shape[-1]
            if padding:
                logits = nn.functional.pad(logits, (0, padding), value=-torch.inf)
            parts.append(logits)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def forward(self, windows: Windows, clean_tokens: Tensor, masked: Tensor) -> Prediction:
        """Predict frames 1..T-1 of training windows, each from its clean past.

        Args:
            windows: B windows of T frames.
            clean_tokens: (B, T, K), what the network sees as the past (may be corrupted).
            masked: (B, T - 1, K) bool, hidden tokens of frames 1..T-1.

        Returns:
            Leading dimensions (B, T - 1).
        """
        with self.autocast():
            clean = self.embed(
                clean_tokens[:, :-1], windows.actions[:, :-1], masked=None, noised=False
            )
            noised = self.embed(
                windows.tokens[:, 1:], windows.actions[:, 1:], masked=masked, noised=True
            )
            hidden = self.transformer(clean, noised, self._mask(clean.shape[1]))
            return self.read_out(hidden, clean_tokens[:, :-1])

    def autocast(self) -> torch.autocast:
        """Compute inside this block in the configured precision."""
        device = self.code_vectors.device
        dtype = resolve_precision(self.config.precision, device)
        return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)

    def _mask(self, num_frames: int) -> Tensor:
        if num_frames not in self._masks:
            mask = block_diffusion_mask(num_frames, self.frame_size, self.config.context)
            self._masks[num_frames] = mask.to(self.code_vectors.device)
        return self._masks[num_frames]
