"""Partial views: everything right, and everything that the past determines right."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.minigrid_player import collect_mixed
from worldgen.evaluation.moments import Truth, choose_starts
from worldgen.evaluation.open_loop import OpenLoop
from worldgen.evaluation.view_tracker import follow_contexts
from worldgen.imagination import ImaginedStep

CONTEXT = 3
KINDS: dict = {"direction": "words", "image": "minigrid"}


@pytest.fixture(scope="module")
def episodes():
    return collect_mixed("MiniGrid-DoorKey-6x6-v0", 800, seed=2)


class Replay:
    """An imagination that shows what really happened, but for what `spoil` does to it."""

    def __init__(self, truth, frames, spoil):
        self.truth, self.frames, self.spoil, self.time = truth, frames, spoil, 0
        self.tracker = follow_contexts(
            truth.observations["image"], truth.actions, truth.frame, frames, CONTEXT, 50
        )

    def step(self, actions):
        self.time += 1
        index = np.minimum(self.frames + self.time, self.truth.last[self.frames])
        if self.time <= 50:
            self.tracker.act(self.truth.actions[index])
        images = self.truth.observations["image"][index].copy()
        self.spoil(images, self.tracker.expected(), self.time)
        self.images, self.index = images, index
        ended = torch.from_numpy(self.truth.terminated[index])
        reward = torch.from_numpy(self.truth.rewards[index])
        return ImaginedStep(torch.zeros(len(index), 1), reward, ended.float(), ended)


def dreams(episodes, spoil, horizons=(1, 5, 20)):
    truth = Truth(episodes)
    engines = []

    def begin(frames):
        engines.append(Replay(truth, frames, spoil))
        return engines[-1].step

    def decode(tokens):
        return {**truth.at(engines[-1].index), "image": engines[-1].images}

    loop = OpenLoop(
        truth,
        SimpleNamespace(context_length=CONTEXT),
        KINDS,
        0.5,
        "image",
        begin,
        decode,
    )
    starts = choose_starts(truth, horizons, 60, np.random.default_rng(0))
    return {entry.horizon: entry for entry in loop.run(starts)}


def test_a_replay_is_right_in_all(episodes):
    for entry in dreams(episodes, lambda *_: None).values():
        assert entry.exact == entry.determined_exact == entry.rewards == 1
    # From one step to 20 the share of what is known from 3 frames falls, and is not nothing.
    found = dreams(episodes, lambda *_: None)
    assert 1 > found[1].determined_share > found[20].determined_share > 0.1


def test_where_every_episode_has_ended_the_dreams_still_count(episodes):
    found = dreams([e for e in episodes if e.terminated[-1]], lambda *_: None, (1, 500))[500]
    assert (found.num_dreams, found.num_reached) == (60, 0)
    assert found.exact == found.determined_exact == 1
    assert found.determined_share is None


def test_what_no_past_determines_may_be_wrong(episodes):
    def spoil(images, said, time):
        images[~said.determined] = (9, 1, 1)  # Lava, where nothing is known.

    found = dreams(episodes, spoil)
    assert found[20].exact < 0.5
    assert all(entry.determined_exact == 1 for entry in found.values())


def test_what_the_past_determines_may_not(episodes):
    def spoil(images, said, time):
        if time == 4:
            images[said.determined] = (9, 1, 1)

    found = dreams(episodes, spoil)
    assert found[1].determined_exact == 1
    assert found[5].determined_exact < 0.3
    assert found[20].determined_exact <= found[5].determined_exact + 0.2


def test_a_view_without_tracker_has_no_determined_share(episodes, counting_model, held_out):
    from worldgen.evaluation import evaluate

    report = evaluate(counting_model(), held_out, horizons=(1,), num_dreams=5, progress=False)
    assert report.at(1).determined_exact is None
    assert report.at(1).determined_share is None
