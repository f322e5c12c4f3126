"""The dynamics: a diffusion transformer that predicts the next frame's tokens.

Classes:
    DynamicsConfig, Dynamics, Prediction.

A frame is a block of K + 1 tokens: first the action that is taken in it, then its K tokens. Each
token's output predicts the token at the same place in the next frame, the action's the
transition's reward and termination. That is the first denoising pass, from a next frame that is
all masked. Further passes are *drafts*: the same inputs, and beside them the tokens of the next
frame that are known by now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from worldgen.actions import ActionCodec, ActionEmbedding
from worldgen.codes import Codebook, CodePort, make_port
from worldgen.config import Config, require
from worldgen.data.token_dataset import Windows
from worldgen.device import Precision, resolve_precision
from worldgen.transformer import Transformer, TransformerConfig, visible_past
from worldgen.two_hot import TwoHot

__all__ = ["Dynamics", "DynamicsConfig", "Prediction"]


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
    """What the network says of next frames; "..." are leading dimensions."""

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
        codebooks: The tokenizer's, in the order of a frame's positions.
        codec: Of the actions.
    """

    token_offsets: Tensor

    def __init__(
        self, config: DynamicsConfig, codebooks: Sequence[Codebook], codec: ActionCodec
    ) -> None:
        super().__init__()
        self.config = config
        self.num_tokens = sum(codebook.num_tokens for codebook in codebooks)
        self.frame_size = self.num_tokens + 1
        width = config.transformer.width
        self.ports = nn.ModuleList(make_port(codebook, width) for codebook in codebooks)
        self._widest = max(codebook.size for codebook in codebooks)
        first_codes = np.cumsum([0, *(codebook.size for codebook in codebooks)])
        offsets = [
            torch.full((codebook.num_tokens,), int(first))
            for codebook, first in zip(codebooks, first_codes[:-1], strict=True)
        ]
        self.register_buffer("token_offsets", torch.cat(offsets), persistent=False)
        self.action_embedding = ActionEmbedding(codec, width)
        self.mask_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(self.frame_size, width) * 0.5)
        self.read_draft = nn.Linear(width, width)
        self.transformer = Transformer(config.transformer, config.context)
        self.two_hot = TwoHot()
        self.reward_head = nn.Linear(width, self.two_hot.num_bins)
        self.termination_head = nn.Linear(width, 1)
        for head in (self.reward_head, self.termination_head):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        with torch.no_grad():  # most transitions bring neither reward nor termination
            self.reward_head.bias[self.two_hot.num_bins // 2] = 5.0
            self.termination_head.bias.fill_(-4.0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_offsets.device

    def set_code_contents(self, contents: Sequence[Tensor]) -> None:
        """Take the tokenizer's description of its codes, a (V, F) tensor a codebook."""
        for port, part in zip(self.ports, contents, strict=True):
            assert isinstance(port, CodePort)
            port.set_contents(part)

    def set_seen_codes(self, tokens: Tensor) -> None:
        """Take note of the codes that occur in the data's tokens (N, K)."""
        for port in self.each_port():
            port.set_seen(tokens[:, port.codebook.tokens])

    def token_table(self) -> Tensor:
        """Embed all codes of all codebooks: (codes, D); once a pass, for all its frames."""
        return torch.cat([port.table() for port in self.each_port()])

    def embed(self, table: Tensor, tokens: Tensor, actions: Tensor) -> Tensor:
        """Embed clean frames.

        Args:
            table: What `token_table` gave.
            tokens: (..., K) int64.
            actions: (..., A) encoded, taken in each frame: it leads to the next.

        Returns:
            (..., K + 1, D).
        """
        embedded = nn.functional.embedding(tokens + self.token_offsets, table)
        action = self.action_embedding(actions).unsqueeze(-2)
        return torch.cat([action, embedded + action], -2) + self.positions

    def embed_drafts(self, table: Tensor, clean: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
        """Embed drafts of next frames.

        Args:
            table: What `token_table` gave.
            clean: (..., K + 1, D), what `embed` gave for the frames before.
            tokens: (..., K) int64, of the next frames.
            masked: (..., K) bool, those that are hidden from the network.

        Returns:
            (..., K + 1, D).
        """
        known = nn.functional.embedding(tokens + self.token_offsets, self.read_draft(table))
        known = torch.where(masked.unsqueeze(-1), self.mask_vector.to(known.dtype), known)
        return clean + nn.functional.pad(known, (0, 0, 1, 0))

    def read_out(self, hidden: Tensor, previous: Tensor) -> Prediction:
        """Turn outputs into predictions of next frames.

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
        for port in self.each_port():
            place = port.codebook.tokens
            logits = port.logits(hidden[..., place, :], previous[..., place])
            padding = self._widest - port.codebook.size
            if padding:
                logits = nn.functional.pad(logits, (0, padding), value=-torch.inf)
            parts.append(logits)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def each_port(self) -> Iterator[CodePort]:
        """Give the ports in the order of their positions."""
        for port in self.ports:
            assert isinstance(port, CodePort)
            yield port

    def forward(
        self, windows: Windows, past: Tensor, masked: Tensor | None = None
    ) -> tuple[Prediction, Prediction | None]:
        """Predict frames 1..T-1 of training windows, each from its clean past.

        Args:
            windows: B windows of T frames.
            past: (B, T, K), the tokens that the network sees as the past (may be corrupted).
            masked: (R, T - 1, K) bool, hidden tokens of frames 1..T-1 in drafts of the first R
                windows; None makes no drafts.

        Returns:
            Predictions (B, T - 1) of the first pass, and those (R, T - 1) of the drafts.
        """
        previous = past[:, :-1]
        with self.autocast():
            table = self.token_table()
            clean = self.embed(table, previous, windows.actions[:, 1:])
            drafts = None
            if masked is not None:
                count = len(masked)
                drafts = self.embed_drafts(table, clean[:count], windows.tokens[:count, 1:], masked)
            sees = visible_past(windows.episode[:, :-1], self.config.context)
            hidden, made = self.transformer(clean, sees, drafts)
            first = self.read_out(hidden, previous)
            if made is None:
                return first, None
            return first, self.read_out(made, previous[: len(made)])

    def autocast(self) -> torch.autocast:
        """Compute inside this block in the configured precision."""
        device = self.device
        dtype = resolve_precision(self.config.precision, device)
        return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
