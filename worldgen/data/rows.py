"""Rows of environments that are stepped together, whichever way they begin new episodes.

Gymnasium's vector environments begin a new episode within the step that ends the old one
(SAME_STEP), in the step after it (NEXT_STEP, whose action is ignored and whose reward is 0), or
when told to (DISABLED). `VectorRows` gives all three one form, in which the final observation
is always there and the reset never is a transition.

Classes:
    RowsStep: what one environment step of all rows did.
    Rows: the protocol of the two below.
    EnvRows: environments of our own, or a single one of the user's.
    VectorRows: a vector environment of the user's.

Functions:
    open_rows: the right one of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from worldgen.config import require
from worldgen.data.environment import EnvironmentSpec, EnvLike, environment_spec, make_env
from worldgen.data.prepared_observation import prepared_observation_space
from worldgen.errors import ConfigError, ShapeError
from worldgen.spaces import flatten, leaves

__all__ = ["EnvRows", "Rows", "RowsStep", "VectorRows", "open_rows"]

Flat: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True)
class RowsStep:
    """One environment step of N rows."""

    real: np.ndarray
    """(N,) bool: rows in which the action was taken; only theirs are transitions."""
    rewards: np.ndarray
    """(N,) float."""
    terminated: np.ndarray
    """(N,) bool."""
    truncated: np.ndarray
    """(N,) bool."""
    outcomes: Flat
    """Path -> (N, ...): what the action led to, the final observation where an episode ended."""
    observations: Flat
    """Path -> (N, ...): what the next action is chosen by."""
    begun: np.ndarray
    """(N,) bool: rows whose `observations` are the first of a new episode."""


class Rows(Protocol):
    """N environments of one kind."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    environment: EnvironmentSpec | None
    num_rows: int

    def reset(self, seeds: Sequence[int]) -> Flat:
        """Begin anew in all rows, row i from `seeds[i]`; path -> (N, ...)."""
        ...

    def step(self, actions: np.ndarray, limit: int) -> RowsStep:
        """Take `actions` (N, ...) in all rows, or in the first `limit` where that can be."""
        ...

    def close(self) -> None:
        """Close what was opened here."""
        ...


def open_rows(env: EnvLike | VectorEnv[Any, Any, Any], num_rows: int) -> Rows:
    """Make `num_rows` environments, or take the vector or the single environment as it is.

    Raises:
        ConfigError: If `env` gives the same object twice, or a vector environment does not say
            how it resets.
    """
    if isinstance(env, VectorEnv):
        return VectorRows(env)
    if isinstance(env, gym.Env):
        return EnvRows([make_env(env)], environment_spec(env), owned=False)
    made = [make_env(env) for _ in range(num_rows)]
    if len({id(one.unwrapped) for one in made}) < num_rows:
        raise ConfigError("`env` must make a new environment each time it is called")
    return EnvRows(
        made, environment_spec(env if isinstance(env, str | EnvironmentSpec) else made[0])
    )


class EnvRows:
    """Environments that are stepped one after the other.

    Args:
        envs: Prepared environments of one kind.
        environment: How they were made, where that is known.
        owned: Whether to close them.
    """

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        environment: EnvironmentSpec | None = None,
        *,
        owned: bool = True,
    ) -> None:
        self._envs, self._owned = list(envs), owned
        self.environment = environment
        self.num_rows = len(self._envs)
        self.observation_space = self._envs[0].observation_space
        self.action_space = self._envs[0].action_space
        self._observations: Flat = {}

    def reset(self, seeds: Sequence[int]) -> Flat:
        """Begin anew; only here are the environments seeded."""
        self._observations = {
            path: np.zeros((self.num_rows, *(leaf.shape or ())), _row_dtype(leaf))
            for path, leaf in leaves(self.observation_space).items()
        }
        for row, (env, seed) in enumerate(zip(self._envs, seeds, strict=True)):
            first, _ = env.reset(seed=seed)
            _write(self._observations, row, flatten(self.observation_space, first))
        return self._observations

    def step(self, actions: np.ndarray, limit: int) -> RowsStep:
        """Step the first `limit` rows only; the others stay as they are."""
        real = np.arange(self.num_rows) < limit
        rewards = np.zeros(self.num_rows)
        terminated, truncated = np.zeros((2, self.num_rows), dtype=bool)
        outcomes = _copy(self._observations)
        for row in np.flatnonzero(real).tolist():
            result = self._envs[row].step(actions[row])
            observation, rewards[row], terminated[row], truncated[row], _ = result
            _write(outcomes, row, flatten(self.observation_space, observation))
        ended = terminated | truncated
        self._observations = self._after_reset(outcomes, ended)
        return RowsStep(
            real, rewards, terminated, truncated, outcomes, self._observations, begun=ended
        )

    def _after_reset(self, outcomes: Flat, ended: np.ndarray) -> Flat:
        if not ended.any():
            return outcomes
        observations = _copy(outcomes)
        for row in np.flatnonzero(ended).tolist():
            first, _ = self._envs[row].reset()
            _write(observations, row, flatten(self.observation_space, first))
        return observations

    def close(self) -> None:
        """Close the environments that were made for these rows."""
        for env in self._envs if self._owned else ():
            env.close()


