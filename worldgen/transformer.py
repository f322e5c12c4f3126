"""The transformer over frames: bidirectional inside a frame, causal across frames.

Classes:
    TransformerConfig, Transformer, KeyValueCache.

Block diffusion (BD3-LM), Arriola et al. 2025, https://arxiv.org/abs/2503.09573: the clean and
the noised sequence go through the network side by side; clean frame t sees clean frames up to
t, noised frame t sees clean frames before t and itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldgen.config import Config, require

__all__ = ["KeyValueCache", "Transformer", "TransformerConfig", "block_diffusion_mask"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Config):
    """Size of the transformer."""

    width: int = 128
    """D."""
    layers: int = 2
    """Number of blocks."""
    heads: int = 4
    """Attention heads; the width of one must be even, for the rotation."""
    expansion: int = 4
    """Width of the hidden layer of a block's perceptron, in units of D."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("width", "layers", "heads", "expansion"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        require(
            self.width % (2 * self.heads) == 0,
            "width",
            f"be a multiple of 2 * heads = {2 * self.heads}",
            self.width,
        )


def block_diffusion_mask(num_frames: int, frame_size: int, context: int) -> Tensor:
    """Who sees whom when clean frame t and noised frame t + 1 go side by side.

    Args:
        num_frames: F, pairs of frames; clean times are 0..F-1, noised times 1..F.
        frame_size: N, tokens in a frame, the action's included.
        context: C, clean frames t-C+1..t that both frames of pair t may see.

    Returns:
        (F, 2 N, (C + 1) N) bool. Rows are the pair's clean and noised tokens; columns are the
        C clean frames, oldest first, and the pair's noised frame. Frames before time 0 are
        hidden, and so is the noised frame from the clean one.
    """
    times = torch.arange(num_frames).unsqueeze(1) + torch.arange(1 - context, 1)  # (F, C)
    clean = (times >= 0).unsqueeze(1).expand(-1, 2, -1)
    own = torch.tensor([False, True]).view(1, 2, 1).expand(num_frames, -1, -1)
    sees = torch.cat([clean, own], 2)  # (F, 2, C + 1)
    return sees.repeat_interleave(frame_size, 1).repeat_interleave(frame_size, 2)


