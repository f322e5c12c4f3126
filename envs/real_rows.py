"""Real worlds that a world model reads along, for its summary of their past.

Classes:
    RealRows: the counterpart of `DreamRows`.

Functions:
    load_model_with_memory: the model of what a wrapper was given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env.base_vec_env import VecEnv
from torch import Tensor

from worldgen.checkpoint import folder_kind
from worldgen.data.token_dataset import Context
from worldgen.envs.dream_rows import load_model
from worldgen.errors import ConfigError
from worldgen.tokenizer import Tokenizer
from worldgen.world_model import WorldModel

__all__ = ["RealRows", "load_model_with_memory"]


class RealRows:
    """B real worlds, each from its episode's first frame on.

    The engine of dreams reads each frame and the action taken in it, once, and draws nothing: what
    it says of the past is what it says in a dream.

    Args:
        model: A trained world model. After a later fit the past is forgotten, whose tokens may
            mean something else now.
        num_rows: B.
    """

    def __init__(self, model: WorldModel, num_rows: int) -> None:
        self.model, self._num_fits = model, -1
        self._engine = model.imagination(num_rows)

    @classmethod
    def of(cls, env: gym.Env[Any, Any] | VecEnv, model: WorldModel) -> Self:
        """Make as many rows as an environment has.

        Raises:
            SpaceError: If the model was built for other spaces.
        """
        model.check_compatible(env.observation_space, env.action_space)
        return cls(model, env.num_envs if isinstance(env, VecEnv) else 1)

    @property
    def memory(self) -> Tensor:
        """The model's summary of what was before the newest frames, (B, D) float32."""
        return self._engine.summary

    @property
    def is_current(self) -> bool:
        """Whether the weights are those of the model's last fit."""
        return self._num_fits == self.model.num_fits

    def restart(self, tokens: Tensor) -> None:
        """Begin all rows at first frames (B, K)."""
        self.restart_behind(self.model.first_frames(tokens))

    def restart_behind(self, context: Context) -> None:
        """Begin all rows at the newest frames of a context, of up to `Dynamics.reach` frames."""
        self._engine.reset(context, same_weights=self.is_current)
        self._num_fits = self.model.num_fits

    def restart_rows(self, rows: np.ndarray, tokens: Tensor) -> None:
        """Begin the R rows in `rows` at first frames (R, K) and leave the others alone."""
        index = torch.from_numpy(rows).to(self.model.device)
        self._engine.reset_rows(index, self.model.first_frames(tokens))

    def advance(self, actions: Any, tokens: Tensor) -> None:
        """Read what was done in the newest frames, (B, *action shape), and what came, (B, K)."""
        if self.is_current:
            self.follow(self.model.encode_actions(actions), tokens)
        else:
            self.restart(tokens)

    def follow(self, actions: Tensor, tokens: Tensor) -> None:
        """Do what `advance` does, with encoded actions (B, A)."""
        self._engine.follow(actions, tokens)


def load_model_with_memory(source: WorldModel | Tokenizer | str | Path) -> WorldModel:
    """Give the world model of `source`.

    Raises:
        ConfigError: If it is a tokenizer alone, or something else.
    """
    in_folder = isinstance(source, str | Path) and folder_kind(source) == "tokenizer"
    if in_folder or isinstance(source, Tokenizer):
        raise ConfigError(
            "`model` must be a WorldModel or its folder with `memory=True`, since a transformer "
            "reads the past, got a Tokenizer alone: give the whole model, or leave `memory` away"
        )
    return load_model(source)
