"""One finished episode, and the builder that assembles episodes from vector environments.

Classes:
    Episode: T actions with the T + 1 observations around them.
    EpisodeBuilder: one open episode per row of a vector environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worldgen.errors import DatasetError

__all__ = ["Episode", "EpisodeBuilder"]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A trajectory of T environment steps; row t of each array belongs to action t.

    An episode whose last step is neither terminated nor truncated was cut because the
    collection ended; its steps are as good as any others.
    """

    observations: dict[str, np.ndarray]
    """Path -> (T + 1, ...); the last one is the true final observation, never a reset's."""
    actions: np.ndarray
    """(T,) for Discrete actions, (T, ...) otherwise, in the action space's dtype."""
    rewards: np.ndarray
    """(T,) float32."""
    terminated: np.ndarray
    """(T,) bool; true at most in the last place."""
    truncated: np.ndarray
    """(T,) bool; true at most in the last place."""

    def __post_init__(self) -> None:
        """Check the lengths against each other."""
        length = len(self.actions)
        lengths = {
            "rewards": len(self.rewards),
            "terminated": len(self.terminated),
            "truncated": len(self.truncated),
        }
        wrong = [f"{name} {n}" for name, n in lengths.items() if n != length]
        wrong += [f"{k} {len(v)}" for k, v in self.observations.items() if len(v) != length + 1]
        if wrong or length == 0:
            raise DatasetError(
                f"an episode of T actions must hold T >= 1 rewards and T + 1 observations, "
                f"got T = {length} with {', '.join(wrong) or 'nothing'}"
            )
        if self.terminated[:-1].any() or self.truncated[:-1].any():
            raise DatasetError("an episode must not go on after `terminated` or `truncated`")

    def __len__(self) -> int:
        """Give the number T of environment steps."""
        return len(self.actions)

    @property
    def is_over(self) -> bool:
        """Whether it ended in the environment, and was not cut by the end of the collection."""
        return bool(self.terminated[-1] or self.truncated[-1])

    @property
    def total_reward(self) -> float:
        """Undiscounted return."""
        return float(self.rewards.sum(dtype=np.float64))


class EpisodeBuilder:
    """Assemble episodes from the rows of a vector environment.

    Args:
        num_envs: Number of rows; each has at most one open episode.
    """

    def __init__(self, num_envs: int) -> None:
        self._open: list[_OpenEpisode | None] = [None] * num_envs

    def begin(self, row: int, observation: Mapping[str, np.ndarray]) -> None:
        """Open an episode at `row` with the flat observation of its reset."""
        self._open[row] = _OpenEpisode(observation)

    def add(
        self,
        row: int,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_observation: Mapping[str, np.ndarray],
    ) -> Episode | None:
        """Append a transition; give the episode when this transition ends it.

        Args:
            row: Row of the vector environment.
            action: The action taken, unbatched.
            reward: Its reward.
            terminated: True end of the episode.
            truncated: Time limit or other cut.
            next_observation: The observation that the action led to. At the end of an episode
                this is the final observation, not the next reset's.
        """
        episode = self._open[row]
        if episode is None:
            raise DatasetError(f"row {row} has no open episode: call `begin` after each reset")
        episode.add(action, reward, terminated, truncated, next_observation)
        if terminated or truncated:
            self._open[row] = None
            return episode.finish()
        return None

    def cut(self) -> list[Episode]:
        """Close all open episodes that hold a step, as neither terminated nor truncated."""
        cut = [
            episode.finish() for episode in self._open if episode is not None and episode.actions
        ]
        self._open = [None] * len(self._open)
        return cut


class _OpenEpisode:
    def __init__(self, observation: Mapping[str, np.ndarray]) -> None:
        self.observations: dict[str, list[np.ndarray]] = {
            path: [np.array(value)] for path, value in observation.items()
        }
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.ends: list[tuple[bool, bool]] = []

    def add(
        self,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_observation: Mapping[str, np.ndarray],
    ) -> None:
        for path, values in self.observations.items():
            values.append(np.array(next_observation[path]))
        self.actions.append(np.array(action))
        self.rewards.append(float(reward))
        self.ends.append((bool(terminated), bool(truncated)))

    def finish(self) -> Episode:
        terminated, truncated = np.array(self.ends, dtype=bool).T
        return Episode(
            observations={path: np.stack(values) for path, values in self.observations.items()},
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards, dtype=np.float32),
            terminated=terminated,
            truncated=truncated,
        )
