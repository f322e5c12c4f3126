"""How far an agent may trust its model: as far as it foresaw what it has not been trained on.

Functions:
    foreseen: shares of dreams of new episodes that are right, by horizon.
    trusted_horizon: the length of dreams that these shares allow.
    returns_ahead: what real episodes brought within a horizon.
    dreamt_returns: what a policy dreams of getting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.policies import BasePolicy

from worldgen.data.episode import Episode
from worldgen.data.episodes import Episodes
from worldgen.envs import ImaginedVecEnv
from worldgen.evaluation.fidelity import Measurement
from worldgen.evaluation.moments import choose_starts
from worldgen.evaluation.report import HorizonFidelity
from worldgen.progress import Progress
from worldgen.world_model import WorldModel

__all__ = ["dreamt_returns", "foreseen", "returns_ahead", "trusted_horizon"]

_DREAMS = 32


def foreseen(model: WorldModel, new: Episodes, longest: int, seed: int) -> dict[int, float]:
    """Let the model dream along episodes that it was not trained on.

    A dream is right as far as all is that the frames before it determine: symbols, the sign of
    each reward, each end. Of reals it is the R2 at the horizon. The least of these counts.

    Args:
        model: Trained.
        new: Episodes of its environment, at least one.
        longest: Horizons are 1, 4, 16, ... and this one.
        seed: Of moments and draws.

    Returns:
        Horizon -> share in [0, 1], without horizons that no episode reaches.
    """
    horizons = (*(4**k for k in range(longest) if 4**k < longest), longest)
    measurement = Measurement(model, new, None, seed)
    starts = choose_starts(measurement.truth, horizons, _DREAMS, measurement.random)
    with Progress("foresee", 1, enabled=False) as bar:
        entries = measurement.open_loop(starts, bar)
    return {entry.horizon: _right(entry) for entry in entries if entry.num_dreams}


def _right(entry: HorizonFidelity) -> float:
    symbols = entry.exact if entry.determined_exact is None else entry.determined_exact
    shares = [symbols, entry.rewards, entry.terminations, *entry.agreement.r2.values()]
    return max(0.0, min(share for share in shares if share is not None))


def trusted_horizon(right: Mapping[int, float], longest: int, least: float, shortest: int) -> int:
    """Choose the longest horizon up to which enough dreams are right.

    >>> trusted_horizon({1: 0.9, 2: 0.8, 4: 0.4, 8: 0.5, 16: 0.1}, 16, 0.5, 1)
    2
    >>> trusted_horizon({}, 16, 0.5, 1)  # nothing is known against it
    16

    Args:
        right: As `foreseen` gives it.
        longest: Given where no horizon is too long.
        least: Share of dreams that must be right.
        shortest: Given at least.
    """
    trusted = shortest
    for horizon in sorted(right):
        if right[horizon] < least:
            return max(trusted, shortest)
        trusted = horizon
    return longest


def returns_ahead(episodes: Iterable[Episode], horizon: int) -> np.ndarray:
    """Give what the next `horizon` environment steps brought, for each moment that it is known of.

    It is known where the episode goes on that long, or terminates before.

    Args:
        episodes: Real ones.
        horizon: At least 1.

    Returns:
        Undiscounted sums of rewards (N,) float64.
    """
    sums = [np.zeros(0)]
    for episode in episodes:
        so_far = np.concatenate([[0.0], np.cumsum(episode.rewards, dtype=np.float64)])
        then = np.minimum(np.arange(len(episode)) + horizon, len(episode))
        ahead = so_far[then] - so_far[:-1]
        sums.append(
            ahead if episode.terminated[-1] else ahead[: max(0, len(episode) - horizon + 1)]
        )
    return np.concatenate(sums)


def dreamt_returns(policy: BasePolicy, dream: ImaginedVecEnv) -> np.ndarray:
    """Let a policy act in one dream of each row, up to its end; actions are sampled.

    Args:
        policy: Sees what `dream` shows.
        dream: Whose rewards count, so without a bonus.

    Returns:
        Undiscounted sums of rewards (rows,) float64.
    """
    observations: Any = dream.reset()
    returns, going = np.zeros(dream.num_envs), np.ones(dream.num_envs, dtype=bool)
    while going.any():
        actions, _ = policy.predict(observations, deterministic=False)
        observations, rewards, dones, _ = dream.step(actions)
        returns += np.where(going, rewards, 0.0)
        going &= ~dones
    return returns
