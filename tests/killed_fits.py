"""Fits that are killed: `main(folder)` leaves what each of them left.

Each fit is a process of its own, which kills itself at a moment that is a number, not a time.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # Which the optimizers load: once here, rather than in each process.
from worlds import DictWorld

import worldgen
from worldgen import Episodes, WorldModel, WorldModelConfig, training_state
from worldgen.dynamics import DynamicsConfig
from worldgen.dynamics_trainer import DynamicsTrainer
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.tokenizer import QuantizerConfig, TokenizerConfig, autoencoder_training
from worldgen.transformer import TransformerConfig

GRADIENT_STEPS, EVERY = 23, 6
KILLS = [
    ("tokenizer", 7),  # calls of the method before the kill
    ("gradient step", 1),
    ("gradient step", 12),
    ("gradient step", 23),
    ("write", 1),  # the first checkpoint is written, and not yet renamed
    ("write", 3),
]
METHODS = {
    "tokenizer": (autoencoder_training, "_improve"),
    "gradient step": (DynamicsTrainer, "step"),
    "write": (training_state, "save_file"),
}


def new_model(
    seed: int = 0, precision: Any = "auto", goal_horizon: int = 0, **training: Any
) -> WorldModel:
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(hidden=32, quantizer=QuantizerConfig(num_codes=32)),
        dynamics=DynamicsConfig(
            context=2,
            transformer=TransformerConfig(width=16, layers=1),
            precision=precision,
            goal_horizon=goal_horizon,
        ),
        training=DynamicsTrainingConfig(batch_size=4, **training),
    )
    return WorldModel.for_env(DictWorld, config=config, seed=seed, device="cpu")


def some_episodes(seed: int = 0) -> Episodes:
    return worldgen.collect(DictWorld, 150, seed=seed, progress=False)


def fit(model: WorldModel, episodes: Episodes, checkpoint: Path | None, **options: Any) -> Any:
    options = {"checkpoint_every": EVERY, "dynamics_steps": GRADIENT_STEPS, **options}
    return model.fit(episodes, tokenizer_steps=10, progress=False, checkpoint=checkpoint, **options)


def place(folder: Path, what: str, count: int) -> Path:
    """Where the fit that is killed there keeps its checkpoint."""
    return folder / f"{what.replace(' ', '-')}-{count}" / "fit"


def kill_after(what: str, count: int) -> None:
    """Let the `count`-th call of a method be the last thing that this process does."""
    owner, name = METHODS[what]
    original, calls = getattr(owner, name), []

    def dying(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def main(folder: str) -> None:
    torch.set_num_threads(1)
    episodes = some_episodes()
    for what, count in KILLS:
        child = os.fork()
        if child == 0:
            kill_after(what, count)
            fit(new_model(), episodes, place(Path(folder), what, count))
            os._exit(0)  # it was not killed, which the parent takes for a failure
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), (what, count, status)
        assert os.WTERMSIG(status) == signal.SIGKILL
