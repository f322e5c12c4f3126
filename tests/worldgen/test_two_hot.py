"""Two-hot rewards: the mean is the value."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldgen.two_hot import TwoHot


@given(st.floats(-20_000, 20_000))
def test_the_mean_of_the_encoding_is_the_value(value: float) -> None:
    two_hot = TwoHot()
    weights = two_hot.encode(torch.tensor([value]))
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert (weights > 0).sum() <= 2
    mean = (weights.double() * two_hot.bins.double()).sum().item()
    assert mean == pytest.approx(value, rel=1e-3, abs=1e-3)


def test_decoding_undoes_encoding() -> None:
    two_hot = TwoHot()
    values = torch.tensor([0.0, 1.0, -0.3, 0.955, -16.0])
    decoded = two_hot.decode(two_hot.encode(values).clamp(min=1e-30).log())
    assert torch.allclose(decoded, values, atol=1e-3)
    assert decoded[0].abs() < 1e-6


def test_values_beyond_the_ends_are_clamped() -> None:
    two_hot = TwoHot()
    weights = two_hot.encode(torch.tensor([1e9, -1e9]))
    assert weights[0, -1] == 1
    assert weights[1, 0] == 1


def test_a_trace_of_probability_far_away_is_no_reward() -> None:
    two_hot = TwoHot()
    logits = torch.full((two_hot.num_bins,), -12.0)
    logits[two_hot.num_bins // 2] = 5.0
    assert two_hot.decode(logits).abs() < 1e-2  # symmetric, by luck
    logits[-1] = -6.0
    assert two_hot.decode(logits) > 0.3
    two_hot.restrict(torch.tensor([0.0, 0.9, 0.3]))
    assert two_hot.decode(logits).abs() < 1e-5
    assert two_hot.decode(two_hot.encode(torch.tensor(0.9)).log()) == pytest.approx(0.9, abs=1e-3)
