"""The dynamics as a dream needs it: weights cast once, nothing computed twice.

Classes:
    FrozenDynamics: a snapshot of `Dynamics` for imagination.

The numbers are those of `Dynamics` in the same precision. What is saved: casts of weights, the
table of embeddings, the heads' products of contents and weights, scores of codes that do not
occur in the data, and the rotation by time, which is folded into one projection for each of the
2 C times.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional

from worldgen.action_proposer import Aim, split_choices
from worldgen.code_space import as_guess
from worldgen.codes import CodePort
from worldgen.compiling import compiled
from worldgen.diffusion.gaussian_diffusion import Guess
from worldgen.dynamics import Dynamics, Recent
from worldgen.transformer import Block, KeyValueCache, Transformer, attend, gate, modulate, turn

__all__ = ["FrozenDynamics"]


class FrozenDynamics:
    """Weights of a network at one moment, laid out for imagination.

    Args:
        dynamics: The network, which is copied; later changes of it are not followed.
        dtype: Of the matrix products.
        compiles: Whether `torch.compile` makes the layers faster.
    """

    @torch.inference_mode()
    def __init__(self, dynamics: Dynamics, dtype: torch.dtype, *, compiles: bool = False) -> None:
        self.dynamics = dynamics = copy.deepcopy(dynamics)
        self.dtype = dtype
        self.two_hot = dynamics.two_hot
        self._actions = dynamics.action_embedding
        self._offsets = dynamics.token_offsets
        self._positions = dynamics.positions.detach()
        self._table = dynamics.token_table()
        if dynamics.config.frames_in_flight > 1:
            self._earlier = dynamics.read_earlier
        if dynamics.config.process == "masked":
            self._mask_vector = dynamics.mask_vector.detach()
            self._draft_table = dynamics.read_draft(self._table)
        else:
            self._space = dynamics.code_space
            self._noise_modulation = dynamics.noise_modulation
            self._modulations: dict[float, list[Tensor]] = {}
        transformer = dynamics.transformer
        self._blocks = _freeze(transformer, dtype, compiles)
        self._norm, self._period = transformer.norm, transformer.period
        self._outcome = _linear(
            torch.cat([dynamics.reward_head.weight, dynamics.termination_head.weight]),
            torch.cat([dynamics.reward_head.bias, dynamics.termination_head.bias]),
            dtype,
        )
        self._aftermath = None
        if dynamics.config.outcome_from == "next_frame":
            self._aftermath = dynamics.aftermath.to(dtype)
        self._set_heads(dynamics, dtype)
        if dynamics.config.goal_horizon:
            self._proposer, self._codec = dynamics.proposer, dynamics.codec
            self._proposer_blocks = _freeze(dynamics.proposer.transformer, dtype, compiles)
            head = dynamics.proposer.head
            self._choices = _linear(head.weight, head.bias, dtype)

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
        self._numbers = [
            (port.codebook.tokens, port.contents, port.contents.square().sum(-1) / 2)
            for port in ports
            if port.codebook.numbers
        ]
        self.codes = torch.cat(rows)
        """(K, v) int64: the code that each logit of a position stands for."""
        self._points_back = dynamics.config.pointer
        if self._points_back:  # (K, V): the logit that stands for a code, -1 where none does.
            largest = max(port.codebook.size for port in ports)
            self._places = self.codes.new_full((len(self.codes), largest), -1)
            for port, codes in zip(ports, seen, strict=True):
                place = torch.arange(len(codes), device=codes.device)
                self._places[port.codebook.tokens, codes] = place
        if dynamics.config.process == "gaussian":
            self._set_points(ports, seen)

    def _set_points(self, ports: list[CodePort], seen: list[Tensor]) -> None:
        """Lay the points of the codes that occur beside each other."""
        self._points = self._space.points[self.codes + self._offsets.unsqueeze(1)]  # (K, v, E)
        padding = [
            (torch.arange(self._widest, device=codes.device) >= len(codes)).expand(
                port.codebook.num_tokens, -1
            )
            for port, codes in zip(ports, seen, strict=True)
        ]
        self._half_norms = self._points.square().sum(-1) / 2
        self._half_norms.masked_fill_(torch.cat(padding), torch.inf)  # no code: never the nearest

    def embed(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """Embed clean frames (B, K) and the actions (B, A) taken in them: (B, K + 1, D)."""
        action = self._actions(actions).unsqueeze(1)
        embedded = self._look_up(self._table, tokens)
        return torch.cat([action, embedded + action], 1) + self._positions

    def _look_up(self, table: Tensor, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens + self._offsets, table)

    def embed_unseen(self, tokens: Tensor, earlier: Tensor, actions: Tensor) -> Tensor:
        """Embed frames that are reached from (B, K) by `earlier`, and left by `actions`."""
        added = self._earlier(self._actions(earlier)).unsqueeze(1)
        return self.embed(tokens, actions) + added  # type: ignore[no-any-return]

    def embed_drafts(self, clean: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
        """Embed drafts (B, K) of the frames after `clean` (B, K + 1, D)."""
        known = self._look_up(self._draft_table, tokens)
        known = torch.where(masked.unsqueeze(-1), self._mask_vector, known)
        drafts = clean.clone()
        drafts[:, 1:] += known
        return drafts

    def embed_noisy(self, clean: Tensor, noisy: Tensor, sigma: float, guess: Guess) -> Tensor:
        """Embed noisy points (B, K, E) of the frames after `clean` (B, K + 1, D), and a guess."""
        drafts = clean.clone()
        drafts[:, 1:] += self._space.embed(noisy, noisy.new_tensor(sigma), guess)
        return drafts

    def modulation(self, sigma: float) -> list[Tensor]:
        """Give what tells the layers a noise level, (1, 1, 6 D) each; made once a level."""
        if sigma not in self._modulations:
            level = self._table.new_full((1,), sigma, dtype=torch.float32)
            self._modulations[sigma] = self._noise_modulation(level)
        return self._modulations[sigma]

    def denoise(self, hidden: Tensor, noisy: Tensor, sigma: float, guess: Guess) -> Tensor:
        """Turn outputs (B, K + 1, D) for noisy points (B, K, E) into denoised ones."""
        return self._space.denoise(hidden[:, 1:], noisy, noisy.new_tensor(sigma), guess)

    def guess(self, weights: Tensor) -> Guess:
        """Give the moments of the points of the codes that occur, by weights (B, K, v)."""
        shares = weights / weights.sum(-1, keepdim=True)
        return as_guess(
            torch.einsum("bkv,kve->bke", shares, self._points),
            torch.einsum("bkv,kve->bke", shares, self._points.square()),
        )

    def nearest_codes(self, points: Tensor) -> Tensor:
        """Snap points (B, K, E) to codes that occur: (B, K)."""
        # |p - c|^2 without the |p|^2 that no code changes.
        distances = self._half_norms - torch.einsum("bke,kve->bkv", points, self._points)
        return self.codes_of(distances.argmin(-1))

    def codes_of(self, choices: Tensor) -> Tensor:
        """Give the codes (B, K) of places (B, K) in the last dimension of logits."""
        codes = self.codes.expand(len(choices), -1, -1)
        return codes.gather(2, choices.unsqueeze(2)).squeeze(2)

    def with_mean_numbers(self, codes: Tensor, weights: Tensor) -> Tensor:
        """Replace codes (B, K) that stand for numbers by those nearest to the weights' means.

        Args:
            codes: Not changed.
            weights: (B, K, v), not negative.
        """
        settled = codes.clone()
        for place, numbers, half_norms in self._numbers:  # numbers (V, P)
            shares = weights[:, place, : len(numbers)]
            mean = shares @ numbers / shares.sum(-1, keepdim=True)
            # |m - c|^2 without the |m|^2 that no code changes.
            settled[:, place] = (half_norms - mean @ numbers.T).argmin(-1)
        return settled

    def live_entries(self) -> Tensor:
        """(K, E) float32: 1 where the points of a position differ at all."""
        return self._space.live

    def extend(
        self, clean: Tensor, time: int, hidden: Tensor, cache: KeyValueCache, slot: slice
    ) -> Tensor:
        """Process clean frames (B, K + 1, D) of a time, and keep them in their slot.

        Args:
            clean: What `embed` gave.
            time: Of the frames.
            hidden: (B, 1, 1, L), 0 where a key of the cache may be seen, else -inf.
            cache: Of the frames before; the new keys, values and paths go there.
            slot: Where.

        Returns:
            Outputs (B, K + 1, D).
        """
        mask = hidden.to(self.dtype)
        for layer, block in enumerate(self._blocks):
            queries, keys, values, path = block.read(clean, time % self._period, cache.paths[layer])
            cache.keys[layer, :, :, slot] = keys
            cache.values[layer, :, :, slot] = values
            cache.paths[layer] = path
            clean = block.combine(clean, queries, cache.keys[layer], cache.values[layer], mask)
        return self._norm(clean).to(self.dtype)  # type: ignore[no-any-return]

    def extend_twice(
        self,
        frames: tuple[Tensor, Tensor],
        time: int,
        hidden: tuple[Tensor, Tensor],
        cache: KeyValueCache,
        slots: tuple[slice, slice],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Process two frames one after the other in one pass; the first sees not the second.

        Returns:
            Outputs of both, and the paths between them, like those in the cache.
        """
        masks = hidden[0].to(self.dtype), hidden[1].to(self.dtype)
        both, between = torch.cat(frames), torch.empty_like(cache.paths)
        for layer, block in enumerate(self._blocks):
            queries = []
            for index, half in enumerate(both.chunk(2)):
                between[layer] = cache.paths[layer]
                found, keys, values, path = block.read(
                    half, (time + index) % self._period, cache.paths[layer]
                )
                queries.append(found)
                cache.keys[layer, :, :, slots[index]] = keys
                cache.values[layer, :, :, slots[index]] = values
                cache.paths[layer] = path
            keys, values = cache.keys[layer], cache.values[layer]
            attended = [
                block.attend(q, keys, values, m) for q, m in zip(queries, masks, strict=True)
            ]
            both = block.finish(both, torch.cat(attended))
        outputs = self._norm(both).to(self.dtype)
        return outputs[: len(frames[0])], outputs[len(frames[0]) :], between

    def extend_rows(
        self,
        clean: Tensor,
        time: int,
        hidden: Tensor,
        cache: KeyValueCache,
        slot: slice,
        rows: Tensor,
        paths: Tensor,
    ) -> Tensor:
        """Do what `extend` does for some rows (R,); all tensors are theirs, up to `paths`."""
        mask = hidden.to(self.dtype)
        for layer, block in enumerate(self._blocks):
            queries, keys, values, path = block.read(clean, time % self._period, paths[layer])
            cache.keys[layer, rows, :, slot] = keys
            cache.values[layer, rows, :, slot] = values
            cache.paths[layer, rows] = path
            keys, values = cache.keys[layer][rows], cache.values[layer][rows]
            clean = block.combine(clean, queries, keys, values, mask)
        return self._norm(clean).to(self.dtype)  # type: ignore[no-any-return]

    def refine(
        self,
        drafts: Tensor,
        time: int,
        hidden: Tensor,
        cache: KeyValueCache,
        modulation: list[Tensor] | None = None,
    ) -> Tensor:
        """Process drafts (B, K + 1, D) of the frames after those in the cache, which stays."""
        drafts = self._beside(self._blocks, drafts, time, hidden, cache, modulation)
        return self._norm(drafts).to(self.dtype)  # type: ignore[no-any-return]

    def propose(
        self, tokens: Tensor, aim: Aim, time: int, hidden: Tensor, cache: KeyValueCache
    ) -> Tensor:
        """Score the actions of frames (B, K) in view of aims (B,): (B, A, n) float32."""
        proposer = self._proposer
        frames = self.embed(tokens, self._codec.none(len(tokens), device=tokens.device))
        goals = self._look_up(self._table, aim.goal)
        frames = proposer.embed(frames, goals, self.two_hot.encode(aim.wanted), aim)
        frames = self._beside(self._proposer_blocks, frames, time, hidden, cache)
        outputs = proposer.transformer.norm(frames).to(self.dtype)
        scores = functional.linear(outputs[:, 0], *self._choices).float()
        return split_choices(scores, proposer.num_choices)

    def _beside(
        self,
        blocks: list[_FrozenBlock],
        drafts: Tensor,
        time: int,
        hidden: Tensor,
        cache: KeyValueCache,
        modulation: list[Tensor] | None = None,
    ) -> Tensor:
        """Process what sees the cache and itself, and leaves nothing there."""
        own = hidden.new_zeros(len(drafts), 1, 1, drafts.shape[1])
        mask = torch.cat([hidden, own], 3).to(self.dtype)
        for layer, block in enumerate(blocks):
            told = modulation[layer] if modulation else None
            queries, keys, values = block.project(
                drafts, time % self._period, told, cache.paths[layer]
            )
            keys = torch.cat([cache.keys[layer], keys], 2)
            values = torch.cat([cache.values[layer], values], 2)
            drafts = block.combine(drafts, queries, keys, values, mask, told)
        return drafts

    def token_logits(self, hidden: Tensor, recent: Recent) -> Tensor:
        """Score the codes that occur: (B, K + 1, D) and (B,) to (B, K, v), see `codes`."""
        parts, previous = [], recent.tokens[:, 0]
        for place, count, score in self._heads:
            logits = score(hidden[:, 1:][:, place], previous[:, place])
            if count < self._widest:
                logits = functional.pad(logits, (0, self._widest - count), value=-torch.inf)
            parts.append(logits)
        together = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return self._pointed(together, hidden, recent) if self._points_back else together

    def _pointed(self, logits: Tensor, hidden: Tensor, recent: Recent) -> Tensor:
        """Add the scores of recent frames' tokens, those that occurred in training."""
        codes = recent.tokens.transpose(1, 2)  # (B, K, L)
        places = self._places.expand(len(codes), -1, -1).gather(2, codes)
        scores = self.dynamics.point(hidden[:, 1:], recent).masked_fill(places < 0, 0.0)
        return logits.float().scatter_add(2, places.clamp(min=0), scores)

    def widest_logits(self, hidden: Tensor) -> Tensor:
        """Score the codes of the largest codebook at any position: (B, n, D) to (B, n, v)."""
        _, _, score = max(self._heads, key=lambda head: head[1])
        return score(hidden, torch.zeros(hidden.shape[:2], dtype=torch.int64, device=hidden.device))

    def outcome(self, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward and probability of termination, (B,) each.

        Args:
            hidden: (B, K + 1, D), the outputs.
            tokens: (B, K) int64, the next frames.
        """
        outcome = hidden[:, 0]
        if self._aftermath is not None:
            embedded = self._look_up(self._table, tokens)
            outcome = self._aftermath(outcome, embedded.to(self.dtype))
        logits = functional.linear(outcome, *self._outcome).float()
        return self.two_hot.decode(logits[:, :-1]), logits[:, -1].sigmoid()


class _FrozenBlock:
    """One layer; what takes time is three functions of tensors, which can be compiled."""

    def __init__(
        self, block: Block, cosine: Tensor, sine: Tensor, dtype: torch.dtype, compiles: bool
    ) -> None:
        self._heads = block.heads
        self._project = compiled(_project) if compiles else _project
        self.attend = compiled(attend) if compiles else attend
        self._finish = compiled(_finish) if compiles else _finish
        self._first_norm, self._second_norm = (
            (norm.weight.detach(), norm.bias.detach())
            for norm in (block.attention_norm, block.perceptron_norm)
        )
        self._out, self._widen, self._narrow = (
            _linear(layer.weight, layer.bias, dtype)
            for layer in (block.project_out, block.widen, block.narrow)
        )
        self._moves = None
        if block.moves is not None:
            self._moves = _linear(block.moves.weight, block.moves.bias, torch.float32)
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

    def read(
        self, inputs: Tensor, time: int, path: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values of clean frames, and the path behind them; see `Block.read`."""
        queries, keys, values = self._project(
            inputs, self._first_norm, self._in[time], self._heads, None
        )
        if self._moves is None:
            return queries, keys, values, path
        normed = functional.layer_norm(inputs[:, 0], inputs.shape[-1:], *self._first_norm)
        moves = functional.linear(normed, *self._moves).view(path.shape)
        after = (path + moves) % (2 * math.pi)  # Not ever larger, which would cost precision.
        return _turned(queries, after), _turned(keys, path), values, after

    def project(
        self, inputs: Tensor, time: int, modulation: Tensor | None, path: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = self._project(
            inputs, self._first_norm, self._in[time], self._heads, modulation
        )
        if not path.shape[-1]:
            return queries, keys, values
        return _turned(queries, path), _turned(keys, path), values

    def combine(
        self,
        inputs: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        modulation: Tensor | None = None,
    ) -> Tensor:
        return self.finish(inputs, self.attend(queries, keys, values, mask), modulation)

    def finish(self, inputs: Tensor, attended: Tensor, modulation: Tensor | None = None) -> Tensor:
        weights = self._out, self._second_norm, self._widen, self._narrow
        return self._finish(inputs, attended, *weights, modulation)


Weights = tuple[Tensor, Tensor]
"""Weight and bias of a layer."""


def _project(
    inputs: Tensor, norm: Weights, into: Weights, heads: int, modulation: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (B, heads, N, D / heads) each, of inputs (B, N, D)."""
    batch, length, width = inputs.shape
    normed = modulate(functional.layer_norm(inputs, (width,), *norm), modulation, 0)
    projected = functional.linear(normed.to(into[0].dtype), *into)
    projected = projected.view(batch, length, 3, heads, width // heads)
    queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind()
    return queries, keys, values


def _finish(
    inputs: Tensor,
    attended: Tensor,
    out: Weights,
    norm: Weights,
    widen: Weights,
    narrow: Weights,
    modulation: Tensor | None,
) -> Tensor:
    """Add what was attended to, then the perceptron, to inputs (B, N, D)."""
    attended = attended.transpose(1, 2).reshape(inputs.shape)
    hidden = inputs + gate(functional.linear(attended, *out), modulation, 0)
    normed = functional.layer_norm(hidden, inputs.shape[-1:], *norm)
    normed = modulate(normed, modulation, 1).to(attended.dtype)
    widened = functional.gelu(functional.linear(normed, *widen))
    return hidden.add_(gate(functional.linear(widened, *narrow), modulation, 1))


def _freeze(transformer: Transformer, dtype: torch.dtype, compiles: bool) -> list[_FrozenBlock]:
    return [
        _FrozenBlock(block, transformer.cosine, transformer.sine, dtype, compiles)
        for block in transformer.each_block()
    ]


def _linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return weight.detach().to(dtype).contiguous(), bias.detach().to(dtype)


def _turned(vectors: Tensor, path: Tensor) -> Tensor:
    """Turn queries or keys (B, heads, N, d) by angles (B, heads, d / 2)."""
    return turn(vectors, path.unsqueeze(1))


def _rotated(rows: Tensor, heads: int, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the rows (3 D, n) that make queries and keys; those of values stay."""
    parts = rows.detach().view(3, heads, 2, len(cosine), -1)
    first, second = parts[:2, :, 0], parts[:2, :, 1]
    cosine, sine = cosine.unsqueeze(1), sine.unsqueeze(1)
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], 2)
    return torch.cat([turned, parts[2:]]).view(rows.shape)
