"""Reward and termination in a world of chance: read off what happened, too.

Classes:
    Aftermath.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Aftermath"]


class Aftermath(nn.Module):
    """What the network says of a transition, with the frame that it led to.

    Frame and action alone say how likely an end is, not whether it goes with the frame that was
    drawn: on slippery ice one falls or does not fall.

    Args:
        num_tokens: K.
        width: D.
    """

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(num_tokens, width) * 0.5)
        self.read = nn.Linear(width, width)
        self.mix = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, outcome: Tensor, embedded: Tensor) -> Tensor:
        """Give what the heads of reward and termination read, (..., D).

        Args:
            outcome: (..., D), the output at the action.
            embedded: (..., K, D), the next frame's tokens.
        """
        seen = functional.gelu(self.read(embedded + self.places)).mean(-2)
        added: Tensor = self.mix(torch.cat([outcome, seen.to(outcome.dtype)], -1))
        return outcome + added
