"""Which real moments dreams start from.

Classes:
    StartConfig: how much of each kind.
    DreamStarts: draws moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldgen.config import Config, require
from worldgen.data.token_dataset import TokenDataset
from worldgen.seeding import index_by_weight, random_index
from worldgen.token_novelty import TokenNovelty

__all__ = ["DreamStarts", "StartConfig"]

_NEWEST = 0.25


@dataclass(frozen=True, kw_only=True)
class StartConfig(Config):
    """Shares of the dreams that start at chosen moments; the others start at any."""

    first_share: float = 0.0
    """Starts at the first frame of an episode, each episode as often as another."""
    rare_share: float = 0.0
    """Starts at frames with tokens that few episodes show, the more often the fewer."""
    recent_share: float = 0.0
    """Starts in the newest quarter of the real environment steps."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, share in vars(self).items():
            require(0 <= share <= 1, name, "be in [0, 1]", share)
        total = self.first_share + self.rare_share + self.recent_share
        rule = "be at most 1"
        require(total <= 1, "first_share + rare_share + recent_share", rule, total)


class DreamStarts:
    """Draw moments of real episodes.

    Args:
        dataset: The episodes.
        novelty: Knows what is rare; None will do without a `rare_share`.
        config: Shares of each kind.
        generator: Of the draws, on the dataset's device.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        novelty: TokenNovelty | None,
        config: StartConfig,
        generator: torch.Generator,
    ) -> None:
        self.dataset, self.config, self._generator = dataset, config, generator
        self._newest = max(1, round(_NEWEST * len(dataset.moments)))
        self._rare: Tensor | None = None
        if config.rare_share:
            assert novelty is not None
            rarity = novelty.rarity(dataset.tokens[dataset.moments])
            self._rare = rarity.double().cumsum(0)

    def draw(self, count: int) -> Tensor:
        """Draw frames (count,) int64 from which real episodes went on, with repetition."""
        dataset, config, generator = self.dataset, self.config, self._generator
        moments = dataset.moments
        kind = torch.rand(count, generator=generator, device=generator.device)
        drawn = moments[random_index(len(moments), count, generator)]
        if config.first_share:
            first = dataset.first_frames[random_index(dataset.num_episodes, count, generator)]
            drawn = torch.where(kind < config.first_share, first, drawn)
        if self._rare is not None:
            rare = moments[index_by_weight(self._rare, count, generator)]
            here = (kind >= config.first_share) & (kind < config.first_share + config.rare_share)
            drawn = torch.where(here, rare, drawn)
        if config.recent_share:
            back = random_index(self._newest, count, generator)
            recent = moments[len(moments) - 1 - back]
            drawn = torch.where(kind >= 1 - config.recent_share, recent, drawn)
        return drawn
