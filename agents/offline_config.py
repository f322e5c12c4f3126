"""Numbers of the loop for an agent that has all of its episodes from the beginning.

Constants:
    OFFLINE_CONFIG: the `DreamConfig` of a `DreamPPO` that is given episodes and no environment.
"""

from __future__ import annotations

from worldgen.agents.dream_config import DreamConfig
from worldgen.envs.dream_starts import StartConfig

__all__ = ["OFFLINE_CONFIG", "OFFLINE_ROUNDS"]

OFFLINE_CONFIG = DreamConfig(
    initial_steps=0,
    initial_model_steps=2_500,
    model_steps_per_round=400,
    initial_dream_steps=75_000,
    dream_steps_per_round=75_000,
    n_epochs=4,
    novelty=0.0,
    starts=StartConfig(first_share=0.25, rare_share=0.25),
    ent_coef=0.05,
)
"""More gradient steps and more dreams at once than where episodes come in little by little; no
bonus for what few episodes show, since nobody goes there to look; and more entropy, which helps
where the model is wrong: docs/decisions/0015-offline-training.md."""

OFFLINE_ROUNDS = 6
"""Fits and dreams of an offline training."""
