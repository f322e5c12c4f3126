"""How many of the rewards and ends in the training windows a network foresees.

Functions:
    count_events: of one batch, on the device.
    recall: shares out of counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldgen.data.token_dataset import Windows
from worldgen.dynamics import Prediction
from worldgen.two_hot import TwoHot

__all__ = ["NUM_COUNTS", "count_events", "recall"]

_NAMES = ("rewarding", "terminating")
NUM_COUNTS = 2 * len(_NAMES)


@torch.no_grad()
def count_events(
    prediction: Prediction, windows: Windows, two_hot: TwoHot, unseen: Tensor | None = None
) -> Tensor:
    """Count events and those that were foreseen.

    A reward is foreseen if the predicted one is nearer to it than to 0, an end if its
    probability is over one half.

    Args:
        prediction: (B, T - 1), of frames 1..T-1.
        windows: B windows of T frames.
        two_hot: Of the reward head.
        unseen: (B, T) bool, frames that the network did not see; windows with such frames are
            left out.

    Returns:
        (4,) int64: rewarding transitions, those foreseen, terminating ones, those foreseen.
    """
    rewards, terminated = windows.rewards[:, 1:], windows.terminated[:, 1:]
    predicted = two_hot.decode(prediction.reward_logits)
    near = (predicted - rewards).abs() < predicted.abs()
    counted = windows.follows
    if unseen is not None:
        counted = counted & ~unseen.any(1, keepdim=True)
    rewarding, terminating = counted & (rewards != 0), counted & terminated
    ended = prediction.termination_logits > 0
    masks = (rewarding, rewarding & near, terminating, terminating & ended)
    return torch.stack([mask.sum() for mask in masks])


def recall(counts: Tensor) -> dict[str, float]:
    """Give the share of foreseen events by name, without those of which there were none.

    >>> recall(torch.tensor([4, 3, 0, 0]))
    {'rewarding_recall': 0.75}
    """
    values = counts.tolist()
    return {
        f"{name}_recall": found / there
        for name, there, found in zip(_NAMES, values[::2], values[1::2], strict=True)
        if there
    }
