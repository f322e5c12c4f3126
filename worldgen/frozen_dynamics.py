"""The dynamics as a dream needs it: weights cast once, nothing computed twice.

Classes:
    FrozenDynamics: a snapshot of `Dynamics` for imagination.

The numbers are those of `Dynamics` in the same precision. What is saved: casts of weights, the
table of embeddings, the heads' products of contents and weights, scores of codes that do not
occur in the data, and the rotation by time, which is folded into one projection for each of the
2 C times.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from worldgen.dynamics import Dynamics
from worldgen.transformer import Block, KeyValueCache, attend

__all__ = ["FrozenDynamics"]


class FrozenDynamics:
    """Weights of a network at one moment, laid out for imagination.

    Args:
        dynamics: The network; later changes of it are not followed.
        dtype: Of the matrix products.
    """

    @torch.inference_mode()
    def __init__(self, dynamics: Dynamics, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.two_hot = dynamics.two_hot
        self._actions = dynamics.action_embedding
        self._offsets = dynamics.token_offsets
        self._positions = dynamics.positions.detach()
        self._mask_vector = dynamics.mask_vector.detach()
        self._table = dynamics.token_table()
        self._draft_table = dynamics.read_draft(self._table)
        transformer = dynamics.transformer
        self._blocks = [
            _FrozenBlock(block, transformer.cosine, transformer.sine, dtype)
            for block in transformer.each_block()
        ]
        self._norm, self._period = transformer.norm, transformer.period
        self._outcome = _linear(
            torch.cat([dynamics.reward_head.weight, dynamics.termination_head.weight]),
            torch.cat([dynamics.reward_head.bias, dynamics.termination_head.bias]),
            dtype,
        )
        self._set_heads(dynamics, dtype)

    def _set_heads(self, dynamics: Dynamics, dtype: torch.dtype) -> None:
        """Prepare scores of the codes that occur in the data."""
        ports = list(dynamics.each_port())
        seen = [port.seen for port in ports]
        self._widest = max(len(codes) for codes in seen)
        self._heads = [
            (port.codebook.tokens, len(codes), port.scorer(codes, dtype))
            for port, codes in zip(ports, seen, strict=True)
        ]
        rows = [
            functional.pad(codes, (0, self._widest - len(codes))).expand(
                port.codebook.num_tokens, -1
            )
            for port, codes in zip(ports, seen, strict=True)
        ]
        self.codes = torch.cat(rows)
        """(K, v) int64: the code that each logit of a position stands for."""

    def embed(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """Embed clean frames (B, K) and the actions (B, A) taken in them: (B, K + 1, D)."""
        action = self._actions(actions).unsqueeze(1)
        embedded = functional.embedding(tokens + self._offsets, self._table)
        return torch.cat([action, embedded + action], 1) + self._positions

    def embed_drafts(self, clean: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
        """Embed drafts (B, K) of the frames after `clean` (B, K + 1, D)."""
        known = functional.embedding(tokens + self._offsets, self._draft_table)
        known = torch.where(masked.unsqueeze(-1), self._mask_vector, known)
        drafts = clean.clone()
        drafts[:, 1:] += known
        return drafts

    def extend(
        self, clean: Tensor, time: int, hidden: Tensor, cache: KeyValueCache, slot: slice
    ) -> Tensor:
        """See `Transformer.extend`."""
        mask = hidden.to(self.dtype)
        for layer, block in enumerate(self._blocks):
            queries, keys, values = block.project(clean, time % self._period)
            cache.keys[layer, :, :, slot] = keys
            cache.values[layer, :, :, slot] = values
            clean = block.combine(clean, queries, cache.keys[layer], cache.values[layer], mask)
        return self._norm(clean).to(self.dtype)  # type: ignore[no-any-return]

    def refine(self, drafts: Tensor, time: int, hidden: Tensor, cache: KeyValueCache) -> Tensor:
        """See `Transformer.refine`."""
        own = hidden.new_zeros(len(drafts), 1, 1, drafts.shape[1])
        mask = torch.cat([hidden, own], 3).to(self.dtype)
        for layer, block in enumerate(self._blocks):
            queries, keys, values = block.project(drafts, time % self._period)
            keys = torch.cat([cache.keys[layer], keys], 2)
            values = torch.cat([cache.values[layer], values], 2)
            drafts = block.combine(drafts, queries, keys, values, mask)
        return self._norm(drafts).to(self.dtype)  # type: ignore[no-any-return]

    def token_logits(self, hidden: Tensor, previous: Tensor) -> Tensor:
        """Score the codes that occur: (B, K + 1, D) and (B, K) to (B, K, v), see `codes`."""
        parts = []
        for place, count, score in self._heads:
            logits = score(hidden[:, 1:][:, place], previous[:, place])
            if count < self._widest:
                logits = functional.pad(logits, (0, self._widest - count), value=-torch.inf)
            parts.append(logits)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def widest_logits(self, hidden: Tensor) -> Tensor:
        """Score the codes of the largest codebook at any position: (B, n, D) to (B, n, v)."""
        _, _, score = max(self._heads, key=lambda head: head[1])
        return score(hidden, torch.zeros(hidden.shape[:2], dtype=torch.int64, device=hidden.device))

    def outcome(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward and probability of termination, (B,) each, of outputs (B, K + 1, D)."""
        logits = functional.linear(hidden[:, 0], *self._outcome).float()
        return self.two_hot.decode(logits[:, :-1]), logits[:, -1].sigmoid()


class _FrozenBlock:
    def __init__(self, block: Block, cosine: Tensor, sine: Tensor, dtype: torch.dtype) -> None:
        self._heads = block.heads
        self._norms = block.attention_norm, block.perceptron_norm
        self._out, self._widen, self._narrow = (
            _linear(layer.weight, layer.bias, dtype)
            for layer in (block.project_out, block.widen, block.narrow)
        )
        self._in = [
            _linear(
                _rotated(block.project_in.weight, block.heads, cosine[time], sine[time]),
                _rotated(block.project_in.bias.unsqueeze(1), block.heads, cosine[time], sine[time])[
                    :, 0
                ],
                dtype,
            )
            for time in range(len(cosine))
        ]

    def project(self, inputs: Tensor, time: int) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, width = inputs.shape
        normed = self._norms[0](inputs).to(self._out[0].dtype)
        projected = functional.linear(normed, *self._in[time])
        projected = projected.view(batch, length, 3, self._heads, width // self._heads)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind()
        return queries, keys, values

    def combine(
        self, inputs: Tensor, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        attended = attend(queries, keys, values, mask)
        attended = attended.transpose(1, 2).reshape(inputs.shape)
        hidden = inputs + functional.linear(attended, *self._out)
        normed = self._norms[1](hidden).to(attended.dtype)
        widened = functional.gelu(functional.linear(normed, *self._widen))
        return hidden.add_(functional.linear(widened, *self._narrow))


def _linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return weight.detach().to(dtype).contiguous(), bias.detach().to(dtype)


def _rotated(rows: Tensor, heads: int, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the rows (3 D, n) that make queries and keys; those of values stay."""
    parts = rows.detach().view(3, heads, 2, len(cosine), -1)
    first, second = parts[:2, :, 0], parts[:2, :, 1]
    cosine, sine = cosine.unsqueeze(1), sine.unsqueeze(1)
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], 2)
    return torch.cat([turned, parts[2:]]).view(rows.shape)
