"""The place of an environment in an agent that has none, only episodes.

Classes:
    SpacesOnly: an SB3 `VecEnv` of two spaces, in which nothing can be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from worldgen.agents.real_env import check_readable
from worldgen.config import require
from worldgen.errors import ConfigError

__all__ = ["SpacesOnly"]


class SpacesOnly(VecEnv):
    """Rows that have spaces and nothing else, to set an SB3 algorithm up with.

    Args:
        observation_space: Of the episodes.
        action_space: Of the episodes.
        num_envs: Rows of the environment that may be set later.

    Raises:
        ConfigError: If `num_envs` is under 1; or when the rows are reset or stepped.
        SpaceError: If SB3's policies cannot read the observations.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], num_envs: int
    ) -> None:
        require(num_envs >= 1, "n_envs", "be at least 1", num_envs)
        check_readable(observation_space, action_space)
        super().__init__(num_envs, observation_space, action_space)

    def reset(self) -> NoReturn:
        """Refuse."""
        raise ConfigError("the agent has no environment: call `set_env`")

    def step_async(self, actions: object) -> NoReturn:
        """Refuse."""
        self.reset()

    def step_wait(self) -> NoReturn:
        """Refuse."""
        self.reset()

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def get_attr(self, attr_name: str, indices: object = None) -> list[Any]:
        """Give None for each row: no environment is there to ask."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: object = None) -> NoReturn:
        """Refuse."""
        self.reset()

    def env_method(
        self, method_name: str, *method_args: Any, indices: object = None, **method_kwargs: Any
    ) -> NoReturn:
        """Refuse."""
        self.reset()

    def env_is_wrapped(self, wrapper_class: object, indices: object = None) -> Sequence[bool]:  # type: ignore[override]
        """Say that no row has any wrapper."""
        return [False] * self.num_envs
