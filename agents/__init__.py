"""The Stable-Baselines3 side: agents that train in a world model, and what they need.

Classes:
    DreamPPO, DreamConfig, DreamDefaults: collect, fit, dream, again and again.
    StartConfig: which real moments dreams start at, for DreamConfig.
    SymbolicExtractor, TokenExtractor: features of symbols and of tokens.
    ImaginedReplayBuffer, ImaginedReplayConfig, ImaginedReplayCallback: imagined transitions in
        the batches of DQN, SAC and TD3.
    PhaseCallback: an SB3 callback that sees the phases.
    AgentResult: what an evaluation found.
    BaselineConfig: numbers of the PPO that DreamPPO is compared with.

Constants:
    OFFLINE_CONFIG, OFFLINE_ROUNDS: the numbers of an agent that has episodes and no environment.

Functions:
    dream_defaults: the settings of DreamPPO that suit what an environment shows.
    evaluate_agent: episodes of held-out seeds in the real environment.
    baseline_ppo, baseline_result: SB3's PPO in the real environment.
    standardise_numbers: let a policy see vectors in units of their own deviation.
    replay_model_config: settings of a world model that learns from few transitions.
    train_offline: fit and dream, without an environment.
"""

from __future__ import annotations

from worldgen.agents.baseline import BaselineConfig, baseline_ppo, baseline_result
from worldgen.agents.callbacks import PhaseCallback
from worldgen.agents.dream_config import DreamConfig
from worldgen.agents.dream_defaults import DreamDefaults, dream_defaults
from worldgen.agents.dream_ppo import DreamPPO
from worldgen.agents.evaluation import AgentResult, evaluate_agent
from worldgen.agents.extractors import SymbolicExtractor, TokenExtractor, standardise_numbers
from worldgen.agents.imagined_replay_buffer import ImaginedReplayBuffer
from worldgen.agents.imagined_replay_callback import ImaginedReplayCallback
from worldgen.agents.imagined_replay_config import ImaginedReplayConfig, replay_model_config
from worldgen.agents.offline import train_offline
from worldgen.agents.offline_config import OFFLINE_CONFIG, OFFLINE_ROUNDS
from worldgen.envs.dream_starts import StartConfig

__all__ = [
    "OFFLINE_CONFIG",
    "OFFLINE_ROUNDS",
    "AgentResult",
    "BaselineConfig",
    "DreamConfig",
    "DreamDefaults",
    "DreamPPO",
    "ImaginedReplayBuffer",
    "ImaginedReplayCallback",
    "ImaginedReplayConfig",
    "PhaseCallback",
    "StartConfig",
    "SymbolicExtractor",
    "TokenExtractor",
    "baseline_ppo",
    "baseline_result",
    "dream_defaults",
    "evaluate_agent",
    "replay_model_config",
    "standardise_numbers",
    "train_offline",
]
