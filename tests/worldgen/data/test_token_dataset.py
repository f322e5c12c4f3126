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
def test_windows_are_stretches_of_one_episode(length: int) -> None:
    dataset = make_dataset()
    windows = dataset.sample_windows(
        500, length, event_share=0.25, generator=torch.Generator().manual_seed(0)
    )
    for row in range(500):
        valid = windows.valid[row]
        assert valid[:2].all()  # there is always a transition to learn from
        frames = windows.tokens[row][valid]
        assert (frames[:, 0] == frames[0, 0]).all()
        assert (frames[1:, 1] - frames[:-1, 1] == 1).all()
        for (episode, frame), action, reward, terminated in zip(
            frames.tolist(),
            windows.actions[row, valid, 0].tolist(),
            windows.rewards[row, valid].tolist(),
            windows.terminated[row, valid].tolist(),
            strict=True,
        ):
            # The action that led to frame t is action t - 1, coded from 1 on; 0 is none.
            assert action == (0 if frame == 0 else (frame - 1) % 7 + 1)
            at_end = frame == LENGTHS[episode] and episode != 2
            assert reward == float(at_end)
            assert terminated == at_end
        assert (~valid).sum() == max(0, length - 1 - LENGTHS[int(frames[0, 0])])


def test_every_transition_is_drawn_about_equally_often() -> None:
    dataset = make_dataset()
    windows = dataset.sample_windows(
        20_000, 4, event_share=0.0, generator=torch.Generator().manual_seed(0)
    )
    targets = windows.tokens[:, 1:][windows.valid[:, 1:]]
    counts = torch.zeros(4, 31)
    for episode, length in enumerate(LENGTHS):
        frames = targets[targets[:, 0] == episode, 1]
        counts[episode] = frames.bincount(minlength=31).float()
        drawn = counts[episode, 1 : length + 1]
        assert drawn.min() > 0
        if length > 4:  # neither the first nor the last frames are neglected
            assert drawn.min() > 0.3 * drawn.mean()


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
