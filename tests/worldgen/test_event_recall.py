"""The recall on rewards and ends that training logs, against a naive count."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from killed_fits import fit, new_model, some_episodes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldgen import dynamics_fit, dynamics_trainer
from worldgen.dynamics import Prediction
from worldgen.event_recall import count_events, recall
from worldgen.two_hot import TwoHot

Log = list[tuple[int, Mapping[str, float]]]


@given(st.integers(0, 10_000))
def test_counts_are_those_of_a_loop(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    rewards = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.1])[torch.randint(5, (3, 5), generator=draw)]
    terminated = torch.rand(3, 5, generator=draw) < 0.4
    episode = (torch.rand(3, 5, generator=draw) < 0.2).long().cumsum(1)
    two_hot = TwoHot()
    wished = rewards[:, 1:] + 0.7 * torch.randn(3, 4, generator=draw)
    prediction = Prediction(
        torch.empty(0),
        two_hot.encode(wished).clamp(min=1e-9).log(),
        torch.randn(3, 4, generator=draw),
    )
    windows = SimpleNamespace(
        rewards=rewards,
        terminated=terminated,
        follows=episode[:, 1:] == episode[:, :-1],
    )
    unseen = torch.rand(3, 5, generator=draw) < 0.1
    expected = [0, 0, 0, 0]
    for row in range(3):
        if unseen[row].any():
            continue
        for time in range(4):
            if episode[row, time] != episode[row, time + 1]:
                continue
            real = float(rewards[row, time + 1])
            said = float(two_hot.decode(prediction.reward_logits)[row, time])
            if real != 0:
                expected[0] += 1
                expected[1] += abs(said - real) < abs(said)
            if terminated[row, time + 1]:
                expected[2] += 1
                chance = float(prediction.termination_logits[row, time].sigmoid())
                expected[3] += chance > 0.5
    counts = count_events(prediction, windows, two_hot, unseen)
    assert counts.tolist() == expected


def test_what_did_not_occur_has_no_recall() -> None:
    assert recall(torch.tensor([0, 0, 2, 1])) == {"terminating_recall": 0.5}
    assert recall(torch.tensor([0, 0, 0, 0])) == {}


def test_it_is_logged_now_and_then_and_goes_on_after_a_kill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Over 8 gradient steps here."""
    for module in (dynamics_fit, dynamics_trainer):
        monkeypatch.setattr(module, "RECALL_STEPS", 8)
    episodes = some_episodes()

    def fitted(path: Path, log: Log, most: int) -> Mapping[str, float]:
        def note(step: int, values: Mapping[str, float]) -> None:
            if "dynamics/rewarding_recall" in values:
                log.append((step, values))
                if len(log) == most:
                    raise KeyboardInterrupt

        model = new_model(event_share=1.0, hard_share=0.0)
        result = fit(model, episodes, path, on_log=note, log_dir=tmp_path / "log")
        return result.metrics

    whole: Log = []
    metrics = fitted(tmp_path / "whole", whole, most=99)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "broken", [], most=2)
    rest: Log = []
    again = fitted(tmp_path / "broken", rest, most=99)
    steps = [step for step, _ in whole]
    assert len(steps) == 3, "at 8, at 16, and at 23 the last"
    assert [b - a for a, b in pairwise(steps)] == [8, 7]
    assert metrics == again
    assert metrics["dynamics/rewarding_recall"] == whole[-1][1]["dynamics/rewarding_recall"]
    assert [values for _, values in rest] == [values for _, values in whole[1:]]
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert {"dynamics/rewarding_recall", "dynamics/terminating_recall"} <= set(
        events.Tags()["scalars"]
    )
