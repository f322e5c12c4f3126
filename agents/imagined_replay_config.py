"""Numbers of `ImaginedReplayBuffer`.

Classes:
    ImaginedReplayConfig.

Functions:
    replay_model_config: settings of a world model that learns from few transitions.
    only_reals: whether an observation is made of real numbers alone.
    refuse_gradient_steps: the world model's own numbers of gradient steps, which are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from worldgen.config import Config, require
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.spaces import leaves
from worldgen.transformer import TransformerConfig
from worldgen.world_model import WorldModelConfig

__all__ = ["ImaginedReplayConfig", "only_reals", "refuse_gradient_steps", "replay_model_config"]


@dataclass(frozen=True, kw_only=True)
class ImaginedReplayConfig(Config):
    """How often the world model is fitted, and what is imagined with it.

    Real steps are environment steps that the buffer was given, all rows of the environment
    together.
    """

    imagined_share: float = 0.5
    """Share of each batch that is imagined once there is a model, rounded to whole transitions
    (MBPO: 0.95); with 0 no model is fitted."""
    first_fit: int = 300
    """Real steps before the first fit; until then all batches are real."""
    fit_every: int = 200
    """Real steps between two fits (MBPO: 250)."""
    fit_on: int = 50_000
    """Newest real transitions that a fit learns from and rollouts start at."""
    tokenizer_steps: int = 1_000
    """Most gradient steps of the tokenizer in a fit. Codes of real numbers follow the numbers in
    each fit; others are left alone as long as they lose nothing of the new transitions."""
    first_model_steps: int = 600
    """Gradient steps of the dynamics in the first fit."""
    model_steps_per_fit: int = 250
    """Gradient steps of the dynamics in each later fit."""
    imagine_every: int = 10
    """Real steps between two batches of rollouts, so that they follow the policy."""
    rollouts: int = 256
    """Rollouts of a batch, each from a random real moment."""
    horizon: int = 3
    """Environment steps of a rollout at the beginning; values are bootstrapped behind it."""
    final_horizon: int | None = None
    """Environment steps of a rollout in the end; None is `horizon`."""
    horizon_growth: int = 10_000
    """Real steps over which rollouts grow from `horizon` to `final_horizon`."""
    imagined_size: int = 20_000
    """Newest imagined transitions that are kept, rounded down to whole steps of all rollouts."""
    exploration: float = 0.1
    """How far rollouts stray from policies that do not draw their actions: share of random
    actions of a discrete space; deviation of the noise on actions in [-1, 1] of TD3 and DDPG."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("imagined_share", "exploration"):
            require(0 <= getattr(self, name) <= 1, name, "be in [0, 1]", getattr(self, name))
        for name in (
            "first_fit",
            "fit_every",
            "fit_on",
            "imagine_every",
            "rollouts",
            "horizon",
            "horizon_growth",
        ):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        for name in ("tokenizer_steps", "first_model_steps", "model_steps_per_fit"):
            require(getattr(self, name) >= 0, name, "be at least 0", getattr(self, name))
        final, rule = self.final_horizon, f"be None or at least `horizon`, {self.horizon}"
        require(final is None or final >= self.horizon, "final_horizon", rule, final)
        size, rule = self.imagined_size, f"be at least `rollouts`, {self.rollouts}"
        require(size >= self.rollouts, "imagined_size", rule, size)

    def horizon_at(self, real_steps: int) -> int:
        """Give the environment steps of a rollout after so many real steps.

        >>> config = ImaginedReplayConfig(horizon=1, final_horizon=5, horizon_growth=4_000)
        >>> [config.horizon_at(steps) for steps in (300, 1_300, 4_300, 9_000)]
        [1, 2, 5, 5]
        """
        growth = (self.final_horizon or self.horizon) - self.horizon
        share = min(1.0, max(0, real_steps - self.first_fit) / self.horizon_growth)
        return self.horizon + int(growth * share)


def replay_model_config(space: spaces.Space[Any]) -> WorldModelConfig:
    """Give the settings of a world model that learns an agent's own transitions.

    Its context is the one frame that the agent sees as well. Where observations are vectors of
    reals, the numbers are those that predict best after 1,000 random transitions of Pendulum:
    the mean next value in place of a drawn one (Gaussian diffusion in one denoising step), even
    draws of transitions, a past without corruption, and no drafts, which rollouts do not need.
    """
    if not only_reals(space):
        return WorldModelConfig(dynamics=DynamicsConfig(context=1))
    return WorldModelConfig(
        dynamics=DynamicsConfig(
            process="gaussian", context=1, octaves=1, transformer=TransformerConfig(width=64)
        ),
        training=DynamicsTrainingConfig(
            batch_size=32,
            window=8,
            learning_rate=5e-3,
            event_share=0.0,
            hard_share=0.0,
            draft_share=0.0,
            corrupted_share=0.0,
        ),
    )


def refuse_gradient_steps(model: WorldModelConfig) -> None:
    """Make sure that nobody sets numbers of gradient steps that the buffer does not use.

    Raises:
        ConfigError: If one is not the default; the message names the fields to use instead.
    """
    usual = WorldModelConfig()
    rule = "be left out, since ImaginedReplayBuffer does not use it: set {} instead"
    steps, name = model.training.gradient_steps, "model_config.training.gradient_steps"
    instead = rule.format("`first_model_steps` and `model_steps_per_fit`")
    require(steps == usual.training.gradient_steps, name, instead, steps)
    steps, name = model.tokenizer_gradient_steps, "model_config.tokenizer_gradient_steps"
    instead = rule.format("`tokenizer_steps`")
    require(steps == usual.tokenizer_gradient_steps, name, instead, steps)


def only_reals(space: spaces.Space[Any]) -> bool:
    """Tell whether all parts of an observation are vectors of real numbers."""
    return all(
        isinstance(leaf, spaces.Box) and np.issubdtype(leaf.dtype, np.floating)
        for leaf in leaves(space).values()
    )
