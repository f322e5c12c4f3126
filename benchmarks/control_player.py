"""Scripted play of classic control, for data that random play never sees.

Functions:
    balance_cart_pole: a linear controller.
    swing_up_pendulum: energy first, then a linear controller.
    collect_controlled: episodes of mixed random and scripted play.
"""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import worldgen
from worldgen.data import EnvironmentSpec, Episodes

__all__ = ["CONTROLLERS", "balance_cart_pole", "collect_controlled", "swing_up_pendulum"]

Floats = NDArray[np.float32]


def balance_cart_pole(observations: Floats) -> NDArray[np.int64]:
    """Push CartPole-v1 towards where the pole falls; (B, 4) -> (B,)."""
    right: NDArray[np.int64] = (observations @ np.array([0.1, 0.3, 1.0, 0.6]) > 0).astype(np.int64)
    return right


def swing_up_pendulum(observations: Floats) -> Floats:
    """Swing Pendulum-v1 up and hold it; (B, 3) -> (B, 1)."""
    cosine, sine, speed = observations.T
    missing = 10.0 * (1 - cosine) - speed**2 / 3  # Energy, but for a factor.
    swinging = 2 * np.sign(np.where(speed == 0, 1, speed)) * np.sign(missing)
    holding = -(12 * np.arctan2(sine, cosine) + 3 * speed)
    torque = np.where(cosine > 0.85, holding, swinging)
    clipped: Floats = np.clip(torque, -2, 2)[:, None].astype(np.float32)
    return clipped


CONTROLLERS: dict[str, Callable[[Floats], NDArray[np.generic]]] = {
    "CartPole-v1": balance_cart_pole,
    "Pendulum-v1": swing_up_pendulum,
}


def collect_controlled(
    environment: EnvironmentSpec, num_steps: int, *, seed: int, num_envs: int = 8
) -> Episodes:
    """Collect episodes of players whose share of random actions goes from 0.05 to 1."""
    controller = CONTROLLERS[environment.id]
    rows = gym.vector.SyncVectorEnv([environment.make] * num_envs)
    shares = np.linspace(0.05, 1.0, num_envs)
    generator = np.random.default_rng(seed)
    actions = rows.single_action_space
    actions.seed(seed)

    def act(observations: Floats) -> NDArray[np.generic]:
        chosen = controller(observations)
        for row in np.flatnonzero(generator.random(num_envs) < shares):
            chosen[row] = actions.sample()
        return chosen

    return worldgen.collect(rows, num_steps, act, seed=seed, progress=False)
