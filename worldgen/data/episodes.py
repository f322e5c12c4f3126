"""Episodes of one environment, in memory and, where they have a folder, on disk.

A folder holds `episodes.json` (format version, spaces, environment) and one file an episode,
`episode-000000.safetensors` and on. Nothing in it is ever rewritten: a collection that is
killed keeps its finished episodes.

Classes:
    Episodes: a sequence of episodes to append to, save, load and split.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from gymnasium import spaces

from worldgen.checkpoint import write_json
from worldgen.config import require
from worldgen.data.environment import EnvironmentSpec
from worldgen.data.episode import Episode
from worldgen.data.episode_file import read_episode, write_episode
from worldgen.data.episode_rules import check_episode, check_spaces
from worldgen.errors import DatasetError, WorldgenError
from worldgen.spaces import space_from_json, space_to_json
from worldgen.version import __version__

__all__ = ["FORMAT_VERSION", "Episodes"]

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_HEADER = "episodes.json"
_KIND = "worldgen episodes"
_SET_ASIDE = "set-aside"


class Episodes(Sequence[Episode]):
    """Episodes of one environment; those with a folder are written as they are appended.

    Args:
        observation_space: The environment's, as `prepare_env` gives it.
        action_space: The environment's.
        episodes: What to begin with.
        environment: How the environment was made, where that is known.

    Attributes:
        path: The folder, or None.
        num_steps: Environment steps in all.

    Raises:
        SpaceError: If a part of a space is not an array of numbers.
        DatasetError: If an episode does not fit the spaces.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        episodes: Iterable[Episode] = (),
        *,
        environment: EnvironmentSpec | None = None,
    ) -> None:
        check_spaces(observation_space, action_space)
        self.observation_space = observation_space
        self.action_space = action_space
        self.environment = environment
        self.path: Path | None = None
        self.num_steps = 0
        self._episodes: list[Episode] = []
        self._next_file = 0
        self.extend(episodes)

    @classmethod
    def create(
        cls,
        path: str | Path,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        environment: EnvironmentSpec | None = None,
        overwrite: bool = False,
    ) -> Self:
        """Make an empty set of episodes in a new folder.

        Args:
            path: The folder; it may be there if it is empty.
            observation_space: The environment's, as `prepare_env` gives it.
            action_space: The environment's.
            environment: How the environment was made, where that is known.
            overwrite: Remove the episodes that the folder holds; other files stay.

        Raises:
            DatasetError: If the folder holds something that may not or cannot be replaced.
            SpaceError: If the spaces cannot be kept.
        """
        episodes = cls(observation_space, action_space, environment=environment)
        header = episodes._header()  # first, since it refuses a space before anything is cleared
        folder = Path(path)
        _clear(folder, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _HEADER, header)
        episodes.path = folder
        return episodes

    def _header(self) -> dict[str, Any]:
        return {
            "kind": _KIND,
            "format_version": FORMAT_VERSION,
            "worldgen_version": __version__,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "environment": None if self.environment is None else self.environment.to_dict(),
        }

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a folder; what is appended from then on is written there.

        Raises:
            DatasetError: If the folder is missing, or a file in it damaged or foreign.
        """
        folder = Path(path)
        episodes = cls._from_header(folder / _HEADER)
        files = _episode_files(folder)
        for file in files:
            episode = read_episode(file)
            try:
                episodes.append(episode)
            except DatasetError as error:
                raise DatasetError(f"{file} does not fit {_HEADER}: {error}") from error
        episodes.path = folder
        episodes._next_file = _number(files[-1]) + 1 if files else 0
        if episodes._next_file != len(files):
            missing = episodes._next_file - len(files)
            logger.warning("%s: %d episode files are missing among the others", folder, missing)
        return episodes

    @classmethod
    def _from_header(cls, file: Path) -> Self:
        if not file.is_file():
            inside = sorted(path.parent for path in file.parent.glob(f"*/{_HEADER}"))
            hint = f": did you mean {' or '.join(map(str, inside))}?" if inside else ""
            raise DatasetError(
                f"{file.parent} must be a folder of episodes with {_HEADER} in it{hint}"
            )
        try:
            header = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise DatasetError(f"{file} is damaged: {error}") from error
        if not isinstance(header, dict) or header.get("kind") != _KIND:
            raise DatasetError(f"{file} does not describe episodes of worldgen")
        if header.get("format_version") != FORMAT_VERSION:
            raise DatasetError(
                f"{file} has format version {header.get('format_version')!r}, "
                f"this version of worldgen reads {FORMAT_VERSION}"
            )
        try:
            environment = header["environment"]
            return cls(
                space_from_json(header["observation_space"]),
                space_from_json(header["action_space"]),
                environment=environment and EnvironmentSpec.from_dict(environment),
            )
        except (KeyError, TypeError, WorldgenError) as error:
            raise DatasetError(f"{file} is damaged: {error}") from error

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Episode | Self:
        """Give one episode, or some of them as `Episodes` in memory."""
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        return self._episodes[index]

    def __len__(self) -> int:
        """Give the number of episodes."""
        return len(self._episodes)

    def __repr__(self) -> str:
        name = "unknown environment" if self.environment is None else self.environment.id
        return f"Episodes({name}: {len(self)} episodes, {self.num_steps} environment steps)"

    def append(self, episode: Episode) -> None:
        """Add an episode, on disk first where there is a folder.

        Raises:
            DatasetError: If the episode does not fit the spaces, or another process writes to
                the same folder.
        """
        check_episode(episode, self.observation_space, self.action_space)
        if self.path is not None:
            file = self.path / f"episode-{self._next_file:06d}.safetensors"
            if file.exists():
                raise DatasetError(f"{file} exists already: somebody else writes to this folder")
            write_episode(file, episode)
            self._next_file += 1
        self._episodes.append(episode)
        self.num_steps += len(episode)

    def extend(self, episodes: Iterable[Episode]) -> None:
        """Append each of `episodes`."""
        for episode in episodes:
            self.append(episode)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write all episodes to another folder; later ones are not written there.

        Args:
            path: The folder.
            overwrite: Replace the episodes that it holds.

        Raises:
            DatasetError: If the folder holds something that may not or cannot be replaced.
        """
        if self.path is not None and self.path.resolve() == Path(path).resolve():
            return  # There they are.
        copy = self.create(
            path,
            self.observation_space,
            self.action_space,
            environment=self.environment,
            overwrite=overwrite,
        )
        copy.extend(self._episodes)

    def set_aside(self, num_steps: int) -> int:
        """Take the newest episodes out again, down to `num_steps` environment steps.

        On disk they move into the folder "set-aside", where they are kept but not read; what was
        set aside before by the same name is replaced.

        Returns:
            How many episodes were taken out.

        Raises:
            DatasetError: If no episode ends at `num_steps`.
        """
        kept, steps = self._within(num_steps)
        if steps != num_steps:
            raise DatasetError(
                f"no episode ends at {num_steps} of the {self.num_steps} environment steps"
            )
        gone = len(self) - kept
        if self.path is not None and gone:
            aside = self.path / _SET_ASIDE
            aside.mkdir(exist_ok=True)
            # The newest first, so that an interruption leaves no gap.
            for file in reversed(_episode_files(self.path)[kept:]):
                file.replace(aside / file.name)
            files = _episode_files(self.path)
            self._next_file = _number(files[-1]) + 1 if files else 0
        del self._episodes[kept:]
        self.num_steps = steps
        return gone

    def since(self, num_steps: int) -> Self:
        """Give the episodes that hold environment steps behind the first `num_steps`, in memory."""
        return self.subset(range(self._within(num_steps)[0], len(self)))

    def _within(self, num_steps: int) -> tuple[int, int]:
        """Count the first episodes that hold at most `num_steps`, and their environment steps."""
        count, steps = 0, 0
        while count < len(self) and steps + len(self[count]) <= num_steps:
            steps += len(self[count])
            count += 1
        return count, steps

    def subset(self, indices: Iterable[int]) -> Self:
        """Give the episodes at `indices`, in that order, in memory."""
        chosen = type(self)(self.observation_space, self.action_space, environment=self.environment)
        chosen._episodes = [self._episodes[index] for index in indices]
        chosen.num_steps = sum(map(len, chosen._episodes))
        return chosen

    def split(self, held_out_fraction: float = 0.1, seed: int = 0) -> tuple[Self, Self]:
        """Divide by whole episodes into training and held-out ones, both in their old order.

        Args:
            held_out_fraction: Share of the episodes to hold out, rounded to whole episodes
                but, with two episodes or more, neither none nor all. One is not held out.
            seed: Chooses which.

        Raises:
            ConfigError: If the fraction is not in (0, 1), or the seed negative.
        """
        allowed = 0 < held_out_fraction < 1
        require(allowed, "held_out_fraction", "be in (0, 1)", held_out_fraction)
        require(seed >= 0, "seed", "be at least 0", seed)
        count = round(held_out_fraction * len(self))
        count = min(max(count, 1), len(self) - 1) if len(self) > 1 else 0
        order = np.random.default_rng(seed).permutation(len(self))
        held_out, training = np.sort(order[:count]), np.sort(order[count:])
        return self.subset(training.tolist()), self.subset(held_out.tolist())


def _episode_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("episode-*.safetensors"), key=_number)


def _number(file: Path) -> int:
    number = file.stem.removeprefix("episode-")
    if not number.isdecimal():
        raise DatasetError(f"{file} must be named like episode-000000.safetensors")
    return int(number)


def _clear(folder: Path, overwrite: bool) -> None:
    """Make sure that `folder` holds no episodes and is ours to write to."""
    if not folder.exists() or (folder.is_dir() and _is_empty(folder)):
        return
    if not (folder / _HEADER).is_file():
        raise DatasetError(f"{folder} exists and holds no episodes: choose another folder")
    if not overwrite:
        raise DatasetError(f"{folder} holds episodes already; pass overwrite=True to replace them")
    for file in reversed(_episode_files(folder)):  # so that an interruption leaves a whole folder
        file.unlink()


def _is_empty(folder: Path) -> bool:
    """Tell whether nothing is there but what an interrupted write left."""
    return all(entry.name.endswith(".tmp") for entry in folder.iterdir())
