"""A dream beside the reality that it was asked to follow.

Classes:
    PairedDream: one real stretch and the dream with the same start and the same actions.

Functions:
    dream_along: imagine beside a real episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.evaluation.comparison import leaf_kinds
from worldgen.evaluation.events import reward_threshold, rewards_right
from worldgen.render import LeafKind
from worldgen.spaces import flatten

if TYPE_CHECKING:
    from worldgen.diffusion.sampler_config import SamplerConfig
    from worldgen.world_model import WorldModel

__all__ = ["PairedDream", "dream_along"]

_BLOCK = 8
_VISIBLE_GREY_LEVELS = 32
_VISIBLE_SHARE_OF_RANGE = 0.1


@dataclass(frozen=True, kw_only=True)
class PairedDream:
    """H environment steps of reality and of its dream; frame 0 is the common start."""

    real: dict[str, np.ndarray]
    """Path -> (H + 1, ...)."""
    imagined: dict[str, np.ndarray]
    """Path -> (H + 1, ...); frame 0 is the start, encoded and decoded."""
    actions: np.ndarray
    """(H, ...)."""
    real_rewards: np.ndarray
    """(H,) float32."""
    imagined_rewards: np.ndarray
    """(H,) float32, expected rewards."""
    real_ended: np.ndarray
    """(H,) bool, true where the real episode terminated."""
    imagined_ended: np.ndarray
    """(H,) bool, true from the first imagined termination on."""
    differs: np.ndarray
    """(H + 1,) bool: the frame, its reward's sign or its termination is visibly wrong."""

    def __len__(self) -> int:
        """Give H."""
        return len(self.real_rewards)

    @property
    def first_difference(self) -> int | None:
        """Environment step of the first frame that differs, or None."""
        return int(self.differs.argmax()) if self.differs.any() else None


def dream_along(
    model: WorldModel,
    episode: Episode,
    *,
    start: int = 0,
    horizon: int = 40,
    sampler: SamplerConfig | None = None,
    seed: int = 0,
) -> PairedDream:
    """Imagine what a real episode's actions lead to, from one of its frames on.

    A frame differs where a symbol or a category is wrong, a block of 8x8 pixels is off by more
    than 32 grey levels, or an entry of a vector by more than a tenth of the range that it has in
    the episode.
    """
    require(0 <= start < len(episode), "start", f"be in [0, {len(episode)})", start)
    require(horizon >= 1, "horizon", "be at least 1", horizon)
    stop = min(start + horizon, len(episode))
    dataset = model.dataset([episode])
    context = dataset.contexts_at(torch.tensor([0]), torch.tensor([start]))
    rollout = model.imagine(context, episode.actions[None, start:stop], sampler=sampler, seed=seed)
    space = model.observation_space
    seen = flatten(space, model.decode(context.tokens[:, -1]))
    dreamed = flatten(space, rollout.observations)
    imagined = {path: np.concatenate([seen[path], dreamed[path][0]]) for path in seen}
    real = {path: episode.observations[path][start : stop + 1] for path in seen}
    rewards, imagined_rewards = episode.rewards[start:stop], rollout.rewards[0]
    real_ended = episode.terminated[start:stop]
    imagined_ended = np.logical_or.accumulate(rollout.terminated[0])
    kinds = leaf_kinds(model.observation_space, model.tokenizer.config.modalities)
    differs = _visibly_different(kinds, episode, real, imagined)
    differs[1:] |= _wrong_sign(episode, rewards, imagined_rewards) | (real_ended != imagined_ended)
    return PairedDream(
        real=real,
        imagined=imagined,
        actions=episode.actions[start:stop],
        real_rewards=rewards,
        imagined_rewards=imagined_rewards,
        real_ended=real_ended,
        imagined_ended=imagined_ended,
        differs=differs,
    )


def _wrong_sign(episode: Episode, real: np.ndarray, imagined: np.ndarray) -> np.ndarray:
    wrong: np.ndarray = ~rewards_right(imagined, real, reward_threshold(episode.rewards))
    return wrong


def _visibly_different(
    kinds: dict[str, LeafKind],
    episode: Episode,
    real: dict[str, np.ndarray],
    imagined: dict[str, np.ndarray],
) -> np.ndarray:
    """Say which of the frames differ so that one sees it: (H + 1,) bool."""
    differs = np.zeros(len(next(iter(real.values()))), bool)
    for path, kind in kinds.items():
        if kind == "image":
            differs |= _blocks_differ(real[path], imagined[path])
            continue
        gap = np.abs(imagined[path].astype(np.float64) - real[path])
        tolerance = 0.0
        if kind == "numbers":
            whole = episode.observations[path].astype(np.float64)
            tolerance = _VISIBLE_SHARE_OF_RANGE * np.maximum(np.ptp(whole, axis=0), 1e-3)
        differs |= (gap > tolerance).reshape(len(differs), -1).any(1)
    return differs


def _blocks_differ(real: np.ndarray, imagined: np.ndarray) -> np.ndarray:
    gap = np.abs(imagined.astype(np.float64) - real)
    if gap.ndim == 4:
        gap = gap.mean(1 if gap.shape[1] < gap.shape[3] else 3)
    padding = [(0, -size % _BLOCK) for size in gap.shape[1:]]
    gap = np.pad(gap, [(0, 0), *padding], mode="edge")
    blocks = gap.reshape(len(gap), gap.shape[1] // _BLOCK, _BLOCK, gap.shape[2] // _BLOCK, _BLOCK)
    worst: np.ndarray = blocks.mean((2, 4)).max((1, 2))
    return worst > _VISIBLE_GREY_LEVELS
