"""Imagined trajectories, and where their actions come from.

Classes:
    Policy: what chooses actions.
    Rollout: trajectories that were imagined.

Functions:
    action_source: actions given in advance, or a policy, as one function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from worldgen.acting import Acting, State
from worldgen.errors import ConfigError, ShapeError

__all__ = ["Policy", "Rollout", "action_source"]


class Policy(Protocol):
    """What chooses actions: an SB3 model, or anything with its `predict`."""

    def predict(self, observation: Any, deterministic: bool = False) -> tuple[Any, Any]:
        """Choose an action for each row of a nested batch of observations."""


@dataclass(frozen=True)
class Rollout:
    """B imagined trajectories of H environment steps."""

    tokens: Tensor
    """(B, H, K) int64; row t is the frame that action t led to."""
    observations: Any
    """The same frames as a nested numpy batch (B, H, ...) in the observation space."""
    actions: np.ndarray
    """(B, H, ...) in the action space."""
    rewards: np.ndarray
    """(B, H) float32, expected rewards."""
    termination_probability: np.ndarray
    """(B, H) float32."""
    terminated: np.ndarray
    """(B, H) bool."""

    @property
    def lengths(self) -> np.ndarray:
        """(B,) environment steps up to and including the first predicted termination."""
        horizon = self.terminated.shape[1]
        first = self.terminated.argmax(1) + 1
        lengths: np.ndarray = np.where(self.terminated.any(1), first, horizon)
        return lengths


def action_source(
    actions: Any, policy: Any, horizon: int | None, remembered: Callable[[], State | None]
) -> tuple[Callable[[int, Callable[[Tensor], Any], Tensor], Any], int]:
    """Make the function that gives the actions of a time, and the horizon.

    Args:
        actions: (B, H, ...) or None.
        policy: What chooses them in their place, or None.
        horizon: H, with a policy.
        remembered: Gives the state of a policy that carries one, before the first action.
    """
    if (actions is None) == (policy is None):
        raise ConfigError("`imagine` must be given either `actions` or `policy`")
    if actions is not None:
        fixed = np.asarray(actions)
        if fixed.ndim < 2 or fixed.shape[1] < 1:
            raise ShapeError(f"`actions` must have shape (B, H, ...), got {fixed.shape}")
        if horizon not in (None, fixed.shape[1]):
            raise ConfigError(f"`horizon` must be left out with `actions`, got {horizon}")
        return (lambda time, decode, tokens: fixed[:, time]), fixed.shape[1]
    if horizon is None or horizon < 1:
        raise ConfigError(f"`horizon` must be at least 1, got {horizon}")
    if hasattr(policy, "predict"):
        return _asking(Acting(policy.predict), remembered), horizon
    return (lambda time, decode, tokens: policy(decode(tokens))), horizon


def _asking(
    acting: Acting, remembered: Callable[[], State | None]
) -> Callable[[int, Callable[[Tensor], Any], Tensor], Any]:
    def choose(time: int, decode: Callable[[Tensor], Any], tokens: Tensor) -> Any:
        if time == 0:
            acting.state = remembered()
        return acting(decode(tokens), np.zeros(len(tokens), dtype=bool))

    return choose
