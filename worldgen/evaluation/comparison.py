"""Predicted observations against real ones, leaf by leaf.

Classes:
    Truth: the frames, actions, rewards and ends of episodes in one row.
    Comparison: gathers batches and gives an `Agreement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from worldgen.data.episode import Episode
from worldgen.evaluation.report import Agreement
from worldgen.render import LeafKind, leaf_kind
from worldgen.spaces import leaves

__all__ = ["Comparison", "Truth", "frame_right", "leaf_kinds"]

_EXACT: tuple[LeafKind, ...] = ("minigrid", "symbols", "words")
_MINIGRID_OBJECTS = (
    "unseen",
    "empty",
    "wall",
    "floor",
    "door",
    "key",
    "ball",
    "box",
    "goal",
    "lava",
    "agent",
)


class Truth:
    """Episodes laid one after the other; entry n of each array belongs to the step *to* frame n.

    Attributes:
        observations: Path -> (N, ...).
        actions: (N, ...); an episode's first frame repeats its first action.
        rewards: (N,) float32, 0 at first frames.
        terminated: (N,) bool.
        episode: (N,) index of the episode.
        frame: (N,) index within the episode.
        last: (N,) index n of the episode's last frame.
        known_end: (N,) bool, whether the episode ended by termination.
    """

    def __init__(self, episodes: Sequence[Episode]) -> None:
        lengths = np.array([len(episode) + 1 for episode in episodes])
        firsts = lengths.cumsum() - lengths
        self.observations = {
            path: np.concatenate([episode.observations[path] for episode in episodes])
            for path in episodes[0].observations
        }
        self.actions = np.concatenate(
            [np.concatenate([e.actions[:1], e.actions]) for e in episodes]
        )
        self.rewards = np.concatenate([np.append(np.float32(0), e.rewards) for e in episodes])
        self.terminated = np.concatenate([np.append(False, e.terminated) for e in episodes])
        self.episode = np.arange(len(episodes)).repeat(lengths)
        self.frame = np.arange(lengths.sum()) - firsts.repeat(lengths)
        self.last = (firsts + lengths - 1).repeat(lengths)
        self.known_end = self.terminated[self.last]

    def at(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Give the flat observations of some frames."""
        return {path: values[index] for path, values in self.observations.items()}


def leaf_kinds(
    space: spaces.Space[Any], modalities: Mapping[str, str] | None = None
) -> dict[str, LeafKind]:
    """Say for each path how it is drawn and compared."""
    return {
        path: leaf_kind(leaf, (modalities or {}).get(path)) for path, leaf in leaves(space).items()
    }


def frame_right(
    kinds: Mapping[str, LeafKind],
    predicted: Mapping[str, np.ndarray],
    real: Mapping[str, np.ndarray],
) -> np.ndarray | None:
    """Say which of B frames have every symbol and category right: (B,) bool.

    None where the observation holds a picture or a vector, which are never exactly right.
    """
    if any(kind not in _EXACT for kind in kinds.values()):
        return None
    parts = [(predicted[path] == real[path]).reshape(len(real[path]), -1).all(1) for path in kinds]
    right: np.ndarray = np.logical_and.reduce(parts)
    return right


class Comparison:
    """Gathers batches of predicted and real frames.

    Args:
        kinds: Path -> kind, from `leaf_kinds`.
    """

    def __init__(self, kinds: Mapping[str, LeafKind]) -> None:
        self._kinds = kinds
        self._right: list[np.ndarray] = []
        self._cells = np.zeros(2, np.int64)
        self._objects = np.zeros((len(_MINIGRID_OBJECTS), 2), np.int64)
        self._vectors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._squares: dict[str, np.ndarray] = {}

    def add(self, predicted: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray]) -> None:
        """Add flat batches, path -> (B, ...)."""
        if not len(next(iter(real.values()))):
            return
        right = frame_right(self._kinds, predicted, real)
        if right is not None:
            self._right.append(right)
        for path, kind in self._kinds.items():
            if kind in _EXACT:
                self._add_symbols(kind, predicted[path] == real[path], real[path])
            elif kind == "image":
                error = predicted[path].astype(np.float64) - real[path]
                found = self._squares.setdefault(path, np.zeros(2))
                found += ((error**2).sum(), error.size)
            else:
                pair = (_rows(predicted[path]), _rows(real[path]))
                self._vectors.setdefault(path, []).append(pair)

    def _add_symbols(self, kind: LeafKind, right: np.ndarray, real: np.ndarray) -> None:
        self._cells += (right.sum(), right.size)
        if kind == "minigrid":
            objects = real[..., 0].ravel()
            cells_right = right.all(-1).ravel()
            size = len(_MINIGRID_OBJECTS)
            self._objects[:, 0] += np.bincount(objects[cells_right], minlength=size)[:size]
            self._objects[:, 1] += np.bincount(objects, minlength=size)[:size]

    def agreement(self) -> Agreement:
        """Give the shares over all that was added."""
        return Agreement(
            frames_exact=_mean(np.concatenate(self._right)) if self._right else None,
            cells=float(self._cells[0] / self._cells[1]) if self._cells[1] else None,
            objects={
                name: float(right / total)
                for name, (right, total) in zip(_MINIGRID_OBJECTS, self._objects, strict=True)
                if total
            },
            r2={path: value for path in self._vectors if (value := self._r2(path)) is not None},
            psnr={path: _psnr(*square) for path, square in self._squares.items()},
        )

    def _r2(self, path: str) -> float | None:
        predicted, real = (np.concatenate(part) for part in zip(*self._vectors[path], strict=True))
        variance = real.var(0)
        varies = variance > 1e-12
        if len(real) < 2 or not varies.any():
            return None
        error = ((predicted - real) ** 2).mean(0)
        return float((1 - error[varies] / variance[varies]).mean())


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(np.float64)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _psnr(squares: float, count: float) -> float:
    """Peak signal-to-noise ratio of 8-bit pixels, 100 dB at most."""
    error = max(squares / count, 255.0**2 * 1e-10)
    return float(10 * np.log10(255.0**2 / error))
