"""The training part of `worldgen train`, with a checkpoint after each phase.

Classes:
    Checkpoints: callback that saves, times and reports each phase.

Functions:
    train_agent: begin or go on, until the real environment steps are used up.
    load_agent, save_agent: the agent of a run.
    note_training: record that a training is over.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.callbacks import CallbackList

from worldgen.agents import DreamPPO, PhaseCallback
from worldgen.agents.real_env import as_vec_env, policy_name
from worldgen.checkpoint import write_atomically
from worldgen.cli.dream_log import DreamLog
from worldgen.cli.run_curve import RunCurve
from worldgen.cli.summaries import describe_phase, describe_stop
from worldgen.data.environment import EnvironmentSpec
from worldgen.data.episodes import Episodes
from worldgen.device import resolve_device
from worldgen.errors import CheckpointError, ConfigError
from worldgen.fit_checkpoint import remove_checkpoint
from worldgen.run_folder import RunFolder

if TYPE_CHECKING:
    from worldgen.cli.train import Arguments

__all__ = ["TRAINED", "Checkpoints", "load_agent", "note_training", "save_agent", "train_agent"]

TRAINED = "training"
"""Name of the stage."""


def train_agent(folder: RunFolder, arguments: Arguments) -> DreamPPO:
    """Give the trained agent, whatever of it is left to do.

    Agent and world model are in `agent.zip` together, so that a killed run never finds one of
    them newer than the other; `model/` is written from it.
    """
    assert arguments.timesteps is not None
    restored = _restored(folder, arguments, arguments.timesteps)
    agent = restored or _new(folder, arguments)
    agent.fit_checkpoint = folder.fit_checkpoint
    target = arguments.stop_at_return
    curve = RunCurve(folder, arguments.environment, arguments.judgement.round_episodes, target)
    curve.catch_up(agent)
    left = 0 if curve.good_enough() else max(0, arguments.timesteps - agent.num_timesteps)
    trains = agent.phase != "collect" or left >= arguments.num_envs
    if trains:  # what was measured of a run that goes on is measured again
        folder.forget_stages(but=("random",))
    if restored is not None:
        _say_resumed(folder, agent, arguments.timesteps, trains)
    if trains:
        checkpoints = Checkpoints(folder)
        try:
            agent.learn(
                left,
                callback=CallbackList([checkpoints, curve]),
                reset_num_timesteps=False,
                progress_bar=True,
            )
        finally:
            checkpoints.stop()
    stopped = None
    if newest := curve.good_enough():
        stopped = {"target": target, "mean_returns": newest}
        print(f"stopped  {describe_stop(stopped)}", flush=True)
    if trains or TRAINED not in folder.stages():
        agent.world_model.save(folder.model, overwrite=True)
    note_training(agent, folder, timesteps=arguments.timesteps, stopped=stopped)
    return agent


def note_training(agent: DreamPPO, folder: RunFolder, **more: Any) -> None:
    """Record the counters, with `more` values, as the stage's result."""
    folder.finish_stage(
        TRAINED,
        {
            "real_environment_steps": agent.num_timesteps,
            "imagined_environment_steps": agent.imagined_timesteps,
            **more,
        },
    )


def _restored(folder: RunFolder, arguments: Arguments, timesteps: int) -> DreamPPO | None:
    """Load the agent of a run that is gone on with; None where it had not begun."""
    if not folder.agent.is_file():
        return None
    agent = load_agent(folder, arguments.environment, arguments.device, arguments.num_envs)
    saved_steps = agent.num_timesteps
    episodes = Episodes.load(folder.episodes)
    if agent.phase == "collect" and agent.config.fresh_rounds:
        # Made again from its first step, the collection is what it would have been.
        again = episodes.num_steps - agent.recorded_timesteps
        if episodes.set_aside(agent.recorded_timesteps):
            print(
                f"resume   a collection that broke off after {again:,} environment steps is "
                f"made again; its episodes are kept in {folder.episodes / 'set-aside'}"
            )
    agent.set_episodes(episodes)
    nothing_left = timesteps - agent.num_timesteps < arguments.num_envs
    if agent.phase == "collect" and agent.num_timesteps > saved_steps and nothing_left:
        agent.phase = "fit"  # the last collection was over, but for being noted
    return agent


