"""Dreams and codes as TensorBoard pictures while a run trains.

Classes:
    DreamLog: real above imagined, after each fit; the codes where they are new.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from worldgen.agents import DreamPPO
from worldgen.evaluation import best_moment, dream_along, dream_strip
from worldgen.inspection import log_codes

__all__ = ["DreamLog"]

_HORIZON = 15
_NEWEST_EPISODES = 50


class DreamLog:
    """Write a strip of frames of one dream beside reality after each fit, and new codes.

    Args:
        path: TensorBoard folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path / "dreams"
        self._writer: SummaryWriter | None = None
        self._vectors: torch.Tensor | None = None

    def write(self, agent: DreamPPO) -> None:
        """Dream along the best of the agent's newest episodes."""
        self._writer = self._writer or SummaryWriter(str(self._path))
        model, episodes = agent.world_model, agent.episodes
        first = max(0, len(episodes) - _NEWEST_EPISODES)
        newest = [episodes[index] for index in range(first, len(episodes))]
        index, start = best_moment(newest, _HORIZON)
        dream = dream_along(model, newest[index], start=start, horizon=_HORIZON)
        strip = dream_strip(model, dream)
        # Offline there are no real environment steps to go by.
        steps = agent.num_timesteps or agent.imagined_timesteps
        self._writer.add_image("dream/real_above_imagined", strip, steps, dataformats="HWC")
        share = float(np.mean(~dream.differs))
        self._writer.add_scalar(
            "dream/training_episode_frames_without_visible_difference", share, steps
        )
        self._writer.flush()
        vectors = torch.cat(model.tokenizer.codebook_vectors())
        if self._vectors is None or not torch.equal(vectors, self._vectors):
            log_codes(self._writer, model.tokenizer, newest, steps)
            self._vectors = vectors.clone()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
