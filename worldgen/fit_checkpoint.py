"""Fits that may be killed at any moment: their state on disk, and whose it is.

Classes:
    FitCheckpoint: one file, which belongs to one fit.

Functions:
    fingerprint: what episodes are, in a few characters.
    remove_checkpoint: the file, and what killed writes left beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldgen.data.episode import Episode
from worldgen.errors import CheckpointError
from worldgen.training_state import load_state, save_state

__all__ = ["STATE_ERRORS", "FitCheckpoint", "fingerprint", "remove_checkpoint"]

STATE_ERRORS = (KeyError, TypeError, ValueError, RuntimeError)
"""What is raised where a state lacks something, or has it in another shape."""
_REMEDY = "remove it to begin the fit anew"


def fingerprint(episodes: Sequence[Episode]) -> str:
    """Give a digest of all that episodes hold."""
    digest = hashlib.blake2b(digest_size=8)
    for index in range(len(episodes)):
        episode = episodes[index]
        parts = {name: getattr(episode, name) for name in ("actions", "rewards", "terminated")}
        for name, part in {**parts, **episode.observations}.items():
            digest.update(f"{name} {part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, where there is one, and what killed writes of it left."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


class FitCheckpoint:
    """The state of one fit in a file.

    Args:
        path: The file.
        identity: JSON values that tell this fit from others: settings, seed, data.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path, self._identity = Path(path), dict(identity)

    def read(self) -> dict[str, Any] | None:
        """Give the state to go on from; None where there is none.

        The state of another fit is an error unless that fit was finished.

        Raises:
            CheckpointError: If the file is damaged, or belongs to another, unfinished fit.
        """
        if not self.path.exists():
            return None
        try:
            state = load_state(self.path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {_REMEDY}") from error
        if not isinstance(state, dict) or not {"identity", "finished"} <= state.keys():
            raise CheckpointError(f"{self.path} is no state of a fit; choose another file")
        found = state["identity"]
        names = [
            name
            for name in sorted(found.keys() | self._identity.keys())
            if found.get(name) != self._identity.get(name)
        ]
        if not names:
            return state
        if state["finished"]:
            return None
        raise CheckpointError(
            f"{self.path} belongs to another fit, which is not finished: it differs in "
            f"{', '.join(names)}; go on with that one, delete the file or choose another"
        )

    def damaged(self, error: Exception) -> CheckpointError:
        """Say that the file can be read and does not hold what it must."""
        return CheckpointError(f"{self.path} is damaged: {error!r}; {_REMEDY}")

    def write(self, state: Mapping[str, Any], *, finished: bool) -> None:
        """Replace the file."""
        save_state(self.path, {"identity": self._identity, "finished": finished, **state})
