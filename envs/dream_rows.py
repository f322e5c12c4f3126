"""Rows of imagined worlds that start at real moments and end by termination or horizon.

Classes:
    DreamRows: the engine behind `ImaginedVecEnv` and `ImaginedEnv`.
    Advance: what one environment step of all rows gave.

Functions:
    load_model: a model or the path of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldgen.config import require
from worldgen.data.episodes import Episodes
from worldgen.data.token_dataset import TokenDataset
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.errors import ConfigError
from worldgen.seeding import derived_seed
from worldgen.world_model import WorldModel

__all__ = ["Advance", "DreamRows", "Starts", "load_model"]

Starts = Episodes | TokenDataset | str | Path
"""Where dreams begin: real episodes, the same tokenized, or their folder."""


class Advance(NamedTuple):
    """One imagined environment step of B rows."""

    tokens: Tensor
    """(B, K) int64 on the model's device."""
    rewards: np.ndarray
    """(B,) float32, expected rewards."""
    terminated: np.ndarray
    """(B,) bool, predicted ends of the episode."""
    truncated: np.ndarray
    """(B,) bool, rows at the horizon that did not terminate."""


class DreamRows:
    """B imagined worlds, each with a clock of its own.

    A row begins at a random moment of a real episode, with the frames before it as context,
    and is over once the model predicts termination or after `horizon` environment steps. The
    caller restarts rows that are over.

    Actions go to the device once an environment step, and rewards and ends come back together.

    Args:
        model: A trained world model.
        starts: Where rows begin.
        num_rows: B.
        horizon: Most environment steps of a dream.
        sampler: How frames are sampled; None takes the model's.
        seed: Of the starts and of the dreams.

    Raises:
        ConfigError: If the model is not trained or a number is out of range.
        SpaceError: If `starts` comes from an environment with other spaces.
    """

    def __init__(
        self,
        model: WorldModel,
        starts: Starts,
        *,
        num_rows: int,
        horizon: int,
        sampler: SamplerConfig | None,
        seed: int,
    ) -> None:
        require(horizon >= 1, "horizon", "be at least 1", horizon)
        require(num_rows >= 1, "num_envs", "be at least 1", num_rows)
        if not model.is_fitted:
            raise ConfigError("the model has not been trained: call `model.fit(episodes)` first")
        self.model, self.horizon = model, horizon
        self._imagination = model.imagination(num_rows, sampler=sampler, seed=seed)
        self._generator = torch.Generator(model.device)
        self._elapsed = np.zeros(num_rows, dtype=np.int64)
        self.set_starts(starts)
        self.seed(seed)

    @property
    def tokens(self) -> Tensor:
        """Current frames of all rows, (B, K) int64."""
        return self._imagination.tokens

    def seed(self, seed: int) -> None:
        """Begin the random numbers of starts and dreams anew."""
        self._generator.manual_seed(derived_seed(seed, "starts"))
        self._imagination.generator.manual_seed(derived_seed(seed, "imagination"))

    def set_starts(self, starts: Starts) -> None:
        """Let rows that begin from now on begin in `starts`."""
        self._starts = _tokenized(self.model, starts)

    def restart(self) -> Tensor:
        """Begin all rows; gives their first frames, (B, K)."""
        count = len(self._elapsed)
        self._imagination.reset(self._starts.sample_contexts(count, generator=self._generator))
        self._elapsed[:] = 0
        return self.tokens

    def restart_rows(self, rows: np.ndarray) -> Tensor:
        """Begin the R rows in `rows` and leave the others alone; gives R first frames, (R, K)."""
        context = self._starts.sample_contexts(len(rows), generator=self._generator)
        self._imagination.reset_rows(torch.from_numpy(rows).to(self.model.device), context)
        self._elapsed[rows] = 0
        return context.tokens[:, -1]

    def advance(self, actions: Any) -> Advance:
        """Take one action in each row.

        Args:
            actions: (B, *action shape) in the environment's action space.
        """
        imagined = self._imagination.step(self.model.encode_actions(actions))
        outcome = torch.stack((imagined.reward, imagined.terminated.float())).cpu().numpy()
        rewards, terminated = outcome[0].copy(), outcome[1] > 0
        self._elapsed += 1
        truncated = (self._elapsed >= self.horizon) & ~terminated
        return Advance(imagined.tokens, rewards, terminated, truncated)


def _tokenized(model: WorldModel, starts: Starts) -> TokenDataset:
    if isinstance(starts, TokenDataset):
        return starts
    if isinstance(starts, str | Path):
        starts = Episodes.load(starts)
    if not isinstance(starts, Episodes):
        raise ConfigError(
            f"`starts` must be Episodes, a TokenDataset or a path, got {type(starts).__name__}"
        )
    model.check_compatible(starts.observation_space, starts.action_space)
    return model.dataset(starts)


def load_model(model: WorldModel | str | Path) -> WorldModel:
    """Give `model` itself, or read it from its folder.

    Raises:
        ConfigError: If it is neither.
    """
    if isinstance(model, str | Path):
        return WorldModel.load(model)
    if not isinstance(model, WorldModel):
        raise ConfigError(f"`model` must be a WorldModel or a path, got {type(model).__name__}")
    return model
