"""What an agent's rounds bring in the real environment.

Classes:
    RoundReturns: remembers it, and says when the agent is stuck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["RoundReturns"]


@dataclass
class RoundReturns:
    """Mean returns of the rounds of one training.

    As long as no round has brought more than the random one, a policy has given nothing up, and
    is not stuck.

    >>> returns = RoundReturns(random=0.0, by_policy=[0.1, 0.4, 0.3, 0.4])
    >>> returns.are_stuck(patience=2)
    True
    >>> returns.try_again()
    >>> returns.are_stuck(patience=2), returns.were_stuck
    (False, True)
    """

    random: float = -math.inf
    """Of the round with random actions."""
    by_policy: list[float] = field(default_factory=list)
    """Of each round in which the policy acted."""
    were_stuck: bool = False
    """Whether something was done about it before."""
    tried_after: int = 0
    """Rounds of `by_policy` when something was done about it the last time."""

    def are_stuck(self, patience: int) -> bool:
        """Say whether the last rounds brought no more than those since the last try.

        Args:
            patience: How many rounds may bring no more.
        """
        since = self.by_policy[self.tried_after :]
        if len(since) <= patience or max(self.by_policy) <= self.random:
            return False
        return max(since[-patience:]) <= max(since[:-patience])

    def try_again(self) -> None:
        """Note that something is done about it now."""
        self.tried_after, self.were_stuck = len(self.by_policy), True
