"""Tokenized episodes, on the device, cut into windows for training and contexts for dreams.

Classes:
    TokenDataset: all frames of a set of episodes in one row.
    Windows: stretches of T frames for training.
    Context: the last C frames before a dream begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from worldgen.actions import ActionCodec
from worldgen.data.episode import Episode
from worldgen.errors import DatasetError, ShapeError
from worldgen.seeding import index_by_weight, random_index

__all__ = ["Context", "TokenDataset", "Windows"]

_LOWEST_PRIORITY, _HIGHEST_PRIORITY = 1e-3, 2.0
"""In nats a frame: what is known is still drawn now and then, and what is chance not always."""


@dataclass(frozen=True)
class Windows:
    """B stretches of T frames; entries of frame t belong to the transition that led to it.

    A window may hold the end of one episode and the beginning of the next.
    """

    tokens: Tensor
    """(B, T, K) int64."""
    actions: Tensor
    """(B, T, A), encoded; "no action" at an episode's first frame."""
    rewards: Tensor
    """(B, T) float32."""
    terminated: Tensor
    """(B, T) bool."""
    episode: Tensor
    """(B, T) int64, at least 0: the episode of each frame."""
    index: Tensor
    """(B, T) int64: the frame's number in the dataset."""

    @property
    def follows(self) -> Tensor:
        """(B, T - 1) bool: frame t + 1 follows frame t in one episode."""
        return self.episode[:, 1:] == self.episode[:, :-1]

    def rows(self, rows: slice | Tensor) -> Windows:
        """Choose some of the windows."""
        return Windows(*(part[rows] for part in vars(self).values()))


@dataclass(frozen=True)
class Context:
    """The C most recent frames of B worlds, oldest first."""

    tokens: Tensor
    """(B, C, K) int64."""
    actions: Tensor
    """(B, C, A), encoded: the action that led to each frame."""
    valid: Tensor
    """(B, C) bool; false before an episode's beginning. The last frame is always valid."""

    def __post_init__(self) -> None:
        """Check the shapes against each other."""
        if self.tokens.ndim != 3 or self.tokens.shape[1] < 1:
            raise ShapeError(f"`tokens` must have shape (B, C, K), got {tuple(self.tokens.shape)}")
        if self.actions.shape[:2] != self.tokens.shape[:2]:
            raise ShapeError(
                f"`actions` must have shape (B, C, A), got {tuple(self.actions.shape)}"
            )
        if self.valid.shape != self.tokens.shape[:2]:
            raise ShapeError(f"`valid` must have shape (B, C), got {tuple(self.valid.shape)}")

    def __len__(self) -> int:
        """Give the number B of worlds."""
        return len(self.tokens)

    def rows(self, index: Tensor) -> Context:
        """Choose some of the worlds."""
        return Context(self.tokens[index], self.actions[index], self.valid[index])