class KeyValueCache:
    """Preallocated keys and values of the last C clean frames and of the frame in the making.

    Frame time t lives in slot t mod C; slot C is the noised frame's. Nothing grows.

    Args:
        config: The transformer's.
        num_rows: B.
        context: C.
        frame_size: Tokens in a frame.
        device: Where.
        dtype: Of keys and values.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_rows: int,
        context: int,
        frame_size: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        length = (context + 1) * frame_size
        shape = (config.layers, num_rows, config.heads, length, config.width // config.heads)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)


class Transformer(nn.Module):
    """Pre-norm transformer with rotary *time*: all tokens of a frame have the frame's angle.

    The rotation frequencies are the multiples of one turn in 2 C frames, so a time may be
    taken modulo 2 C and dreams can go on forever without loss of precision.

    Args:
        config: Size.
        context: C, frames that attention can reach back.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: TransformerConfig, context: int) -> None:
        super().__init__()
        self.config = config
        self.period = 2 * context
        pairs = config.width // config.heads // 2
        turns = torch.arange(pairs) % (context + 1)
        angle = 2 * math.pi * torch.outer(torch.arange(self.period), turns).double() / self.period
        self.register_buffer("cosine", angle.cos().float(), persistent=False)
        self.register_buffer("sine", angle.sin().float(), persistent=False)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, clean: Tensor, noised: Tensor, mask: Tensor) -> Tensor:
        """Process F pairs of clean frame t and noised frame t + 1 at once.

        Args:
            clean: (B, F, N, D), times 0..F-1.
            noised: (B, F, N, D), times 1..F.
            mask: What `block_diffusion_mask` gave.

        Returns:
            The noised frames' outputs, (B, F, N, D).
        """
        batch, pairs, size, width = clean.shape
        hidden = torch.cat([clean, noised], 2).flatten(0, 1)  # (B F, 2 N, D)
        first = torch.arange(pairs, device=clean.device)
        times = torch.stack([first, first + 1], 1).repeat_interleave(size, 1)  # (F, 2 N)
        cosine, sine = (part.repeat(batch, 1, 1).unsqueeze(1) for part in self._rotation(times))
        bias = torch.zeros(mask.shape, device=clean.device).masked_fill_(~mask, -torch.inf)
        bias = bias.repeat(batch, 1, 1).unsqueeze(1)  # (B F, 1, 2 N, (C + 1) N)
        for block in self.blocks:
            assert isinstance(block, _Block)
            queries, keys, values = block.project(hidden, (cosine, sine))
            keys = self._with_past(keys, batch, size)
            values = self._with_past(values, batch, size)
            hidden = block.combine(hidden, queries, keys, values, bias)
        normed: Tensor = self.norm(hidden[:, size:])
        return normed.view(batch, pairs, size, width)

    def _with_past(self, vectors: Tensor, batch: int, size: int) -> Tensor:
        """Lay each pair's C clean frames and its noised frame side by side.

        (B F, heads, 2 N, d) -> (B F, heads, (C + 1) N, d).
        """
        pairs = len(vectors) // batch
        context = self.period // 2
        clean, noised = torch.split(vectors, size, 2)
        clean = clean.reshape(batch, pairs, *clean.shape[1:])
        padded = functional.pad(clean, (0, 0, 0, 0, 0, 0, context - 1, 0))
        frames = [padded[:, index : index + pairs] for index in range(context)]
        past = torch.cat(frames, 3).flatten(0, 1)
        return torch.cat([past, noised], 2)

    def prefill(
        self, inputs: Tensor, times: Tensor, mask: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Process clean frames like `forward`, and give each layer's keys and values.

        Returns:
            Keys and values, a tensor (B, heads, L, D / heads) a layer.
        """
        hidden, rotation = inputs, self._rotation(times)
        all_keys, all_values = [], []
        for block in self.blocks:
            assert isinstance(block, _Block)
            queries, keys, values = block.project(hidden, rotation)
            hidden = block.combine(hidden, queries, keys, values, mask)
            all_keys.append(keys)
            all_values.append(values)
        return all_keys, all_values

    def extend(
        self,
        inputs: Tensor,
        times: Tensor,
        mask: Tensor,
        cache: KeyValueCache,
        places: list[tuple[slice, slice]],
    ) -> Tensor:
        """Process new tokens against a cache, and write their keys and values into it.

        Args:
            inputs: (B, Q, D).
            times: (Q,).
            mask: Float, broadcast to (B, 1, Q, L) with L the cache's length; 0 or -inf.
            cache: Changed in place.
            places: Which tokens of the inputs go where in the cache.

        Returns:
            (B, Q, D).
        """
        hidden, rotation = inputs, self._rotation(times)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            queries, keys, values = block.project(hidden, rotation)
            for source, target in places:
                cache.keys[layer, :, :, target] = keys[:, :, source]
                cache.values[layer, :, :, target] = values[:, :, source]
            hidden = block.combine(hidden, queries, cache.keys[layer], cache.values[layer], mask)
        normed: Tensor = self.norm(hidden)
        return normed

    def _rotation(self, times: Tensor) -> tuple[Tensor, Tensor]:
        index = times % self.period
        return self.cosine[index], self.sine[index]  # each (L, D / heads / 2)


class _Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.perceptron_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, config.expansion * width)
        self.narrow = nn.Linear(config.expansion * width, width)
        scale = 1 / math.sqrt(2 * config.layers)
        for layer in (self.project_out, self.narrow):
            nn.init.normal_(layer.weight, std=scale / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)

    def project(
        self, hidden: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, L, D / heads), the first two rotated."""
        batch, length, width = hidden.shape
        projected = self.project_in(self.attention_norm(hidden))
        projected = projected.view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        return _rotate(queries, rotation), _rotate(keys, rotation), values

    def combine(
        self, hidden: Tensor, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Attend, then the perceptron, each added to the residual stream."""
        attended = _attend(queries, keys, values, mask)
        attended = attended.transpose(1, 2).reshape(hidden.shape)
        hidden = hidden + self.project_out(attended)
        widened = functional.gelu(self.widen(self.perceptron_norm(hidden)), approximate="tanh")
        result: Tensor = hidden + self.narrow(widened)
        return result


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    if queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and queries.requires_grad:
        # The fused CPU kernel's backward pass is ten times slower in bfloat16 than this.
        scores = (queries @ keys.mT) * queries.shape[-1] ** -0.5 + mask
        attended: Tensor = scores.softmax(-1).to(values.dtype) @ values
        return attended
    mask = mask.to(queries.dtype) if mask.dtype != torch.bool else mask
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


def _rotate(vectors: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the two halves of each head's vector against each other by the frame's angle."""
    cosine, sine = (part.to(vectors.dtype) for part in rotation)
    first, second = vectors.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
