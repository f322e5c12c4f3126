"""The transformer over frames: bidirectional inside a frame, causal across frames.

Classes:
    TransformerConfig, Transformer, Block, KeyValueCache, Past.

Functions:
    visible_past: which clean frames each frame may see.
    padded_length: how many keys attention is fastest with.
    attend: scaled dot-product attention in the form that is fastest here.
    turn: rotate queries or keys by where their frames are on their path.
    modulate, gate: adaptive layer normalisation by the noise level, where there is one.

Block diffusion (BD3-LM), Arriola et al. 2025, https://arxiv.org/abs/2503.09573, with one
difference: the tokens of clean frame t, with the action that follows, are themselves the first
draft of frame t + 1 (docs/decisions/0009). Further drafts are a second stream beside the clean
one: draft t + 1 sees clean frames up to t and itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldgen.compiling import compiled
from worldgen.config import Config, require

__all__ = [
    "Block",
    "KeyValueCache",
    "Past",
    "Transformer",
    "TransformerConfig",
    "attend",
    "gate",
    "modulate",
    "padded_length",
    "turn",
    "visible_past",
]

_VECTOR = 16
"""Scores that a CPU's softmax takes at once."""

_MOST_SCORES = 7_000_000
"""Scores of one product on a CPU: 28 MB in float32. What is over 32 MB glibc gives back to the
system each time, which then takes as long as to compute it (docs/decisions/0024)."""


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
    path_integration: bool = False
    """Whether each frame, with the action taken in it, also turns the keys and queries of the
    frames after it, by angles that are learned: what lay somewhere when it was last seen is found
    again after turns and steps. For views that move with the agent; an imagined step takes 1.3
    times as long (docs/decisions/0024)."""

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
    """Say which frames of a window each frame sees: the last C of its episode, itself included.

    Args:
        episode: (B, F) int64, the episode of each frame.
        context: C.

    Returns:
        (B, F, F) bool; entry (t, u) says whether frame t sees frame u.
    """
    time = torch.arange(episode.shape[1], device=episode.device)
    back = time.unsqueeze(1) - time
    same = episode.unsqueeze(2) == episode.unsqueeze(1)
    return same & (back >= 0) & (back < context)


