"""When an agent is stuck."""

from __future__ import annotations

import pytest

from worldgen.agents.round_returns import RoundReturns


@pytest.mark.parametrize(
    ("returns", "stuck"),
    [
        ([0.1, 0.4, 0.3, 0.4, 0.2], True),
        ([0.1, 0.4, 0.3, 0.4], False),  # two rounds only
        ([0.1, 0.4, 0.3, 0.2, 0.5], False),
        ([0.4, 0.3, 0.2], False),
        ([-4.0, -4.5, -4.2, -4.0], True),
    ],
)
def test_they_are_stuck_when_rounds_bring_no_more(returns, stuck):
    assert RoundReturns(by_policy=returns).are_stuck(patience=3) == stuck


def test_they_are_not_stuck_before_they_were_better_than_random():
    assert not RoundReturns(random=0.5, by_policy=[0.5, 0.4, 0.3]).are_stuck(patience=1)
    assert RoundReturns(random=0.4, by_policy=[0.5, 0.4, 0.3]).are_stuck(patience=1)
    assert not RoundReturns(random=0.4).are_stuck(patience=1)


def test_a_new_try_has_its_own_patience():
    returns = RoundReturns(by_policy=[0.9, 0.4, 0.3])
    assert returns.are_stuck(patience=2)
    returns.try_again()
    for value, stuck in ((0.5, False), (0.4, False), (0.3, True)):
        returns.by_policy.append(value)
        assert returns.are_stuck(patience=2) == stuck
