"""The imagination engine: rolls B worlds forward at a constant cost a step.

Classes:
    Imagination, ImaginedStep.

One environment step is one network pass that commits the last frame to the cache and makes the
first denoising step of the next frame, and S - 1 further denoising passes.
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
from worldgen.dynamics import Dynamics, Prediction
from worldgen.errors import ShapeError
from worldgen.transformer import KeyValueCache

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

    Worlds go on after a predicted termination; whoever uses them restarts the row.

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
        self._actions: Tensor | None = None
        # 0 where a key may be seen, -inf where it belongs to no frame of this row.
        self._hidden = torch.zeros(num_rows, 1, 1, (self.context + 1) * size, device=device)
        clean_sees = torch.zeros(2 * size, (self.context + 1) * size, device=device)
        clean_sees[:size, self.context * size :] = -torch.inf
        self._stream_mask = clean_sees
        self._counts = unmasking_counts(dynamics.num_tokens, sampler.denoising_steps)

    @torch.inference_mode()
    def reset(self, context: Context) -> None:
        """Start all rows from a context of `num_rows` worlds."""
        if len(context) != self.num_rows:
            raise ShapeError(f"`context` must hold {self.num_rows} worlds, got {len(context)}")
        self._clock = self.context - 1
        self._actions = context.actions[:, -1].clone()
        self.reset_rows(torch.arange(self.num_rows, device=self.tokens.device), context)

    @torch.inference_mode()
    def reset_rows(self, rows: Tensor, context: Context) -> None:
        """Start some rows anew; the others do not notice.

        Args:
            rows: (R,) int64.
            context: Of R worlds, with up to C frames.
        """
        if self._actions is None:
            raise ShapeError("call `reset` with a context for all rows before `reset_rows`")
        if len(context) != len(rows) or context.tokens.shape[1] > self.context:
            raise ShapeError(
                f"`context` must hold {len(rows)} worlds of at most {self.context} frames, got "
                f"{tuple(context.tokens.shape[:2])}"
            )
        if not len(rows):
            return
        self.tokens[rows] = context.tokens[:, -1]
        self._actions[rows] = context.actions[:, -1]
        self._hidden[rows] = -torch.inf
        self._hidden[:, :, :, self.context * self.dynamics.frame_size :] = 0
        if context.tokens.shape[1] > 1:
            with self.dynamics.autocast():
                self._prefill(rows, context)

    def _prefill(self, rows: Tensor, context: Context) -> None:
        """Cache the keys and values of all context frames but the last, which comes later."""
        size, length = self.dynamics.frame_size, context.tokens.shape[1] - 1
        inputs = self.dynamics.embed(
            self.dynamics.token_table(),
            context.tokens[:, :-1],
            context.actions[:, :-1],
            masked=None,
            noised=False,
        )
        times = torch.arange(self._clock - length, self._clock, device=rows.device)
        frame = torch.arange(length, device=rows.device)
        causal = frame.unsqueeze(1) >= frame.unsqueeze(0)
        own = frame.unsqueeze(1) == frame.unsqueeze(0)
        valid = context.valid[:, :-1]
        mask = (causal & valid.unsqueeze(1)) | own  # (R, length, length)
        mask = mask.repeat_interleave(size, 1).repeat_interleave(size, 2).unsqueeze(1)
        keys, values = self.dynamics.transformer.prefill(
            inputs.flatten(1, 2), times.repeat_interleave(size), mask
        )
        for index in range(length):
            source = slice(index * size, (index + 1) * size)
            target = self._slot(self._clock - length + index)
            for layer in range(len(keys)):
                self._cache.keys[layer, rows, :, target] = keys[layer][:, :, source]
                self._cache.values[layer, rows, :, target] = values[layer][:, :, source]
            hidden = torch.where(valid[:, index], 0.0, -torch.inf)
            self._hidden[rows, :, :, target] = hidden.view(-1, 1, 1, 1)

    def _slot(self, time: int) -> slice:
        size = self.dynamics.frame_size
        return slice(time % self.context * size, (time % self.context + 1) * size)

    @torch.inference_mode()
    def step(self, actions: Tensor) -> ImaginedStep:
        """Imagine one environment step.

        Args:
            actions: (B, A) encoded, on the network's device.
        """
        if self._actions is None:
            raise ShapeError("call `reset` with a context before `step`")
        if actions.shape != self._actions.shape:
            raise ShapeError(
                f"`actions` must have shape {tuple(self._actions.shape)}, got "
                f"{tuple(actions.shape)}"
            )
        known = torch.zeros_like(self.tokens, dtype=torch.bool)
        draft = torch.zeros_like(self.tokens)
        with self.dynamics.autocast():
            table = self.dynamics.token_table()
        for index, count in enumerate(self._counts):
            denoise = self._denoise if index else self._commit_and_denoise
            with self.dynamics.autocast():
                prediction = denoise(table, draft, actions, ~known)
            drawn, probability = draw_tokens(prediction.token_logits, self.sampler, self.generator)
            draft = torch.where(known, draft, drawn)
            if count < self.dynamics.num_tokens:
                known = unmask(known, probability, count, self.sampler, self.generator)
        self.tokens, self._actions = draft, actions.clone()
        self._clock += 1
        termination = prediction.termination_logits.float().sigmoid()
        reward = self.dynamics.two_hot.decode(prediction.reward_logits)
        # A copy: `reset_rows` writes the next first frames into the engine's own tensor.
        return ImaginedStep(draft.clone(), reward, termination, termination > 0.5)

    def _commit_and_denoise(
        self, table: Tensor, draft: Tensor, actions: Tensor, masked: Tensor
    ) -> Prediction:
        dynamics, size = self.dynamics, self.dynamics.frame_size
        assert self._actions is not None
        clean = dynamics.embed(table, self.tokens, self._actions, masked=None, noised=False)
        noised = dynamics.embed(table, draft, actions, masked=masked, noised=True)
        slot, scratch = self._slot(self._clock), self._scratch()
        self._hidden[:, :, :, slot] = 0
        hidden = dynamics.transformer.extend(
            torch.cat([clean, noised], 1),
            self._times(self._clock, self._clock + 1),
            self._stream_mask + self._hidden,
            self._cache,
            [(slice(0, size), slot), (slice(size, 2 * size), scratch)],
        )
        return dynamics.read_out(hidden[:, size:], self.tokens)

    def _denoise(self, table: Tensor, draft: Tensor, actions: Tensor, masked: Tensor) -> Prediction:
        dynamics, size = self.dynamics, self.dynamics.frame_size
        noised = dynamics.embed(table, draft, actions, masked=masked, noised=True)
        hidden = dynamics.transformer.extend(
            noised,
            self._times(self._clock + 1),
            self._hidden.expand(-1, -1, size, -1),
            self._cache,
            [(slice(0, size), self._scratch())],
        )
        return dynamics.read_out(hidden, self.tokens)

    def _scratch(self) -> slice:
        size = self.dynamics.frame_size
        return slice(self.context * size, (self.context + 1) * size)

    def _times(self, *times: int) -> Tensor:
        tensor = torch.tensor(times, device=self.tokens.device)
        return tensor.repeat_interleave(self.dynamics.frame_size)
