"""`TokenNovelty` against the same counted with sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldgen.actions import ActionCodec
from worldgen.codes import Codebook
from worldgen.data.episode import Episode
from worldgen.data.token_dataset import TokenDataset
from worldgen.token_novelty import TokenNovelty

BOOKS = (
    Codebook(size=3, first_token=0, num_tokens=1, num_features=1, numbers=False),
    Codebook(size=5, first_token=1, num_tokens=3, num_features=1, numbers=False),
)
OFFSETS = np.array([0, 3, 3, 3])
LENGTHS = (4, 1, 6, 2)


ACTIONS = spaces.MultiDiscrete([3, 2])


def make_dataset(seed: int = 0) -> TokenDataset:
    generator = np.random.default_rng(seed)
    episodes = [
        Episode(
            observations={"": np.zeros((length + 1, 1), np.float32)},
            actions=generator.integers([3, 2], size=(length, 2)),
            rewards=np.zeros(length, np.float32),
            terminated=np.zeros(length, bool),
            truncated=np.arange(length) == length - 1,
        )
        for length in LENGTHS
    ]
    frames = sum(LENGTHS) + len(LENGTHS)
    tokens = np.stack(
        [generator.integers(3, size=frames), *generator.integers(4, size=(3, frames))], 1
    )
    return TokenDataset(torch.from_numpy(tokens), episodes, ActionCodec(ACTIONS), 2)


def codes(tokens: np.ndarray) -> set[int]:
    """Identities of a frame's codes, over all codebooks."""
    return {int(code) for code in (tokens + OFFSETS).ravel()}


def trials(tokens: np.ndarray, action: np.ndarray) -> set[tuple[int, int, int]]:
    """Each code of a frame with each entry of the action that was taken in it."""
    return {
        (code, entry, int(value)) for code in codes(tokens) for entry, value in enumerate(action)
    }


class Counted:
    """What the definition says, in sets."""

    def __init__(self, dataset: TokenDataset) -> None:
        self.tokens, self.actions = dataset.tokens.numpy(), dataset.actions.numpy() - 1
        self.episode = dataset.episode.numpy()
        self.first = dataset.first_frames.numpy()
        frames = [np.flatnonzero(self.episode == e) for e in range(dataset.num_episodes)]
        self.shown = [codes(self.tokens[each]) for each in frames]
        self.tried = [
            set().union(*(trials(self.tokens[t], self.actions[t + 1]) for t in each[:-1]))
            for each in frames
        ]

    def code_worth(self, code: int) -> float:
        count = sum(code in shown for shown in self.shown)
        return 1 / count if count else 0.0

    def trial_worth(self, trial: tuple[int, int, int]) -> float:
        known = any(trial[0] in shown for shown in self.shown)
        return known / (1 + sum(trial in tried for tried in self.tried))

    def past(self, moment: int) -> tuple[set[int], set[tuple[int, int, int]]]:
        first = self.first[self.episode[moment]]
        tried = (trials(self.tokens[t], self.actions[t + 1]) for t in range(first, moment))
        return codes(self.tokens[first : moment + 1]), set().union(*tried)


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("counted_actions", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_bonus_is_the_worth_of_what_the_episode_had_not_shown_and_tried(
    seed, counted_actions, repeats
):
    """Where it repeats, of all that is shown and tried."""
    dataset, codec = make_dataset(seed), ActionCodec(ACTIONS)
    sizes = codec.sizes if counted_actions else None
    novelty = TokenNovelty(dataset, BOOKS, sizes, repeats=repeats)
    counted, moments = Counted(dataset), dataset.moments
    seen = novelty.seen_at(moments)
    memory = [counted.past(int(moment)) for moment in moments]
    generator = np.random.default_rng(seed)
    before = dataset.tokens[moments].numpy()
    for _ in range(4):
        rows = len(moments)
        actions = generator.integers([3, 2], size=(rows, 2))
        after = [generator.integers(3, size=rows), *generator.integers(5, size=(3, rows))]
        frames = np.stack(after, 1)
        bonus = novelty.bonus(
            torch.from_numpy(before), codec.encode(actions), torch.from_numpy(frames), seen
        )
        for row, (shown, tried) in enumerate(memory):
            old, done = (set(), set()) if repeats else (shown, tried)
            expected = sum(counted.code_worth(code) for code in codes(frames[row]) - old)
            here = trials(before[row], actions[row])
            if counted_actions:
                expected += max(map(counted.trial_worth, here - done), default=0.0)
            assert float(bonus[row]) == pytest.approx(expected, abs=1e-6)
            shown |= codes(frames[row])
            tried |= here
        before = frames


def test_codes_that_no_episode_holds_are_worth_nothing():
    dataset, codec = make_dataset(), ActionCodec(ACTIONS)
    novelty = TokenNovelty(dataset, BOOKS, codec.sizes)
    assert float(novelty.worth[-1]) == 0  # code 4 of the second codebook is never drawn
    seen = torch.ones(1, 8 * (1 + 5) + 1, dtype=torch.bool)
    seen[0, 7] = False
    unknown = torch.tensor([[0, 4, 4, 4]])
    seen[0, 8 + 7 * 5 :] = False  # what is tried in front of it
    assert float(novelty.bonus(unknown, codec.encode([[0, 0]]), unknown, seen)) == 0


def test_an_action_that_no_episode_tried_is_worth_the_most():
    dataset = make_dataset()
    dataset.actions[dataset.actions[:, 0] == 3, 0] = 1  # nobody ever took the last one
    codec = ActionCodec(ACTIONS)
    novelty = TokenNovelty(dataset, BOOKS, codec.sizes)
    moments = dataset.moments
    frames, seen = dataset.tokens[moments], novelty.seen_at(moments)
    untried = codec.encode(np.tile([2, 0], (len(moments), 1)))
    assert (novelty.bonus(frames, untried, frames, seen) == 1).all()  # it shows nothing new
    assert (novelty.bonus(frames, untried, frames, seen) < 1).all()  # not twice


def test_rarity_is_the_worth_of_the_rarest_token():
    dataset = make_dataset()
    counted = Counted(dataset)
    rarity = TokenNovelty(dataset, BOOKS).rarity(dataset.tokens)
    naive = [max(counted.code_worth(code) for code in codes(frame)) for frame in counted.tokens]
    np.testing.assert_allclose(rarity.numpy(), naive, rtol=1e-6)
