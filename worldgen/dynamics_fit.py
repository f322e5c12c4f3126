"""The dynamics' part of a fit, in this process or in several.

Classes:
    DynamicsFit: all that the part needs.

Functions:
    fit_dynamics: train the network, in place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldgen.data.token_dataset import TokenDataset
from worldgen.dynamics import Dynamics
from worldgen.dynamics_trainer import RECALL_STEPS, DynamicsTrainer
from worldgen.dynamics_training_config import DynamicsTrainingConfig
from worldgen.fit_checkpoint import STATE_ERRORS, FitCheckpoint
from worldgen.fit_log import FitLog
from worldgen.interrupts import PostponedInterrupt
from worldgen.memory import release_memory
from worldgen.progress import Progress
from worldgen.remote_training import RemoteTrainer

__all__ = ["DynamicsFit", "fit_dynamics"]


@dataclass(frozen=True)
class DynamicsFit:
    """A network, its data, and how to train it."""

    dynamics: Dynamics
    dataset: TokenDataset
    config: DynamicsTrainingConfig
    gradient_steps: int
    seed: int
    """Of windows, masks and corruption."""
    log: FitLog
    progress: bool
    state: dict[str, Any] | None
    """Of a trainer that was broken off, to go on from."""
    checkpoint: FitCheckpoint | None
    kept: dict[str, Any]
    """What is written to the checkpoint beside the trainer's state."""
    checkpoint_every: int

    devices: int
    """Processes that make the gradient steps."""
    save_model: Callable[[Path], None]
    """Writes the model to a folder, for other processes to read."""

    def keep(self, trainer: DynamicsTrainer | RemoteTrainer) -> None:
        """Write the checkpoint."""
        if self.checkpoint is not None:
            state = {**self.kept, "trainer": trainer.state_dict()}
            self.checkpoint.write(state, finished=trainer.is_finished)

    def spread(
        self, trainer: DynamicsTrainer
    ) -> AbstractContextManager[DynamicsTrainer | RemoteTrainer]:
        """Give what makes the gradient steps: the trainer itself, or several processes."""
        if self.devices == 1:
            return nullcontext(trainer)
        every = None if self.checkpoint is None else self.checkpoint_every
        return RemoteTrainer(trainer, self.save_model, self.devices, every)


def fit_dynamics(fit: DynamicsFit) -> dict[str, float]:
    """Train the network in place.

    Returns:
        Mean losses over the last tenth of the gradient steps, and the last recall.
    """
    generator = torch.Generator(fit.dynamics.device).manual_seed(fit.seed)
    trainer = DynamicsTrainer(fit.dynamics, fit.dataset, fit.config, fit.gradient_steps, generator)
    if fit.checkpoint is not None and fit.state is not None:
        try:
            trainer.load_state_dict(fit.state)
        except STATE_ERRORS as error:
            raise fit.checkpoint.damaged(error) from error
    else:
        fit.keep(trainer)
    fit.log.skip(trainer.gradient_step)
    with fit.spread(trainer) as stepping:
        _make_steps(fit, stepping)
        return {**stepping.finish(), **stepping.recall()}


def _make_steps(fit: DynamicsFit, trainer: DynamicsTrainer | RemoteTrainer) -> None:
    """Make the gradient steps that are left; log, and keep checkpoints.

    Ctrl-C waits for the end of a gradient step, which is then kept. Several processes give
    their state at checkpoints alone, so there it is raised at once.
    """
    keeps_all = fit.checkpoint is not None and fit.devices == 1
    with (
        Progress(
            "dynamics",
            fit.gradient_steps,
            enabled=fit.progress,
            unit="gradient steps",
            initial=trainer.gradient_step,
        ) as bar,
        PostponedInterrupt(enabled=keeps_all) as interrupt,
    ):
        while not trainer.is_finished:
            latest = trainer.step()
            if fit.log.is_due():
                losses = {name: value.item() for name, value in latest.items()}
                fit.log.write({f"dynamics/{name}": value for name, value in losses.items()})
                bar.update(0, **losses)
            if trainer.is_finished or trainer.gradient_step % RECALL_STEPS == 0:
                recalled = trainer.recall()
                fit.log.write({f"dynamics/{name}": part for name, part in recalled.items()})
                bar.update(0, **recalled)
                release_memory()
            bar.update(1)
            is_due = trainer.is_finished or trainer.gradient_step % fit.checkpoint_every == 0
            if is_due or interrupt.pending:
                fit.keep(trainer)
            interrupt.deliver()
