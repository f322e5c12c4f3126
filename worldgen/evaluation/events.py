"""Rewarding and terminating transitions, and whether they are predicted.

Functions:
    reward_threshold: from which size on a predicted reward counts.
    rewards_right: which predicted rewards are right.
    one_step_events: recall and precision from real contexts, one step ahead.
"""

from __future__ import annotations

import numpy as np

from worldgen.evaluation.moments import Truth
from worldgen.evaluation.report import EventFidelity

__all__ = ["one_step_events", "reward_threshold", "rewards_right"]


def reward_threshold(rewards: np.ndarray) -> float:
    """Half the median magnitude of the nonzero rewards; 0.5 where all are zero.

    >>> reward_threshold(np.array([0.0, 0.0, 1.0, -1.0]))
    0.5
    """
    magnitudes = np.abs(rewards[rewards != 0])
    return float(np.median(magnitudes)) / 2 if len(magnitudes) else 0.5


def rewards_right(predicted: np.ndarray, real: np.ndarray, threshold: float) -> np.ndarray:
    """Say which predicted rewards are nearer to the real one than to 0, or near 0 like it.

    >>> rewards_right(np.array([0.4, 0.6, -0.6, 0.1]), np.array([1.0, 1.0, 1.0, 0.0]), 0.5)
    array([False,  True, False,  True])
    """
    same = (np.sign(predicted) == np.sign(real)) & (np.abs(predicted) > np.abs(real) / 2)
    right: np.ndarray = np.where(real != 0, same, np.abs(predicted) <= threshold)
    return right


def one_step_events(
    truth: Truth,
    index: np.ndarray,
    weights: np.ndarray,
    rewards: np.ndarray,
    ends: np.ndarray,
    threshold: float,
) -> tuple[EventFidelity, EventFidelity]:
    """Give recall and precision on rewarding, and on terminating transitions.

    Args:
        truth: Real episodes.
        index: (N,) frames that the transitions lead to.
        weights: (N,) how many transitions each stands for.
        rewards: (N,) predicted.
        ends: (N,) bool, predicted.
        threshold: Of the rewards.
    """
    real = truth.rewards[index]
    pays = real != 0
    right = rewards_right(rewards, real, threshold)
    said_to_pay = (np.abs(rewards) > threshold) | (pays & right)
    really = truth.terminated[index]
    return (
        _event_fidelity(pays, said_to_pay, right, weights, (truth.rewards != 0).sum()),
        _event_fidelity(really, ends, really == ends, weights, truth.terminated.sum()),
    )


def _event_fidelity(
    real: np.ndarray, predicted: np.ndarray, right: np.ndarray, weights: np.ndarray, count: int
) -> EventFidelity:
    found = float((weights * (real & predicted & right)).sum())
    num_real, num_predicted = float(weights[real].sum()), float(weights[predicted].sum())
    return EventFidelity(
        num_events=int(count),
        recall=found / num_real if num_real else None,
        precision=found / num_predicted if num_predicted else None,
    )
