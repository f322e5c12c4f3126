"""Rewards as distributions over bins.

Classes:
    TwoHot: encode a number as weights of its two neighbouring bins, and back.

DreamerV3, Hafner et al. 2023, https://arxiv.org/abs/2301.04104: bins evenly spaced under
symlog, so that rewards of any size have a place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["TwoHot"]

_NUM_BINS = 161
_LARGEST_SYMLOG = 10.0


class TwoHot(nn.Module):
    """161 bins at sinh-like spacing between about -22,000 and 22,000, one of them at 0."""

    bins: Tensor
    possible: Tensor

    def __init__(self) -> None:
        super().__init__()
        even = torch.linspace(-_LARGEST_SYMLOG, _LARGEST_SYMLOG, _NUM_BINS, dtype=torch.float64)
        symexp = even.sign() * even.abs().expm1()
        symexp[_NUM_BINS // 2] = 0.0
        self.register_buffer("bins", symexp.float(), persistent=False)
        self.register_buffer("possible", torch.ones(_NUM_BINS, dtype=torch.bool))

    @torch.no_grad()
    def restrict(self, values: Tensor) -> None:
        """Rule out bins beyond the range of these values and 0.

        The outermost bins stand for thousands: without this, a millionth of probability there
        would outweigh a true reward.
        """
        used = self.encode(torch.stack([values.min(), values.max(), values.new_zeros(())])) > 0
        places = used.any(0).nonzero()
        index = torch.arange(self.num_bins, device=values.device)
        self.possible.copy_((index >= places.min()) & (index <= places.max()))

    @property
    def num_bins(self) -> int:
        """Number of bins."""
        return len(self.bins)

    def encode(self, values: Tensor) -> Tensor:
        """Weights (..., bins) whose mean is the value; values beyond the ends are clamped."""
        clamped = values.clamp(self.bins[0], self.bins[-1])
        upper = torch.searchsorted(self.bins, clamped).clamp(1, self.num_bins - 1)
        lower = upper - 1
        share = (clamped - self.bins[lower]) / (self.bins[upper] - self.bins[lower])
        weights = share.new_zeros(*values.shape, self.num_bins)
        weights.scatter_(-1, lower.unsqueeze(-1), (1 - share).unsqueeze(-1))
        return weights.scatter_(-1, upper.unsqueeze(-1), share.unsqueeze(-1))

    def decode(self, logits: Tensor) -> Tensor:
        """Mean (...) of the distribution that the logits (..., bins) describe."""
        possible = logits.float().masked_fill(~self.possible, -torch.inf)
        return (possible.softmax(-1) * self.bins).sum(-1)
