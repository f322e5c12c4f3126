"""Fits that may be killed at any moment: their state on disk, and whose it is.

Classes:
    FitCheckpoint: one file, which belongs to one fit.

Functions:
    fingerprint: what episodes are, in a few characters.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldgen.data.episode import Episode
from worldgen.errors import CheckpointError
from worldgen.training_state import load_state, save_state

__all__ = ["FitCheckpoint", "fingerprint"]

logger = logging.getLogger(__name__)


def fingerprint(episodes: Sequence[Episode]) -> str:
    """Give a digest of actions, rewards, ends and first and last observations of episodes."""
    digest = hashlib.sha256()
    for index in range(len(episodes)):
        episode = episodes[index]
        parts = [episode.actions, episode.rewards, episode.terminated]
        parts += [values[[0, -1]] for values in episode.observations.values()]
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


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
        state = load_state(self.path)
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

    def write(self, state: Mapping[str, Any], *, finished: bool) -> None:
        """Replace the file."""
        save_state(self.path, {"identity": self._identity, "finished": finished, **state})
