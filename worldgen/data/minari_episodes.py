"""Minari datasets, https://minari.farama.org, as episodes, and back.

Needs the extra `minari`, which reads and writes HDF5 files; Minari's own recorder and its many
dependencies are not needed.

Functions:
    import_minari: a dataset's episodes.
    export_minari: episodes as a new dataset.
    load_episodes: a folder of episodes, or a dataset by its id.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium import spaces

from worldgen.data.episode import Episode
from worldgen.data.episodes import Episodes
from worldgen.data.minari_environment import (
    dataset_space,
    environment_of_dataset,
    spec_for_dataset,
)
from worldgen.errors import ConfigError, DatasetError, MissingDependencyError
from worldgen.spaces import flatten, leaves, unflatten

if TYPE_CHECKING:
    from minari import MinariDataset

__all__ = ["export_minari", "import_minari", "load_episodes"]

logger = logging.getLogger(__name__)

_INSTALL = "pip install 'worldgen[minari]'"


class _EpisodeData(Protocol):
    """What Minari's `EpisodeData` has."""

    id: int
    observations: Any
    actions: Any
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


def import_minari(dataset: str | MinariDataset) -> Episodes:
    """Read a Minari dataset into memory.

    Observations become what `prepare_env` makes of the environment's: the parts of a Dict that
    are text are left out, and MiniGrid's cells get their true bounds. No environment is made.

    Args:
        dataset: Id of a dataset on this machine, such as "minigrid/BabyAI-Pickup/optimal-v0", or
            the dataset itself, which may be a filtered one.

    Raises:
        MissingDependencyError: If Minari is not installed.
        DatasetError: If there is no such dataset, or its data do not fit its spaces.
        SpaceError: If a part of its observations or actions is not an array of numbers.
    """
    source = _local_dataset(dataset) if isinstance(dataset, str) else dataset
    name = str(source.spec.dataset_id)
    data: list[_EpisodeData] = list(source.iterate_episodes())
    recorded, space = source.spec.env_spec, source.spec.observation_space
    frames = [flatten(space, one.observations) for one in data]
    space = dataset_space(space, recorded, frames, name)
    if _is_compressed(source, space):
        logger.warning("%s: its pictures were compressed by JPEG, and are not exact", name)
    environment = environment_of_dataset(recorded)
    episodes = Episodes(space, source.spec.action_space, environment=environment)
    for one in data:
        try:
            episodes.append(_episode(one, episodes))
        except DatasetError as error:
            raise DatasetError(f"episode {one.id} of {name}: {error}") from error
    return episodes


def export_minari(episodes: Episodes, dataset_id: str, **metadata: Any) -> MinariDataset:
    """Write episodes as a new Minari dataset on this machine, exactly as they are.

    Pictures are not compressed, unlike Minari does by default: JPEG would change them. Where it
    is known how the environment is made, the dataset says so; it is made here, but not reset.

    Args:
        episodes: What to write.
        dataset_id: Of the new dataset, such as "doorkey/mixed-v0".
        **metadata: What else Minari keeps: `author`, `author_email`, `description`,
            `algorithm_name`, `code_permalink`, `requirements`.

    Raises:
        MissingDependencyError: If Minari is not installed.
        ConfigError: If the id is malformed or taken, or Minari does not know such metadata.
        DatasetError: If there are no episodes.
    """
    minari = _minari()
    if not len(episodes):
        raise DatasetError("`episodes` must hold at least one episode, got none")
    buffers = [_buffer(episode, episodes.observation_space) for episode in episodes]
    try:
        importlib.import_module("minari.dataset.minari_dataset").parse_dataset_id(dataset_id)
        with warnings.catch_warnings():
            # Minari warns of every piece of metadata that is not given.
            warnings.simplefilter("ignore", UserWarning)
            dataset: MinariDataset = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=spec_for_dataset(episodes.environment),
                observation_space=episodes.observation_space,
                action_space=episodes.action_space,
                jpeg_encoding=False,
                **metadata,
            )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"Minari refuses the dataset {dataset_id!r}: {error}") from error
    return dataset


def load_episodes(name: str | Path) -> Episodes:
    """Read a folder that `Episodes` wrote or, where there is no such folder, a Minari dataset.

    Raises:
        MissingDependencyError: If there is no folder, and Minari is not installed.
        DatasetError: If there is neither, or the data are damaged.
    """
    if Path(name).is_dir():
        return Episodes.load(name)
    return import_minari(str(name))


def _minari() -> ModuleType:
    try:
        importlib.import_module("h5py")
        return importlib.import_module("minari")
    except ImportError as error:
        raise MissingDependencyError(f"Minari datasets need more: {_INSTALL} ({error})") from error


def _local_dataset(dataset_id: str) -> MinariDataset:
    try:
        dataset: MinariDataset = _minari().load_dataset(dataset_id)
    except MissingDependencyError as error:
        raise MissingDependencyError(f"there is no folder {dataset_id!r}, and {error}") from error
    except (FileNotFoundError, ValueError) as error:
        raise DatasetError(
            f"{dataset_id!r} must be a folder of episodes or the id of a Minari dataset on this "
            f"machine: `minari download {dataset_id}` fetches a public one ({error})"
        ) from error
    return dataset


def _is_compressed(dataset: MinariDataset, space: spaces.Space[Any]) -> bool:
    """Tell whether pictures went through JPEG, as Minari does unless it is told not to."""
    from minari.dataset.minari_storage import is_image_space

    pictures = any(is_image_space(leaf) for leaf in leaves(space).values())
    return pictures and bool(dataset.storage.jpeg_encoding)


def _episode(data: _EpisodeData, episodes: Episodes) -> Episode:
    """Take an episode out of Minari's nested arrays."""
    space_of = leaves(episodes.observation_space)
    flat = flatten(episodes.observation_space, data.observations)
    return Episode(
        observations={path: _cast(path, flat[path], leaf) for path, leaf in space_of.items()},
        actions=_cast("actions", data.actions, episodes.action_space),
        rewards=np.asarray(data.rewards, np.float32),
        terminated=np.asarray(data.terminations, np.bool_),
        truncated=np.asarray(data.truncations, np.bool_),
    )


def _cast(name: str, values: Any, space: spaces.Space[Any]) -> np.ndarray:
    """Give values the dtype of their space, integers without loss."""
    array = np.asarray(values)
    if isinstance(space, spaces.Text):
        return array
    cast = array.astype(space.dtype, copy=False)
    if cast.dtype.kind != "f" and not np.array_equal(cast, array):
        raise DatasetError(f"`{name}` must be {space.dtype} as the space says, got {array.dtype}")
    return cast


def _buffer(episode: Episode, space: spaces.Space[Any]) -> Any:
    from minari.data_collector import EpisodeBuffer

    flat = {
        path: values.tolist() if values.dtype.kind == "U" else values
        for path, values in episode.observations.items()
    }
    return EpisodeBuffer(
        observations=unflatten(space, flat),
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated,
    )
