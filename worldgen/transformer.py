"""The transformer over frames: bidirectional inside a frame, causal across frames.

Classes:
    TransformerConfig, Transformer, Block, KeyValueCache.

Functions:
    visible_past: which clean frames each frame may see.
    attend: scaled dot-product attention in the form that is fastest here.
    modulate, gate: adaptive layer normalisation by the noise level, where there is one.

Block diffusion (BD3-LM), Arriola et al. 2025, https://arxiv.org/abs/2503.09573, with one
difference: the tokens of clean frame t, with the action that follows, are themselves the first
draft of frame t + 1 (docs/decisions/0009). Further drafts are a second stream beside the clean
one: draft t + 1 sees clean frames up to t and itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldgen.config import Config, require

__all__ = [
    "Block",
    "KeyValueCache",
    "Transformer",
    "TransformerConfig",
    "attend",
    "gate",
    "modulate",
    "visible_past",
]


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


def visible_past(episode: Tensor, context: int) -> Tensor:
    """Say which of the last C frames belong to the episode of each frame.

    Args:
        episode: (B, F) int64, at least 0: the episode of each frame of a window.
        context: C.

    Returns:
        (B, F, C) bool; entry c of frame t is frame t - C + 1 + c, false where that is before the
        window or in another episode. The last entry, the frame itself, is always true.
    """
    padded = functional.pad(episode, (context - 1, 0), value=-1)
    return padded.unfold(1, context, 1) == episode.unsqueeze(-1)


class KeyValueCache:
    """Preallocated keys and values of the last C clean frames. Nothing grows.

    Frame time t lives in slot t mod C.

    Args:
        config: The transformer's.
        num_rows: B.
        context: C.
        frame_size: N, tokens in a frame.
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
        length = context * frame_size
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
        self.context = context
        self.period = 2 * context
        pairs = config.width // config.heads // 2
        turns = torch.arange(pairs) % (context + 1)
        angle = 2 * math.pi * torch.outer(torch.arange(self.period), turns).double() / self.period
        self.register_buffer("cosine", angle.cos().float(), persistent=False)
        self.register_buffer("sine", angle.sin().float(), persistent=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self,
        clean: Tensor,
        sees: Tensor,
        drafts: Tensor | None = None,
        modulation: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Process windows of frames, and drafts of the frame after each.

        Args:
            clean: (B, F, N, D), times 0..F-1.
            sees: What `visible_past` gave, (B, F, C).
            drafts: (R, F, N, D), times 1..F, of the first R windows; draft t + 1 sees what clean
                frame t sees and itself.
            modulation: Of the drafts, (R F, 1, 6 D) a layer, or None.

        Returns:
            Outputs like `clean` and like `drafts`.
        """
        outputs, past = self.read(clean, sees)
        return outputs, None if drafts is None else self.draft(drafts, past, sees, modulation)

    def read(self, clean: Tensor, sees: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Process windows of frames.

        Returns:
            Outputs like `clean`, and of each layer the frames' own keys and values,
            (B F, heads, N, D / heads).
        """
        shape = clean.shape
        times = torch.arange(shape[1], device=clean.device)
        rotation = _repeat(self._rotation_of_frames(times), shape[0])
        bias = _bias(sees.flatten(0, 1), shape[2])  # (B F, 1, 1, C N)
        hidden, past = clean.flatten(0, 1), []
        for block in self.each_block():
            queries, keys, values = block.project(hidden, rotation)
            past.append((keys, values))
            keys, values = self._with_past(keys, shape[0]), self._with_past(values, shape[0])
            hidden = block.combine(hidden, queries, keys, values, bias)
        return self.norm(hidden).view(shape), past

    def draft(
        self,
        drafts: Tensor,
        past: list[tuple[Tensor, Tensor]],
        sees: Tensor,
        modulation: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Process drafts beside what `read` gave for the frames before; see `forward`."""
        shape, made = drafts.shape, drafts.flatten(0, 1)
        rows = len(made)
        times = torch.arange(1, shape[1] + 1, device=drafts.device)
        rotation = _repeat(self._rotation_of_frames(times), shape[0])
        bias = _bias(sees[: shape[0]].flatten(0, 1), shape[2])
        bias = torch.cat([bias, bias.new_zeros(rows, 1, 1, shape[2])], 3)
        for layer, block in enumerate(self.each_block()):
            told = modulation[layer] if modulation else None
            queries, own_keys, own_values = block.project(made, rotation, told)
            # Cut before frames are laid side by side: the gradient of a cut is of the whole.
            keys, values = (self._with_past(part[:rows], shape[0]) for part in past[layer])
            keys = torch.cat([keys, own_keys], 2)
            values = torch.cat([values, own_values], 2)
            made = block.combine(made, queries, keys, values, bias, told)
        outputs: Tensor = self.norm(made).view(shape)
        return outputs

    def each_block(self) -> Iterator[Block]:
        """Give the layers in their order."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def _with_past(self, vectors: Tensor, batch: int) -> Tensor:
        """Lay each frame's last C frames side by side.

        (B F, heads, N, d) -> (B F, heads, C N, d).
        """
        if self.context == 1:
            return vectors
        frames = vectors.view(batch, -1, *vectors.shape[1:])
        laid: Tensor = _LastFrames.apply(frames, self.context)  # type: ignore[no-untyped-call]
        return laid.flatten(0, 1)

    def prefill(
        self, clean: Tensor, first_time: int, sees: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Process clean frames (B, F, N, D) like `forward`, from a time on.

        Each layer is computed only for the frames on which the result depends.

        Returns:
            Outputs of the newest frame, (B, N, D); of each layer the keys and values of the newest
            f = min(F, C - 1) frames, which the next frame sees, (B, f, heads, N, D / heads).
        """
        batch, length, size, _ = clean.shape
        times = torch.arange(first_time, first_time + length, device=clean.device)
        kept = min(length, self.context - 1)
        hidden = clean
        found: list[tuple[Tensor, Tensor]] = []
        for layer, block in enumerate(self.each_block()):
            above = self.config.layers - 1 - layer
            newest = min(length, above * (self.context - 1) + 1)
            rotation = _repeat(self._rotation_of_frames(times[-hidden.shape[1] :]), batch)
            parts = block.project(hidden.flatten(0, 1), rotation)
            queries, keys, values = (part.view(batch, -1, *part.shape[1:]) for part in parts)
            first_kept = keys.shape[1] - kept
            found.append((keys[:, first_kept:], values[:, first_kept:]))
            bias = _bias(sees[:, -newest:].flatten(0, 1), size)
            hidden = block.combine(
                hidden[:, -newest:].flatten(0, 1),
                queries[:, -newest:].flatten(0, 1),
                _last_frames(keys, self.context, newest).flatten(0, 1),
                _last_frames(values, self.context, newest).flatten(0, 1),
                bias,
            ).view(batch, newest, *clean.shape[2:])
        return self.norm(hidden[:, -1]), found

    def _rotation_of_frames(self, times: Tensor) -> tuple[Tensor, Tensor]:
        index = times % self.period
        return self.cosine[index].view(-1, 1, 1, self.cosine.shape[1]), self.sine[index].view(
            -1, 1, 1, self.sine.shape[1]
        )


def _repeat(rotation: tuple[Tensor, Tensor], batch: int) -> tuple[Tensor, Tensor]:
    return rotation[0].repeat(batch, 1, 1, 1), rotation[1].repeat(batch, 1, 1, 1)


class _LastFrames(torch.autograd.Function):
    """Lay each frame's last C frames side by side, with zeros before the window.

    (B, F, heads, N, d) -> (B, F, heads, C N, d). Of the slices that this is made of, autograd would
    make a gradient of the whole window each, and add them up.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, context: int) -> Tensor:
        ctx.context, count = context, frames.shape[1]
        return _last_frames(frames, context, count)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        parts, count = gradient.chunk(ctx.context, 3), gradient.shape[1]
        total = parts[-1].clone()
        for back in range(1, min(ctx.context, count)):
            total[:, : count - back] += parts[-1 - back][:, back:]
        return total, None


def _last_frames(frames: Tensor, context: int, newest: int) -> Tensor:
    """Lay side by side the last C frames of each of the newest M: (B, M, heads, C N, d)."""
    padded = functional.pad(frames, (0, 0, 0, 0, 0, 0, context - 1, 0))
    first = frames.shape[1] - newest
    past = [padded[:, first + index :][:, :newest] for index in range(context)]
    return torch.cat(past, 3)


def _bias(sees: Tensor, frame_size: int) -> Tensor:
    """Turn frames that may be seen, (M, C) bool, into a bias of scores, (M, 1, 1, C N)."""
    bias = torch.zeros(sees.shape, device=sees.device).masked_fill_(~sees, -torch.inf)
    return bias.repeat_interleave(frame_size, 1).unsqueeze(1).unsqueeze(1)


class Block(nn.Module):
    """One layer: attention, then a perceptron, each added to the residual stream."""

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
        self, hidden: Tensor, rotation: tuple[Tensor, Tensor], modulation: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, L, D / heads), the first two rotated."""
        batch, length, width = hidden.shape
        projected = self.project_in(modulate(self.attention_norm(hidden), modulation, 0))
        projected = projected.view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        return _rotate(queries, rotation), _rotate(keys, rotation), values

    def combine(
        self,
        hidden: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        modulation: Tensor | None = None,
    ) -> Tensor:
        """Attend, then the perceptron, each added to the residual stream."""
        attended = attend(queries, keys, values, mask)
        attended = attended.transpose(1, 2).reshape(hidden.shape)
        hidden = hidden + gate(self.project_out(attended), modulation, 0)
        normed = modulate(self.perceptron_norm(hidden), modulation, 1)
        # Not GELU's tanh form, which is six times slower on a CPU in bfloat16.
        widened = functional.gelu(self.widen(normed))
        result: Tensor = hidden + gate(self.narrow(widened), modulation, 1)
        return result


def modulate(normed: Tensor, modulation: Tensor | None, half: int) -> Tensor:
    """Shift and scale a layer's input (M, N, D) by its half of (M, 1, 6 D), or leave it."""
    if modulation is None:
        return normed
    shift, scale, _ = modulation.chunk(2, -1)[half].chunk(3, -1)
    return normed * (1 + scale) + shift


def gate(added: Tensor, modulation: Tensor | None, half: int) -> Tensor:
    """Scale what a layer adds to the residual stream."""
    if modulation is None:
        return added
    return added * (1 + modulation.chunk(2, -1)[half].chunk(3, -1)[2])


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float | None = None
) -> Tensor:
    """Attend: (M, heads, N, d) queries to (M, heads, L, d) keys and values.

    Args:
        queries: As given.
        keys: As given.
        values: As given.
        bias: Added to the scores; broadcast to (M, heads, N, L).
        scale: Of the scores; None is 1 / sqrt(d).
    """
    if queries.device.type == "cpu" and queries.dtype == torch.bfloat16:
        # For frames of a few tokens the fused kernel takes three times as long on a CPU, and its
        # backward pass ten times. A softmax in bfloat16 is slow too unless L is a multiple of 16.
        scores = (queries @ keys.mT) * (queries.shape[-1] ** -0.5 if scale is None else scale)
        attended: Tensor = (scores + bias).softmax(-1, torch.float32).to(values.dtype) @ values
        return attended
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=bias.to(queries.dtype), scale=scale
    )


def _rotate(vectors: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the two halves of each head's vector against each other by the frame's angle."""
    cosine, sine = (part.to(vectors.dtype) for part in rotation)
    first, second = vectors.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