def _say_resumed(folder: RunFolder, agent: DreamPPO, timesteps: int, trains: bool) -> None:
    """Say what a run that is gone on with has, and what comes next."""
    if trains and not agent.config.fresh_rounds:
        print(
            "resume   the environment's state is not kept: its rows begin new episodes, which an "
            "undisturbed run would not have done"
        )
    due = f"{agent.phase} of round {agent.round + 1}" if trains else "measuring"
    print(
        f"resume   {agent.num_timesteps:,} of {timesteps:,} real environment steps "
        f"in {len(agent.episodes):,} episodes are there; {folder.what_is_next(due)}",
        flush=True,
    )


def load_agent(
    folder: RunFolder, environment: EnvironmentSpec | None, device: str, num_envs: int = 1
) -> DreamPPO:
    """Load the agent of a run.

    Raises:
        ConfigError: If there is no such device, or the environment has become another.
        CheckpointError: If its file is damaged.
    """
    device = str(resolve_device(device))
    env = None if environment is None else as_vec_env(environment, num_envs)
    try:
        agent = DreamPPO.load(folder.agent, device=device)
    except torch.OutOfMemoryError:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{error}; begin anew with --overwrite") from error
    except (KeyError, EOFError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder.agent} is damaged: {error}; begin anew with --overwrite"
        ) from error
    if env is not None:
        try:
            agent.set_env(env)
        except ValueError as error:
            raise ConfigError(
                f"the environment must be the one that {folder.agent} was made in: {error}"
            ) from error
    return agent


def _new(folder: RunFolder, arguments: Arguments) -> DreamPPO:
    """Make an untrained agent and save it, so that even a first collection can be resumed."""
    shutil.rmtree(folder.episodes, ignore_errors=True)  # no agent yet: it holds no step
    environment = arguments.environment.make()
    policy = policy_name(environment.observation_space)
    environment.close()
    agent = DreamPPO(
        policy,
        arguments.environment,
        config=arguments.dream,
        model_config=arguments.model,
        episodes_path=folder.episodes,
        n_envs=arguments.num_envs,
        tensorboard_log=str(folder.tensorboard),
        seed=arguments.seed,
        device=arguments.device,
    )
    save_agent(agent, folder)
    return agent


def save_agent(agent: DreamPPO, folder: RunFolder) -> None:
    """Write the agent of a run, whole or not at all."""
    write_atomically(folder.agent, lambda file: agent.save(file))


class Checkpoints(PhaseCallback):
    """Save the agent after each phase, add up the time, print a line, film for TensorBoard."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self._folder, self._began, self._round = folder, 0.0, 1
        self._phase: str | None = None
        self._dream_log = DreamLog(folder.tensorboard)

    def on_phase_start(self, phase: str) -> None:
        """Start the clock."""
        self._began, self._phase = time.perf_counter(), phase
        self._round = self._agent.round + 1

    def on_phase_end(self, phase: str, metrics: Mapping[str, float]) -> None:
        """Save first, so that a kill from here on loses nothing."""
        save_agent(self._agent, self._folder)
        if phase == "fit":
            remove_checkpoint(self._folder.fit_checkpoint)
            self._agent.world_model.save(self._folder.model, overwrite=True)
            self._dream_log.write(self._agent)
        seconds = self.stop()
        print(describe_phase(phase, self._round, metrics, seconds), flush=True)

    def stop(self) -> float:
        """Add the seconds of the phase that is running, which may have been broken off."""
        seconds = time.perf_counter() - self._began
        if self._phase is not None:
            self._folder.add_time(self._phase, seconds)
            self._phase = None
        return seconds

    def _on_training_end(self) -> None:
        self._dream_log.close()

    @property
    def _agent(self) -> DreamPPO:
        assert isinstance(self.model, DreamPPO)
        return self.model
