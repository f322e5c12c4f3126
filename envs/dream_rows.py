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
from worldgen.data.token_dataset import Context, TokenDataset
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.envs.dream_starts import DreamStarts, StartConfig
from worldgen.errors import ConfigError
from worldgen.seeding import derived_seed
from worldgen.token_novelty import TokenNovelty
from worldgen.world_model import WorldModel

__all__ = ["Advance", "DreamRows", "Starts", "load_model"]

Starts = Episodes | TokenDataset | str | Path
"""Where dreams begin: real episodes, the same tokenized, or their folder."""


class Advance(NamedTuple):
    """One imagined environment step of B rows."""

    tokens: Tensor
    """(B, K) int64 on the model's device."""
    rewards: np.ndarray
    """(B,) float32, expected rewards of the task."""
    bonuses: np.ndarray
    """(B,) float32, rewards for novelty, weighted; 0 without."""
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
        novelty: Weight of the bonus that `TokenNovelty` gives.
        novelty_repeats: Its `repeats`.
        start_config: Which moments rows begin at.
        memory: Whether there is a `memory`. Rows then begin with all the past that it depends on.
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
        novelty: float = 0.0,
        novelty_repeats: bool = False,
        start_config: StartConfig | None = None,
        memory: bool = False,
    ) -> None:
        require(novelty >= 0, "novelty", "be at least 0", novelty)
        require(horizon >= 1, "horizon", "be at least 1", horizon)
        require(num_rows >= 1, "num_envs", "be at least 1", num_rows)
        if not model.is_fitted:
            raise ConfigError("the model has not been trained: call `model.fit(episodes)` first")
        self.model, self.horizon = model, horizon
        self._has_memory = memory
        self._context_length = model.dynamics.reach if memory else model.config.context
        self._imagination = model.imagination(num_rows, sampler=sampler, seed=seed)
        self._generator = torch.Generator(model.device)
        self._elapsed = np.zeros(num_rows, dtype=np.int64)
        self._weight, self._repeats = novelty, novelty_repeats
        self._start_config = start_config or StartConfig()
        self.set_starts(starts)
        self.seed(seed)

    @property
    def tokens(self) -> Tensor:
        """Current frames of all rows, (B, K) int64."""
        return self._imagination.tokens

    @property
    def memory(self) -> Tensor | None:
        """The model's summary of what was before `tokens`, (B, D) float32, if it was asked for."""
        return self._imagination.summary if self._has_memory else None

    def seed(self, seed: int) -> None:
        """Begin the random numbers of starts and dreams anew."""
        self._generator.manual_seed(derived_seed(seed, "starts"))
        self._imagination.generator.manual_seed(derived_seed(seed, "imagination"))

    def set_starts(self, starts: Starts) -> None:
        """Let rows that begin from now on begin in `starts`."""
        dataset = _tokenized(self.model, starts)
        novelty = None  # It remembers what every episode has shown and tried.
        if self._weight or self._start_config.rare_share:
            sizes = self.model.action_codec.sizes if self._weight else None  # no bonus, no trials
            books = self.model.tokenizer.codebooks
            novelty = TokenNovelty(dataset, books, sizes, repeats=self._repeats)
        self._paid = novelty if self._weight else None
        self._starts = DreamStarts(dataset, novelty, self._start_config, self._generator)

    def restart(self) -> Tensor:
        """Begin all rows; gives their first frames, (B, K)."""
        moments = self._starts.draw(len(self._elapsed))
        self._imagination.reset(self._contexts_to(moments))
        if self._paid is not None:
            self._seen = self._paid.seen_at(moments)
        self._elapsed[:] = 0
        return self.tokens

    def restart_rows(self, rows: np.ndarray) -> Tensor:
        """Begin the R rows in `rows` and leave the others alone; gives R first frames, (R, K)."""
        moments = self._starts.draw(len(rows))
        context = self._contexts_to(moments)
        index = torch.from_numpy(rows).to(self.model.device)
        self._imagination.reset_rows(index, context)
        if self._paid is not None:
            self._seen[index] = self._paid.seen_at(moments)
        self._elapsed[rows] = 0
        return context.tokens[:, -1]

    def _contexts_to(self, moments: Tensor) -> Context:
        return self._starts.dataset.contexts_to(moments, self._context_length)

    def advance(self, actions: Any) -> Advance:
        """Take one action in each row.

        Args:
            actions: (B, *action shape) in the environment's action space.
        """
        encoded, before = self.model.encode_actions(actions), self.tokens
        imagined = self._imagination.step(encoded)
        bonus = torch.zeros_like(imagined.reward)
        if self._paid is not None:
            bonus = self._paid.bonus(before, encoded, imagined.tokens, self._seen)
            bonus *= self._weight
        outcome = torch.stack((imagined.reward, bonus, imagined.terminated.float())).cpu().numpy()
        rewards, bonuses, terminated = outcome[0].copy(), outcome[1].copy(), outcome[2] > 0
        self._elapsed += 1
        truncated = (self._elapsed >= self.horizon) & ~terminated
        return Advance(imagined.tokens, rewards, bonuses, terminated, truncated)


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
