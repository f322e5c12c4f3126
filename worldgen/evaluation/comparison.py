"""Predicted observations against real ones, leaf by leaf.

Classes:
    Comparison: gathers batches and gives an `Agreement`.

Functions:
    leaf_kinds: how each leaf is compared.
    frame_right: which frames have every symbol right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from gymnasium import spaces

from worldgen.evaluation.report import Agreement
from worldgen.render import LeafKind, leaf_kind
from worldgen.spaces import leaves
from worldgen.tokenizer.modality import ModalityName, modality_name

__all__ = ["Comparison", "frame_right", "leaf_kinds"]

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


def leaf_kinds(
    space: spaces.Space[Any], modalities: Mapping[str, str] | None = None
) -> dict[str, LeafKind]:
    """Say for each path how it is compared: what is symbols to the tokenizer, by symbols.

    Args:
        space: Of the observations.
        modalities: Path -> modality, as the tokenizer was told.
    """
    declared = modalities or {}
    return {path: _kind(path, leaf, declared.get(path)) for path, leaf in leaves(space).items()}


def _kind(path: str, leaf: spaces.Space[Any], declared: str | None) -> LeafKind:
    drawn = leaf_kind(leaf, declared)
    name = cast("ModalityName | None", declared)
    # Grids of truth values, or of many channels, are drawn as numbers and yet are symbols.
    if drawn == "numbers" and modality_name(path, leaf, name) == "symbolic":
        return "symbols"
    return drawn


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

    @property
    def exact_is_defined(self) -> bool:
        """Whether frames are symbols and categories alone, so that they can be exactly right."""
        return all(kind in _EXACT for kind in self._kinds.values())

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
            **self._explained(),
            psnr={path: _psnr(*square) for path, square in self._squares.items()},
        )

    def _explained(self) -> dict[str, Any]:
        """Give R2 of each vector: its mean, its lowest, and each entry's."""
        entries = {path: self._r2(path) for path in self._vectors}
        found = {
            path: [value for value in values if value is not None]
            for path, values in entries.items()
        }
        known = {path: values for path, values in found.items() if values}
        return {
            "r2": {path: float(np.mean(values)) for path, values in known.items()},
            "r2_worst": {path: min(values) for path, values in known.items()},
            "r2_entries": {path: entries[path] for path in known},
        }

    def _r2(self, path: str) -> list[float | None]:
        predicted, real = (np.concatenate(part) for part in zip(*self._vectors[path], strict=True))
        variance = real.var(0)
        error = ((predicted - real) ** 2).mean(0)
        return [
            float(1 - wrong / spread) if len(real) > 1 and spread > 1e-12 else None
            for wrong, spread in zip(error, variance, strict=True)
        ]


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(np.float64)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _psnr(squares: float, count: float) -> float:
    """Peak signal-to-noise ratio of 8-bit pixels, 100 dB at most."""
    error = max(squares / count, 255.0**2 * 1e-10)
    return float(10 * np.log10(255.0**2 / error))
