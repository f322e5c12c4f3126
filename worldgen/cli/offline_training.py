"""The training part of `worldgen train --offline`, with a checkpoint after each phase.

Functions:
    train_offline_agent: begin or go on, until the rounds are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import CallbackList

from worldgen.agents import DreamPPO, train_offline
from worldgen.agents.real_env import policy_name
from worldgen.cli.run_curve import RunCurve
from worldgen.cli.training import TRAINED, Checkpoints, load_agent, note_training, save_agent
from worldgen.data.episodes import Episodes
from worldgen.run_folder import RunFolder

if TYPE_CHECKING:
    from worldgen.cli.train_offline import Arguments

__all__ = ["train_offline_agent"]


def train_offline_agent(folder: RunFolder, arguments: Arguments, episodes: Episodes) -> DreamPPO:
    """Give the trained agent, whatever of it is left to do.

    Args:
        folder: Of the run.
        arguments: Of the run.
        episodes: To learn from.
    """
    agent = _restored(folder, arguments, episodes) or _new(folder, arguments, episodes)
    agent.fit_checkpoint = folder.fit_checkpoint
    if TRAINED in folder.stages():
        return agent
    curve = RunCurve(folder)
    curve.catch_up(agent)
    left = arguments.rounds - agent.round
    if left:
        checkpoints = Checkpoints(folder)
        try:
            callback = CallbackList([checkpoints, curve])
            train_offline(agent, left, callback, progress_bar=True)
        finally:
            checkpoints.stop()
    agent.world_model.save(folder.model, overwrite=True)
    note_training(agent, folder, rounds=agent.round)
    return agent


def _restored(folder: RunFolder, arguments: Arguments, episodes: Episodes) -> DreamPPO | None:
    """Load the agent of a run that is gone on with; None where it had not begun."""
    if not folder.agent.is_file():
        return None
    agent = load_agent(folder, None, arguments.device)
    agent.set_episodes(episodes)
    finished = TRAINED in folder.stages() or agent.round >= arguments.rounds
    phase = "fit" if agent.phase == "collect" else agent.phase
    due = "measuring" if finished else f"{phase} of round {agent.round + 1}"
    done = f"{agent.round} of {arguments.rounds} rounds are done"
    print(f"resume   {done}; {folder.what_is_next(due)}", flush=True)
    return agent


def _new(folder: RunFolder, arguments: Arguments, episodes: Episodes) -> DreamPPO:
    agent = DreamPPO(
        policy_name(episodes.observation_space),
        None,
        config=arguments.dream,
        model_config=arguments.model,
        episodes=episodes,
        tensorboard_log=str(folder.tensorboard),
        seed=arguments.seed,
        device=arguments.device,
    )
    save_agent(agent, folder)
    return agent