class KeyValueCache:
    """Preallocated keys and values of the last C clean frames. Nothing grows.

    Frame time t lives in slot t mod C, and `paths` has the angles at which the next frame will be.
    Behind the slots may be room that no frame uses, see `padded_length`: it must be hidden from
    attention.

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
        length = padded_length(context * frame_size)
        shape = (config.layers, num_rows, config.heads, length, config.width // config.heads)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        pairs = config.width // config.heads // 2 if config.path_integration else 0
        self.paths = torch.zeros(config.layers, num_rows, config.heads, pairs, device=device)


class Past(NamedTuple):
    """What a layer keeps of F clean frames."""

    keys: Tensor
    """(B, heads, F N, D / heads)."""
    values: Tensor
    """(B, heads, F N, D / heads)."""
    path: Tensor | None
    """(B, F + 1, heads, D / heads / 2) float32, angles before each frame and after the last."""


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
        pace = angle[1].float()  # Of one frame.
        self.blocks = nn.ModuleList(Block(config, pace) for _ in range(config.layers))
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
            sees: What `visible_past` gave, (B, F, F).
            drafts: (R, F, N, D), times 1..F, of the first R windows; draft t + 1 sees what clean
                frame t sees and itself.
            modulation: Of the drafts, (R F, 1, 6 D) a layer, or None.

        Returns:
            Outputs like `clean` and like `drafts`.
        """
        outputs, past = self.read(clean, sees)
        return outputs, None if drafts is None else self.draft(drafts, past, sees, modulation)

    def read(
        self, clean: Tensor, sees: Tensor, *, compiles: bool = False
    ) -> tuple[Tensor, list[Past]]:
        """Process windows of frames.

        Args:
            clean: As in `forward`.
            sees: As in `forward`.
            compiles: Whether the layers go through `torch.compile`.

        Returns:
            Outputs like `clean`, and what each layer keeps.
        """
        _, read, combine = _functions(compiles)
        rotation = self._rotation(range(clean.shape[1]), clean.shape[2])
        bias = _bias(sees, clean.shape[2])
        hidden, past = clean.flatten(1, 2), []
        for block in self.each_block():
            queries, layer = read(block, hidden, rotation, clean.shape[2])
            past.append(layer)
            hidden = combine(block, hidden, queries, layer.keys, layer.values, bias)
        return self.norm(hidden).view(clean.shape), past

    def draft(
        self,
        drafts: Tensor,
        past: list[Past],
        sees: Tensor,
        modulation: Sequence[Tensor] | None = None,
        *,
        before_actions: bool = False,
        compiles: bool = False,
    ) -> Tensor:
        """Process drafts beside what `read` gave for the frames before.

        Args:
            drafts: As in `forward`.
            past: As given.
            sees: As in `forward`.
            modulation: As in `forward`.
            before_actions: Whether drafts do not know what the last action did to the path.
            compiles: As in `read`.

        Returns:
            Outputs like `drafts`.
        """
        project, _, combine = _functions(compiles)
        rows, length, size, _ = drafts.shape
        rotation = self._rotation(range(1, length + 1), size)
        itself = torch.eye(length, dtype=torch.bool, device=drafts.device).expand(rows, -1, -1)
        bias = _bias(torch.cat([sees[:rows], itself], 2), size)
        made = drafts.flatten(1, 2)
        for layer, block in enumerate(self.each_block()):
            told = modulation[layer].view(rows, length, -1) if modulation else None
            seen_keys, seen_values, path = past[layer]
            if path is not None:
                path = path[:rows, :-1] if before_actions else path[:rows, 1:]
            queries, keys, values = project(block, made, rotation, told, path)
            keys = torch.cat([seen_keys[:rows], keys], 2)
            values = torch.cat([seen_values[:rows], values], 2)
            made = combine(block, made, queries, keys, values, bias, told)
        outputs: Tensor = self.norm(made).view(drafts.shape)
        return outputs

    def each_block(self) -> Iterator[Block]:
        """Give the layers in their order."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def prefill(self, clean: Tensor, first_time: int, sees: Tensor) -> tuple[Tensor, list[Past]]:
        """Process clean frames (B, F, N, D) like `forward`, from a time on.

        Each layer is computed only for the frames on which the result depends.

        Returns:
            Outputs of the newest frame, (B, N, D); what each layer keeps of the newest
            f = min(F, C - 1) frames, which the next frame sees: keys and values are
            (B, f, heads, N, D / heads), and paths go up to the next frame.
        """
        _, length, size, _ = clean.shape
        kept = min(length, self.context - 1)
        hidden, first = clean.flatten(1, 2), 0
        found: list[Past] = []
        for layer, block in enumerate(self.each_block()):
            above = self.config.layers - 1 - layer
            newest = min(length, above * (self.context - 1) + 1)
            times = range(first_time + first, first_time + length)
            queries, (keys, values, path) = block.read(hidden, self._rotation(times, size), size)
            found.append(Past(_newest(keys, kept, size), _newest(values, kept, size), path))
            bias = _bias(sees[:, length - newest :, first:], size)
            last = slice(-newest * size, None)
            hidden = block.combine(hidden[:, last], queries[:, :, last], keys, values, bias)
            first = length - newest
        return self.norm(hidden[:, -size:]), found

    def _rotation(self, times: Sequence[int], frame_size: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the tokens of frames at these times, (F N, D / heads / 2) each."""
        index = torch.tensor(times, device=self.cosine.device) % self.period
        index = index.repeat_interleave(frame_size)
        return self.cosine[index], self.sine[index]


