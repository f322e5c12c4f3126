"""Films of a dream beside the reality that it was asked to follow.

Classes:
    Film: what was written.

Functions:
    dream_film: real beside imagined, as a GIF.
    dream_strip: some frames in one picture.
    action_names: what the actions are called, where that is known.
    best_moment: where in some episodes there is most to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from worldgen.checkpoint import write_atomically
from worldgen.config import require
from worldgen.data.episode import Episode
from worldgen.evaluation.film_frames import draw_frames, draw_strip, write_gif
from worldgen.evaluation.paired_dream import PairedDream, dream_along
from worldgen.render import LeafKind, leaf_kind
from worldgen.spaces import leaves

if TYPE_CHECKING:
    from worldgen.diffusion.sampler_config import SamplerConfig
    from worldgen.world_model import WorldModel

__all__ = ["Film", "action_names", "best_moment", "dream_film", "dream_strip"]

_MINIGRID_ACTIONS = ("left", "right", "forward", "pick up", "drop", "toggle", "done")


@dataclass(frozen=True, kw_only=True)
class Film:
    """A film that was written."""

    path: Path
    num_frames: int
    first_difference: int | None
    """Environment step of the first visible difference, None where there is none."""


def dream_film(
    model: WorldModel,
    episode: Episode,
    path: str | Path,
    *,
    start: int = 0,
    horizon: int = 40,
    sampler: SamplerConfig | None = None,
    seed: int = 0,
    frames_per_second: float = 4.0,
    size: int = 224,
    action_names: Sequence[str] | None = None,
) -> Film:
    """Write a GIF of a real stretch beside the dream that is given the same actions.

    Args:
        model: Trained.
        episode: Real, of the model's environment.
        path: Where to write; ends in ".gif". A file that is there is replaced.
        start: Frame of the episode at which the dream begins.
        horizon: Most environment steps; the episode's end comes first where it is nearer.
        sampler: How frames are sampled; the model's own by default.
        seed: Of the dream.
        frames_per_second: Environment steps shown a second.
        size: Height of each picture in pixels, about.
        action_names: Names of Discrete actions; MiniGrid's are known.

    Raises:
        ConfigError: If `start`, `horizon` or `frames_per_second` is out of range, or the path
            does not end in ".gif".
    """
    path = Path(path)
    require(path.suffix.lower() == ".gif", "path", "end in .gif", str(path))
    require(frames_per_second > 0, "frames_per_second", "be above 0", frames_per_second)
    dream = dream_along(model, episode, start=start, horizon=horizon, sampler=sampler, seed=seed)
    frames = draw_frames(
        dream,
        model.observation_space,
        _drawn_kinds(model),
        _action_labels(model, dream.actions, action_names),
        size=size,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: write_gif(frames, file, frames_per_second))
    return Film(path=path, num_frames=len(frames), first_difference=dream.first_difference)


def dream_strip(model: WorldModel, dream: PairedDream) -> np.ndarray:
    """Draw up to eight frames of a dream, real above imagined: (H, W, 3) uint8."""
    return draw_strip(dream, model.observation_space, _drawn_kinds(model))


def _drawn_kinds(model: WorldModel) -> dict[str, LeafKind]:
    declared = model.tokenizer.config.modalities
    return {
        path: leaf_kind(leaf, declared.get(path))
        for path, leaf in leaves(model.observation_space).items()
    }


def best_moment(episodes: Sequence[Episode], horizon: int) -> tuple[int, int]:
    """Choose the episode and the frame from which a film shows most.

    That is the longest successful stretch: of the episodes with a positive return, where there
    are any, one that terminates; among those the one of which the film shows most environment
    steps, and of equal ones the one with the highest return. The film ends where it ends.

    Returns:
        Index of the episode, and of the frame to start at.
    """
    require(len(episodes) > 0, "episodes", "hold at least one episode", len(episodes))

    def interest(index: int) -> tuple[bool, bool, int, float]:
        episode = episodes[index]
        rewarded, terminated = episode.total_reward > 0, bool(episode.terminated[-1])
        return rewarded, terminated, min(len(episode), horizon), episode.total_reward

    best = max(range(len(episodes)), key=interest)
    return best, max(0, len(episodes[best]) - horizon)


def action_names(model: WorldModel) -> Sequence[str] | None:
    """Give the names of a Discrete action space's actions, where they are known."""
    environment = model.environment
    is_minigrid = environment is not None and environment.id.startswith(("MiniGrid", "BabyAI"))
    space = model.action_space
    if is_minigrid and isinstance(space, spaces.Discrete) and space.n == len(_MINIGRID_ACTIONS):
        return _MINIGRID_ACTIONS
    return None


def _action_labels(
    model: WorldModel, actions: np.ndarray, names: Sequence[str] | None
) -> list[str]:
    names = names or action_names(model)
    space = model.action_space
    if names and isinstance(space, spaces.Discrete):
        return [names[int(action) - int(space.start)] for action in actions]
    return [
        " ".join(f"{entry:.3g}" for entry in np.atleast_1d(action).ravel()[:6])
        for action in actions
    ]
