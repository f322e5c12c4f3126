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


def make_dataset(seed: int = 0) -> TokenDataset:
    generator = np.random.default_rng(seed)
    episodes = [
        Episode(
            observations={"": np.zeros((length + 1, 1), np.float32)},
            actions=np.zeros(length, np.int64),
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
    return TokenDataset(torch.from_numpy(tokens), episodes, ActionCodec(spaces.Discrete(2)), 2)


def codes(tokens: np.ndarray) -> set[int]:
    """Identities of a frame's codes, over all codebooks."""
    return {int(code) for code in (tokens + OFFSETS).ravel()}


class Counted:
    """What the definition says, in sets."""

    def __init__(self, dataset: TokenDataset) -> None:
        self.tokens = dataset.tokens.numpy()
        self.episode = dataset.episode.numpy()
        self.first = dataset.first_frames.numpy()
        shown = [codes(self.tokens[self.episode == e]) for e in range(dataset.num_episodes)]
        self.worth = {code: 1 / sum(code in codes for codes in shown) for code in set.union(*shown)}

    def seen(self, moment: int) -> set[int]:
        return codes(self.tokens[self.first[self.episode[moment]] : moment + 1])

    def value(self, new: set[int]) -> float:
        return sum(self.worth.get(code, 0.0) for code in new)


@pytest.mark.parametrize("seed", range(3))
def test_bonus_is_the_worth_of_what_the_episode_had_not_shown(seed):
    dataset = make_dataset(seed)
    novelty, counted = TokenNovelty(dataset, BOOKS), Counted(dataset)
    moments = dataset.moments
    seen = novelty.seen_at(moments)
    memory = [counted.seen(int(moment)) for moment in moments]
    generator = np.random.default_rng(seed)
    for _ in range(4):
        frames = np.stack(
            [
                generator.integers(3, size=len(moments)),
                *generator.integers(5, size=(3, len(moments))),
            ],
            1,
        )
        bonus = novelty.bonus(torch.from_numpy(frames), seen)
        for row, past in enumerate(memory):
            new = codes(frames[row]) - past
            assert float(bonus[row]) == pytest.approx(counted.value(new), abs=1e-6)
            past |= new


def test_codes_that_no_episode_holds_are_worth_nothing():
    dataset = make_dataset()
    novelty = TokenNovelty(dataset, BOOKS)
    assert float(novelty.worth[-1]) == 0  # code 4 of the second codebook is never drawn
    seen = torch.ones(1, 8, dtype=torch.bool)
    seen[0, -1] = False
    assert float(novelty.bonus(torch.tensor([[0, 4, 4, 4]]), seen)) == 0


def test_rarity_is_the_worth_of_the_rarest_token():
    dataset = make_dataset()
    counted = Counted(dataset)
    rarity = TokenNovelty(dataset, BOOKS).rarity(dataset.tokens)
    naive = [max(counted.worth[code] for code in codes(frame)) for frame in counted.tokens]
    np.testing.assert_allclose(rarity.numpy(), naive, rtol=1e-6)
