"""Predicted probabilities against observed frequencies.

Classes:
    Reliability: bins and the expected calibration error.

Functions:
    reliability: from predictions and what happened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Reliability", "reliability"]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """N predictions in bins of equal mass, sorted by their probability."""

    predicted: list[float]
    """Mean predicted probability of each bin."""
    observed: list[float]
    """Share of each bin that happened."""
    counts: list[int]
    """Predictions in each bin."""
    error: float | None
    """Expected calibration error: mean over the predictions of the difference between their
    bin's predicted probability and observed share. None without predictions."""


def reliability(predicted: np.ndarray, happened: np.ndarray, num_bins: int = 15) -> Reliability:
    """Put predictions into bins of equal mass.

    Guo et al. 2017 (https://arxiv.org/abs/1706.04599) have bins of equal width, of which most
    stay empty where predictions are sure; see Nixon et al. 2019
    (https://arxiv.org/abs/1904.01685).

    Args:
        predicted: (N,) probabilities.
        happened: (N,) bool.
        num_bins: Bins; fewer where there are fewer predictions.

    >>> reliability(np.array([0.2, 0.2, 0.8, 0.8]), np.array([0, 0, 1, 0]), 2).error
    0.25
    """
    if not len(predicted):
        return Reliability(predicted=[], observed=[], counts=[], error=None)
    order = np.argsort(predicted, kind="stable")
    bins = np.array_split(order, min(num_bins, len(order)))
    said = [float(predicted[part].mean(dtype=np.float64)) for part in bins]
    seen = [float(happened[part].mean(dtype=np.float64)) for part in bins]
    counts = [len(part) for part in bins]
    gaps = np.abs(np.array(said) - np.array(seen))
    error = float((gaps * counts).sum() / len(predicted))
    return Reliability(predicted=said, observed=seen, counts=counts, error=error)
