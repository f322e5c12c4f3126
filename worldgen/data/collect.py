"""Collect episodes from an environment.

Functions:
    collect: a number of environment steps, as episodes.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from worldgen.acting import Acting
from worldgen.config import require
from worldgen.data.environment import EnvLike
from worldgen.data.episode import EpisodeBuilder
from worldgen.data.episode_rules import describe, first_outside
from worldgen.data.episodes import Episodes
from worldgen.data.policy_check import check_fits
from worldgen.data.rows import Rows, RowsStep, open_rows
from worldgen.errors import ConfigError, ShapeError
from worldgen.progress import Progress
from worldgen.seeding import derived_seed
from worldgen.spaces import unflatten

__all__ = ["collect"]

Chooser: TypeAlias = Callable[[Any, np.ndarray], Any]
"""Actions for a batch of observations, and which of them are first ones."""


@runtime_checkable
class _Model(Protocol):
    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, Any]: ...


def collect(
    env: EnvLike | VectorEnv[Any, Any, Any],
    num_steps: int,
    policy: _Model | Callable[[Any], Any] | None = None,
    *,
    seed: int = 0,
    num_envs: int = 8,
    path: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Episodes:
    """Collect exactly `num_steps` environment steps.

    Episodes that are not over at the end are kept, cut: neither terminated nor truncated. With
    a `path`, each episode is on disk as soon as it is over, and stays if the process is killed.

    >>> collect("CartPole-v1", 100, progress=False).num_steps
    100

    Args:
        env: An id, an `EnvironmentSpec` or a function that makes an environment, of which
            `num_envs` are made; an environment object; or a vector environment in any
            autoreset mode, of whose last step the rows beyond `num_steps` are left out.
        num_steps: Real environment steps over all rows.
        policy: None for uniform random actions, an SB3 model, or a function from a batch of
            observations, nested as in the environment, to a batch of actions. A model that gives
            a state beside its actions gets it back at the next step.
        seed: Each row is seeded at its first reset with a number that is derived from `seed`
            and the row, so that other seeds give other data in every row. A SyncVectorEnv or
            AsyncVectorEnv gets the list of these numbers, any other vector environment the
            first. An SB3 model, which draws from the global generators, finds them seeded and
            leaves them as they were.
        num_envs: Environments to make and to step together.
        path: Folder to write the episodes to as well.
        overwrite: Replace the episodes that the folder holds.
        progress: Show a progress bar.

    Raises:
        ConfigError: If an argument breaks its rule, or an action is not in the action space.
        EnvironmentIdError: If the id is not registered.
        SpaceError: If an observation is not made of numbers, or an SB3 policy was made for others.
        ShapeError: If actions or observations do not have the shape or dtype of their space.
        DatasetError: If the folder is not empty, or an observation's value breaks its space.
    """
    require(num_steps >= 1, "num_steps", "be at least 1", num_steps)
    require(num_envs >= 1, "num_envs", "be at least 1", num_envs)
    require(seed >= 0, "seed", "be at least 0", seed)
    rows = open_rows(env, min(num_envs, num_steps))
    try:
        check_fits(policy, rows.observation_space, rows.action_space)
        choose = _chooser(policy, rows, seed)
        episodes = _empty_episodes(rows, path, overwrite)
        with Progress("collect", num_steps, enabled=progress) as bar, _seeded(policy, seed):
            _Collection(rows, choose, episodes, bar).run(num_steps, seed)
    finally:
        rows.close()
    return episodes


def _empty_episodes(rows: Rows, path: str | Path | None, overwrite: bool) -> Episodes:
    spaces_of = (rows.observation_space, rows.action_space)
    if path is None:
        return Episodes(*spaces_of, environment=rows.environment)
    return Episodes.create(path, *spaces_of, environment=rows.environment, overwrite=overwrite)


def _chooser(policy: _Model | Callable[[Any], Any] | None, rows: Rows, seed: int) -> Chooser:
    if policy is None:
        return _random_actions(rows.action_space, rows.num_rows, seed)
    if isinstance(policy, _Model):
        return Acting(policy.predict, deterministic=False)
    if callable(policy):
        return lambda observations, _: policy(observations)
    raise ConfigError(f"`policy` must be None, an SB3 model or a function, got {policy!r}")


def _random_actions(space: spaces.Space[Any], num_rows: int, seed: int) -> Chooser:
    space = copy.deepcopy(space)  # The environment's own generator stays as it is.
    space.seed(_action_seed(seed))
    return lambda *_: np.stack([space.sample() for _ in range(num_rows)])


def _row_seeds(seed: int, num_rows: int) -> list[int]:
    """Give each row a seed in [0, 2**31) that no row of another seed has, but by chance."""
    return [derived_seed(seed, "row", row) % 2**31 for row in range(num_rows)]


def _action_seed(seed: int) -> int:
    """Give a stream that differs from those of the rows."""
    return int(np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1)[0])


@contextmanager
def _seeded(policy: object, seed: int) -> Iterator[None]:
    """Seed the global generators that an SB3 model draws from, and restore them."""
    if not isinstance(policy, _Model):
        yield
        return
    import torch

    model: Any = policy
    device = torch.device(getattr(model, "device", "cpu"))
    cuda = [device] if device.type == "cuda" else []
    numpy_state = np.random.get_state()  # noqa: NPY002
    space = getattr(model, "action_space", None)
    try:
        with torch.random.fork_rng(cuda):
            torch.manual_seed(_action_seed(seed))
            np.random.seed(_action_seed(seed))  # noqa: NPY002
            if space is not None:  # DQN explores by it.
                model.action_space = copy.deepcopy(space)
                model.action_space.seed(_action_seed(seed))
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        if space is not None:
            model.action_space = space


class _Collection:
    """The loop of `collect`."""

    def __init__(self, rows: Rows, choose: Chooser, episodes: Episodes, bar: Progress) -> None:
        self._rows, self._choose, self._episodes, self._bar = rows, choose, episodes, bar
        self._builder = EpisodeBuilder(rows.num_rows)
        self._returns: deque[float] = deque(maxlen=100)

    def run(self, num_steps: int, seed: int) -> None:
        observations = self._rows.reset(_row_seeds(seed, self._rows.num_rows))
        begun = np.ones(self._rows.num_rows, dtype=bool)
        self._begin(begun, observations)
        remaining = num_steps
        while True:
            actions = self._actions(observations, begun)
            step = self._rows.step(actions, remaining)
            remaining -= self._record(step, actions, remaining)
            if remaining == 0:
                break  # Before `_begin` drops the steps of rows that are not recorded any more.
            self._begin(step.begun, step.observations)
            observations, begun = step.observations, step.begun
        self._episodes.extend(self._builder.cut())

    def _begin(self, begun: np.ndarray, observations: dict[str, np.ndarray]) -> None:
        for row in np.flatnonzero(begun).tolist():
            self._builder.begin(row, {path: batch[row] for path, batch in observations.items()})

    def _actions(self, observations: dict[str, np.ndarray], begun: np.ndarray) -> np.ndarray:
        """Choose actions (N, ...) in the action space's dtype, and check them."""
        space, num_rows = self._rows.action_space, self._rows.num_rows
        nested = unflatten(self._rows.observation_space, observations)
        actions = np.asarray(self._choose(nested, begun))
        expected = (num_rows, *(space.shape or ()))
        if actions.shape != expected:
            raise ShapeError(f"`policy` must give actions of shape {expected}, got {actions.shape}")
        castable = np.can_cast(actions.dtype, np.dtype(space.dtype), "same_kind")
        outside = first_outside(space, actions)
        if not castable or outside is not None:
            wrong = f"{actions.dtype} numbers" if outside is None else outside
            raise ConfigError(f"`policy` must give actions in {describe(space)}, got {wrong}")
        return actions.astype(space.dtype, copy=False)

    def _record(self, step: RowsStep, actions: np.ndarray, limit: int) -> int:
        """Record the first `limit` real transitions and say how many there were."""
        rows = np.flatnonzero(step.real)[:limit].tolist()
        for row in rows:
            episode = self._builder.add(
                row,
                actions[row],
                float(step.rewards[row]),
                bool(step.terminated[row]),
                bool(step.truncated[row]),
                {path: batch[row] for path, batch in step.outcomes.items()},
            )
            if episode is not None:
                self._episodes.append(episode)
                self._returns.append(episode.total_reward)
        self._show(len(rows))
        return len(rows)

    def _show(self, count: int) -> None:
        if not self._returns:
            self._bar.update(count)
            return
        mean = sum(self._returns) / len(self._returns)
        self._bar.update(count, episodes=len(self._episodes), mean_return=mean)
