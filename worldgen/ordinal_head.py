"""Token logits for codes that are numbers.

Classes:
    OrdinalHead: a bell curve over the codes' values around the previous frame's value.

A categorical distribution over 512 levels of a real number is slow to learn when the levels do
not know that they are neighbours. Here the network predicts a change and a width, and each
code's logit falls with the square of its distance (compare HL-Gauss,
https://arxiv.org/abs/2403.03950); a free part is left for what is not a bell.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["OrdinalHead"]

_FIRST_WIDTH = 0.1
_SMALLEST_WIDTH = 0.003


class OrdinalHead(nn.Module):
    """Logits over V codes that stand for values of P numbers.

    Args:
        width: D.
        num_codes: V.
        num_values: P.
    """

    def __init__(self, width: int, num_codes: int, num_values: int) -> None:
        super().__init__()
        self.change = nn.Linear(width, num_values)
        self.log_width = nn.Linear(width, num_values)
        self.free = nn.Linear(width, num_codes)
        for layer in (self.change, self.log_width, self.free):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.log_width.bias, math.log(_FIRST_WIDTH))

    def forward(self, hidden: Tensor, previous: Tensor, values: Tensor) -> Tensor:
        """Score the codes.

        Args:
            hidden: (..., k, D) outputs of the network.
            previous: (..., k) int64 codes at the same positions one frame before.
            values: (V, P) standardised values of the codes.

        Returns:
            (..., k, V) float32.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.float()
            mean = values[previous] + self.change(hidden)  # (..., k, P)
            width = self.log_width(hidden).exp().clamp(min=_SMALLEST_WIDTH)
            # (mean - value)^2 / width^2 summed over P, without a (..., V, P) tensor.
            precision = width.pow(-2)
            cross = (precision * mean) @ values.T  # (..., k, V)
            squares = precision @ values.square().T
            constant = (precision * mean.square()).sum(-1, keepdim=True)
            logits: Tensor = self.free(hidden) - 0.5 * (squares - 2 * cross + constant)
            return logits
