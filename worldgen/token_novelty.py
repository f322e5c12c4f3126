"""How rare what a frame shows and what an agent tries is, as a bonus for an agent that explores.

Classes:
    TokenNovelty: first sights of rare tokens, and actions that were hardly ever tried there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worldgen.codes import Codebook
from worldgen.data.token_dataset import TokenDataset

__all__ = ["TokenNovelty"]


class TokenNovelty:
    """Reward what an episode has not shown or tried before by how few real episodes did.

    Two parts are added up:

    - *Sights.* A code that n of the real episodes hold is worth 1/n, wherever in the frame it
      stands; one that none of them holds is worth nothing, since a dream may have made it up.
    - *Trials.* An action in front of a code that n of the real episodes took there is worth
      1 / (1 + n). Of a frame's tokens the one that makes the action rarest counts. What no real
      episode has done yet, no dream can show the consequences of; this makes an agent try it.
      Only actions of Discrete, MultiDiscrete and MultiBinary spaces are counted.

    Everything counts once an episode, unless it `repeats`. So an episode's bonus is bounded, and it
    fades as episodes come in, except for what only few of them reach. What repeats depends on the
    frame and the action alone, so that a critic can learn it. (Lifelong counts as in Bellemare et
    al. 2016, https://arxiv.org/abs/1606.01868; of states and actions, in a model, as in Strehl and
    Littman 2008, https://doi.org/10.1016/j.jcss.2007.08.009; once an episode as in Never Give Up,
    Badia et al. 2020, https://arxiv.org/abs/2002.06038.)

    What counts has a number: the V codes of all codebooks first, then V times all values of an
    action's entries.

    Args:
        dataset: The real episodes.
        codebooks: Of the tokenizer.
        action_sizes: Values of each entry of an action; none where they are not counted.
        repeats: Whether all that is rare pays each time, in place of once an episode.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        codebooks: Sequence[Codebook],
        action_sizes: Sequence[int] | None = None,
        repeats: bool = False,
    ) -> None:
        self._repeats = repeats
        device = dataset.tokens.device
        sizes = torch.tensor([book.size for book in codebooks], device=device)
        of_position = torch.tensor([book.num_tokens for book in codebooks], device=device)
        self._offsets = (sizes.cumsum(0) - sizes).repeat_interleave(of_position)  # (K,)
        self._num_codes = int(sizes.sum())
        values = torch.tensor(list(action_sizes or ()), dtype=torch.int64, device=device)
        self._action_offsets = values.cumsum(0) - values - 1  # an encoded action begins at 1
        self._num_actions = int(values.sum())
        self._size = self._num_codes * (1 + self._num_actions)
        self._episode = dataset.episode
        self._remember(dataset)
        episodes = torch.bincount(self._things, minlength=self._size).float()
        sights, trials = episodes[: self._num_codes], episodes[self._num_codes :]
        self.worth = torch.where(sights > 0, 1 / sights.clamp(min=1), 0.0)
        """(V,) float32, of each code of all codebooks."""
        known = (sights > 0).repeat_interleave(self._num_actions)
        self._all_worth = torch.cat([self.worth, torch.where(known, 1 / (1 + trials), 0.0)])

    def _remember(self, dataset: TokenDataset) -> None:
        """Note, episode by episode, what each has shown and tried, and by which frame."""
        frames = torch.arange(dataset.num_frames, device=dataset.tokens.device)
        things, at = self._codes(dataset.tokens), frames.unsqueeze(1)
        happened = [(things, at.expand_as(things))]
        if self._num_actions:
            moments = dataset.moments
            tried = self._trials(dataset.tokens[moments], dataset.actions[moments + 1])
            happened.append((tried, (moments + 1).unsqueeze(1).expand_as(tried)))
        things = torch.cat([part.flatten() for part, _ in happened])
        at = torch.cat([part.flatten() for _, part in happened])
        keys = dataset.episode[at] * self._size + things
        distinct, place = torch.unique(keys, return_inverse=True)
        self._at = torch.full_like(distinct, dataset.num_frames)
        self._at.scatter_reduce_(0, place, at, "amin")
        self._things = distinct % self._size
        count = torch.bincount(distinct // self._size, minlength=dataset.num_episodes)
        self._end = count.cumsum(0)
        self._begin = self._end - count
        self._most = torch.arange(int(count.max()), device=count.device)

    def _codes(self, tokens: Tensor) -> Tensor:
        return tokens + self._offsets

    def _trials(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """Number (token, entry of the action) pairs of frames (B, K): (B, K * A)."""
        pairs = self._codes(tokens).unsqueeze(2) * self._num_actions
        pairs = pairs + (actions + self._action_offsets).unsqueeze(1)
        return self._num_codes + pairs.flatten(1)

    def seen_at(self, moments: Tensor) -> Tensor:
        """Say what the real episodes of frames `moments` (R,) showed and tried up to there.

        Returns:
            (R, one more than what counts) bool; the last is without meaning.
        """
        episode = self._episode[moments]
        entry = self._begin[episode].unsqueeze(1) + self._most  # (R, most things of an episode)
        inside = entry < self._end[episode].unsqueeze(1)
        entry = entry.clamp(max=len(self._things) - 1)
        happened = inside & (self._at[entry] <= moments.unsqueeze(1))
        seen = torch.zeros(len(moments), self._size + 1, dtype=torch.bool, device=moments.device)
        return seen.scatter_(1, torch.where(happened, self._things[entry], self._size), True)

    def rarity(self, tokens: Tensor) -> Tensor:
        """Give what the rarest token of each frame (B, K) is worth, (B,) float32."""
        rarest: Tensor = self.worth[self._codes(tokens)].amax(-1)
        return rarest

    def bonus(self, before: Tensor, actions: Tensor, after: Tensor, seen: Tensor) -> Tensor:
        """Give each row's bonus, (B,) float32, and note in `seen` what it has shown and tried.

        Args:
            before: (B, K) int64, the frames that the actions were taken in.
            actions: (B, A), encoded.
            after: (B, K) int64, the frames that they led to.
            seen: As `seen_at` gives it; changed in place.
        """
        codes = self._codes(after)
        known = seen[:, : self._num_codes]
        shown = torch.zeros_like(known).scatter_(1, codes, True)
        bonus = (shown if self._repeats else shown & ~known).float() @ self.worth
        known |= shown
        if self._num_actions:
            tried = self._trials(before, actions)
            again = seen.gather(1, tried) & (not self._repeats)
            bonus += torch.where(again, 0.0, self._all_worth[tried]).amax(1)
            seen.scatter_(1, tried, True)
        return bonus
