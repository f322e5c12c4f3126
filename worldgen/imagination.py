"""The imagination engine: rolls B worlds forward at a constant cost a step.

Classes:
    Imagination, ImaginedStep.

The network's first pass of an environment step reads the last frame and the action, keeps the
frame's keys and values, and is the first denoising step of the next frame. S - 1 further passes
refine the draft.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldgen.data.token_dataset import Context
from worldgen.device import resolve_precision
from worldgen.diffusion.masked_diffusion import (
    SamplerConfig,
    draw_tokens,
    unmask,
    unmasking_counts,
)
from worldgen.dynamics import Dynamics
from worldgen.errors import ShapeError
from worldgen.frozen_dynamics import FrozenDynamics
from worldgen.transformer import KeyValueCache, visible_past

__all__ = ["Imagination", "ImaginedStep"]


class ImaginedStep(NamedTuple):
    """One imagined environment step of B worlds."""

    tokens: Tensor
    """(B, K) int64, the next frame."""
    reward: Tensor
    """(B,) float32, expected reward."""
    termination_probability: Tensor
    """(B,) float32."""
    terminated: Tensor
    """(B,) bool: the probability is over one half."""


class Imagination:
    """B imagined worlds with a ring of cached keys and values over their last C frames.

    `reset` takes the network's weights as they are then; training that goes on is not followed
    before the next `reset`. Worlds go on after a predicted termination; whoever uses them restarts
    the row.

    Args:
        dynamics: The network.
        num_rows: B.
        sampler: How frames are sampled.
        generator: Of the draws; on the network's device.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        num_rows: int,
        sampler: SamplerConfig,
        generator: torch.Generator,
    ) -> None:
        self.dynamics, self.sampler, self.generator = dynamics, sampler, generator
        self.num_rows = num_rows
        self.context = dynamics.config.context
        device = dynamics.device
        size = dynamics.frame_size
        dtype = resolve_precision(dynamics.config.precision, device)
        self._cache = KeyValueCache(
            dynamics.config.transformer, num_rows, self.context, size, device, dtype
        )
        self._clock = self.context - 1
        self.tokens = torch.zeros(num_rows, dynamics.num_tokens, dtype=torch.int64, device=device)
        self._ready = False
        # 0 where a key may be seen, -inf where it belongs to no frame of this row.
        self._hidden = torch.zeros(num_rows, 1, 1, self.context * size, device=device)
        self._counts = unmasking_counts(dynamics.num_tokens, sampler.denoising_steps)

    @torch.inference_mode()
    def reset(self, context: Context) -> None:
        """Start all rows from a context of `num_rows` worlds."""
        if len(context) != self.num_rows:
            raise ShapeError(f"`context` must hold {self.num_rows} worlds, got {len(context)}")
        self._clock = self.context - 1
        self._network = FrozenDynamics(self.dynamics, self._cache.keys.dtype)
        self._ready = True
        self.reset_rows(torch.arange(self.num_rows, device=self.tokens.device), context)

    @torch.inference_mode()
    def reset_rows(self, rows: Tensor, context: Context) -> None:
        """Start some rows anew; the others do not notice.

        Args:
            rows: (R,) int64.
            context: Of R worlds, with up to C frames.
        """
        if not self._ready:
            raise ShapeError("call `reset` with a context for all rows before `reset_rows`")
        if len(context) != len(rows) or context.tokens.shape[1] > self.context:
            raise ShapeError(
                f"`context` must hold {len(rows)} worlds of at most {self.context} frames, got "
                f"{tuple(context.tokens.shape[:2])}"
            )
        if not len(rows):
            return
        self.tokens[rows] = context.tokens[:, -1]
        self._hidden[rows] = -torch.inf
        if context.tokens.shape[1] > 1:
            with self.dynamics.autocast():
                self._prefill(rows, context)

    def _prefill(self, rows: Tensor, context: Context) -> None:
        """Cache the keys and values of all context frames but the last, which comes later."""
        dynamics, length = self.dynamics, context.tokens.shape[1] - 1
        inputs = dynamics.embed(
            dynamics.token_table(), context.tokens[:, :-1], context.actions[:, 1:]
        )
        valid = context.valid[:, :-1]
        # What lies before the episode's beginning is an episode of its own.
        sees = visible_past(valid.long(), self.context)
        first = self._clock - length
        for layer, (keys, values) in enumerate(dynamics.transformer.prefill(inputs, first, sees)):
            for index in range(length):
                slot = self._slot(first + index)
                self._cache.keys[layer, rows, :, slot] = keys[:, index]
                self._cache.values[layer, rows, :, slot] = values[:, index]
        for index in range(length):
            hidden = torch.where(valid[:, index], 0.0, -torch.inf)
            self._hidden[rows, :, :, self._slot(first + index)] = hidden.view(-1, 1, 1, 1)

    def _slot(self, time: int) -> slice:
        size = self.dynamics.frame_size
        return slice(time % self.context * size, (time % self.context + 1) * size)

    @torch.inference_mode()
    def step(self, actions: Tensor) -> ImaginedStep:
        """Imagine one environment step.

        Args:
            actions: (B, A) encoded, on the network's device.
        """
        if not self._ready:
            raise ShapeError("call `reset` with a context before `step`")
        shape = (self.num_rows, self.dynamics.action_embedding.num_dims)
        if actions.shape != shape:
            raise ShapeError(f"`actions` must have shape {shape}, got {tuple(actions.shape)}")
        network, known = self._network, None
        clean = network.embed(self.tokens, actions)
        draft = self.tokens
        for count in self._counts:
            outputs = self._first(clean) if known is None else self._refine(clean, draft, ~known)
            logits = network.token_logits(outputs, self.tokens)
            drawn, probability = draw_tokens(logits, self.sampler, self.generator)
            drawn = (
                self._network.codes.expand(self.num_rows, -1, -1)
                .gather(2, drawn.unsqueeze(2))
                .squeeze(2)
            )
            draft = drawn if known is None else torch.where(known, draft, drawn)
            if count < self.dynamics.num_tokens:
                known = torch.zeros_like(draft, dtype=torch.bool) if known is None else known
                known = unmask(known, probability, count, self.sampler, self.generator)
        reward, termination = network.outcome(outputs)
        self.tokens = draft
        self._clock += 1
        # A copy: `reset_rows` writes the next first frames into the engine's own tensor.
        return ImaginedStep(draft.clone(), reward, termination, termination > 0.5)

    def _first(self, clean: Tensor) -> Tensor:
        slot = self._slot(self._clock)
        self._hidden[:, :, :, slot] = 0
        return self._network.extend(clean, self._clock, self._hidden, self._cache, slot)

    def _refine(self, clean: Tensor, draft: Tensor, masked: Tensor) -> Tensor:
        drafts = self._network.embed_drafts(clean, draft, masked)
        return self._network.refine(drafts, self._clock + 1, self._hidden, self._cache)
