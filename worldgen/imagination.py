"""The imagination engine: rolls B worlds forward at a constant cost a step.

Classes:
    Imagination, ImaginedStep.

Functions:
    batches: rows in batches of few sizes.

The network's first pass of an environment step reads the last frame and the action, keeps the
frame's keys and values, and is the first denoising step of the next frame. S - 1 further passes
refine the draft. With two frames in flight, one pass makes two frames whose actions are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from worldgen.action_proposer import Aim
from worldgen.data.token_dataset import Context
from worldgen.device import resolve_precision
from worldgen.diffusion.frame_sampler import make_sampler
from worldgen.diffusion.gaussian_diffusion import Guess
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import Dynamics, Recent, summary_of
from worldgen.errors import ConfigError, ShapeError
from worldgen.frozen_dynamics import FrozenDynamics
from worldgen.transformer import KeyValueCache, visible_past

__all__ = ["ROWS_AT_ONCE", "Imagination", "ImaginedStep", "batches"]

ROWS_AT_ONCE = 64
"""Most worlds whose contexts a CPU reads at once."""


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

    def first(self, count: int) -> Self:
        """Give the step of the first worlds."""
        return type(self)(*(part[:count] for part in self))


def batches(count: int, device: torch.device) -> Iterator[Tensor]:
    """Cut rows 0..count-1 into batches of few sizes, the last one padded with its last row.

    For each new number of rows a CPU prepares its products in bfloat16 anew, half a megabyte each,
    and keeps that. Many rows whose contexts are read at once take much memory, and no less time. On
    other devices all rows are one batch.

    >>> [len(part) for part in batches(150, torch.device("cpu"))]
    [64, 64, 32]
    >>> list(batches(3, torch.device("cpu")))
    [tensor([0, 1, 2, 2])]

    Args:
        count: Of the rows.
        device: Of the network.

    Yields:
        (b,) int64 on the device, b a power of two of at most `ROWS_AT_ONCE`.
    """
    rows = torch.arange(count, device=device)
    if device.type != "cpu":
        yield rows
        return
    for part in torch.split(rows, ROWS_AT_ONCE):
        size = 1 << (len(part) - 1).bit_length()
        yield functional.pad(part, (0, size - len(part)), value=int(part[-1]))


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
        flight = sampler.frames_in_flight
        if flight > dynamics.config.frames_in_flight:
            raise ConfigError(
                f"`frames_in_flight` must be at most {dynamics.config.frames_in_flight}, for which "
                f"the network was trained, got {flight}: set `DynamicsConfig.frames_in_flight`"
            )
        # A second frame in flight must not take the place of one that the first still sees.
        self._num_slots = self.context + flight - 1
        self.network_passes = 0.0
        """Made so far; one over some of the rows counts as their share."""
        self._cache = KeyValueCache(
            dynamics.config.transformer, num_rows, self._num_slots, size, device, dtype
        )
        self._clock = self.context - 1
        self.tokens = torch.zeros(num_rows, dynamics.num_tokens, dtype=torch.int64, device=device)
        before = (num_rows, dynamics.num_recent - 1)
        # Frames before `tokens`, the newest first, as far as scores of the next one need them.
        self._before = Recent(
            torch.zeros(*before, dynamics.num_tokens, dtype=torch.int64, device=device),
            torch.zeros(before, dtype=torch.bool, device=device),
        )
        self._ready = False
        # Of the newest first pass, (B, K + 1, D), zeros in rows without a past; None where frames
        # were made in pairs.
        self._outputs: Tensor | None = None
        # 0 where a key may be seen, -inf where it belongs to no frame of this row.
        room = self._cache.keys.shape[3]
        self._hidden = torch.full((num_rows, 1, 1, room), -torch.inf, device=device)
        self._sampler = make_sampler(
            dynamics.config.process, sampler, dynamics.num_tokens, generator
        )

    @torch.inference_mode()
    def reset(self, context: Context, *, same_weights: bool = False) -> None:
        """Start all rows from a context of `num_rows` worlds.

        Args:
            context: As given.
            same_weights: The network has not changed since the last `reset`: its weights are not
                laid out again, which takes most of the time.
        """
        if len(context) != self.num_rows:
            raise ShapeError(f"`context` must hold {self.num_rows} worlds, got {len(context)}")
        self._clock = self.context - 1
        if not (same_weights and self._ready):
            self._network = FrozenDynamics(
                self.dynamics, self._cache.keys.dtype, compiles=self.sampler.compiled
            )
        self._ready = True
        shape = (self.num_rows, self.dynamics.frame_size, self.dynamics.config.transformer.width)
        self._outputs = torch.zeros(shape, device=self.tokens.device, dtype=self._cache.keys.dtype)
        self.reset_rows(torch.arange(self.num_rows, device=self.tokens.device), context)

    @torch.inference_mode()
    def reset_rows(self, rows: Tensor, context: Context) -> None:
        """Start some rows anew; the others do not notice.

        Args:
            rows: (R,) int64.
            context: Of R worlds, with up to C frames; more than C, up to `Dynamics.reach`, let
                the last C be read with all of their own past.
        """
        if not self._ready:
            raise ShapeError("call `reset` with a context for all rows before `reset_rows`")
        longest = self.dynamics.reach
        if len(context) != len(rows) or context.tokens.shape[1] > longest:
            raise ShapeError(
                f"`context` must hold {len(rows)} worlds of at most {longest} frames, got "
                f"{tuple(context.tokens.shape[:2])}"
            )
        if not len(rows):
            return
        self.tokens[rows] = context.tokens[:, -1]
        self._hidden[rows] = -torch.inf
        self._cache.paths[:, rows] = 0
        self._before.known[rows] = False
        for back in range(1, min(context.tokens.shape[1], self._before.known.shape[1] + 1)):
            self._before.tokens[rows, back - 1] = context.tokens[:, -1 - back]
            self._before.known[rows, back - 1] = context.valid[:, -1 - back]
        if self._outputs is not None:
            self._outputs[rows] = 0
        if context.tokens.shape[1] > 1:
            with self.dynamics.autocast():
                table = self._network.dynamics.token_table()
                for part in batches(len(rows), self.tokens.device):
                    self._prefill(table, rows[part], context.rows(part))

    def _prefill(self, table: Tensor, rows: Tensor, context: Context) -> None:
        """Cache the keys and values of all context frames but the last, which comes later.

        A row may be there several times, with the same context.
        """
        dynamics, length = self._network.dynamics, context.tokens.shape[1] - 1
        inputs = dynamics.embed(table, context.tokens[:, :-1], context.actions[:, 1:])
        valid = context.valid[:, :-1]
        # What lies before the episode's beginning is an episode of its own.
        sees = visible_past(valid.long(), self.context)
        first = self._clock - length
        outputs, cached = dynamics.transformer.prefill(inputs, first, sees)
        if self._outputs is not None:
            outputs = outputs * valid[:, -1].view(-1, 1, 1)
            self._outputs[rows] = outputs.to(self._outputs.dtype)
        kept = range(max(0, length - self.context + 1), length)
        for layer, (keys, values, path) in enumerate(cached):
            if path is not None:
                self._cache.paths[layer, rows] = path[:, -1]
            for number, index in enumerate(kept):
                slot = self._slot(first + index)
                self._cache.keys[layer, rows, :, slot] = keys[:, number]
                self._cache.values[layer, rows, :, slot] = values[:, number]
        for index in kept:
            hidden = torch.where(valid[:, index], 0.0, -torch.inf)
            self._hidden[rows, :, :, self._slot(first + index)] = hidden.view(-1, 1, 1, 1)

    @property
    def summary(self) -> Tensor:
        """The network's own summary of what was before `tokens`, (B, D) float32.

        It is of the pass that read the last frame and the action taken in it: the mean over its
        K + 1 outputs, normalised. Rows at the first frame of an episode have zeros. It stands
        beside `tokens` after `reset`, `reset_rows`, `step` and `follow`.

        Raises:
            ConfigError: After `step_twice`, in which no pass has read the last frame.
        """
        if self._outputs is None:
            raise ConfigError(
                "there is no `summary` after `step_twice`, whose second frame is made before the "
                "first is read, or before the first `reset`: use `step`"
            )
        return summary_of(self._outputs)

    def _recent(self) -> Recent:
        """Give `tokens` and the frames before."""
        known = self._before.known
        return Recent(
            torch.cat([self.tokens.unsqueeze(1), self._before.tokens], 1),
            torch.cat([known.new_ones(self.num_rows, 1), known], 1),
        )

    def _move_on(self, tokens: Tensor, recent: Recent) -> None:
        """Let one environment step pass, from `recent` to frames that are known."""
        self.tokens = tokens
        self._before = Recent(recent.tokens[:, :-1], recent.known[:, :-1])
        self._clock += 1

    def _slot(self, time: int) -> slice:
        size = self.dynamics.frame_size
        return slice(time % self._num_slots * size, (time % self._num_slots + 1) * size)

    def _hidden_at(self, time: int) -> Tensor:
        """Say what the frame of a time does not see: other rows' past, and what is not in C."""
        if self._num_slots == self.context:
            return self._hidden
        hidden = self._hidden.clone()
        hidden[:, :, :, self._slot(time + 1)] = -torch.inf
        return hidden

    @torch.inference_mode()
    def step(self, actions: Tensor) -> ImaginedStep:
        """Imagine one environment step.

        Args:
            actions: (B, A) encoded, on the network's device.
        """
        self._check(actions)
        recent = self._recent()
        frame = _Frame(self, self._network.embed(self.tokens, actions), recent)
        self._move_on(self._sampler.sample(frame), recent)
        return self._imagined(frame.outputs)

    @torch.inference_mode()
    def follow(self, actions: Tensor, tokens: Tensor) -> None:
        """Take one environment step whose next frames are known, for its `summary`.

        Args:
            actions: (B, A) encoded, on the network's device.
            tokens: (B, K) int64, the frames that they led to.
        """
        self._check(actions)
        if tokens.shape != self.tokens.shape:
            shape = tuple(self.tokens.shape)
            raise ShapeError(f"`tokens` must have shape {shape}, got {tuple(tokens.shape)}")
        self._first(self._network.embed(self.tokens, actions))
        self._move_on(tokens.to(self.tokens.device, copy=True), self._recent())

    @torch.inference_mode()
    def step_twice(
        self, actions: Tensor, next_actions: Tensor
    ) -> tuple[ImaginedStep, ImaginedStep]:
        """Imagine two environment steps in one network pass, and another for unsure rows.

        The second frame is predicted beside the first, from the action taken in it. Rows whose
        second frame is less sure than `SamplerConfig.flight_confidence` make it again from the
        finished first frame.

        Args:
            actions: (B, A) encoded, on the network's device.
            next_actions: (B, A), those of the step after.

        Raises:
            ConfigError: If the sampler has only one frame in flight.
        """
        if self.sampler.frames_in_flight < 2:
            raise ConfigError(
                "`step_twice` needs `SamplerConfig(frames_in_flight=2)`, got "
                f"{self.sampler.frames_in_flight}"
            )
        self._check(actions)
        self._check(next_actions)
        network, time, before = self._network, self._clock, self.tokens
        slots = self._slot(time), self._slot(time + 1)
        for slot in slots:
            self._hidden[:, :, :, slot] = 0
        hidden = self._hidden_at(time), self._hidden_at(time + 1)
        frames = (
            network.embed(before, actions),
            network.embed_unseen(before, actions, next_actions),
        )
        *outputs, between = network.extend_twice(frames, time, hidden, self._cache, slots)
        self.network_passes += 1
        recent = self._recent()
        # What the second frame is seen after is not known yet: the frame before stands there.
        unseen = Recent(*(torch.cat([part[:, :1], part[:, :-1]], 1) for part in recent))
        recents = Recent(*map(torch.cat, zip(recent, unseen, strict=True)))
        both, sureness = self._choose(torch.cat(outputs), recents)
        first, tokens = both.chunk(2)
        self._move_on(first, recent)
        made, recent = self._imagined(outputs[0]), self._recent()
        rows = (sureness[self.num_rows :] < self.sampler.flight_confidence).nonzero().flatten()
        if len(rows):
            clean = network.embed(first[rows], next_actions[rows])
            again = network.extend_rows(
                clean,
                time + 1,
                hidden[1][rows],
                self._cache,
                slots[1],
                rows,
                between[:, rows],
            )
            self.network_passes += len(rows) / self.num_rows
            tokens[rows] = self._choose(again, recent.rows(rows))[0]
            outputs[1][rows] = again
        self._move_on(tokens, recent)
        self._outputs = None
        return made, self._imagined(outputs[1])

    @torch.inference_mode()
    def propose(self, aim: Aim) -> Tensor:
        """Score the actions that all worlds may take now, in view of aims; nothing moves.

        Args:
            aim: (B,), on the network's device.

        Returns:
            (B, A, n) float32, logits of the choices of each dimension of an action.
        """
        if not self.dynamics.config.goal_horizon:
            raise ConfigError(
                "`propose` needs a network that has learned actions, got `goal_horizon` 0: set "
                "`DynamicsConfig.goal_horizon` and train again"
            )
        if not self._ready or len(aim.kind) != self.num_rows:
            raise ShapeError(
                f"`propose` must come after `reset`, with {self.num_rows} aims, got {len(aim.kind)}"
            )
        self.network_passes += 1
        hidden = self._hidden_at(self._clock).clone()
        hidden[:, :, :, self._slot(self._clock)] = -torch.inf  # Where the frame itself will be.
        return self._network.propose(self.tokens, aim, self._clock + 1, hidden, self._cache)

    def roll(self, actions: Tensor) -> list[ImaginedStep]:
        """Imagine H environment steps whose actions are known, two a pass where the sampler can.

        Args:
            actions: (B, H, A) encoded, on the network's device.
        """
        steps: list[ImaginedStep] = []
        horizon = actions.shape[1]
        while len(steps) < horizon:
            here = len(steps)
            if self.sampler.frames_in_flight > 1 and here + 1 < horizon:
                steps += self.step_twice(actions[:, here], actions[:, here + 1])
            else:
                steps.append(self.step(actions[:, here]))
        return steps

    def _imagined(self, outputs: Tensor) -> ImaginedStep:
        """Give the step that led to `tokens`, and of which the network's outputs are."""
        reward, termination = self._network.outcome(outputs, self.tokens)
        # A copy: `reset_rows` writes the next first frames into the engine's own tensor.
        return ImaginedStep(self.tokens.clone(), reward, termination, termination > 0.5)

    def _choose(self, outputs: Tensor, recent: Recent) -> tuple[Tensor, Tensor]:
        """Make frames of a pass's outputs: tokens (R, K), and how sure the likeliest are (R,)."""
        logits = self._network.token_logits(outputs, recent)
        frame = _Scored(self._network, logits)
        sureness = logits.float().log_softmax(-1).amax(-1).sum(-1).exp()
        return self._sampler.sample(frame), sureness

    def _check(self, actions: Tensor) -> None:
        if not self._ready:
            raise ShapeError("call `reset` with a context before `step`")
        shape = (self.num_rows, self.dynamics.action_embedding.num_dims)
        if actions.shape != shape:
            raise ShapeError(f"`actions` must have shape {shape}, got {tuple(actions.shape)}")

    def _first(self, clean: Tensor) -> Tensor:
        slot = self._slot(self._clock)
        self._hidden[:, :, :, slot] = 0
        self.network_passes += 1
        hidden = self._hidden_at(self._clock)
        outputs = self._network.extend(clean, self._clock, hidden, self._cache, slot)
        self._outputs = outputs
        return outputs

    def _refine(self, drafts: Tensor, modulation: list[Tensor] | None = None) -> Tensor:
        self.network_passes += 1
        hidden = self._hidden_at(self._clock)
        return self._network.refine(drafts, self._clock + 1, hidden, self._cache, modulation)


