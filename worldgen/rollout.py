"""Imagined trajectories, and where their actions come from.

Classes:
    Policy: what chooses actions.
    Rollout: trajectories that were imagined.

Functions:
    action_source: actions given in advance, or a policy, as one function.
    stack_steps: single environment steps as trajectories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldgen import spaces as space_tools
from worldgen.acting import Acting, State
from worldgen.errors import ConfigError, ShapeError
from worldgen.imagination import ImaginedStep
from worldgen.tokenizer import Tokenizer

__all__ = ["Policy", "Rollout", "action_source", "stack_steps"]


class Policy(Protocol):
    """What chooses actions: an SB3 model, or anything with its `predict`."""

    def predict(self, observation: Any, deterministic: bool = False) -> tuple[Any, Any]:
        """Choose an action for each row of a nested batch of observations."""


@dataclass(frozen=True, repr=False)
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

    @classmethod
    def of(
        cls,
        dreams: ImaginedStep,
        actions: np.ndarray,
        tokenizer: Tokenizer,
        space: spaces.Space[Any],
    ) -> Rollout:
        """Put together what `stack_steps` gave and the actions (B, H, ...) taken there."""
        tokens = dreams.tokens
        flat = tokenizer.decode_flat(tokens.flatten(0, 1))
        shaped = {
            path: part.reshape(*tokens.shape[:2], *part.shape[1:]) for path, part in flat.items()
        }
        others = (dreams.reward, dreams.termination_probability, dreams.terminated)
        return Rollout(
            tokens,
            space_tools.unflatten(space, shaped),
            actions,
            *(part.cpu().numpy() for part in others),
        )

    def __repr__(self) -> str:
        """Say how many there are, and how long, rather than all that is in them."""
        dreams, horizon = self.tokens.shape[:2]
        return f"<{type(self).__name__} of {dreams} dreams of {horizon} environment steps>"

    @property
    def returns(self) -> np.ndarray:
        """(B,) float32: the sum of the rewards up to the first predicted termination."""
        counted = np.arange(self.rewards.shape[1]) < self.lengths[:, None]
        returns: np.ndarray = (self.rewards * counted).sum(1)
        return returns

    @property
    def lengths(self) -> np.ndarray:
        """(B,) environment steps up to and including the first predicted termination."""
        horizon = self.terminated.shape[1]
        first = self.terminated.argmax(1) + 1
        lengths: np.ndarray = np.where(self.terminated.any(1), first, horizon)
        return lengths


def stack_steps(steps: Sequence[ImaginedStep]) -> ImaginedStep:
    """Lay H environment steps of B worlds side by side: each part (B, H, ...)."""
    return ImaginedStep(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))


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
