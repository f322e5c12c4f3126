"""Transitions as SB3's replay buffers keep them, and as worldgen reads them.

SB3 stores the actions of a Box in [-1, 1], pictures with the channels first and numbers of a
Discrete space with a dimension of their own; worldgen wants what the environment gives and takes.

Classes:
    ReplayView: observations, actions and episodes of one pair of spaces.

Functions:
    make_store: SB3's own buffer for a space.
    join_samples: two batches as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

from worldgen.agents.real_env import check_start
from worldgen.data.episode import Episode
from worldgen.errors import SpaceError
from worldgen.spaces import ROOT, in_short, leaves

__all__ = ["ReplayView", "Samples", "join_samples", "make_store"]

Samples: TypeAlias = ReplayBufferSamples | DictReplayBufferSamples


def make_store(
    size: int,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    device: torch.device | str,
    num_rows: int,
) -> ReplayBuffer:
    """Make SB3's buffer for `size` transitions of `num_rows` rows together."""
    kind = DictReplayBuffer if isinstance(observation_space, spaces.Dict) else ReplayBuffer
    return kind(size, observation_space, action_space, device, n_envs=num_rows)  # type: ignore[arg-type]


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Put batches behind each other."""
    if len(parts) == 1:
        return parts[0]
    fields = zip(*parts, strict=True)
    joined: Samples = type(parts[0])(*(_joined(values) for values in fields))
    return joined


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: torch.cat([value[key] for value in values]) for key in first}
    return None if first is None else torch.cat(list(values))


class ReplayView:
    """Read a replay buffer's arrays as the environment's own observations and actions.

    Args:
        observation_space: As SB3 has it, pictures with their channels first.
        action_space: The environment's.

    Attributes:
        observation_space: As worldgen has it, pictures with their channels last.

    Raises:
        SpaceError: If actions are neither Discrete nor Box, or begin at another number than 0.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        _check_actions(action_space)
        self._action_space = action_space
        self._shown = observation_space
        self._pictures = {
            path
            for path, leaf in leaves(observation_space).items()
            if isinstance(leaf, spaces.Box)
            and is_image_space(leaf)
            and is_image_space_channels_first(leaf)
        }
        self.observation_space = self._channels_last(observation_space)
        self._leaves = leaves(self.observation_space)

    def _channels_last(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        if isinstance(space, spaces.Dict):
            # As pairs, since a dictionary would be sorted and the leaves' order is the tokens'.
            parts = space.spaces.items()
            return spaces.Dict([(key, self._leaf(key, part)) for key, part in parts])
        return self._leaf(ROOT, space)

    def _leaf(self, path: str, leaf: spaces.Space[Any]) -> spaces.Space[Any]:
        if path not in self._pictures:
            return leaf
        assert isinstance(leaf, spaces.Box)
        low, high = (np.moveaxis(bound, 0, -1) for bound in (leaf.low, leaf.high))
        return spaces.Box(low, high, dtype=np.uint8)

    def shown(self, flat: dict[str, np.ndarray]) -> Any:
        """Give a flat batch of worldgen's, path -> (B, ...), as SB3's policies read it."""
        turned = {
            path: np.moveaxis(batch, -1, 1) if path in self._pictures else batch
            for path, batch in flat.items()
        }
        return turned if isinstance(self._shown, spaces.Dict) else turned[ROOT]

    def stored_actions(self, actions: np.ndarray) -> np.ndarray:
        """Give the environment's actions as SB3 stores them."""
        space = self._action_space
        if not isinstance(space, spaces.Box):
            return actions
        scaled: np.ndarray = 2 * (actions - space.low) / (space.high - space.low) - 1
        return scaled

    def real_actions(self, stored: np.ndarray) -> np.ndarray:
        """Undo `stored_actions`, for a batch (B, A): (B, *action shape)."""
        space = self._action_space
        shaped = stored.reshape(len(stored), *(space.shape or ()))
        if isinstance(space, spaces.Box):
            unscaled = space.low + 0.5 * (shaped + 1) * (space.high - space.low)
            # Rounding may lead beyond the bounds.
            shaped = np.clip(unscaled, space.low, space.high)
        return shaped.astype(space.dtype, copy=False)

    def episodes(self, store: ReplayBuffer, newest: int) -> list[Episode]:
        """Give the newest transitions as episodes, the oldest first in each row.

        An episode ends where the environment's did, where the environment was reset without
        being done, and at both ends of what the buffer holds.

        Args:
            store: With timeouts kept apart, as is SB3's default.
            newest: Most transitions, all rows together.
        """
        count = min(store.size(), max(1, newest // store.n_envs))
        times = (store.pos - count + np.arange(count)) % store.buffer_size
        return [
            episode
            for row in range(store.n_envs)
            for episode in self._row_episodes(store, times, row)
        ]

    def _row_episodes(self, store: ReplayBuffer, times: np.ndarray, row: int) -> list[Episode]:
        before = self._flat(store.observations, times, row)
        after = self._flat(store.next_observations, times, row)
        actions = self.real_actions(store.actions[times, row])
        rewards = store.rewards[times, row]
        over, timeout = store.dones[times, row] > 0, store.timeouts[times, row] > 0
        last = over.copy()
        last[-1:] = True
        for path, values in before.items():
            same = values[1:] == after[path][:-1]
            last[:-1] |= ~same.reshape(len(same), -1).all(1)
        ends = np.flatnonzero(last) + 1
        return [
            Episode(
                observations={
                    path: np.concatenate([values[first:end], after[path][end - 1 : end]])
                    for path, values in before.items()
                },
                actions=actions[first:end],
                rewards=rewards[first:end],
                terminated=(over & ~timeout)[first:end],
                truncated=(over & timeout)[first:end],
            )
            for first, end in zip([0, *ends[:-1]], ends, strict=True)
        ]

    def _flat(self, stored: Any, times: np.ndarray, row: int) -> dict[str, np.ndarray]:
        arrays = stored if isinstance(stored, dict) else {ROOT: stored}
        flat = {}
        for path, leaf in self._leaves.items():
            values = arrays[path][times, row]
            if path in self._pictures:
                values = np.moveaxis(values, 1, -1)
            values = values.reshape(len(times), *(leaf.shape or ()))
            flat[path] = values.astype(leaf.dtype, copy=False)
        return flat


def _check_actions(space: spaces.Space[Any]) -> None:
    if not isinstance(space, spaces.Discrete | spaces.Box):
        raise SpaceError(
            "actions must be Discrete or Box, as those of DQN, SAC and TD3 are, got "
            f"{in_short(space)}: wrap the environment"
        )
    check_start("action", space)
