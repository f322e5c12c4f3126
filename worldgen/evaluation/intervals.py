"""How sure a measured share is.

Functions:
    wilson_interval: bounds of a share that was measured on a number of trials.
"""

from __future__ import annotations

import math

__all__ = ["wilson_interval"]

_NORMAL_95 = 1.959963984540054
"""Two-sided 95% quantile of the standard normal distribution."""


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Give the 95% interval of a share.

    Wilson's score interval (1927, https://doi.org/10.1080/01621459.1927.10502953): the shares
    p whose own deviation sqrt(p (1 - p) / count) leaves the measured one within 1.96 of them.
    Unlike the textbook's interval it is right near 0 and 1.

    Args:
        share: Of successes, in [0, 1].
        count: Trials, at least 1.

    >>> [round(bound, 3) for bound in wilson_interval(0.9, 10)]
    [0.596, 0.982]
    """
    square = _NORMAL_95**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
