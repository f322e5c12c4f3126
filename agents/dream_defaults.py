"""Settings of `DreamPPO` that suit what an environment shows.

Classes:
    DreamDefaults.

Functions:
    dream_defaults: the settings for an observation space.
    observation_space_of: what an environment shows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from worldgen.agents.dream_config import DreamConfig
from worldgen.agents.imagined_replay_config import only_reals, replay_model_config
from worldgen.agents.offline_config import OFFLINE_CONFIG
from worldgen.data.environment import EnvLike, make_env
from worldgen.dynamics import DynamicsConfig
from worldgen.spaces import leaves
from worldgen.world_model import WorldModelConfig

__all__ = ["DreamDefaults", "dream_defaults", "observation_space_of"]


_SILENT_NOVELTY = 0.3


class DreamDefaults(NamedTuple):
    """What is taken where the user says nothing."""

    config: DreamConfig
    """The loop, and PPO in the dream."""
    model_config: WorldModelConfig
    """The world model."""
    n_envs: int
    """Rows of the real environment."""


def dream_defaults(space: spaces.Space[Any], *, offline: bool = False) -> DreamDefaults:
    """Give the settings for an observation space.

    Vectors of real numbers are dreamt by `replay_model_config`, further ahead and from one row, so
    that a round sees how a long episode ends. A bonus for novelty would be in the way where rewards
    come with every step, so there is one only as long as they say nothing, as on MountainCar before
    its goal was found. Nothing is done about such a policy when it seems stuck (`logit_shrink`,
    `stuck_gamma`, `stuck_dream_steps`), nor about its model (`doubted_model_steps`): the mean of a
    round's few long episodes says little about whether it is.

    Numbers of states alone, as FrozenLake and CliffWalking show, mostly come from worlds of chance,
    so that reward and termination are read off the next frame too; and some of these worlds let
    nobody go before the goal was found, so that the bonus is the same there. All else has the
    defaults of the configs.

    >>> dream_defaults(spaces.Box(-1.0, 1.0, (4,))).n_envs
    1

    Args:
        space: Of the observations.
        offline: Whether the loop is `OFFLINE_CONFIG`'s, for episodes without an environment.
    """
    loop = OFFLINE_CONFIG if offline else DreamConfig()
    if not only_reals(space):
        only_states = all(isinstance(leaf, spaces.Discrete) for leaf in leaves(space).values())
        dynamics = DynamicsConfig(outcome_from="next_frame" if only_states else "action")
        if only_states and not offline:
            loop = replace(loop, silent_novelty=_SILENT_NOVELTY)
        return DreamDefaults(loop, WorldModelConfig(dynamics=dynamics), n_envs=4)
    if not offline:
        loop = replace(
            loop,
            initial_model_steps=600,
            model_steps_per_round=250,
            initial_dream_steps=40_000,
            dream_steps_per_round=40_000,
            novelty=0.0,
            silent_novelty=_SILENT_NOVELTY,
            fresh_rounds=False,
        )
    loop = replace(
        loop, logit_shrink=1.0, stuck_gamma=1.0, stuck_dream_steps=0, doubted_model_steps=0
    )
    model = replay_model_config(space)
    return DreamDefaults(
        replace(loop, horizon=64, n_epochs=10, gamma=0.99, ent_coef=0.0),
        replace(model, training=replace(model.training, event_share=0.25)),
        n_envs=1,
    )


def observation_space_of(env: EnvLike | VecEnv) -> spaces.Space[Any]:
    """Look at what `DreamPPO` sees of an environment; one that is made for it is closed again.

    Raises:
        EnvironmentIdError: If an id is not registered.
    """
    if isinstance(env, VecEnv):
        return env.observation_space
    made = make_env(env)
    if not isinstance(env, gym.Env):
        made.close()
    return made.observation_space
