"""The Gymnasium and Stable-Baselines3 side of a world model.

Classes:
    ImaginedVecEnv: many dreams at once, as an SB3 `VecEnv`.
    ImaginedEnv: one dream, as a Gymnasium environment, registered as "worldgen/Imagined-v0".
    TokenObservation: a real environment that shows the model's tokens.
    VecTokenObservation: the same around an SB3 `VecEnv`, a whole batch at a time.
    FullyObservedMiniGrid: the whole grid of a MiniGrid environment, the agent and what it carries.
    NumberedMission: MiniGrid's mission as numbers.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

from worldgen.envs.fully_observed import FullyObservedMiniGrid
from worldgen.envs.imagined_env import ImaginedEnv
from worldgen.envs.imagined_vec_env import ImaginedVecEnv
from worldgen.envs.numbered_mission import NumberedMission
from worldgen.envs.observation_view import ObservationMode
from worldgen.envs.token_observation import TokenObservation, VecTokenObservation

__all__ = [
    "IMAGINED_ID",
    "FullyObservedMiniGrid",
    "ImaginedEnv",
    "ImaginedVecEnv",
    "NumberedMission",
    "ObservationMode",
    "TokenObservation",
    "VecTokenObservation",
]

IMAGINED_ID = "worldgen/Imagined-v0"
"""Gymnasium id of `ImaginedEnv`; `gymnasium.make("worldgen.envs:worldgen/Imagined-v0", ...)`."""

if IMAGINED_ID not in registry:
    register(IMAGINED_ID, "worldgen.envs.imagined_env:ImaginedEnv")
