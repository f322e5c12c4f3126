"""How the dynamics reads and writes the codes of a codebook: through what they stand for.

Classes:
    Codebook: what the tokenizer says of one of its codebooks.
    CodePort: base; embeds codes and makes a `Scorer` of them.
    NamePort: codes that stand for patches; their contents are features.
    NumberPort: codes that stand for real numbers; scores fall with the distance.

A code's index says nothing. With its decoded content as input, and logits that are sums over
that content, what is learned of one code holds for all that share a cell with it, or lie near.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["OCTAVES", "CodePort", "Codebook", "NamePort", "NumberPort", "Scorer", "make_port"]

OCTAVES = 6
_FIRST_WIDTH = 0.1
_SMALLEST_WIDTH = 0.003
_FREE_STD = 0.1
_HEAD_STD = 0.02
_UNSEEN = -12.0
"""Added to the logits of codes that do not occur in the data."""


Scorer = Callable[[Tensor, Tensor], Tensor]
"""From outputs (..., k, D) and the codes (..., k) one frame before to logits (..., k, v)."""


@dataclass(frozen=True)
class Codebook:
    """One codebook and the positions of a frame that use it."""

    size: int
    """V, codes."""
    first_token: int
    """First of the K positions."""
    num_tokens: int
    """Positions, one behind the other."""
    num_features: int
    """F, entries of what describes a code; for numbers P, how many a code stands for."""
    numbers: bool
    """Whether codes stand for real numbers."""

    @property
    def tokens(self) -> slice:
        """Positions of a frame."""
        return slice(self.first_token, self.first_token + self.num_tokens)


class CodePort(nn.Module):
    """Embeddings of a codebook's codes, and their logits.

    Args:
        codebook: Sizes.
        width: D.
    """

    contents: Tensor

    def __init__(self, codebook: Codebook, width: int) -> None:
        super().__init__()
        self.codebook = codebook
        self.register_buffer("contents", torch.zeros(codebook.size, codebook.num_features))

    @torch.no_grad()
    def set_contents(self, contents: Tensor) -> None:
        """Take the tokenizer's description (V, F) of the codes."""
        self.contents.copy_(contents)

    def set_seen(self, codes: Tensor) -> None:
        """Take note of the codes that occur in the data; not needed here."""

    @abstractmethod
    def table(self) -> Tensor:
        """Embed all codes: (V, D)."""

    @property
    def seen(self) -> Tensor:
        """Codes that occur in the data, (v,) int64, ascending."""
        return torch.arange(self.codebook.size, device=self.contents.device)

    @abstractmethod
    def scorer(self, codes: Tensor | None = None, dtype: torch.dtype | None = None) -> Scorer:
        """Make what scores the codes; once a pass, for all its frames.

        Args:
            codes: (v,) int64, the codes to score; None scores all.
            dtype: Of its weights, where they are not to follow autocast.
        """

    def logits(self, hidden: Tensor, previous: Tensor) -> Tensor:
        """Score all codes.

        Args:
            hidden: (..., k, D) outputs of the network at this codebook's positions.
            previous: (..., k) int64, the codes there one frame before.

        Returns:
            (..., k, V).
        """
        return self.scorer()(hidden, previous)


