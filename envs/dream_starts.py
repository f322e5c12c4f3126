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
        novelty: Knows what is rare.
        config: Shares of each kind.
        generator: Of the draws, on the dataset's device.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        novelty: TokenNovelty,
        config: StartConfig,
        generator: torch.Generator,
    ) -> None:
        self.dataset, self.config, self._generator = dataset, config, generator
        self._newest = max(1, round(_NEWEST * len(dataset.moments)))
        self._rare = torch.zeros(0)
        if config.rare_share:
            self._rare = novelty.rarity(dataset.tokens[dataset.moments]).double().cumsum(0)

    def draw(self, count: int) -> Tensor:
        """Draw frames (count,) int64 from which real episodes went on, with repetition."""
        dataset, config = self.dataset, self.config
        moments = dataset.moments
        kind = self._uniform(count)
        drawn = moments[self._index(len(moments), count)]
        if config.first_share:
            first = dataset.first_frames[self._index(dataset.num_episodes, count)]
            drawn = torch.where(kind < config.first_share, first, drawn)
        if config.rare_share:
            place = torch.searchsorted(
                self._rare, self._uniform(count).double() * self._rare[-1], right=True
            ).clamp(max=len(moments) - 1)
            here = (kind >= config.first_share) & (kind < config.first_share + config.rare_share)
            drawn = torch.where(here, moments[place], drawn)
        if config.recent_share:
            recent = moments[len(moments) - 1 - self._index(self._newest, count)]
            drawn = torch.where(kind >= 1 - config.recent_share, recent, drawn)
        return drawn

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self._generator, device=self._generator.device)

    def _index(self, high: int, count: int) -> Tensor:
        device = self._generator.device
        return torch.randint(high, (count,), generator=self._generator, device=device)
