"""What a policy with memory knows of the real episodes that it is in.

Classes:
    RealMemory: the past of N environments, and its summary.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from worldgen.acting import State
from worldgen.data.token_dataset import Context
from worldgen.envs.real_rows import RealRows
from worldgen.errors import ShapeError
from worldgen.world_model import WorldModel

__all__ = ["RealMemory"]


class RealMemory:
    """Read along real episodes, whose past is handed back and forth as a state.

    A state is three arrays: tokens (P, N, K) int64 of the frames before the newest one, the oldest
    first; the encoded actions (P, N, A) taken in them; and (P, N) bool, false before an episode's
    beginning. P = R - 1, where R frames are all that a summary depends on (`Dynamics.reach`).

    A state that is given back as it came also has the engine that has read it, `RealRows`, for
    which a step is one network pass; its arrays are read-only, to be copied by who wants to change
    them. Any other is read anew, all P frames of it: some of its rows, a changed copy, one that was
    written to a file, an older one, or one from before a fit of the model. The summary is the same
    but for rounding, and is always that of the model's newest weights.

    Args:
        model: A world model; before its first fit there is no past.
    """

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self._past = model.dynamics.reach - 1
        self._rows: RealRows | None = None

    def read(
        self,
        frames: dict[str, np.ndarray],
        state: State | None = None,
        episode_start: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read the newest frames of N worlds; gives the summary of what was before them.

        Args:
            frames: Path -> (N, ...), raw observations.
            state: What `after` gave at the step before; None where all rows begin.
            episode_start: (N,) bool, rows that begin; None for none.

        Returns:
            (N, D) float32, zeros where an episode begins.

        Raises:
            ShapeError: If the state or `episode_start` is of another number of rows, or of
                another model.
        """
        num_rows = len(next(iter(frames.values())))
        begun = np.zeros(num_rows, bool) if episode_start is None else _begun(episode_start)
        if len(begun) != num_rows:
            raise ShapeError(f"`episode_start` must have shape ({num_rows},), got {begun.shape}")
        if not self._model.is_fitted:
            size = (num_rows, self._model.tokenizer.num_tokens)
            tokens = torch.zeros(size, dtype=torch.int64, device=self._model.device)
            self._context = self._behind(tokens, self._known(state, num_rows), begun)
            return np.zeros((num_rows, self._model.summary_size), np.float32)
        tokens = self._model.tokenizer.encode_flat(frames)
        self._context = self._behind(tokens, self._known(state, num_rows), begun)
        self._rows = self._follow(state, tokens, begun) or self._read_anew()
        return self._rows.memory.cpu().numpy()

    def _follow(self, state: State | None, tokens: Tensor, begun: np.ndarray) -> RealRows | None:
        """Let the engine of the state read the last actions; None where it has none, or had to."""
        rows = state.take_engine() if isinstance(state, _State) else None
        if rows is None or rows.model is not self._model or not rows.is_current:
            return None
        rows.follow(self._context.actions[:, -1], tokens)
        first = np.flatnonzero(begun)
        if first.size:
            rows.restart_rows(first, tokens[first])
        return rows

    def _read_anew(self) -> RealRows:
        rows, context = RealRows(self._model, len(self._context)), self._context
        if bool(context.valid[:, :-1].any()):
            rows.restart_behind(context)
        else:
            rows.restart(context.tokens[:, -1])
        return rows

    def after(self, actions: np.ndarray) -> State:
        """Give the state after `actions` (N, *action shape) were taken in the frames just read."""
        taken, seen = self._model.encode_actions(actions).unsqueeze(1), self._context
        known = seen.valid & self._model.is_fitted  # an untrained model has no tokens
        parts = self._arrays(seen.tokens, torch.cat((seen.actions[:, 1:], taken), 1), known)
        return _State.holding(parts, self._rows)

    def before(self, context: Context) -> State:
        """Give the state in which the newest frames of `context` were come upon."""
        missing = max(0, self._past + 1 - context.tokens.shape[1])
        none = self._model.action_codec.none(len(context), missing, device=context.tokens.device)
        tokens = torch.nn.functional.pad(context.tokens, (0, 0, missing, 0))
        actions = torch.cat((none, context.actions), 1)
        valid = torch.nn.functional.pad(context.valid, (missing, 0))
        return self._arrays(tokens[:, :-1], actions[:, 1:], valid[:, :-1])

    def _known(self, state: State | None, num_rows: int) -> State:
        """Give a state of `num_rows` environments; without one, that of their beginning."""
        codec, num_tokens = self._model.action_codec, self._model.tokenizer.num_tokens
        here = (self._past, num_rows)
        if state is None:
            actions = codec.none(*here).numpy()
            return np.zeros((*here, num_tokens), np.int64), actions, np.zeros(here, bool)
        shapes = ((*here, num_tokens), (*here, codec.num_dims), here)
        given = tuple(np.shape(part) for part in state)
        if given != shapes:
            raise ShapeError(
                "`state` must be what `predict` gave for as many environments, arrays of shapes "
                f"{shapes}, got {given}"
            )
        return state

    def _behind(self, tokens: Tensor, state: State, begun: np.ndarray) -> Context:
        """Put the newest frames behind what is known: R frames of N worlds."""
        device, num_rows = self._model.device, len(tokens)
        old, actions, valid = (
            torch.from_numpy(part.swapaxes(0, 1).copy()).to(device)
            for part in (state[0], state[1], state[2] & ~begun)
        )
        none = self._model.action_codec.none(num_rows, 1, device=device)
        return Context(
            torch.cat((old, tokens.unsqueeze(1)), 1),
            torch.cat((none, actions), 1),
            torch.cat((valid, valid.new_ones(num_rows, 1)), 1),
        )

    def _arrays(self, *parts: Tensor) -> State:
        """Turn (N, F, ...) tensors into a state of the last frames."""
        first = parts[0].shape[1] - self._past
        return tuple(part[:, first:].cpu().numpy().swapaxes(0, 1) for part in parts)


class _State(tuple[np.ndarray, ...]):
    """A state with the engine that has read it, until that goes on from it."""

    _engine: RealRows | None

    @classmethod
    def holding(cls, parts: State, engine: RealRows | None) -> Self:
        for part in parts:
            part.flags.writeable = False  # The engine would not know of the change.
        state = cls(parts)
        state._engine = engine
        return state

    def take_engine(self) -> RealRows | None:
        """Give the engine, once: it is not where this state is any more."""
        engine, self._engine = self._engine, None
        return engine

    def __reduce__(self) -> Any:
        """Be saved and copied as the arrays alone."""
        return tuple, (list(self),)


def _begun(episode_start: np.ndarray) -> np.ndarray:
    begun: np.ndarray = np.asarray(episode_start, dtype=bool).reshape(-1)
    return begun
