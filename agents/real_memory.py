"""What a policy with memory knows of the real episodes that it is in.

Classes:
    RealMemory: the past of N environments as plain arrays, and its summary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from worldgen.acting import State
from worldgen.data.token_dataset import Context
from worldgen.errors import ShapeError
from worldgen.world_model import WorldModel

__all__ = ["RealMemory"]


class RealMemory:
    """Read along real episodes, whose past is handed back and forth as a state.

    A state is three arrays: tokens (P, N, K) int64 of the frames before the newest one, the oldest
    first; the encoded actions (P, N, A) taken in them; and (P, N) bool, false before an episode's
    beginning. P = R - 1, where R frames are all that a summary depends on (`Dynamics.reach`). So
    nothing is kept in here, rows do not know of each other, and the summary is always that of the
    model's newest weights. It is the engine's of a dream, which keeps keys and values in place of
    frames, and so costs a part of this: `envs.real_rows` has that for rows that go on in step.

    Args:
        model: A world model; before its first fit there is no past.
    """

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self._past = model.dynamics.reach - 1

    def context(
        self,
        frames: dict[str, np.ndarray],
        state: State | None = None,
        episode_start: np.ndarray | None = None,
    ) -> Context:
        """Put the newest frames behind what is known: R frames of N worlds.

        Args:
            frames: Path -> (N, ...), raw observations.
            state: What `after` gave at the step before; None where all rows begin.
            episode_start: (N,) bool, rows that begin; None for none.

        Raises:
            ShapeError: If the state or `episode_start` is of another number of rows, or of
                another model.
        """
        model, rows = self._model, len(next(iter(frames.values())))
        if model.is_fitted:
            tokens = model.tokenizer.encode_flat(frames)
        else:
            tokens = torch.zeros(rows, model.tokenizer.num_tokens, dtype=torch.int64)
            tokens = tokens.to(model.device)
        old, actions, valid = self._known(state, rows)
        if episode_start is not None:
            begun = np.asarray(episode_start, dtype=bool).reshape(-1)
            if len(begun) != rows:
                raise ShapeError(f"`episode_start` must have shape ({rows},), got {begun.shape}")
            valid = valid & ~begun
        device = model.device
        past = torch.from_numpy(old.swapaxes(0, 1).copy()).to(device)
        led = torch.from_numpy(actions.swapaxes(0, 1).copy()).to(device)
        here = torch.from_numpy(valid.swapaxes(0, 1).copy()).to(device)
        none = model.action_codec.none(rows, 1, device=device)
        return Context(
            torch.cat((past, tokens.unsqueeze(1)), 1),
            torch.cat((none, led), 1),
            torch.cat((here, here.new_ones(rows, 1)), 1),
        )

    def _known(self, state: State | None, rows: int) -> State:
        """Give a state of `rows` environments; without one, that of their beginning."""
        codec = self._model.action_codec
        shapes = (
            (self._past, rows, self._model.tokenizer.num_tokens),
            (self._past, rows, codec.num_dims),
            (self._past, rows),
        )
        if state is None:
            actions = codec.none(self._past, rows).numpy()
            return np.zeros(shapes[0], np.int64), actions, np.zeros(shapes[2], bool)
        given = tuple(np.shape(part) for part in state)
        if given != shapes:
            raise ShapeError(
                f"`state` must be what `predict` gave for as many environments, arrays of shapes "
                f"{shapes}, got {given}"
            )
        return state

    def summary(self, context: Context) -> np.ndarray:
        """Give the model's summary of what was before the newest frames, (N, D) float32."""
        if not self._model.is_fitted:
            return np.zeros((len(context), self._model.summary_size), np.float32)
        return self._model.summarise(context).cpu().numpy()

    def after(self, context: Context, actions: np.ndarray) -> State:
        """Give the state after `actions` (N, *action shape) were taken in the newest frames."""
        taken = self._model.encode_actions(actions).unsqueeze(1)
        known = context.valid & self._model.is_fitted  # an untrained model has no tokens
        return self._arrays(context.tokens, torch.cat((context.actions[:, 1:], taken), 1), known)

    def before(self, context: Context) -> State:
        """Give the state in which the newest frames of `context` were come upon."""
        length = context.tokens.shape[1]
        missing = max(0, self._past + 1 - length)
        padded = Context(
            torch.nn.functional.pad(context.tokens, (0, 0, missing, 0)),
            torch.cat((self._no_action(context, missing), context.actions), 1),
            torch.nn.functional.pad(context.valid, (missing, 0)),
        )
        return self._arrays(padded.tokens[:, :-1], padded.actions[:, 1:], padded.valid[:, :-1])

    def _no_action(self, context: Context, frames: int) -> torch.Tensor:
        return self._model.action_codec.none(len(context), frames, device=context.tokens.device)

    def _arrays(self, *parts: Any) -> State:
        """Turn (N, F, ...) tensors into a state of the last frames."""
        return tuple(
            part[:, part.shape[1] - self._past :].cpu().numpy().swapaxes(0, 1) for part in parts
        )
