"""A fit that was broken off, on disk, to go on with.

Classes:
    FitCheckpoint: one file, and the fit that it belongs to.

Functions:
    fit_identity: all that decides about a fit's result, as short values to compare.
    remove_checkpoint: the file, and what killed writes left beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldgen.config import flat
from worldgen.data.episode import Episode
from worldgen.errors import CheckpointError
from worldgen.state_file import load_state, save_state

__all__ = ["WEIGHTS", "FitCheckpoint", "fit_identity", "remove_checkpoint"]

WEIGHTS = "hash of the weights at the beginning"
"""Its name in an identity."""
_KIND = "checkpoint of a fit"
_REMEDY = "remove it to begin the fit anew"
_MOST_NAMED = 5


@dataclass(frozen=True)
class FitCheckpoint:
    """Where a fit keeps its state, and which fit it is."""

    path: Path
    """The file."""
    identity: dict[str, Any]
    """What `fit_identity` gave for the fit that is running."""

    def load(self) -> dict[str, Any] | None:
        """Read what `save` wrote; None where there is nothing.

        Raises:
            CheckpointError: If the file is damaged, or belongs to another fit.
        """
        if not self.path.exists():
            return None
        try:
            state = load_state(self.path, _KIND)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {_REMEDY}") from error
        try:
            found, inside = state["identity"], state["state"]
        except (KeyError, TypeError) as error:
            raise self.damaged(error) from error
        differing = [
            f"{name} was {found.get(name)!r} and is {self.identity.get(name)!r}"
            for name in sorted(found.keys() | self.identity.keys())
            if found.get(name) != self.identity.get(name)
        ]
        if differing:
            more = len(differing) - _MOST_NAMED
            raise CheckpointError(
                f"{self.path} belongs to another fit: {'; '.join(differing[:_MOST_NAMED])}"
                f"{f'; and {more} more' if more > 0 else ''}; fit with the same settings and "
                f"episodes to go on with it, or {_REMEDY}"
            )
        assert isinstance(inside, dict)
        return inside

    def damaged(self, error: Exception) -> CheckpointError:
        """Say that the file can be read and does not hold what it must."""
        return CheckpointError(f"{self.path} is damaged: {error!r}; {_REMEDY}")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state as `save_state` takes it; the folder is made where it is missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_state(self.path, _KIND, {"identity": self.identity, "state": dict(state)})


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, and what killed writes of it left."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def fit_identity(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], episodes: Sequence[Episode]
) -> dict[str, Any]:
    """Say which fit it is.

    Args:
        settings: JSON values, nested dictionaries of them included.
        weights: Of the model before the fit.
        episodes: What it learns from.
    """
    weight_hash, episode_hash = _Hash(), _Hash()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous().reshape(-1)
        weight_hash.add(name, value.view(torch.uint8).numpy())
    for episode in episodes:
        for path in sorted(episode.observations):
            episode_hash.add(path, episode.observations[path])
        for name in ("actions", "rewards", "terminated"):
            episode_hash.add(name, getattr(episode, name))
    return {
        **flat(dict(settings)),
        "number of episodes": len(episodes),
        "hash of the episodes": episode_hash.text(),
        WEIGHTS: weight_hash.text(),
    }


class _Hash:
    """Of named arrays, one after the other."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=12)

    def add(self, name: str, array: np.ndarray) -> None:
        self._hash.update(f"{name} {array.dtype} {array.shape};".encode())
        self._hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def text(self) -> str:
        return self._hash.hexdigest()