class VectorRows:
    """A vector environment in any autoreset mode.

    Args:
        env: The vector environment; it is not closed here.

    Raises:
        ConfigError: If its metadata do not name an autoreset mode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self._env = env
        self._mode = _autoreset_mode(env)
        self.num_rows = env.num_envs
        self.action_space = env.single_action_space
        parts = getattr(env, "envs", None)
        one: gym.Env[Any, Any] | None = parts[0] if parts else None
        same = one is not None and one.observation_space == env.single_observation_space
        self.observation_space = (
            prepared_observation_space(one)
            if one is not None and same
            else env.single_observation_space
        )
        self.environment = environment_spec(one) if one is not None and same else None
        self._over = np.zeros(self.num_rows, dtype=bool)

    def reset(self, seeds: Sequence[int]) -> Flat:
        """Begin anew in all rows."""
        self._over[:] = False
        # Gymnasium's base class promises to take one number, only these two a list of them.
        takes_list = isinstance(self._env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        seed: Any = list(seeds) if takes_list else seeds[0]
        return self._flat(self._env.reset(seed=seed)[0])

    def step(self, actions: np.ndarray, limit: int) -> RowsStep:
        """Step all rows, since a vector environment cannot step some of them."""
        observation, rewards, terminated, truncated, infos = self._env.step(actions)
        outcomes = observations = self._flat(observation)
        ended = np.asarray(terminated, dtype=bool) | np.asarray(truncated, dtype=bool)
        real, begun = np.ones(self.num_rows, dtype=bool), ended
        if self._mode is AutoresetMode.NEXT_STEP:
            real, begun = ~self._over, self._over
            self._over = ended
        elif ended.any() and self._mode is AutoresetMode.SAME_STEP:
            outcomes = self._with_final(observations, infos, ended)
        elif ended.any():
            outcomes = _copy(observations)  # The reset may write to the same memory.
            observations = self._flat(self._env.reset(options={"reset_mask": ended.copy()})[0])
        return RowsStep(real, rewards, terminated, truncated, outcomes, observations, begun)

    def _flat(self, observation: Any) -> Flat:
        flat = flatten(self.observation_space, observation)
        kinds = leaves(self.observation_space)
        return {
            path: batch.astype(_row_dtype(kinds[path]), copy=False) for path, batch in flat.items()
        }

    def _with_final(self, observations: Flat, infos: dict[str, Any], ended: np.ndarray) -> Flat:
        """Put the final observations in the place of the first ones of the next episodes."""
        if "final_obs" not in infos:
            raise ShapeError(
                "a SAME_STEP vector environment must give the observations that ended its "
                "episodes as infos['final_obs'], got infos with "
                f"{', '.join(sorted(infos)) or 'nothing'}"
            )
        final, outcomes = infos["final_obs"], _copy(observations)
        for row in np.flatnonzero(ended).tolist():
            if isinstance(final, np.ndarray):
                flat = flatten(self.observation_space, final[row])
            else:  # batched part by part
                batch = flatten(self.observation_space, final)
                flat = {path: values[row] for path, values in batch.items()}
            _write(outcomes, row, flat)
        return outcomes

    def close(self) -> None:
        """Leave the user's environment open."""


def _autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    known = mode in [*AutoresetMode, *(known.value for known in AutoresetMode)]
    rule = "name its AutoresetMode in `metadata['autoreset_mode']`"
    require(known, "env", rule, mode)
    return AutoresetMode(mode)


def _row_dtype(leaf: spaces.Space[Any]) -> Any:
    """Text is held as objects, since an array of strings would cut longer ones."""
    return object if isinstance(leaf, spaces.Text) else leaf.dtype


def _copy(flat: Flat) -> Flat:
    return {path: batch.copy() for path, batch in flat.items()}


def _write(batch: Flat, row: int, flat: Flat) -> None:
    """Write one row; reals may change their precision, nothing else its shape or value."""
    for path, values in batch.items():
        given = flat[path]
        if given.shape != values.shape[1:]:
            raise ShapeError(
                f"the environment's {path!r} must have shape {values.shape[1:]} as its space "
                f"says, got {given.shape}"
            )
        values[row] = given
        if values.dtype.kind != "f" and not np.array_equal(values[row], given):
            raise ShapeError(
                f"the environment's {path!r} must hold {values.dtype} as its space says, got "
                f"{given.dtype} in {given.min()}..{given.max()}"
            )
