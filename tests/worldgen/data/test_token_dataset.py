"""Windows and contexts of tokenized episodes: every frame in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec
from worldgen.data.episode import Episode
from worldgen.data.token_dataset import Context, TokenDataset
from worldgen.errors import DatasetError, ShapeError


def make_episode(number: int, length: int, *, reward_at_end: bool) -> Episode:
    """Make an episode whose action t is t % 7 and whose only reward is at its end."""
    rewards = np.zeros(length, np.float32)
    rewards[-1] = float(reward_at_end)
    terminated = np.zeros(length, bool)
    terminated[-1] = reward_at_end
    return Episode(
        observations={"observation": np.full(length + 1, number)},
        actions=np.arange(length) % 7,
        rewards=rewards,
        terminated=terminated,
        truncated=np.zeros(length, bool),
    )


LENGTHS = (5, 1, 30, 12)


def make_dataset(context: int = 4) -> TokenDataset:
    """Tokens are (episode, frame), so that a window tells where it comes from."""
    episodes = [make_episode(i, length, reward_at_end=i != 2) for i, length in enumerate(LENGTHS)]
    tokens = torch.tensor([(i, t) for i, n in enumerate(LENGTHS) for t in range(n + 1)])
    return TokenDataset(tokens, episodes, ActionCodec(spaces.Discrete(7)), context)


@pytest.mark.parametrize("length", [2, 4, 9])
def test_windows_are_stretches_of_the_data_and_know_where_episodes_begin(length: int) -> None:
    dataset = make_dataset()
    windows = dataset.sample_windows(
        500, length, event_share=0.25, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(dataset.tokens[windows.index], windows.tokens)
    assert (windows.index.diff(dim=1) == 1).all()
    frames = windows.tokens.tolist()
    for row in range(500):
        assert windows.follows[row].any()  # there is always a transition to learn from
        for t, (episode, frame) in enumerate(frames[row]):
            # The action that led to frame t is action t - 1, coded from 1 on; 0 is none.
            action = 0 if frame == 0 else (frame - 1) % 7 + 1
            assert windows.actions[row, t, 0] == action
            at_end = frame == LENGTHS[episode] and episode != 2
            assert windows.rewards[row, t] == float(at_end)
            assert windows.terminated[row, t] == at_end
            if t:
                assert windows.follows[row, t - 1] == (frames[row][t - 1][0] == episode)


def test_a_dataset_that_is_shorter_than_a_window() -> None:
    episode = make_episode(0, 2, reward_at_end=True)
    tokens = torch.tensor([[0, 0], [0, 1], [0, 2]])
    dataset = TokenDataset(tokens, [episode], ActionCodec(spaces.Discrete(7)), 4)
    windows = dataset.sample_windows(
        5, 8, event_share=0.0, generator=torch.Generator().manual_seed(0)
    )
    assert windows.tokens.shape == (5, 8, 2)
    assert windows.follows.tolist() == [[True, True] + [False] * 5] * 5


def test_every_transition_is_drawn_about_equally_often() -> None:
    dataset = make_dataset()
    windows = dataset.sample_windows(
        20_000, 4, event_share=0.0, generator=torch.Generator().manual_seed(0)
    )
    targets = windows.index[:, 1:][windows.follows]
    counts = targets.bincount(minlength=dataset.num_frames).float()
    follows = torch.ones(dataset.num_frames, dtype=torch.bool)
    follows[dataset.first_frames] = False
    assert (counts[~follows] == 0).all()
    drawn = counts[follows]
    assert drawn.min() > 0.3 * drawn.mean()  # neither first nor last frames are neglected


def test_an_end_may_stand_anywhere_in_a_window() -> None:
    # A network that only ever saw ends behind a full past would expect them nowhere else.
    windows = make_dataset().sample_windows(
        2000, 6, event_share=1.0, generator=torch.Generator().manual_seed(0)
    )
    assert (windows.terminated[:, 1:].sum(0) > 100).all()


def test_hard_transitions_are_drawn_more_often() -> None:
    dataset = make_dataset()
    generator = torch.Generator().manual_seed(0)

    def draws() -> torch.Tensor:
        windows = dataset.sample_windows(
            3000, 2, event_share=0.0, hard_share=0.5, generator=generator
        )
        return windows.index[:, 1].bincount(minlength=dataset.num_frames) / 3000

    windows = dataset.sample_windows(500, 2, event_share=0.0, generator=generator)
    assert windows.index[:, 1].bincount(minlength=dataset.num_frames)[20] > 0
    before = draws()
    hard = windows.index[:, 1:] == 20
    for _ in range(10):
        dataset.set_priority(windows, torch.where(hard, 1.5, 0.0))
    after = draws()
    assert after[20] > 0.4 > 0.1 > before[20]
    assert after[windows.index[:, 1].unique()].min() > 0  # the others are not forgotten
    assert dataset.priority[dataset.first_frames].eq(1).all()


def test_events_are_drawn_as_often_as_told() -> None:
    dataset = make_dataset()
    generator = torch.Generator().manual_seed(0)
    windows = dataset.sample_windows(1000, 4, event_share=0.5, generator=generator)
    assert windows.terminated.any(1).float().mean() >= 0.5


def test_contexts_end_where_the_episode_went_on() -> None:
    dataset = make_dataset()
    context = dataset.sample_contexts(500, generator=torch.Generator().manual_seed(0))
    assert context.tokens.shape == (500, 4, 2)
    last = context.tokens[:, -1]
    assert context.valid[:, -1].all()
    assert (last[:, 1] < torch.tensor(LENGTHS)[last[:, 0]]).all()
    for row in range(500):
        frames = context.tokens[row][context.valid[row]]
        assert (frames[:, 0] == last[row, 0]).all()
        assert frames[:, 1].tolist() == list(
            range(int(last[row, 1]) - len(frames) + 1, int(last[row, 1]) + 1)
        )
        assert len(frames) == min(4, int(last[row, 1]) + 1)


def test_contexts_at_given_moments() -> None:
    context = make_dataset().contexts_at(torch.tensor([2, 3]), torch.tensor([30, 0]))
    assert context.tokens[0].tolist() == [[2, 27], [2, 28], [2, 29], [2, 30]]
    assert context.valid.tolist() == [[True] * 4, [False, False, False, True]]
    assert context.tokens[1, -1].tolist() == [3, 0]


def test_wrong_use_is_explained() -> None:
    with pytest.raises(DatasetError, match="at least one episode"):
        TokenDataset(torch.zeros(0, 2), [], ActionCodec(spaces.Discrete(7)), 4)
    with pytest.raises(ShapeError, match=r"`valid` must have shape \(B, C\)"):
        Context(torch.zeros(2, 3, 4), torch.zeros(2, 3, 1), torch.ones(2, 2))
