"""Which moments `DreamStarts` draws."""

from __future__ import annotations

import pytest
import torch

from worldgen.envs.dream_starts import DreamStarts, StartConfig
from worldgen.errors import ConfigError
from worldgen.token_novelty import TokenNovelty

COUNT = 20_000


def draw(world, **shares):
    dataset = world.model.dataset(world.episodes)
    novelty = TokenNovelty(dataset, world.model.tokenizer.codebooks)
    generator = torch.Generator().manual_seed(0)
    drawn = DreamStarts(dataset, novelty, StartConfig(**shares), generator).draw(COUNT)
    return dataset, novelty, drawn


def share_of(drawn, chosen):
    return torch.isin(drawn, chosen).float().mean().item()


def test_without_shares_every_moment_is_drawn_alike(world):
    dataset, _, drawn = draw(world)
    counts = torch.bincount(drawn, minlength=dataset.num_frames)
    assert counts[dataset.moments].min() > 0.6 * COUNT / len(dataset.moments)
    assert counts.sum() == counts[dataset.moments].sum()  # none from which nothing went on


def test_first_frames_have_their_share(world):
    dataset, _, drawn = draw(world, first_share=0.4)
    by_chance = dataset.num_episodes / len(dataset.moments)
    expected = 0.4 + 0.6 * by_chance
    assert share_of(drawn, dataset.first_frames) == pytest.approx(expected, abs=0.02)


def test_newest_moments_have_their_share(world):
    dataset, _, drawn = draw(world, recent_share=0.5)
    newest = dataset.moments[-round(len(dataset.moments) / 4) :]
    assert share_of(drawn, newest) == pytest.approx(0.5 + 0.5 * 0.25, abs=0.02)


def test_rare_moments_are_drawn_by_their_rarity(grid):
    dataset, novelty, drawn = draw(grid, rare_share=1.0)
    rarity = novelty.rarity(dataset.tokens[dataset.moments])
    counts = torch.bincount(drawn, minlength=dataset.num_frames)[dataset.moments]
    expected = rarity / rarity.sum() * COUNT
    assert (counts - expected).abs().max() < 6 * expected.max().sqrt()


def test_shares_over_one_are_refused():
    with pytest.raises(ConfigError, match=r"first_share \+ rare_share \+ recent_share.*at most 1"):
        StartConfig(first_share=0.6, rare_share=0.6)
    with pytest.raises(ConfigError, match=r"`rare_share` must be in \[0, 1\], got -0.1"):
        StartConfig(rare_share=-0.1)
