from __future__ import annotations

import numpy as np
import pytest

from worldgen.data.episode import Episode, EpisodeBuilder
from worldgen.errors import DatasetError


def make(length=3, **changes):
    parts = {
        "observations": {"observation": np.arange(length + 1)},
        "actions": np.zeros(length, np.int64),
        "rewards": np.ones(length, np.float32),
        "terminated": np.zeros(length, bool),
        "truncated": np.zeros(length, bool),
    }
    return Episode(**{**parts, **changes})


def test_an_episode_knows_its_length_and_return():
    episode = make(3, rewards=np.array([0.5, -1, 2], np.float32))
    assert len(episode) == 3
    assert episode.total_reward == 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": {"a": np.arange(3)}}, "T = 3 with a 3"),
        ({"rewards": np.ones(4, np.float32)}, "T = 3 with rewards 4"),
        ({"terminated": np.zeros(2, bool)}, "T = 3 with terminated 2"),
        ({"actions": np.zeros(0)}, "T = 0"),
    ],
)
def test_lengths_that_do_not_match_are_refused(changes, message):
    with pytest.raises(DatasetError, match=f"T >= 1 rewards and T \\+ 1 observations.*{message}"):
        make(3, **changes)


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_nothing_follows_an_end(name):
    with pytest.raises(DatasetError, match="must not go on after `terminated` or `truncated`"):
        make(3, **{name: np.array([False, True, False])})


def observation(value):
    return {"observation": np.array([value], np.float32)}


def test_the_builder_puts_rows_together_without_mixing_them():
    builder = EpisodeBuilder(2)
    builder.begin(0, observation(0))
    builder.begin(1, observation(100))
    assert builder.add(0, np.int64(1), 0.5, False, False, observation(1)) is None
    ended = builder.add(1, np.int64(2), 7, False, True, observation(101))
    assert ended is not None
    assert ended.observations["observation"].tolist() == [[100], [101]]
    assert (ended.actions.tolist(), ended.rewards.tolist()) == ([2], [7])
    assert (ended.terminated.tolist(), ended.truncated.tolist()) == ([False], [True])
    builder.begin(1, observation(200))
    (cut,) = builder.cut()  # Row 1 holds no step yet.
    assert cut.observations["observation"].tolist() == [[0], [1]]
    assert not cut.terminated.any()
    assert not cut.truncated.any()
    assert builder.cut() == []


def test_the_builder_wants_a_beginning():
    builder = EpisodeBuilder(1)
    with pytest.raises(DatasetError, match="row 0 has no open episode"):
        builder.add(0, np.int64(0), 0, False, False, observation(1))
    builder.begin(0, observation(0))
    assert builder.add(0, np.int64(0), 0, True, False, observation(1)) is not None
    with pytest.raises(DatasetError, match="row 0 has no open episode"):
        builder.add(0, np.int64(0), 0, False, False, observation(1))


def test_the_builder_keeps_no_reference_to_what_it_was_given():
    builder = EpisodeBuilder(1)
    shared, action = observation(0), np.zeros(2)
    builder.begin(0, shared)
    shared["observation"][:] = 1
    builder.add(0, action, 0, False, False, shared)
    shared["observation"][:] = action[:] = 9
    (episode,) = builder.cut()
    assert episode.observations["observation"].tolist() == [[0], [1]]
    assert episode.actions.tolist() == [[0, 0]]
    assert episode.rewards.dtype == np.float32