def _newest(vectors: Tensor, count: int, frame_size: int) -> Tensor:
    """Take the newest f frames of keys or values, (B, heads, F N, d): (B, f, heads, N, d)."""
    batch, heads, length, _ = vectors.shape
    frames = vectors.view(batch, heads, length // frame_size, frame_size, -1)
    return frames[:, :, length // frame_size - count :].transpose(1, 2)


def _bias(sees: Tensor, frame_size: int) -> Tensor:
    """Turn frames that may be seen, (B, F, P) bool, into a bias of scores, (B, 1, F N, P N)."""
    bias = torch.zeros(sees.shape, device=sees.device).masked_fill_(~sees, -torch.inf)
    return bias.repeat_interleave(frame_size, 2).repeat_interleave(frame_size, 1).unsqueeze(1)


class Block(nn.Module):
    """One layer: attention, then a perceptron, each added to the residual stream.

    Args:
        config: Size.
        pace: (D / heads / 2) angles by which time turns the pairs of a head in one frame.
    """

    def __init__(self, config: TransformerConfig, pace: Tensor) -> None:
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
        self.moves: nn.Linear | None = None
        if config.path_integration:
            self.moves = nn.Linear(width, width // 2)
            nn.init.normal_(self.moves.weight, std=0.02)
            paces = pace.repeat(config.heads, 1)
            paces[: config.heads // 2] = 0  # The other heads begin without a sense of time.
            with torch.no_grad():
                self.moves.bias.copy_(-paces.flatten())

    def read(
        self, hidden: Tensor, rotation: tuple[Tensor, Tensor], frame_size: int
    ) -> tuple[Tensor, Past]:
        """Queries, like the keys, and what is kept, of clean frames (B, F N, D)."""
        queries, keys, values = self.project(hidden, rotation)
        if self.moves is None:
            return queries, Past(keys, values, None)
        moves = self.moves_of(hidden[:, ::frame_size])
        path = nn.functional.pad(moves.cumsum(1), (0, 0, 0, 0, 1, 0))
        # A frame asks from where its action leads, and answers from where it is.
        return turn(queries, path[:, 1:]), Past(turn(keys, path[:, :-1]), values, path)

    def moves_of(self, actions: Tensor) -> Tensor:
        """Say by how much frames turn those after them.

        Args:
            actions: (..., D), the layer's inputs at the frames' actions.

        Returns:
            (..., heads, D / heads / 2) float32 angles.
        """
        assert self.moves is not None
        with torch.autocast(actions.device.type, enabled=False):
            angles: Tensor = self.moves(self.attention_norm(actions.float()))
        return angles.view(*angles.shape[:-1], self.heads, -1)

    def project(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        modulation: Tensor | None = None,
        path: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, L, D / heads), the first two rotated.

        Args:
            hidden: (B, L, D).
            rotation: Cosine and sine of the time's angles.
            modulation: See `modulate`.
            path: (B, F, heads, D / heads / 2), by which queries and keys are turned beside it.
        """
        batch, length, width = hidden.shape
        projected = self.project_in(modulate(self.attention_norm(hidden), modulation, 0))
        projected = projected.view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        queries, keys = _rotate(queries, rotation), _rotate(keys, rotation)
        if path is None:
            return queries, keys, values
        return turn(queries, path), turn(keys, path), values

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


def turn(vectors: Tensor, path: Tensor) -> Tensor:
    """Turn queries or keys (B, heads, F N, d) of F frames by angles (B, F, heads, d / 2)."""
    angles = path.transpose(1, 2).unsqueeze(3)
    frames = vectors.reshape(*vectors.shape[:2], path.shape[1], -1, vectors.shape[-1])
    return _rotate(frames, (angles.cos(), angles.sin())).flatten(2, 3)


def _functions(compiles: bool) -> tuple[Callable[..., Any], ...]:
    """Give the three functions that take the time of a layer, compiled or not."""
    functions: tuple[Callable[..., Any], ...] = Block.project, Block.read, Block.combine
    return tuple(map(compiled, functions)) if compiles else functions


def modulate(normed: Tensor, modulation: Tensor | None, half: int) -> Tensor:
    """Shift and scale a layer's input (B, F N, D) by its half of (B, F, 6 D), or leave it."""
    if modulation is None:
        return normed
    shift, scale, _ = _told(modulation, half)
    return (_by_frame(normed, modulation) * (1 + scale) + shift).flatten(1, 2)


def gate(added: Tensor, modulation: Tensor | None, half: int) -> Tensor:
    """Scale what a layer adds to the residual stream."""
    if modulation is None:
        return added
    return (_by_frame(added, modulation) * (1 + _told(modulation, half)[2])).flatten(1, 2)


def _told(modulation: Tensor, half: int) -> tuple[Tensor, ...]:
    told: tuple[Tensor, ...] = modulation.unsqueeze(2).chunk(2, -1)[half].chunk(3, -1)
    return told


def _by_frame(tokens: Tensor, modulation: Tensor) -> Tensor:
    return tokens.view(len(tokens), modulation.shape[1], -1, tokens.shape[2])


def padded_length(length: int) -> int:
    """Say with how many keys attention to `length` ones is fastest on a CPU.

    A softmax over 9 to 15 scores takes 5 to 10 times as long there as one over 16.
    """
    return _VECTOR if _VECTOR // 2 < length < _VECTOR else length


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
        missing = padded_length(keys.shape[2]) - keys.shape[2]
        if missing:
            keys, values = (functional.pad(part, (0, 0, 0, missing)) for part in (keys, values))
            bias = functional.pad(bias, (0, missing), value=-torch.inf)
        rows = max(1, _MOST_SCORES // (queries.shape[1] * queries.shape[2] * keys.shape[2]))
        if len(queries) > rows:
            bias = bias.expand(len(queries), *bias.shape[1:])
            each = (torch.split(part, rows) for part in (queries, keys, values, bias))
            return torch.cat([attend(q, k, v, b, scale) for q, k, v, b in zip(*each, strict=True)])
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
