"""One episode in one safetensors file, written whole or not at all.

Functions:
    write_episode, read_episode: without loss, whatever the dtypes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from worldgen.checkpoint import write_atomically
from worldgen.data.episode import Episode
from worldgen.errors import DatasetError

__all__ = ["read_episode", "write_episode"]

_METADATA = {"kind": "worldgen episode", "format_version": "1"}
_OBSERVATIONS = "observations/"
_TEXTS = "texts/"
_REST = ("actions", "rewards", "terminated", "truncated")


def write_episode(path: Path, episode: Episode) -> None:
    """Write an episode; a process that is killed meanwhile leaves nothing at `path`."""
    arrays = {}
    for key, values in episode.observations.items():
        if values.dtype.kind == "U":  # As code points, (T + 1, characters).
            points = np.ascontiguousarray(values).view(np.uint32)
            arrays[f"{_TEXTS}{key}"] = points.reshape(len(values), -1)
        else:
            arrays[f"{_OBSERVATIONS}{key}"] = values
    arrays |= {name: getattr(episode, name) for name in _REST}
    plain = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    write_atomically(path, lambda temporary: save_file(plain, temporary, _METADATA))


def read_episode(path: Path) -> Episode:
    """Read what `write_episode` wrote.

    Raises:
        DatasetError: If the file is damaged or no episode; the message names it.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DatasetError(f"{path} is damaged or no episode: {error}") from error
    found = {key: metadata.get(key) for key in _METADATA}
    if found != _METADATA:
        raise DatasetError(f"{path} must be an episode with {_METADATA}, got {found}")
    try:
        return _assemble(arrays)
    except (DatasetError, KeyError, TypeError, IndexError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error


def _assemble(arrays: dict[str, np.ndarray]) -> Episode:
    observations = {
        name.removeprefix(_OBSERVATIONS): values
        for name, values in arrays.items()
        if name.startswith(_OBSERVATIONS)
    }
    for name, points in arrays.items():
        if name.startswith(_TEXTS):
            width = f"<U{points.shape[1]}"
            texts = np.ascontiguousarray(points).view(width).reshape(len(points))
            observations[name.removeprefix(_TEXTS)] = texts
    return Episode(observations=observations, **{name: arrays[name] for name in _REST})
