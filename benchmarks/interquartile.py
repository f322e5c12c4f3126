"""Figures over seeds: interquartile means and how sure they are.

Classes:
    Estimate: an interquartile mean and its interval.

Functions:
    interquartile_mean, estimate: of one group of runs, or the ratio of two.

Deep Reinforcement Learning at the Edge of the Statistical Precipice, Agarwal et al. 2021,
https://arxiv.org/abs/2108.13264.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldgen.config import require

__all__ = ["Estimate", "estimate", "interquartile_mean"]

_RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An interquartile mean with a 95% interval."""

    mean: float
    low: float
    high: float


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Average the last axis without its lowest and highest quarters, rounded down.

    >>> float(interquartile_mean(np.array([1.0, 2.0, 3.0, 4.0, 50.0])))
    3.0
    """
    cut = values.shape[-1] // 4
    kept = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    mean: np.ndarray = kept.mean(-1)
    return mean


def estimate(*groups: np.ndarray, seed: int = 0) -> Estimate:
    """Estimate the interquartile mean of a group of runs, or the ratio of those of two groups.

    The interval holds the middle 95% of 10,000 bootstrap samples, drawn from each group.
    """
    require(len(groups) in (1, 2), "groups", "be one or two arrays", len(groups))
    generator = np.random.default_rng(seed)

    def statistic(draw: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        means = [interquartile_mean(draw(group)) for group in groups]
        return means[0] if len(means) == 1 else means[0] / means[1]

    def resampled(group: np.ndarray) -> np.ndarray:
        return generator.choice(group, (_RESAMPLES, len(group)))

    low, high = np.percentile(statistic(resampled), [2.5, 97.5])
    return Estimate(mean=float(statistic(np.asarray)), low=float(low), high=float(high))
