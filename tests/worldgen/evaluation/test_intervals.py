"""Intervals of shares, against the equation that defines them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldgen.evaluation.intervals import wilson_interval


@given(st.integers(1, 500), st.integers(0, 500))
def test_the_bounds_are_where_the_measured_share_is_just_believable(count, right):
    share = min(right, count) / count
    low, high = wilson_interval(share, count)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            deviation = (bound * (1 - bound) / count) ** 0.5
            assert abs(share - bound) == pytest.approx(1.959964 * deviation, rel=1e-4, abs=1e-9)


def test_a_known_interval():
    assert wilson_interval(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert wilson_interval(0.0, 20)[0] == 0