class NamePort(CodePort):
    """Codes that stand for patches or categories, described by features of their content."""

    unseen: Tensor

    def __init__(self, codebook: Codebook, width: int) -> None:
        super().__init__(codebook, width)
        self.read = nn.Linear(codebook.num_features, width)
        self.write = nn.Linear(width, codebook.num_features)
        self.free_table = nn.Parameter(torch.randn(codebook.size, width) * _FREE_STD)
        self.free_logits = nn.Linear(width, codebook.size)
        for layer in (self.write, self.free_logits):
            nn.init.normal_(layer.weight, std=_HEAD_STD)
            nn.init.zeros_(layer.bias)
        self.register_buffer("unseen", torch.zeros(codebook.size))

    @torch.no_grad()
    def set_seen(self, codes: Tensor) -> None:
        """Hold back the codes that are not among `codes`, any shape of int64.

        A tokenizer has codes for patches that were not seen, each much like one that was.
        """
        self.unseen.fill_(_UNSEEN)
        self.unseen[torch.unique(codes)] = 0.0

    def table(self) -> Tensor:
        """Embed by content, with a free part."""
        embedded: Tensor = self.read(self.contents)
        return embedded + self.free_table

    @property
    def seen(self) -> Tensor:
        """Codes that occur in the data, (v,) int64, ascending."""
        return (self.unseen == 0).nonzero().flatten()

    def scorer(self, codes: Tensor | None = None, dtype: torch.dtype | None = None) -> Scorer:
        """Score by content, summed over its features, with a free part."""
        write, free = self.write, self.free_logits
        # Both parts are linear in the network's output, so that one product makes both.
        weight = self.contents @ write.weight + free.weight
        bias = self.contents @ write.bias + free.bias + self.unseen
        if codes is not None:
            weight, bias = weight[codes], bias[codes]
        if dtype is not None:
            weight, bias = weight.to(dtype), bias.to(dtype)
        return lambda hidden, previous: nn.functional.linear(hidden, weight, bias)


class NumberPort(CodePort):
    """Codes that stand for P real numbers.

    The network predicts a change and a width; each code's logit falls with the square of its
    distance from the previous frame's numbers plus the change (compare HL-Gauss,
    https://arxiv.org/abs/2403.03950). A free part is left for what is not a bell.

    Args:
        codebook: Sizes.
        width: D.
        octaves: Frequencies at which the numbers are read.
    """

    def __init__(self, codebook: Codebook, width: int, octaves: int = OCTAVES) -> None:
        super().__init__(codebook, width)
        count = codebook.num_features
        self._octaves = octaves
        self.read = nn.Linear(count * (1 + 2 * octaves), width)
        self.change = nn.Linear(width, count)
        self.log_width = nn.Linear(width, count)
        self.free_logits = nn.Linear(width, codebook.size)
        for layer in (self.change, self.log_width, self.free_logits):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.log_width.bias, math.log(_FIRST_WIDTH))

    def table(self) -> Tensor:
        """Embed the numbers and their sines and cosines, an octave apart."""
        octaves = 2.0 ** torch.arange(self._octaves, device=self.contents.device)
        waves = (self.contents.unsqueeze(-1) * octaves).flatten(1)
        embedded: Tensor = self.read(torch.cat([self.contents, waves.sin(), waves.cos()], 1))
        return embedded

    def scorer(self, codes: Tensor | None = None, dtype: torch.dtype | None = None) -> Scorer:
        """Score by distance, in float32."""
        assert codes is None or len(codes) == self.codebook.size
        free, values = self.free_logits, self.contents
        weight = torch.cat([free.weight, -0.5 * values.square(), values], 1)

        def score(hidden: Tensor, previous: Tensor) -> Tensor:
            with torch.autocast(hidden.device.type, enabled=False):
                hidden = hidden.float()
                mean = values[previous] + self.change(hidden)  # (..., k, P)
                precision = self.log_width(hidden).exp().clamp(min=_SMALLEST_WIDTH).pow(-2)
                # -precision / 2 * (mean - value)^2, summed over P, but for what all codes share.
                # One product makes it, with the free part, and without a (..., V, P) tensor.
                inputs = torch.cat([hidden, precision, precision * mean], -1)
                return nn.functional.linear(inputs, weight, free.bias)

        return score


def make_port(codebook: Codebook, width: int, octaves: int = OCTAVES) -> CodePort:
    """Build the port that fits what the codes stand for."""
    if codebook.numbers:
        return NumberPort(codebook, width, octaves)
    return NamePort(codebook, width)