class _Codes:
    """What a `FrameNetwork` knows of codes."""

    def __init__(self, network: FrozenDynamics) -> None:
        self._network = network
        self.codes_of = network.codes_of
        self.with_mean_numbers = network.with_mean_numbers
        self.guess = network.guess
        self.nearest_codes = network.nearest_codes
        self.live_entries = network.live_entries


class _Scored(_Codes):
    """Next frames whose only pass is done; see `FrameNetwork`."""

    def __init__(self, network: FrozenDynamics, logits: Tensor) -> None:
        super().__init__(network)
        self._logits = logits

    def first(self) -> Tensor:
        return self._logits

    def unmasked(self, tokens: Tensor, masked: Tensor) -> Tensor:
        raise NotImplementedError

    def denoised(self, noisy: Tensor, sigma: float, guess: Guess) -> Tensor:
        raise NotImplementedError


class _Frame(_Codes):
    """One next frame of all rows in the making; see `FrameNetwork`."""

    outputs: Tensor
    """Of the newest network pass, (B, K + 1, D)."""

    def __init__(self, engine: Imagination, clean: Tensor, recent: Recent) -> None:
        super().__init__(engine._network)
        self._engine = engine
        self._clean, self._recent = clean, recent

    def first(self) -> Tensor:
        self.outputs = self._engine._first(self._clean)
        return self._network.token_logits(self.outputs, self._recent)

    def unmasked(self, tokens: Tensor, masked: Tensor) -> Tensor:
        drafts = self._network.embed_drafts(self._clean, tokens, masked)
        self.outputs = self._engine._refine(drafts)
        return self._network.token_logits(self.outputs, self._recent)

    def denoised(self, noisy: Tensor, sigma: float, guess: Guess) -> Tensor:
        drafts = self._network.embed_noisy(self._clean, noisy, sigma, guess)
        self.outputs = self._engine._refine(drafts, self._network.modulation(sigma))
        return self._network.denoise(self.outputs, noisy, sigma, guess)