class TokenDataset:
    """Every frame of some episodes, as tokens.

    Args:
        tokens: (N, K) int64, the episodes' frames one after the other.
        episodes: The episodes that the frames belong to.
        codec: Encodes their actions.
        context_length: C, frames of a context.

    Raises:
        DatasetError: If there is no episode.
    """

    def __init__(
        self, tokens: Tensor, episodes: Sequence[Episode], codec: ActionCodec, context_length: int
    ) -> None:
        if not len(episodes):
            raise DatasetError("`episodes` must hold at least one episode, got none")
        device = tokens.device
        self.tokens = tokens
        self.context_length = context_length
        lengths = np.array([len(episode) + 1 for episode in episodes])
        firsts = lengths.cumsum() - lengths
        self.first_frames = torch.from_numpy(firsts).to(device)
        self.lengths = torch.from_numpy(lengths).to(device)
        self._first = torch.from_numpy(firsts.repeat(lengths)).to(device)
        self._last = torch.from_numpy((firsts + lengths - 1).repeat(lengths)).to(device)
        self.actions = codec.none(len(tokens), device=device)
        self.rewards = torch.zeros(len(tokens), device=device)
        self.terminated = torch.zeros(len(tokens), dtype=torch.bool, device=device)
        frames = torch.arange(len(tokens), device=device)
        led_to = frames > self._first
        self.actions[led_to] = codec.encode(np.concatenate([e.actions for e in episodes]), device)
        self.rewards[led_to] = torch.from_numpy(
            np.concatenate([e.rewards for e in episodes]).astype(np.float32)
        ).to(device)
        self.terminated[led_to] = torch.from_numpy(
            np.concatenate([e.terminated for e in episodes])
        ).to(device)
        self._targets = led_to.nonzero().flatten()
        self._events = (led_to & ((self.rewards != 0) | self.terminated)).nonzero().flatten()
        if len(self._events) > len(self._targets) // 4:
            # Rewards are common here (a reward at every step): only ends are events.
            self._events = self.terminated.nonzero().flatten()
        self._priority = torch.ones(len(tokens), device=device)
        self._episode = (frames == self._first).long().cumsum(0) - 1
        self._moments = (frames < self._last).nonzero().flatten()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, from which another process makes an equal dataset."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device) -> Self:
        """Make a dataset out of what `state_dict` gave."""
        dataset = cls.__new__(cls)
        for name, value in state.items():
            setattr(dataset, name, value.to(device) if isinstance(value, Tensor) else value)
        return dataset

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.lengths)

    @property
    def episode(self) -> Tensor:
        """(N,) int64: the episode of each frame, from 0."""
        return self._episode

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.tokens)

    def sample_windows(
        self,
        batch: int,
        length: int,
        *,
        event_share: float,
        hard_share: float = 0.0,
        generator: torch.Generator,
    ) -> Windows:
        """Draw windows for training.

        Each is placed around a transition, at a random offset: a share `event_share` of them
        around rewarding or terminating transitions, a share `hard_share` around those with a
        high priority, the others around any.

        Args:
            batch: B.
            length: T, frames.
            event_share: In [0, 1].
            hard_share: In [0, 1 - event_share].
            generator: On the dataset's device.
        """
        centre = self._targets[random_index(len(self._targets), batch, generator)]
        num_events = round(batch * event_share) if len(self._events) else 0
        num_hard = min(round(batch * hard_share), batch - num_events)
        if num_events:
            chosen = random_index(len(self._events), num_events, generator)
            centre[:num_events] = self._events[chosen]
        if num_hard:
            centre[num_events : num_events + num_hard] = self._hard_targets(num_hard, generator)
        first = centre - 1 - random_index(max(length - 1, 1), batch, generator)
        latest = max(self.num_frames - length, 0)
        return self.windows_at(first.clamp(0, latest), length)

    def frames_left(self, index: Tensor) -> Tensor:
        """Say how many frames of its episode follow each of some frames of the N: (...) int64."""
        return self._last[index] - index

    def _hard_targets(self, count: int, generator: torch.Generator) -> Tensor:
        cumulative = self._priority[self._targets].double().cumsum(0)
        return self._targets[index_by_weight(cumulative, count, generator)]

    def windows_at(self, first: Tensor, length: int) -> Windows:
        """Give the windows of `length` frames that begin at frames `first` (B,) of the N."""
        index = first.unsqueeze(1) + torch.arange(length, device=first.device)
        beyond = index >= self.num_frames  # the last frame again, as episodes of their own
        index = index.clamp(max=self.num_frames - 1)
        episode = self._episode[index] + beyond.cumsum(1)
        return Windows(
            self.tokens[index],
            self.actions[index],
            self.rewards[index],
            self.terminated[index],
            episode,
            index,
        )

    def set_priority(self, windows: Windows, losses: Tensor) -> None:
        """Let later draws prefer transitions with a high loss.

        Half of a transition's priority is its newest loss, half is its old priority.

        Args:
            windows: B windows of T frames that were drawn from here.
            losses: (B, T - 1), at least 0.
        """
        follows = windows.follows
        target = windows.index[:, 1:][follows]
        new = losses[follows].clamp(_LOWEST_PRIORITY, _HIGHEST_PRIORITY)
        mixed = 0.5 * (self._priority[target] + new)
        # Of a transition that is in several windows the highest counts: which write comes last
        # is not determined on a GPU.
        self._priority[target] = 0.0
        self._priority.scatter_reduce_(0, target, mixed, "amax")

    @property
    def priority(self) -> Tensor:
        """(N,) float32; changed in place by `set_priority`."""
        return self._priority

    @property
    def moments(self) -> Tensor:
        """(M,) int64: the frames from which the real episode went on."""
        return self._moments

    def sample_contexts(self, count: int, *, generator: torch.Generator) -> Context:
        """Draw contexts that end at random moments from which the real episode went on."""
        return self.contexts_to(self._moments[random_index(len(self._moments), count, generator)])

    def contexts_at(self, episode_index: Tensor, frame_index: Tensor) -> Context:
        """Give the contexts that end at `frame_index` (0..T) of `episode_index`, both (B,)."""
        episode_index = torch.as_tensor(episode_index, device=self.tokens.device)
        frame_index = torch.as_tensor(frame_index, device=self.tokens.device)
        return self.contexts_to(self.first_frames[episode_index] + frame_index)

    def contexts_to(self, moments: Tensor, length: int | None = None) -> Context:
        """Give the contexts that end at frames `moments` (B,) of the N.

        Args:
            moments: As given.
            length: Frames of a context; None is C.
        """
        back = torch.arange(1 - (length or self.context_length), 1, device=moments.device)
        index = moments.unsqueeze(1) + back
        valid = index >= self._first[moments].unsqueeze(1)
        index = index.clamp(min=0)
        return Context(self.tokens[index], self.actions[index], valid)
