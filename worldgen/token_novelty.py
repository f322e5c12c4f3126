"""How rare what a frame shows is, as a bonus for an agent that explores.

Classes:
    TokenNovelty: first sights of rare tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worldgen.codes import Codebook
from worldgen.data.token_dataset import TokenDataset

__all__ = ["TokenNovelty"]


class TokenNovelty:
    """Reward tokens that an episode has not shown before by how few real episodes showed them.

    A code that n of the real episodes hold is worth 1/n, once an episode, wherever in the frame
    it stands; one that none of them holds is worth nothing, since a dream may have made it up.
    So an episode's bonus is bounded, and the bonus fades as episodes come in, except for what
    only few of them reach. (Lifelong counts as in Bellemare et al. 2016,
    https://arxiv.org/abs/1606.01868; once an episode as in Never Give Up, Badia et al. 2020,
    https://arxiv.org/abs/2002.06038.)

    Args:
        dataset: The real episodes.
        codebooks: Of the tokenizer.
    """

    def __init__(self, dataset: TokenDataset, codebooks: Sequence[Codebook]) -> None:
        device = dataset.tokens.device
        sizes = torch.tensor([book.size for book in codebooks], device=device)
        of_position = torch.tensor([book.num_tokens for book in codebooks], device=device)
        self._offsets = (sizes.cumsum(0) - sizes).repeat_interleave(of_position)  # (K,)
        self._num_codes = int(sizes.sum())
        self._episode = dataset.episode
        self._first_sight = self._first_sights(dataset)
        episodes = (self._first_sight < dataset.num_frames).sum(0)  # (V,)
        self.worth = torch.where(episodes > 0, 1.0 / episodes.clamp(min=1), 0.0)
        """(V,) float32, of each code of all codebooks."""

    def _first_sights(self, dataset: TokenDataset) -> Tensor:
        """Find the frame in which each episode first holds each code, (E, V); N where none."""
        tokens = dataset.tokens + self._offsets
        place = dataset.episode.unsqueeze(1) * self._num_codes + tokens
        frames = torch.arange(dataset.num_frames, device=tokens.device)
        first = frames.new_full((dataset.num_episodes * self._num_codes,), dataset.num_frames)
        first.scatter_reduce_(
            0, place.flatten(), frames.unsqueeze(1).expand_as(place).flatten(), "amin"
        )
        return first.view(dataset.num_episodes, self._num_codes)

    def seen_at(self, moments: Tensor) -> Tensor:
        """Say what the real episodes of frames `moments` (R,) showed up to there, (R, V) bool."""
        return self._first_sight[self._episode[moments]] <= moments.unsqueeze(1)

    def rarity(self, tokens: Tensor) -> Tensor:
        """Give what the rarest token of each frame (B, K) is worth, (B,) float32."""
        rarest: Tensor = self.worth[tokens + self._offsets].amax(-1)
        return rarest

    def bonus(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Give each row's bonus, (B,) float32, and note in `seen` what it has seen.

        Args:
            tokens: (B, K) int64, the rows' new frames.
            seen: (B, V) bool, changed in place.
        """
        shown = torch.zeros_like(seen).scatter_(1, tokens + self._offsets, True)
        new = shown & ~seen
        seen |= shown
        return new.float() @ self.worth
