"""The tasks of `benchmarks.fidelity`: what is dreamt, by which model, from whose play.

To change how a task's model is trained, edit its line in `TASKS`.

Classes:
    Task: an environment and its model.

Functions:
    task_named: a line of `TASKS`, or a task for any Gymnasium id.
    collect_play: episodes of mixed random and scripted play.
"""

from __future__ import annotations

from dataclasses import dataclass

from minigrid.minigrid_env import MiniGridEnv

import worldgen
from benchmarks.control_player import CONTROLLERS, collect_controlled
from benchmarks.minigrid_player import collect_mixed
from worldgen import TokenizerConfig, WorldModelConfig
from worldgen.agents.imagined_replay_config import only_reals
from worldgen.config import Config, require
from worldgen.data import EnvironmentSpec, Episodes
from worldgen.diffusion.sampler_config import SamplerConfig
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.tokenizer import QuantizerConfig
from worldgen.transformer import TransformerConfig

__all__ = ["TASKS", "Task", "collect_play", "task_named"]

_WHOLE = "worldgen.envs:FullyObservedMiniGrid"


@dataclass(frozen=True, kw_only=True)
class Task(Config):
    """An environment and the settings of its model."""

    environment: EnvironmentSpec
    """What is dreamt."""
    model: WorldModelConfig
    """The world model, with its numbers of gradient steps."""


def _with_codes(num_codes: int) -> TokenizerConfig:
    return TokenizerConfig(quantizer=QuantizerConfig(num_codes=num_codes))


def _whole_grid(environment: str, num_codes: int = 128) -> Task:
    """Give a task whose frames say everything, in a world without chance."""
    return Task(
        environment=EnvironmentSpec(id=environment, wrappers=(_WHOLE,)),
        model=WorldModelConfig(
            tokenizer=_with_codes(num_codes),
            dynamics=DynamicsConfig(context=1, transformer=TransformerConfig(layers=3)),
            training=DynamicsTrainingConfig(batch_size=96, gradient_steps=10_000),
            sampler=SamplerConfig(temperature=0.0),
        ),
    )


def _view(environment: str, num_codes: int = 192) -> Task:
    """Give a task whose frames are what the agent sees in front of it."""
    return Task(
        environment=EnvironmentSpec(id=environment),
        model=WorldModelConfig(
            tokenizer=_with_codes(num_codes),
            # A view turns and moves with the agent, and what left it is to be remembered.
            dynamics=DynamicsConfig(
                context=16, transformer=TransformerConfig(layers=3, path_integration=True)
            ),
            training=DynamicsTrainingConfig(batch_size=8, gradient_steps=9_000),
        ),
    )


def _numbers(environment: str) -> Task:
    """Give a task of real numbers, which are dreamt as what the model expects of them."""
    return Task(
        environment=EnvironmentSpec(id=environment),
        model=WorldModelConfig(
            tokenizer=_with_codes(2_048),  # A pendulum makes much of what rounding loses.
            training=DynamicsTrainingConfig(gradient_steps=6_000),
            sampler=SamplerConfig(numbers="mean"),
        ),
    )


TASKS = {
    "doorkey-6x6-full": _whole_grid("MiniGrid-DoorKey-6x6-v0", 48),
    "doorkey-8x8-full": _whole_grid("MiniGrid-DoorKey-8x8-v0", 48),
    "unlock-full": _whole_grid("MiniGrid-Unlock-v0"),
    "doorkey-6x6": _view("MiniGrid-DoorKey-6x6-v0"),
    "doorkey-8x8": _view("MiniGrid-DoorKey-8x8-v0"),
    "cartpole": _numbers("CartPole-v1"),
    "pendulum": _numbers("Pendulum-v1"),
}


def task_named(name: str, *, whole: bool = False) -> Task:
    """Give a task by its name in `TASKS`, or one for a Gymnasium id.

    Args:
        name: Of the task, or a Gymnasium id.
        whole: Whether frames are to show all of MiniGrid's grid, for an id.

    Raises:
        ConfigError: If the whole of something else than a MiniGrid id is asked for.
        EnvironmentIdError: If the name is neither a task's nor a registered id.
    """
    if name in TASKS:
        require(not whole, "whole", f"be left out for {name}, whose line says what it shows", whole)
        return TASKS[name]
    environment = EnvironmentSpec(id=name)
    is_grid = _is_minigrid(environment)
    require(is_grid or not whole, "whole", f"be left out for {name}, which is no MiniGrid", whole)
    if is_grid:
        return _whole_grid(name) if whole else _view(name)
    env = environment.make()
    env.close()
    if only_reals(env.observation_space):
        return _numbers(name)
    return Task(environment=environment, model=WorldModelConfig())


def collect_play(task: Task, num_steps: int, *, seed: int) -> Episodes:
    """Collect a task's episodes: of mixed play where there is a player, else of random play."""
    environment = task.environment
    if environment.id in CONTROLLERS:
        return collect_controlled(environment, num_steps, seed=seed)
    if _is_minigrid(environment):
        return collect_mixed(environment, num_steps, seed=seed)
    return worldgen.collect(environment, num_steps, seed=seed, progress=False)


def _is_minigrid(environment: EnvironmentSpec) -> bool:
    env = environment.make()
    env.close()
    return isinstance(env.unwrapped, MiniGridEnv)
