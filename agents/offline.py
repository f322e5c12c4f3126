"""Training of a `DreamPPO` on episodes alone, with no environment.

Functions:
    train_offline: fit and dream, in rounds.

Offline reinforcement learning by way of a model: MOReL, Kidambi et al. 2020,
https://arxiv.org/abs/2005.05951; MOPO, Yu et al. 2020, https://arxiv.org/abs/2005.13239. Neither
one's penalty is used here: dreams begin at real moments and are short.
"""

from __future__ import annotations

import time
from collections import deque

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger

from worldgen.agents.dream_ppo import DreamPPO
from worldgen.agents.offline_config import OFFLINE_ROUNDS
from worldgen.config import require

__all__ = ["train_offline"]


def train_offline(
    agent: DreamPPO,
    rounds: int = OFFLINE_ROUNDS,
    callback: MaybeCallback = None,
    *,
    log_interval: int = 1,
    tb_log_name: str = "DreamPPO",
    progress_bar: bool = False,
) -> DreamPPO:
    """Fit the world model to the agent's episodes and train the policy in dreams, in turns.

    No environment is made, reset or stepped, whether the agent has one or not. A round that an
    earlier call left unfinished counts as the first. The log counts imagined environment steps.

    >>> import worldgen
    >>> from worldgen.agents import DreamPPO
    >>> episodes = worldgen.collect("CartPole-v1", num_steps=64, seed=0, progress=False)
    >>> agent = DreamPPO("MlpPolicy", None, episodes=episodes, seed=0, device="cpu",
    ...     tokenizer_steps=5, initial_model_steps=2, initial_dream_steps=2048)
    >>> agent = train_offline(agent, rounds=1)
    >>> agent.num_timesteps, agent.imagined_timesteps
    (0, 2048)

    Args:
        agent: With episodes, and as a rule without an environment.
        rounds: Fits, each with a dream after it.
        callback: A `PhaseCallback` sees the phases, and stops the training where `on_phase_end`
            returns False; there are no real environment steps for other callbacks to see.
        log_interval: Rounds from one entry in the log to the next; 0 for none.
        tb_log_name: Name of the run in TensorBoard.
        progress_bar: Whether to show a progress bar a phase.

    Returns:
        The same agent.

    Raises:
        ConfigError: If `rounds` is under 1.
        DatasetError: If the agent has no episodes.
    """
    require(rounds >= 1, "rounds", "be at least 1", rounds)
    agent.check_episodes()
    observers = _set_up(agent, callback, tb_log_name)
    agent._show_progress = progress_bar
    observers.on_training_start(locals(), globals())
    last = agent.round + rounds
    while agent.round < last:
        if agent.phase == "collect":
            agent.phase = "fit"
        if not agent._run_phase(observers):
            break
        if agent.phase == "collect" and log_interval and agent.round % log_interval == 0:
            agent.logger.record("time/rounds", agent.round)
            agent.logger.dump(agent.imagined_timesteps)
    observers.on_training_end()
    return agent


def _set_up(agent: DreamPPO, callback: MaybeCallback, tb_log_name: str) -> BaseCallback:
    """Do what SB3's `_setup_learn` does, but for resetting the environment."""
    agent.start_time = time.time_ns()
    agent._total_timesteps = agent.num_timesteps
    if agent.ep_info_buffer is None:
        agent.ep_info_buffer = deque(maxlen=agent._stats_window_size)
        agent.ep_success_buffer = deque(maxlen=agent._stats_window_size)
    if not agent._custom_logger:
        anew = agent.imagined_timesteps == 0
        agent._logger = configure_logger(agent.verbose, agent.tensorboard_log, tb_log_name, anew)
    return agent._init_callback(callback)
